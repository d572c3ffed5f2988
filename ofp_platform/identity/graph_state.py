"""The graph of a run in PostgreSQL: its links, each from a version on, and the basis of the context stream that it knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from psycopg import Connection, RawCursor
from psycopg.rows import dict_row

from ofp_platform.identity.context_events import ContextRecords
from ofp_platform.identity.entities import LinkEvent, LinkSet
from ofp_platform.storage.crash_points import crash_point
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.identity_link import graph_version_of
from ofp_platform.vocabulary.position import Basis, basis_text, make_basis
from ofp_platform.vocabulary.serving import GraphVersion

MOST_IDS = 20_000
"""The most ids that are read for one question: a link of any time leads from one to the next."""


class GraphConflict(Exception):
    """Somebody else moved the graph since it was read; read again and retry."""


@dataclass(frozen=True)
class GraphRow:
    """The graph of a run. `links`: links and unlinks, each once; `copies` of these; the other counts are of records."""

    graph_id: int
    stream_name: str
    version: int
    basis: Basis
    records: int
    links: int
    copies: int
    ignored_records: int
    other_run: int
    failures: int


@dataclass(frozen=True)
class GraphReading:
    """The result of one statement: the version, the basis (canonical text), and the events about all ids that are linked, in any
    number of steps, with those asked for. `is_cut`: there are more ids than MOST_IDS.
    """

    version: int
    basis: str
    links: LinkSet
    is_cut: bool

    @cached_property
    def graph_version(self) -> GraphVersion:
        """The name of what was known."""
        return graph_version_of(Basis.model_validate_json(self.basis))


_COLUMNS = "graph_id, stream_name, version, basis, records, links, copies, ignored_records, other_run, failures"
# An id leads to every id that was ever linked to it: what of this is in force is told later. OFFSET 0: each id is looked up in
# the index that begins with it (record 0088), else a table that was never analysed is read whole.
READ_LINKS = f"""
WITH RECURSIVE known AS (
    SELECT graph_id, version, basis FROM ofp.entity_graph WHERE stream_name = $1 AND pins_digest = $2
), reached (key_type, key_id) AS (
    SELECT asked.key_type COLLATE "C", asked.key_id COLLATE "C" FROM unnest($3::text[], $4::text[]) AS asked (key_type, key_id)
    UNION
    SELECT reached.key_type, other.key_id
    FROM reached CROSS JOIN known CROSS JOIN LATERAL (
        (SELECT l.canonical AS key_id FROM ofp.entity_link AS l
        WHERE l.graph_id = known.graph_id AND l.key_type = reached.key_type AND l.member = reached.key_id COLLATE "C" OFFSET 0)
        UNION ALL
        (SELECT l.member FROM ofp.entity_link AS l
        WHERE l.graph_id = known.graph_id AND l.key_type = reached.key_type AND l.canonical = reached.key_id COLLATE "C" OFFSET 0)
    ) AS other
), near AS (SELECT * FROM reached LIMIT {MOST_IDS + 1}), about AS (
    SELECT l.* FROM known CROSS JOIN near CROSS JOIN LATERAL (
        SELECT l.key_type, l.member, l.canonical, l.effective_ts, l.identity, l.is_link FROM ofp.entity_link AS l
        WHERE l.graph_id = known.graph_id AND l.key_type = near.key_type AND l.member = near.key_id COLLATE "C" OFFSET 0
    ) AS l
)
SELECT known.version, known.basis, (SELECT count(*) FROM near), about.* FROM known LEFT JOIN about ON true
"""
_ADD = """
INSERT INTO ofp.entity_link (graph_id, version, partition_id, identity, id_digest, key_type, member, canonical, effective_ts,
    is_link, event_id, record_offset)
SELECT $1, $2, $3, * FROM unnest($4::bytea[], $5::bytea[], $6::text[], $7::text[], $8::text[], $9::bigint[], $10::boolean[],
    $11::text[], $12::text[])
ON CONFLICT (graph_id, identity) DO NOTHING
"""
_FAIL = """
INSERT INTO ofp.entity_link_failure (graph_id, partition_id, record_offset, reason, detail)
SELECT %s, %s, * FROM unnest(%s::text[], %s::text[], %s::text[]) ON CONFLICT DO NOTHING
"""
_MOVE = """
UPDATE ofp.entity_graph SET version = version + 1, basis = %(basis)s, records = records + %(records)s, links = links + %(links)s,
    copies = copies + %(copies)s, ignored_records = ignored_records + %(ignored_records)s, other_run = other_run + %(other_run)s,
    failures = failures + %(failures)s
WHERE graph_id = %(graph_id)s AND version = %(version)s
"""
_UNMET = """
SELECT count(*) FROM ofp.entity_link AS u WHERE graph_id = %(graph)s AND NOT is_link AND NOT EXISTS (
    SELECT FROM ofp.entity_link AS l WHERE l.graph_id = u.graph_id AND l.is_link AND l.effective_ts <= u.effective_ts
        AND (l.key_type, l.member, l.canonical) = (u.key_type, u.member, u.canonical))
