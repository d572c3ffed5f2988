"""Heads against each other, against their objects, and against the roots of the folded tree."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from ofp_platform.audit.faults import Fault, FaultKind
from ofp_platform.audit.log_view import HeadRow
from ofp_platform.audit.signing_keys import is_signed
from ofp_platform.audit.tree_heads import canonical_head, key_after, log_id_of
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.loop.audit import CoSignature, TreeHead, co_signature_path, head_path
from ofp_platform.vocabulary.times import parse_time


@dataclass
class HeadChain:
    """Heads in their order. `log_key_id`: the key whose log it must be; None: whichever signed the first head."""

    log_key_id: str | None
    faults: list[Fault] = field(default_factory=list)
    sound: list[TreeHead] = field(default_factory=list)
    """Those that are signed, in the chain, and equal to their objects."""
    _key_id: str | None = None
    """Whose turn it is to sign, by what was signed so far."""
    _log_id: str = ""
    _at_utc: str = "0001-01-01T00:00:00Z"
    _previous_digest: str | None = None

    def run(self, rows: Sequence[HeadRow], objects: Mapping[str, bytes]) -> None:
        """Check each row, and that there is no object without one."""
        for row in rows:
            head = canonical_head(row.content)
            faults = list(self._of_head(row, head))
            faults += self._of_object(row, objects)
            self.faults += faults
            if head is not None and not faults:
                self.sound.append(head)
            self._previous_digest = row.digest if head is None else head.digest
        known_paths = {head_path(row.tree_size) for row in rows}
        for path in sorted(objects.keys() - known_paths):
            words = f"the object {path} is there, and no row of it: the rows of this head were lost or removed"
            self.faults.append(Fault(FaultKind.HEAD_ROW_MISSING, _name_of(path), words))

    def _of_head(self, row: HeadRow, head: TreeHead | None) -> Iterator[Fault]:
        subject = f"head/{row.tree_size}"
        if head is None:
            yield Fault(FaultKind.HEAD_UNREADABLE, subject, "its content is no tree head")
            return
        if (row.tree_size, row.digest, ()) != (head.tree_size, head.digest, head.co_signatures):
            yield Fault(FaultKind.HEAD_ALTERED, subject, "its columns are not those of its content")
        if self._key_id is None:
            self._key_id = self.log_key_id or head.key_id
            self._log_id = log_id_of(self._key_id)
        if head.log_id != self._log_id:
            yield Fault(FaultKind.HEAD_OF_ANOTHER_LOG, subject, f"it is of log {head.log_id}, not of {self._log_id}")
        if head.key_id != self._key_id:
            yield Fault(FaultKind.HEAD_NOT_IN_CHAIN, subject, f"it names key {head.key_id}; it was the turn of {self._key_id}")
        if head.previous_head_digest != self._previous_digest:
            yield Fault(FaultKind.HEAD_NOT_IN_CHAIN, subject, "it names another head before it than the one that is there")
        if parse_time(head.at_utc) < parse_time(self._at_utc):
            yield Fault(FaultKind.HEAD_NOT_IN_CHAIN, subject, f"it is of {head.at_utc}, before the head before it")
        if is_signed(self._key_id, head.signature, head.signed_bytes):
            self._key_id, self._at_utc = key_after(head), head.at_utc
        else:
            yield Fault(FaultKind.HEAD_UNSIGNED, subject, f"its signature is not that of key {self._key_id}")

    def _of_object(self, row: HeadRow, objects: Mapping[str, bytes]) -> Iterator[Fault]:
        path, subject = head_path(row.tree_size), f"head/{row.tree_size}"
        if path not in objects:
            words = f"there is no object {path}: if an append was stopped, `ofp audit append` puts it; else it was removed"
            yield Fault(FaultKind.HEAD_OBJECT_MISSING, subject, words)
        elif objects[path] != row.content.encode():
            yield Fault(FaultKind.HEAD_OBJECT_DIFFERS, subject, f"the object {path} holds other bytes than its row")


def root_faults(heads: Sequence[TreeHead], roots: Mapping[int, tuple[bytes | None, bytes | None]], size: int) -> Iterator[Fault]:
    """Heads whose root is not that of the leaves in front of them. `roots`: by the contents and as kept; see `TreeFold`.

    A root that the kept hashes give, and the contents do not, is no fault of its own: the leaf or node where they part is told.
    """
    agreeing_size = 0
    for head in heads:
        leaves, subject = (agreeing_size, head.tree_size), f"head/{head.tree_size}"
        if head.tree_size not in roots:
            words = f"it is of {head.tree_size:,} leaves, and there are {size:,}"
            yield Fault(FaultKind.ROOT_DIFFERS, subject, words, (min(size, head.tree_size), head.tree_size))
            continue
        if head.root_hash not in [root.hex() for root in roots[head.tree_size] if root is not None]:
            yield Fault(FaultKind.ROOT_DIFFERS, subject, "the leaves in front of it have another root", leaves)
        else:
            agreeing_size = head.tree_size


def co_signature_faults(objects: Mapping[str, bytes], heads: Sequence[TreeHead]) -> tuple[list[Fault], list[CoSignature]]:
    """The co-signatures that are wrong, and those that hold."""
    digests = {head.tree_size: head for head in heads}
    faults: list[Fault] = []
    sound: list[CoSignature] = []
    for path, content in sorted(objects.items()):
        try:
            signature = CoSignature.model_validate_json(content)
        except ValueError:
            faults.append(Fault(FaultKind.CO_SIGNATURE_WRONG, path, "it is no co-signature"))
            continue
        head = digests.get(signature.tree_size)
        is_there = (
            path == co_signature_path(signature.tree_size, signature.key_id) and canonical_bytes(signature.wire()) == content
        )
        if not is_there or head is None or signature.head_digest != head.digest:
            faults.append(Fault(FaultKind.CO_SIGNATURE_WRONG, path, "it is of no head that is there"))
        elif not is_signed(signature.key_id, signature.signature, head.signed_bytes):
            faults.append(Fault(FaultKind.CO_SIGNATURE_WRONG, path, f"its signature is not that of key {signature.key_id}"))
        else:
            sound.append(signature)
    return faults, sound


def _name_of(path: str) -> str:
    stem = path.rpartition("/")[2].removesuffix(".json")
    return f"head/{int(stem)}" if stem.isascii() and stem.isdigit() else path
