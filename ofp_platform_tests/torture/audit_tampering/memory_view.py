"""An audit log in memory, read from a real one, and changed as somebody with all rights would change tables and objects."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from ofp_platform.audit.database_view import DatabaseView
from ofp_platform.audit.leaf_rows import LeafRow
from ofp_platform.audit.leaf_sources import SOURCES, Record
from ofp_platform.audit.log_view import HeadRow, NodeRow, RecordWithoutLeaf


@dataclass
class MemoryView:
    """A `LogView` over lists and dictionaries. `records_by_kind`: subject to record; `unaudited`: what the tables would tell."""

    leaf_rows: list[LeafRow]
    node_rows: list[NodeRow]
    head_rows: list[HeadRow]
    objects: dict[str, bytes]
    signatures: dict[str, bytes]
    records_by_kind: dict[str, dict[str, Record]]
    unaudited: list[RecordWithoutLeaf]

    @classmethod
    def read(cls, view: DatabaseView) -> MemoryView:
        """Everything that a verification of the database would see."""
        leaf_rows = list(view.leaves())
        return cls(
            leaf_rows,
            list(view.nodes()),
            list(view.heads()),
            dict(view.head_objects()),
            dict(view.co_signatures()),
            {
                source.leaf_kind: dict(
                    view.records(source.leaf_kind, [row.subject for row in leaf_rows if row.leaf_kind == source.leaf_kind])
                )
                for source in SOURCES
            },
            list(view.without_leaf(None)),
        )

    def copy(self) -> MemoryView:
        """Another one, to be changed."""
        records = {kind: dict(records) for kind, records in self.records_by_kind.items()}
        lists = list(self.leaf_rows), list(self.node_rows), list(self.head_rows)
        return MemoryView(*lists, dict(self.objects), dict(self.signatures), records, list(self.unaudited))

    def leaves(self) -> Iterator[LeafRow]:
        """See `LogView`: by index, as the database sorts them."""
        return iter(sorted(self.leaf_rows, key=lambda row: row.leaf_index))

    def nodes(self) -> Iterator[NodeRow]:
        """See `LogView`."""
        return iter(sorted(self.node_rows, key=lambda row: (row.place + 1 << row.level, row.level)))

    def heads(self) -> Sequence[HeadRow]:
        """See `LogView`."""
        return sorted(self.head_rows, key=lambda row: row.tree_size)

    def head_objects(self) -> Mapping[str, bytes]:
        """See `LogView`."""
        return self.objects

    def co_signatures(self) -> Mapping[str, bytes]:
        """See `LogView`."""
        return self.signatures

    def records(self, leaf_kind: str, subjects: Sequence[str]) -> Mapping[str, Record]:
        """See `LogView`."""
        there = self.records_by_kind[leaf_kind]
        return {subject: there[subject] for subject in subjects if subject in there}

    def without_leaf(self, horizon: str | None) -> Iterator[RecordWithoutLeaf]:
        """See `LogView`."""
        return iter(self.unaudited)

    def quarantined(self) -> Sequence[tuple[str, str, str]]:
        """See `LogView`."""
        return []
