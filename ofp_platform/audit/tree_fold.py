"""The tree folded once from its leaves: each leaf against its own columns, each kept node against its children, and every root.

A node is held against the *kept* hashes below it, so a change is told where it is and not again on its whole way up. Roots are of
the hashes that the contents give.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import orjson

from ofp_platform.audit.faults import Fault, FaultKind
from ofp_platform.audit.leaf_rows import LeafRow
from ofp_platform.audit.leaf_sources import SOURCE_OF, Record
from ofp_platform.audit.log_view import LogView, NodeRow
from ofp_platform.audit.merkle_tree import leaf_hash, node_hash
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.loop.audit import AuditLeaf

_PAGE = 1_000
_MEMBERS, _NAMED = AuditLeaf.model_fields.keys(), ("audit_leaf", "v0")
_Pair = tuple[bytes | None, bytes | None]
"""A subtree's hash as its contents give it, and as it is kept; None: something below it is missing."""


@dataclass
class TreeFold:
    """One pass over leaves and nodes. `sizes`: those at which roots are wanted; `roots`: at each, by the contents and as kept."""

    sizes: frozenset[int]
    faults: list[Fault] = field(default_factory=list)
    roots: dict[int, _Pair] = field(default_factory=dict)
    size: int = 0
    _stack: list[_Pair] = field(default_factory=list)

    def run(self, view: LogView) -> None:
        """Fold everything."""
        nodes = _Nodes(view.nodes())
        page: list[LeafRow] = []
        for row in view.leaves():
            while row.leaf_index > self.size:
                self._tell(FaultKind.LEAF_MISSING, f"leaf/{self.size}", "there is no such leaf, and there are later ones")
                self._add((None, None), nodes)
            self._leaf(row, nodes)
            page.append(row)
            if len(page) == _PAGE:
                self.faults += record_faults(page, view)
                page = []
        self.faults += record_faults(page, view)
        self._unknown(nodes.rest())

    def _leaf(self, row: LeafRow, nodes: _Nodes) -> None:
        if row.leaf_index < self.size:
            self._tell(FaultKind.LEAF_ALTERED, _name(row), f"there are two leaves {row.leaf_index}")
            return
        computed_hash = leaf_hash(row.content.encode())
        if (words := leaf_difference(row, computed_hash)) is not None:
            self._tell(FaultKind.LEAF_ALTERED, _name(row), words)
        self._add((computed_hash, bytes(row.leaf_hash)), nodes)

    def _tell(self, kind: FaultKind, subject: str, words: str) -> None:
        self.faults.append(Fault(kind, subject, words, (self.size, self.size + 1)))

    def _add(self, pair: _Pair, nodes: _Nodes) -> None:
        level, index = 0, self.size
        while index & 1:
            left_pair = self._stack.pop()
            level, index = level + 1, index >> 1
            unknown, kept_hash = nodes.take(level, index, self.size + 1)
            self._unknown(unknown)
            pair = self._node(level, index, left_pair, pair, kept_hash)
        self._stack.append(pair)
        self.size += 1
        if self.size in self.sizes:
            self.roots[self.size] = (
                _root([computed_hash for computed_hash, _ in self._stack]),
                _root([kept_hash for _, kept_hash in self._stack]),
            )

    def _node(self, level: int, index: int, left_pair: _Pair, right_pair: _Pair, kept_hash: bytes | None) -> _Pair:
        from_kept = _join(left_pair[1], right_pair[1])
        subject, leaves = f"node/{level}/{index}", (index << level, index + 1 << level)
        if kept_hash is None:
            self.faults.append(Fault(FaultKind.NODE_MISSING, subject, "the node is not kept", leaves))
        elif from_kept is not None and from_kept != kept_hash:
            self.faults.append(Fault(FaultKind.NODE_DIFFERS, subject, "the node is not the hash of what is below it", leaves))
        return _join(left_pair[0], right_pair[0]) or kept_hash, kept_hash or from_kept

    def _unknown(self, rows: Sequence[NodeRow]) -> None:
        for row in rows:
            words = "there is no such node in a tree of these leaves"
            self.faults.append(Fault(FaultKind.NODE_UNKNOWN, f"node/{row.level}/{row.place}", words))


class _Nodes:
    """Kept nodes, taken in the order in which the tree completes them."""

    def __init__(self, rows: Iterator[NodeRow]) -> None:
        self._rows = rows
        self._next = next(rows, None)

    def take(self, level: int, index: int, end: int) -> tuple[list[NodeRow], bytes | None]:
        """The rows in front of a node, which belong to nothing, and its hash. `end`: behind its last leaf."""
        unknown: list[NodeRow] = []
        while self._next is not None and (self._end(), self._next.level) < (end, level):
            unknown.append(self._next)
            self._next = next(self._rows, None)
        if self._next is None or (self._next.level, self._next.place) != (level, index):
            return unknown, None
        kept_hash = bytes(self._next.hash)
        self._next = next(self._rows, None)
        return unknown, kept_hash

    def rest(self) -> list[NodeRow]:
        """Rows behind everything."""
        return [] if self._next is None else [self._next, *self._rows]

    def _end(self) -> int:
        assert self._next is not None
        return self._next.place + 1 << self._next.level


def _join(left_pair: bytes | None, right_pair: bytes | None) -> bytes | None:
    return None if left_pair is None or right_pair is None else node_hash(left_pair, right_pair)


def _root(hashes: Sequence[bytes | None]) -> bytes | None:
    root = hashes[-1]
    for left_pair in reversed(hashes[:-1]):
        root = _join(left_pair, root)
    return root


def _name(row: LeafRow) -> str:
    return f"{row.leaf_kind}/{row.subject}"


def leaf_difference(row: LeafRow, computed_hash: bytes) -> str | None:
    """In which way a leaf contradicts itself; None: it does not. `computed`: the hash of its content."""
    if computed_hash != row.leaf_hash:
        return "its hash is not that of its content"
    try:
        members = orjson.loads(row.content)
        is_leaf = members.keys() == _MEMBERS and (members["kind"], members["contract_version"]) == _NAMED
        is_leaf = is_leaf and canonical_bytes(members) == row.content.encode()
    except (TypeError, ValueError, AttributeError):
        is_leaf = False
    if not is_leaf:
        return "its content is no leaf"
    if (members["leaf_kind"], members["subject"], members["record_digest"]) != (row.leaf_kind, row.subject, row.record_digest):
        return "its columns are not those of its content"
    return None


def record_faults(page: Sequence[LeafRow], view: LogView) -> Iterator[Fault]:
    """The leaves among these whose records are gone, or are others than they were."""
    by_kind: dict[str, list[LeafRow]] = {}
    for row in page:
        by_kind.setdefault(row.leaf_kind, []).append(row)
    for leaf_kind, rows in by_kind.items():
        records: Mapping[str, Record] = {}
        if leaf_kind in SOURCE_OF:
            records = view.records(leaf_kind, [row.subject for row in rows])
        for row in rows:
            leaves = row.leaf_index, row.leaf_index + 1
            record = records.get(row.subject)
            if record is None or record.content is None:
                words = f"there is no record {row.subject}" if record is None else record.fault or "its bytes are gone"
                yield Fault(FaultKind.RECORD_MISSING, _name(row), words, leaves)
            elif record.digest != row.record_digest:
                yield Fault(FaultKind.RECORD_DIFFERS, _name(row), "the record is another one than its leaf names", leaves)
            elif record.fault is not None:
                yield Fault(FaultKind.RECORD_DIFFERS, _name(row), record.fault, leaves)