"""
_ANOMALIES = """
SELECT count(*) FROM (SELECT FROM ofp.entity_link WHERE graph_id = %(graph)s GROUP BY id_digest HAVING count(*) > 1) AS several
"""


def find_graph(connection: Connection[Any], stream_name: str, pins: ContextPins) -> GraphRow | None:
    """The graph of a run; None: nobody has folded its context stream."""
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(
            f"SELECT {_COLUMNS} FROM ofp.entity_graph WHERE (stream_name, pins_digest) = (%s, %s)",
            (stream_name, pins_digest(pins)),
        ).fetchone()
    return None if row is None else GraphRow(**{**row, "basis": Basis.model_validate_json(row["basis"])})


def open_graph(connection: Connection[Any], stream_name: str, pins: ContextPins) -> GraphRow:
    """The same; made, of no record, where there is none."""
    connection.execute(
        "INSERT INTO ofp.entity_graph (stream_name, pins_digest, basis) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
        (stream_name, pins_digest(pins), basis_text(make_basis(stream_name, {}))),
    )
    graph = find_graph(connection, stream_name, pins)
    assert graph is not None
    return graph


def apply_records(
    connection: Connection[Any], graph: GraphRow, basis: Basis, parts: Mapping[str, Sequence[ContextRecords]], records: int
) -> int:
    """Add what the records say, by partition, and move the graph to the basis behind them, in one transaction. How many are new.

    Raises:
        GraphConflict: the graph has moved since it was read; nothing was added.
    """
    version = graph.version + 1
    counts = {"records": records, "links": 0, "copies": 0, "ignored_records": 0, "other_run": 0, "failures": 0}
    with connection.transaction():
        connection.execute("SELECT FROM ofp.entity_graph WHERE graph_id = %s FOR UPDATE", (graph.graph_id,))
        for partition_id, batches in parts.items():
            for batch in batches:
                new = _add(connection, graph.graph_id, version, partition_id, batch)
                counts["links"] += new
                counts["copies"] += len(batch.links) - new
                counts["ignored_records"] += batch.ignored_records
                counts["other_run"] += batch.other_run
                counts["failures"] += len(batch.failures)
        crash_point("graph.links_added")
        update = connection.execute(
            _MOVE, {**counts, "basis": basis_text(basis), "graph_id": graph.graph_id, "version": graph.version}
        )
        if update.rowcount != 1:
            raise GraphConflict(f"graph {graph.graph_id} is no longer at version {graph.version}")
        crash_point("graph.basis_moved")
    crash_point("graph.after_commit")
    return counts["links"]


def _add(connection: Connection[Any], graph_id: int, version: int, partition_id: str, batch: ContextRecords) -> int:
    if batch.failures:
        columns = zip(*((str(failure.offset), failure.reason.value, failure.detail) for failure in batch.failures), strict=True)
        connection.execute(_FAIL, (graph_id, partition_id, *map(list, columns)))
    if not batch.links:
        return 0
    links = [placed_link.link for placed_link in batch.links]
    with RawCursor(connection) as cursor:
        cursor.execute(
            _ADD,
            (
                graph_id,
                version,
                partition_id,
                [link.identity for link in links],
                [placed_link.id_digest for placed_link in batch.links],
                [link.key_type for link in links],
                [link.member for link in links],
                [link.canonical for link in links],
                [link.effective_ts for link in links],
                [link.is_link for link in links],
                [placed_link.event_id for placed_link in batch.links],
                [str(placed_link.offset) for placed_link in batch.links],
            ),
        )
        return cursor.rowcount


def link_arguments(stream_name: str, pins: ContextPins, keys: Iterable[tuple[str, str]]) -> tuple[Any, ...]:
    """The arguments of READ_LINKS for these keys (key type, key id)."""
    key_list = list(keys)
    return stream_name, pins_digest(pins), [key_type for key_type, _ in key_list], [key_id for _, key_id in key_list]


def read_links(rows: Sequence[Sequence[Any]]) -> GraphReading | None:
    """The result of READ_LINKS; None: there is no graph."""
    if not rows:
        return None
    version, basis, ids = rows[0][:3]
    events = [
        LinkEvent(key_type, member, canonical, effective_ts, bytes(identity), is_link)
        for _, _, _, key_type, member, canonical, effective_ts, identity, is_link in rows
        if key_type is not None
    ]
    return GraphReading(version, basis, LinkSet(events), ids > MOST_IDS)


def query_links(
    connection: Connection[Any], stream_name: str, pins: ContextPins, keys: Iterable[tuple[str, str]]
) -> GraphReading | None:
    """READ_LINKS over a connection of psycopg."""
    with RawCursor(connection) as cursor:
        return read_links(cursor.execute(READ_LINKS, link_arguments(stream_name, pins, keys)).fetchall())


def unmet_unlinks(connection: Connection[Any], graph: GraphRow) -> int:
    """How many unlinks are of no link that was in force before: they change nothing."""
    return _count(connection, _UNMET, graph)


def anomalies(connection: Connection[Any], graph: GraphRow) -> int:
    """How many event ids came with several contents: each counts."""
    return _count(connection, _ANOMALIES, graph)


def failures(connection: Connection[Any], graph: GraphRow, limit: int) -> list[tuple[str, str, str, str]]:
    """The first records that were not applied: partition, offset, reason and detail of each."""
    return connection.execute(
        "SELECT partition_id, record_offset, reason, detail FROM ofp.entity_link_failure WHERE graph_id = %s"
        " ORDER BY partition_id, length(record_offset), record_offset LIMIT %s",
        (graph.graph_id, limit),
    ).fetchall()


def _count(connection: Connection[Any], statement: str, graph: GraphRow) -> int:
    row = connection.execute(statement, {"graph": graph.graph_id}).fetchone()
    assert row is not None
    return int(row[0])
