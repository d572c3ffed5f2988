"""The audit log and its records as a verification sees them; where they come from is another's (database_view.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

from ofp_platform.audit.leaf_rows import LeafRow
from ofp_platform.audit.leaf_sources import Record


class NodeRow(NamedTuple):
    """One row of `ofp.audit_node`. `place`: its index among those of its level."""

    level: int
    place: int
    hash: bytes


class HeadRow(NamedTuple):
    """One row of `ofp.audit_head`."""

    tree_size: int
    digest: str
    content: str


class RecordWithoutLeaf(NamedTuple):
    """A record that is no leaf and not in quarantine. `is_late`: the newest head should have had it."""

    leaf_kind: str
    subject: str
    is_late: bool


class LogView(Protocol):
    """Rows, objects and records of one moment."""

    def leaves(self) -> Iterator[LeafRow]:
        """All leaves by their index."""
        ...

    def nodes(self) -> Iterator[NodeRow]:
        """All nodes in the order in which a growing tree completes them: by their last leaf, then by level."""
        ...

    def heads(self) -> Sequence[HeadRow]:
        """All heads, the smallest tree first."""
        ...

    def head_objects(self) -> Mapping[str, bytes]:
        """Path and bytes of everything in the folder of heads."""
        ...

    def co_signatures(self) -> Mapping[str, bytes]:
        """Path and bytes of everything in the folder of co-signatures."""
        ...

    def records(self, leaf_kind: str, subjects: Sequence[str]) -> Mapping[str, Record]:
        """The records of these subjects that are there."""
        ...

    def without_leaf(self, horizon: str | None) -> Iterator[RecordWithoutLeaf]:
        """Records that are no leaf; `horizon`: up to when the newest head covers them."""
        ...

    def quarantined(self) -> Sequence[tuple[str, str, str]]:
        """Kind, subject and reason of each record that is in quarantine, and no leaf."""
        ...
