"""The audit log as PostgreSQL and the object store have it, at one moment between two appends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from psycopg import Connection, IsolationLevel

from ofp_platform.audit.appending import demand_every_run
from ofp_platform.audit.leaf_rows import LeafRow
from ofp_platform.audit.leaf_sources import SOURCE_OF, SOURCES, Record
from ofp_platform.audit.log_view import HeadRow, NodeRow, RecordWithoutLeaf
from ofp_platform.audit.tree_heads import READING, hold_log, let_go
from ofp_platform.storage.objects import ObjectNotFound, ObjectStore
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.loop.audit import CO_SIGNATURES, HEADS

_LEAVES = "SELECT leaf_index, leaf_kind, subject, record_digest, content, leaf_hash FROM ofp.audit_leaf ORDER BY leaf_index"
_NODES = "SELECT level, index, hash FROM ofp.audit_node ORDER BY (index + 1) << level, level"
_HEADS = "SELECT tree_size, digest, content FROM ofp.audit_head ORDER BY tree_size"
_QUARANTINED = """
    SELECT leaf_kind, subject, string_agg(reason, '; ' ORDER BY reason) FROM ofp.audit_quarantine AS aside
    WHERE NOT EXISTS (SELECT FROM ofp.audit_leaf AS leaf
                      WHERE (leaf.leaf_kind, leaf.subject) = (aside.leaf_kind, aside.subject))
    GROUP BY 1, 2 ORDER BY 1, 2"""


@contextmanager
def database_view(pool: Pool, objects: ObjectStore) -> Iterator[DatabaseView]:
    """The log between two appends: no head without its object is seen that is only on its way.

    Raises:
        AuditRefused: the role sees the records of some runs only. ObjectStoreUnavailable | psycopg.Error: call again.
    """
    with pool.connection() as connection:
        connection.isolation_level = IsolationLevel.REPEATABLE_READ
        hold_log(connection, READING)
        is_held = True
        try:
            with connection.transaction():
                demand_every_run(connection)  # the moment begins with this statement
                head_paths = objects.list(HEADS)
                let_go(connection, READING)
                is_held = False
                yield DatabaseView(connection, objects, tuple(head_paths))
        finally:
            if is_held:
                let_go(connection, READING)
            connection.isolation_level = None


@dataclass(frozen=True)
class DatabaseView:
    """A `LogView`. `head_paths`: as they were listed when the moment began."""

    connection: Connection[Any]
    objects: ObjectStore
    head_paths: tuple[str, ...]

    def leaves(self) -> Iterator[LeafRow]:
        """See `LogView`."""
        with self.connection.cursor("audit_leaves") as cursor:
            for row in cursor.execute(_LEAVES):
                yield LeafRow(*row)

    def nodes(self) -> Iterator[NodeRow]:
        """See `LogView`."""
        with self.connection.cursor("audit_nodes") as cursor:
            for row in cursor.execute(_NODES):
                yield NodeRow(*row)

    def heads(self) -> Sequence[HeadRow]:
        """See `LogView`."""
        return [HeadRow(*row) for row in self.connection.execute(_HEADS).fetchall()]

    def head_objects(self) -> Mapping[str, bytes]:
        """See `LogView`."""
        return self._bytes_of(self.head_paths)

    def co_signatures(self) -> Mapping[str, bytes]:
        """See `LogView`."""
        return self._bytes_of(self.objects.list(CO_SIGNATURES))

    def _bytes_of(self, paths: Sequence[str]) -> dict[str, bytes]:
        contents: dict[str, bytes] = {}
        for path in paths:
            try:
                contents[path] = self.objects.get(path)
            except ObjectNotFound:
                continue  # removed meanwhile: its row is told of
        return contents

    def records(self, leaf_kind: str, subjects: Sequence[str]) -> Mapping[str, Record]:
        """See `LogView`."""
        return SOURCE_OF[leaf_kind].records(self.connection, self.objects, subjects)

    def without_leaf(self, horizon: str | None) -> Iterator[RecordWithoutLeaf]:
        """See `LogView`."""
        for source in SOURCES:
            for subject, is_late in source.without_leaf(self.connection, horizon):
                yield RecordWithoutLeaf(source.leaf_kind, subject, is_late)

    def quarantined(self) -> Sequence[tuple[str, str, str]]:
        """See `LogView`."""
        return self.connection.execute(_QUARANTINED).fetchall()
