"""Appending: what is no leaf yet becomes one, in batches; each batch is one transaction with a signed head.

One appender at a time. The row of a head is committed with its leaves, then its object is put. Stopped between the two, the row
has all that the object holds, and the next append puts it before anything else: a head that others may have seen is never signed
anew.

Whoever goes on appending keeps what it knows of the log from one look to the next (`Appender`): a look costs as much as there is
new. The first look, and the one behind anything that went wrong, is at everything.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from psycopg import Connection, IsolationLevel

from ofp_platform.audit.leaf_rows import append_leaves, kept_node, next_index
from ofp_platform.audit.leaf_sources import DECISION, SOURCES, LeafSource, Record, Transactions, kinds_written
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
    SELECT to_char(transaction_timestamp() AT TIME ZONE 'UTC' - interval '15 minutes', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
        ofp.log_server(), pg_snapshot_xmin(pg_current_snapshot())::text::bigint,
        pg_snapshot_xmax(pg_current_snapshot())::text::bigint"""
_QUARANTINED = """
    SELECT DISTINCT leaf_kind, subject FROM ofp.audit_quarantine AS aside WHERE NOT EXISTS (
        SELECT FROM ofp.audit_leaf AS leaf WHERE (leaf.leaf_kind, leaf.subject) = (aside.leaf_kind, aside.subject))
    ORDER BY leaf_kind, subject"""
_QUARANTINE_US = 1_000_000
"""Between two looks of one appender at what it set aside, microseconds."""
GRACE_US = 5_000_000
"""Of whoever goes on: vectors are stored a moment behind the decisions on them; a record is set aside if it stays incomplete."""
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
    return Appender(pool, objects, key, now, batch_leaves).append()


@dataclass
class LogEdge:
    """Where the log ends: its newest head, and the right edge of the tree below it."""

    head: TreeHead | None
    frontier: Frontier


class _LastLook(NamedTuple):
    """The log as an appender left it. `looked_at`: it looked at what transactions before this one wrote, by the numbers of that
    server and timeline; `quarantine_at`: when it looked at what is set aside, microseconds; `incomplete_since`: likewise, of each
    record (kind and subject) that is to be looked at again before it is set aside.
    """

    edge: LogEdge
    server: str
    looked_at: int
    quarantine_at: int
    incomplete_since: Mapping[tuple[str, str], int]


