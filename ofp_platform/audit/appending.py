"""Appending: what is no leaf yet becomes one, in batches; each batch is one transaction with a signed head.

One appender at a time. The row of a head is committed with its leaves, then its object is put. Stopped between the two, the row
has all that the object holds, and the next append puts it before anything else: a head that others may have seen is never signed
anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from psycopg import Connection, IsolationLevel

from ofp_platform.audit.leaf_rows import append_leaves, kept_node, next_index
from ofp_platform.audit.leaf_sources import DECISION, SOURCES, LeafSource, Record
from ofp_platform.audit.merkle_tree import Frontier
from ofp_platform.audit.provenance import incomplete
from ofp_platform.audit.signing_keys import SigningKey
from ofp_platform.audit.tree_heads import (
    APPENDING,
    AuditRefused,
    HeadFacts,
    add_head,
    demand_no_later_object,
    hold_log,
    let_go,
    newest_head,
    put_head,
    signed_head,
)
from ofp_platform.storage.crash_points import crash_point
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import Pool
from ofp_platform.telemetry.event_spans import Attributes, Interval, event_spans
from ofp_platform.telemetry.trace_ids import Stage
from ofp_platform.vocabulary.loop.audit import AuditLeaf, TreeHead
from ofp_platform.vocabulary.times import format_time

BATCH_LEAVES = 10_000
# a record may become visible so long after the time that it was recorded at: transactions end sooner
_COVERED = """
    SELECT to_char(transaction_timestamp() AT TIME ZONE 'UTC' - interval '15 minutes', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""
_QUARANTINED = """
    SELECT DISTINCT subject FROM ofp.audit_quarantine WHERE leaf_kind = %(leaf_kind)s
    EXCEPT SELECT subject FROM ofp.audit_leaf WHERE leaf_kind = %(leaf_kind)s ORDER BY subject"""
_SET_ASIDE = "INSERT INTO ofp.audit_quarantine (leaf_kind, subject, reason) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING"
_SEES_ALL = """
    SELECT NOT row_security_active('ofp.decision_record')
        OR EXISTS (SELECT FROM ofp.database_role WHERE role_name = current_user AND '*' = ANY (runs))"""


@dataclass
class AppendOutcome:
    """The work of one call. `quarantined`: kind, subject and reason of each record that has no leaf for now."""

    heads: list[TreeHead] = field(default_factory=list)
    leaf_count: int = 0
    quarantined: list[tuple[str, str, str]] = field(default_factory=list)
    is_finished: bool = False
    """Whether the object of an earlier head was put first."""


def demand_every_run(connection: Connection[Any]) -> None:
    """Refuse a role that sees the records of some runs only: what it does not see would look as if it were not there.

    Raises:
        AuditRefused: it does not see all of them.
    """
    if connection.execute(_SEES_ALL).fetchone() != (True,):
        raise AuditRefused(
            "this role sees the records of some runs only, and the audit log is of all of them: `ofp database register ROLE JOB"
            " --every-run`"
        )


def append_records(
    pool: Pool, objects: ObjectStore, key: SigningKey, now: Callable[[], int], batch_leaves: int = BATCH_LEAVES
) -> AppendOutcome:
    """Append every record that is no leaf yet; where there is none, nothing happens. `now`: microseconds.

    Raises:
        AuditRefused: another key's turn; rows were lost; the role sees too little. ObjectStoreUnavailable: call again.
        psycopg.Error: what was committed stays; call again.
    """
    outcome = AppendOutcome()
    with held_log(pool, objects) as (writer, is_finished), pool.connection() as reader:
        outcome.is_finished = is_finished
        reader.isolation_level = IsolationLevel.REPEATABLE_READ
        try:
            with reader.transaction():
                [covers_until_now] = reader.execute(_COVERED).fetchone() or ("",)
                event_ids: dict[str, str] = {}
                leaves = _leaves(reader, objects, outcome, event_ids)
                batch = list(islice(leaves, batch_leaves))
                while batch:
                    following = list(islice(leaves, batch_leaves))
                    covers_until = None if following else covers_until_now
                    facts = HeadTimes(format_time(now()), covers_until)
                    with Interval() as appending:
                        outcome.heads.append(write_head(writer, objects, key, batch, facts))
                    _tell(appending, outcome.heads[-1], batch, event_ids)
                    outcome.leaf_count += len(batch)
                    batch = following
        finally:
            reader.isolation_level = None
        with writer.transaction(), writer.cursor() as cursor:
            cursor.executemany(_SET_ASIDE, outcome.quarantined)
    return outcome


def _tell(appending: Interval, head: TreeHead, leaves: Sequence[AuditLeaf], event_ids: dict[str, str]) -> None:
    """The span of each decision that became a leaf."""
    spans = event_spans()
    if spans is None:
        return
    for leaf in leaves:
        if (event_id := event_ids.pop(leaf.subject, None)) is not None:
            attributes: Attributes = {"ofp.decision_id": leaf.subject, "ofp.tree_size": head.tree_size}
            spans.tell(Stage.AUDIT, event_id, appending, attributes)


@contextmanager
def held_log(pool: Pool, objects: ObjectStore) -> Iterator[tuple[Connection[Any], bool]]:
    """A connection that holds the log alone, its newest head's object put; and whether that had to be done now.

    Raises:
        AuditRefused: the object store has a head that the database has not, or another one of that size.
    """
    with pool.connection() as writer:
        hold_log(writer, APPENDING)
        try:
            demand_every_run(writer)
            head = newest_head(writer)
            demand_no_later_object(objects, head)
            yield writer, head is not None and put_head(objects, head)
        finally:
            let_go(writer, APPENDING)


@dataclass(frozen=True)
class HeadTimes:
    """The words of a head about time, RFC 3339. `covers_until_utc`: None where the head before it says it."""

    at_utc: str
    covers_until_utc: str | None


def write_head(
    writer: Connection[Any],
    objects: ObjectStore,
    key: SigningKey,
    leaves: Sequence[AuditLeaf],
    times: HeadTimes,
    next_key_id: str | None = None,
) -> TreeHead:
    """Append leaves and a head over them in one transaction (or in the caller's, which then puts the object), and put its object.

    Raises:
        AuditRefused: another key's turn; leaves stand behind the newest head.
    """
    with writer.transaction():
        head = add_leaves_and_head(writer, key, leaves, times, next_key_id)
        crash_point("audit.rows_written")
    crash_point("audit.committed")
    put_head(objects, head)
    crash_point("audit.head_put")
    return head


def add_leaves_and_head(
    writer: Connection[Any], key: SigningKey, leaves: Sequence[AuditLeaf], times: HeadTimes, next_key_id: str | None
) -> TreeHead:
    """The rows of `write_head`, in the caller's transaction."""
    previous = newest_head(writer)
    size = next_index(writer)
    if size != (0 if previous is None else previous.tree_size):
        raise AuditRefused(
            f"there are {size:,} leaves, and the newest head is of {0 if previous is None else previous.tree_size:,}: rows were"
            " added or removed by others; `ofp audit verify` says which"
        )
    frontier = Frontier.at(size, lambda level, index: kept_node(writer, level, index))
    if previous is not None and frontier.root.hex() != previous.root_hash:
        raise AuditRefused("the tree as it is kept has another root than its newest head: `ofp audit verify` says where")
    append_leaves(writer, frontier, leaves)
    covers_until = times.covers_until_utc or (None if previous is None else previous.covers_until_utc)
    head = signed_head(key, previous, HeadFacts(frontier.size, frontier.root, times.at_utc, covers_until, next_key_id))
    add_head(writer, head)
    return head


def _leaves(
    reader: Connection[Any], objects: ObjectStore, outcome: AppendOutcome, event_ids: dict[str, str]
) -> Iterator[AuditLeaf]:
    """Every leaf that is to be added: of records in quarantine that are whole now, then of those that were never looked at.

    `event_ids` is filled where spans are told: the event of each decision.
    """
    for source in SOURCES:
        subjects = [subject for (subject,) in reader.execute(_QUARANTINED, {"leaf_kind": source.leaf_kind}).fetchall()]
        again = source.records(reader, objects, subjects)
        again_records = (again[subject] for subject in subjects if subject in again)
        for records in _pages(again_records):
            _note_events(source, records, event_ids)
            yield from _whole(reader, source, records, outcome)
    for source in SOURCES:
        for records in _pages(source.pending(reader, objects)):
            _note_events(source, records, event_ids)
            yield from _whole(reader, source, records, outcome)


def _note_events(source: LeafSource, records: Sequence[Record], event_ids: dict[str, str]) -> None:
    if event_spans() is not None and source.leaf_kind == DECISION:
        event_ids.update((record.subject, str(record.row["event_id"])) for record in records if record.row is not None)


def _pages(records: Iterator[Record]) -> Iterator[list[Record]]:
    while page := list(islice(records, 1_000)):
        yield page


def _whole(reader: Connection[Any], source: LeafSource, records: Sequence[Record], outcome: AppendOutcome) -> Iterator[AuditLeaf]:
    reasons = incomplete(reader, source.leaf_kind, records)
    for record in records:
        if (reason := reasons.get(record.subject)) is None:
            yield record.leaf(source.leaf_kind)
        else:
            outcome.quarantined.append((source.leaf_kind, record.subject, reason))
