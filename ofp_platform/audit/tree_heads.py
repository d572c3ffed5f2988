"""Tree heads: how one is signed, where its row and its object are, and which key may sign the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from psycopg import Connection

from ofp_platform.audit.signing_keys import SigningKey
from ofp_platform.storage.objects import ObjectConflict, ObjectStore
from ofp_platform.vocabulary.loop.audit import HEADS, TreeHead, head_path

_NEWEST = "SELECT content FROM ofp.audit_head ORDER BY tree_size DESC LIMIT 1"
_LOCK = "SELECT pg_advisory_lock{}(hashtextextended('ofp.audit_log', 0))"
_UNLOCK = "SELECT pg_advisory_unlock{}(hashtextextended('ofp.audit_log', 0))"
APPENDING, READING = "", "_shared"
"""How the log is held: by one appender, or by any number of readers."""


class AuditRefused(Exception):
    """The audit log cannot be appended to, signed or proven from as it is; the text says why and what to do."""


@dataclass(frozen=True)
class HeadFacts:
    """Everything that a new head says of the tree, before it is signed."""

    tree_size: int
    root: bytes
    at_utc: str
    covers_until_utc: str | None
    next_key_id: str | None = None


def hold_log(connection: Connection[Any], mode: str) -> None:
    """Hold the log until `let_go`, or the end of the session: an append is its rows and its object, not one without the other."""
    connection.execute(_LOCK.format(mode))


def let_go(connection: Connection[Any], mode: str) -> None:
    """Let others at the log."""
    connection.execute(_UNLOCK.format(mode))


def log_id_of(key_id: str) -> str:
    """The id of the log whose first head that key signed."""
    return sha256(bytes.fromhex(key_id)).hexdigest()


def key_after(head: TreeHead) -> str:
    """The key that signs the head behind this one."""
    return head.next_key_id or head.key_id


def newest_head(connection: Connection[Any]) -> TreeHead | None:
    """The newest head as its row has it; None: there is none.

    Raises:
        AuditRefused: the row holds no head.
    """
    row = connection.execute(_NEWEST).fetchone()
    try:
        return None if row is None else TreeHead.model_validate_json(row[0])
    except ValueError:
        raise AuditRefused(
            "the newest row of ofp.audit_head holds no tree head: `ofp audit verify` says what else is so"
        ) from None


def read_heads(connection: Connection[Any]) -> list[TreeHead]:
    """All heads, the smallest tree first.

    Raises:
        AuditRefused: a row holds no head.
    """
    rows = connection.execute("SELECT content FROM ofp.audit_head ORDER BY tree_size").fetchall()
    try:
        return [TreeHead.model_validate_json(content) for (content,) in rows]
    except ValueError:
        raise AuditRefused("a row of ofp.audit_head holds no tree head: `ofp audit verify` says which") from None


def signed_head(key: SigningKey, previous: TreeHead | None, facts: HeadFacts) -> TreeHead:
    """The next head of the log.

    Raises:
        AuditRefused: it is another key's turn to sign.
    """
    if previous is not None and key.key_id != key_after(previous):
        raise AuditRefused(
            f"the log is signed by key {key_after(previous)}, and this is {key.key_id}: sign with that one, or hand the log on"
            " with it (`ofp audit key rotate`)"
        )
    unsigned_head = TreeHead(
        log_id=log_id_of(key.key_id) if previous is None else previous.log_id,
        tree_size=facts.tree_size,
        root_hash=facts.root.hex(),
        at_utc=facts.at_utc,
        covers_until_utc=facts.covers_until_utc,
        previous_head_digest=None if previous is None else previous.digest,
        key_id=key.key_id,
        next_key_id=facts.next_key_id,
        signature="0" * 128,
    )
    return unsigned_head.model_copy(update={"signature": key.sign(unsigned_head.signed_bytes)})


def add_head(connection: Connection[Any], head: TreeHead) -> None:
    """Append the row of a head, in the caller's transaction."""
    connection.execute(
        "INSERT INTO ofp.audit_head (tree_size, digest, content) VALUES (%s, %s, %s)",
        (head.tree_size, head.digest, head.encoded().decode()),
    )


def put_head(objects: ObjectStore, head: TreeHead) -> bool:
    """Put the object of a head whose row is committed. True if it was not there.

    Raises:
        AuditRefused: another head of that size is there. ObjectStoreUnavailable: see there.
    """
    try:
        return objects.put_same(head_path(head.tree_size), head.encoded())
    except ObjectConflict as error:
        raise AuditRefused(f"two heads of one size: {error}") from None


def demand_no_later_object(objects: ObjectStore, head: TreeHead | None) -> None:
    """Refuse where the object store has a head that the database has not: the rows were lost, and are never signed anew.

    Raises:
        AuditRefused: so it is. ObjectStoreUnavailable: see there.
    """
    end = "" if head is None else head_path(head.tree_size)
    later = [path for path in objects.list(HEADS) if path > end]
    if later:
        raise AuditRefused(
            f"the object store has the signed head {later[-1]}, and the database ends at"
            f" {'no head' if head is None else f'{head.tree_size:,} leaves'}: a recovery lost rows, or somebody removed them. A"
            " second history is never signed: put the rows of ofp.audit_* back, from a backup or a standby"
        )


def key_chain(heads: Sequence[TreeHead], head: TreeHead) -> tuple[TreeHead, ...]:
    """The heads before `head` by which the log was handed on."""
    return tuple(before for before in heads if before.tree_size < head.tree_size and before.next_key_id is not None)


def canonical_head(content: str) -> TreeHead | None:
    """The head of a text; None: it is none, or not the canonical text of one."""
    try:
        head = TreeHead.model_validate_json(content)
    except ValueError:
        return None
    return head if head.encoded().decode() == content else None