@dataclass
class Appender:
    """Appends again and again; see `append_records` and the module. For one thread. `grace_us`: microseconds for which a record
    may be incomplete before it is set aside.
    """

    pool: Pool
    objects: ObjectStore
    key: SigningKey
    now: Callable[[], int]
    batch_leaves: int = BATCH_LEAVES
    grace_us: int = 0
    _last_look: _LastLook | None = field(default=None, init=False)

    def append(self) -> AppendOutcome:
        """Append every record that is no leaf yet.

        Raises:
            As `append_records`: call again.
        """
        last_look, self._last_look = self._last_look, None  # whatever goes wrong, the next look is at everything
        outcome = AppendOutcome()
        if last_look is None or self._is_due(last_look):
            last_look = self._look(last_look, outcome)
        self._last_look = last_look
        return outcome

    def _is_due(self, last_look: _LastLook) -> bool:
        if last_look.incomplete_since or not 0 <= self.now() - last_look.quarantine_at < _QUARANTINE_US:
            return True
        with self.pool.connection() as connection:
            return bool(kinds_written(connection, last_look.looked_at))

    def _look(self, last_look: _LastLook | None, outcome: AppendOutcome) -> _LastLook:
        own_edge = None if last_look is None else last_look.edge
        with held_log(self.pool, self.objects, own_edge) as log, self.pool.connection() as reader:
            outcome.is_finished = log.is_finished
            reader.isolation_level = IsolationLevel.REPEATABLE_READ
            try:
                with reader.transaction():
                    row = reader.execute(_COVERED).fetchone()
                    assert row is not None
                    covers_until_now, server, first_open, first_unseen = row
                    if last_look is not None and (last_look.server != server or log.edge is not own_edge):
                        last_look = None  # behind a recovery numbers are given twice; what others appended is not known here
                    transactions = None if last_look is None else Transactions(last_look.looked_at, first_unseen)
                    quarantine_at, event_ids = self.now(), dict[str, str]()
                    if last_look is not None and 0 <= quarantine_at - last_look.quarantine_at < _QUARANTINE_US:
                        quarantine_at, aside = last_look.quarantine_at, dict[tuple[str, str], None]()
                    else:
                        aside = dict.fromkeys(reader.execute(_QUARANTINED).fetchall())
                    since = {} if last_look is None else last_look.incomplete_since
                    looked_for = transactions, [*aside, *(record for record in since if record not in aside)]
                    leaves = _leaves(reader, self.objects, looked_for, outcome, event_ids)
                    self._append(log, leaves, covers_until_now, outcome, event_ids)
            finally:
                reader.isolation_level = None
            incomplete_since = self._in_grace(outcome, since, aside)
            if outcome.quarantined:
                with log.writer.transaction(), log.writer.cursor() as cursor:
                    cursor.executemany(_SET_ASIDE, outcome.quarantined)
        return _LastLook(log.edge, server, first_open, quarantine_at, incomplete_since)

    def _in_grace(
        self, outcome: AppendOutcome, since: Mapping[tuple[str, str], int], aside: Mapping[tuple[str, str], None]
    ) -> dict[tuple[str, str], int]:
        """The incomplete records that are not set aside yet, and since when; they leave the outcome."""
        at, in_grace, set_aside = self.now(), dict[tuple[str, str], int](), []
        for leaf_kind, subject, reason in outcome.quarantined:
            began = since.get((leaf_kind, subject), at)
            if (leaf_kind, subject) not in aside and 0 <= at - began < self.grace_us:
                in_grace[leaf_kind, subject] = began
            else:
                set_aside.append((leaf_kind, subject, reason))
        outcome.quarantined = set_aside
        return in_grace

    def _append(
        self,
        log: HeldLog,
        leaves: Iterator[AuditLeaf],
        covers_until_now: str,
        outcome: AppendOutcome,
        event_ids: dict[str, str],
    ) -> None:
        """Append leaves in batches. `event_ids`: of the decisions among them, where spans are told."""
        batch = list(islice(leaves, self.batch_leaves))
        while batch:
            following = list(islice(leaves, self.batch_leaves))
            times = HeadTimes(format_time(self.now()), None if following else covers_until_now)
            with Interval() as appending:
                with log.writer.transaction():
                    head = add_leaves_and_head(log, self.key, batch, times)
                    crash_point("audit.rows_written")
                crash_point("audit.committed")
                put_head(self.objects, head)
                crash_point("audit.head_put")
            outcome.heads.append(head)
            _tell(appending, head, batch, event_ids)
            outcome.leaf_count += len(batch)
            batch = following


def _tell(appending: Interval, head: TreeHead, leaves: Sequence[AuditLeaf], event_ids: dict[str, str]) -> None:
    """The span of each decision that became a leaf."""
    spans = event_spans()
    if spans is None:
        return
    for leaf in leaves:
        if (event_id := event_ids.pop(leaf.subject, None)) is not None:
            attributes: Attributes = {"ofp.decision_id": leaf.subject, "ofp.tree_size": head.tree_size}
            spans.tell(Stage.AUDIT, event_id, appending, attributes)


@dataclass
class HeldLog:
    """The log in the hands of one appender. `edge` moves with what is added; `is_finished`: see `AppendOutcome`."""

    writer: Connection[Any]
    edge: LogEdge
    is_finished: bool


@contextmanager
def held_log(pool: Pool, objects: ObjectStore, own_edge: LogEdge | None = None) -> Iterator[HeldLog]:
    """Hold the log alone, its newest head's object put. `own_edge`: as the caller left the log; while its head is the newest,
    nobody else has to be asked what there is.

    Raises:
        AuditRefused: the object store has a head that the database has not, or another one of that size; the tree is not what
            was signed. NodeMissing: a part of it is not there.
    """
    with pool.connection() as writer:
        hold_log(writer, APPENDING)
        try:
            demand_every_run(writer)
            head = newest_head(writer)
            if own_edge is not None and head == own_edge.head:
                yield HeldLog(writer, own_edge, is_finished=False)
                return
            demand_no_later_object(objects, head)
            is_finished = head is not None and put_head(objects, head)
            yield HeldLog(writer, _read_edge(writer, head), is_finished)
        finally:
            let_go(writer, APPENDING)


def _read_edge(writer: Connection[Any], head: TreeHead | None) -> LogEdge:
    size = 0 if head is None else head.tree_size
    _demand_size(writer, size)
    frontier = Frontier.at(size, lambda level, index: kept_node(writer, level, index))
    if head is not None and frontier.root.hex() != head.root_hash:
        raise AuditRefused("the tree as it is kept has another root than its newest head: `ofp audit verify` says where")
    return LogEdge(head, frontier)


def _demand_size(writer: Connection[Any], size: int) -> None:
    if (leaf_count := next_index(writer)) != size:
        raise AuditRefused(
            f"there are {leaf_count:,} leaves, and the newest head is of {size:,}: rows were added or removed by others; `ofp"
            " audit verify` says which"
        )


@dataclass(frozen=True)
class HeadTimes:
    """The words of a head about time, RFC 3339. `covers_until_utc`: None where the head before it says it."""

    at_utc: str
    covers_until_utc: str | None


def add_leaves_and_head(
    log: HeldLog, key: SigningKey, leaves: Sequence[AuditLeaf], times: HeadTimes, next_key_id: str | None = None
) -> TreeHead:
    """Append leaves and a head over them, in the caller's transaction on the writer. The caller puts the object behind it.

    Raises:
        AuditRefused: another key's turn; leaves stand behind the newest head. The edge is not to be used again.
    """
    previous, frontier = log.edge.head, log.edge.frontier
    _demand_size(log.writer, frontier.size)
    append_leaves(log.writer, frontier, leaves)
    covers_until = times.covers_until_utc or (None if previous is None else previous.covers_until_utc)
    head = signed_head(key, previous, HeadFacts(frontier.size, frontier.root, times.at_utc, covers_until, next_key_id))
    add_head(log.writer, head)
    log.edge.head = head
    return head


def _leaves(
    reader: Connection[Any],
    objects: ObjectStore,
    looked_for: tuple[Transactions | None, Sequence[tuple[str, str]]],
    outcome: AppendOutcome,
    event_ids: dict[str, str],
) -> Iterator[AuditLeaf]:
    """Every leaf that is to be added: of records in quarantine that are whole now, then of those that were never looked at.

    `looked_for`: who wrote the latter (None: anybody), and kinds and subjects of the former. `event_ids` is filled where spans
    are told: the event of each decision.
    """
    transactions, aside = looked_for
    for source in SOURCES:
        subjects = [subject for leaf_kind, subject in aside if leaf_kind == source.leaf_kind]
        again = source.records(reader, objects, subjects) if subjects else {}
        again_records = (again[subject] for subject in subjects if subject in again)
        for records in _pages(again_records):
            _note_events(source, records, event_ids)
            yield from _whole(reader, source, records, outcome)
    new_kinds = None if transactions is None else kinds_written(reader, transactions.first)
    for source in SOURCES:
        if new_kinds is not None and source.leaf_kind not in new_kinds:
            continue
        again_subjects = {subject for leaf_kind, subject in aside if leaf_kind == source.leaf_kind}
        pending = source.pending(reader, objects, transactions)
        for records in _pages(record for record in pending if record.subject not in again_subjects):
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
