"""Cases that open by themselves: what others recorded about events becomes a trigger, once.

The sources are append-only, and no column of theirs says in which order their rows became visible. So the place up to which a
source was collected is the timelines themselves: a pass looks for what has no trigger yet. It misses nothing that is committed,
and whoever else collects at the same time finds the same entries there.

Whoever goes on collecting (`Collector`) looks at every decision that there ever was from time to time alone, and in between at
those that were decided lately.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, NamedTuple

from psycopg import Connection
from pydantic import ValidationError

from ofp_platform.storage.case_entries import AppendOutcome, OfferedEntry, append_entries
from ofp_platform.storage.decision_records import sortable_time
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.canonical import sha256_hex
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.loop.case import ActionEvidence, AnomalyEvidence, CaseEvent, CaseTrigger, DecisionEvidence, Triggered
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord
from ofp_platform.vocabulary.times import MICROS_PER_SECOND

PAGE = 500
"""Entries of one transaction."""
COLLECTOR = "case-collector"
"""The actor of triggers that nobody gave."""
WHOLE_LOOK_SECONDS = 60.0
"""Between two passes of a collector that look at all decisions."""
_LATELY_US = 60 * MICROS_PER_SECOND
_NOT_COLLECTED = """
    NOT EXISTS (SELECT FROM ofp.case_entry AS entry
                WHERE entry.pins_digest = %(run)s AND entry.entry_type = 'TRIGGERED' AND entry.source_ref = {source_ref})"""
_OF_ESCALATED = f"""
    FROM ofp.decision_record AS record
    WHERE pins_digest = %(run)s AND substring(content FROM '"outcome":"([a-z]+)"') IN ('review', 'decline')
        AND substring(content FROM '"slot":"([a-z]+)"') IS DISTINCT FROM 'shadow'
        AND {_NOT_COLLECTED.format(source_ref="'decision/' || record.decision_id")}"""
_ESCALATED = f"""
    SELECT decided_at, decision_id, content {_OF_ESCALATED}
        AND (decided_at, decision_id) > (%(time)s, %(name)s)
    ORDER BY decided_at, decision_id LIMIT %(limit)s"""
# the name of an anomaly: a place of Kinesis is longer than a reference may be
_ANOMALY_REF = (
    "'anomaly/' || encode(sha256(convert_to(stream_name || '|' || partition_id || '|' || record_offset, 'UTF8')), 'hex')"
)
_OF_ANOMALIES = f"""
    FROM ofp.anomaly JOIN ofp.projection USING (projection_id)
    WHERE pins_digest = %(run)s AND status = 'live' AND {_NOT_COLLECTED.format(source_ref=_ANOMALY_REF)}"""
_ANOMALIES = f"""
    SELECT stream_name, partition_id, record_offset, event_type, event_id, first_partition_id, first_record_offset
    {_OF_ANOMALIES}
        AND (stream_name, partition_id, record_offset) > (%(stream)s, %(part)s, %(offset)s)
    ORDER BY stream_name, partition_id, record_offset LIMIT %(limit)s"""

_OF_FAILED_ACTIONS = f"""
    FROM ofp.action_outcome AS o JOIN ofp.action_intent AS i USING (intent_id)
        JOIN ofp.decision_record AS decided ON decided.decision_id = i.content::jsonb #>> '{{origin,reference}}'
    WHERE i.pins_digest = %(run)s AND o.outcome = 'FAILED' AND i.content::jsonb #>> '{{origin,origin_kind}}' = 'decision'
        AND {_NOT_COLLECTED.format(source_ref="'action/' || idempotency_key")}"""
_FAILED_ACTIONS = f"""
    SELECT idempotency_key, o.content, decided.content::jsonb ->> 'event_type', decided.event_id
    {_OF_FAILED_ACTIONS}
        AND idempotency_key > %(name)s
    ORDER BY idempotency_key LIMIT %(limit)s"""
_WAITING = f"""
    SELECT (SELECT count(*) {_OF_ESCALATED} AND decided_at < %(until)s), (SELECT count(*) {_OF_FAILED_ACTIONS}),
        (SELECT count(*) {_OF_ANOMALIES})"""


@dataclass(frozen=True)
class Collection:
    """The run whose cases are collected. `class_of`: the class of an event type; `now`: microseconds since the epoch."""

    pins: ContextPins
    class_of: Callable[[str], str]
    now: Callable[[], int]


@dataclass
class CollectReport:
    """Counts of a pass. `unreadable`: names of what could not be read, and has no case therefore."""

    triggers: int = 0
    known: int = 0
    conflicts: int = 0
    unreadable: tuple[str, ...] = ()


class Uncollected(NamedTuple):
    """Counts of what should have a case and has none, by its kind."""

    decisions: int
    failed_actions: int
    anomalies: int


@dataclass(frozen=True)
class SourcePage:
    """Rows of a source without a trigger: their entries, the names of those that cannot be read, and where the page ends."""

    entries: tuple[OfferedEntry, ...]
    unreadable: tuple[str, ...]
    place: tuple[str, ...] | None


Source = Callable[[Connection[Any], Collection, tuple[str, ...] | None], SourcePage]
"""A page of what has no trigger, behind a place of that source (None: from its start). `place` of the page is None at its end."""


def escalations(connection: Connection[Any], collection: Collection, behind: tuple[str, ...] | None) -> SourcePage:
    """Decisions to review or to decline, the oldest decided first."""
    time, name = behind or ("", "")
    parameters = {"run": pins_digest(collection.pins), "time": time, "name": name, "limit": PAGE}
    rows = connection.execute(_ESCALATED, parameters).fetchall()
    entries, unreadable = [], []
    for _, decision_id, content in rows:
        try:
            record = DecisionRecord.model_validate_json(content)
        except ValidationError:
            unreadable.append(f"decision {decision_id}")
            continue
        entries.append(_escalation(record, content, collection))
    return SourcePage(tuple(entries), tuple(unreadable), (rows[-1][0], rows[-1][1]) if len(rows) == PAGE else None)


def _escalation(record: DecisionRecord, content: str, collection: Collection) -> OfferedEntry:
    at = record.event_position
    evidence = DecisionEvidence(
        decision_id=record.decision_id,
        record_digest=sha256_hex(content.encode()),
        snapshot_hash=record.feature_snapshot_hash,
        rule_digest=None if record.rule is None else record.rule.digest,
        bundle_digest=None if record.bundle is None else record.bundle.bundle.digest,
        outcome=record.outcome,
        score=record.score,
        reason_codes=record.reason_codes or (),
        stream_name=at.stream_name,
        position=f"{at.partition_id}:{at.offset}",
    )
    return OfferedEntry(
        CaseEvent(event_class=collection.class_of(record.event_type), event_id=record.event_id),
        f"decision/{record.decision_id}",
        collection.now(),
        COLLECTOR,
        Triggered(trigger=CaseTrigger.DECISION_ESCALATION, evidence=evidence),
    )


def anomalies(connection: Connection[Any], collection: Collection, behind: tuple[str, ...] | None) -> SourcePage:
    """Ids that came with several payloads, as the live projection has them."""
    stream, part, offset = behind or ("", "", "")
    run = pins_digest(collection.pins)
    parameters = {"run": run, "stream": stream, "part": part, "offset": offset, "limit": PAGE}
    rows = connection.execute(_ANOMALIES, parameters).fetchall()
    entries = [
        OfferedEntry(
            CaseEvent(event_class=collection.class_of(event_type), event_id=event_id),
            "anomaly/" + hashlib.sha256(f"{stream_name}|{partition_id}|{record_offset}".encode()).hexdigest(),
            collection.now(),
            COLLECTOR,
            Triggered(
                trigger=CaseTrigger.ANOMALY,
                evidence=AnomalyEvidence(
                    stream_name=stream_name,
                    position=f"{partition_id}:{record_offset}",
                    first_position=f"{first_partition_id}:{first_offset}",
                ),
            ),
        )
        for stream_name, partition_id, record_offset, event_type, event_id, first_partition_id, first_offset in rows
    ]
    return SourcePage(tuple(entries), (), tuple(rows[-1][:3]) if len(rows) == PAGE else None)


def failed_actions(connection: Connection[Any], collection: Collection, behind: tuple[str, ...] | None) -> SourcePage:
    """Actions that decisions wanted and that failed, by the idempotency keys of their intents."""
    parameters = {"run": pins_digest(collection.pins), "name": behind[0] if behind else "", "limit": PAGE}
    rows = connection.execute(_FAILED_ACTIONS, parameters).fetchall()
    entries = [
        OfferedEntry(
            CaseEvent(event_class=collection.class_of(event_type), event_id=event_id),
            f"action/{key}",
            collection.now(),
            COLLECTOR,
            Triggered(trigger=CaseTrigger.ACTION_FAILURE, evidence=ActionEvidence(outcome_digest=sha256_hex(content.encode()))),
        )
        for key, content, event_type, event_id in rows
    ]
    return SourcePage(tuple(entries), (), (rows[-1][0],) if len(rows) == PAGE else None)


SOURCES: Sequence[Source] = (escalations, anomalies, failed_actions)
"""What opens cases by itself."""
_FROM_THE_START: Mapping[Source, tuple[str, ...]] = MappingProxyType({})


def collect(
    pool: Pool,
    collection: Collection,
    sources: Sequence[Source] = SOURCES,
    behind: Mapping[Source, tuple[str, ...]] = _FROM_THE_START,
) -> CollectReport:
    """Append a trigger for all that has none. Each page is one transaction; a pass ends with what was there when it came by.
    `behind`: places at which it begins, in sources that are not looked at from their start.

    Raises:
        psycopg.Error: the database does not answer; what was appended stays, another pass goes on.
    """
    report = CollectReport()
    for source in sources:
        for page in _pages(pool, collection, source, behind.get(source)):
            report.unreadable += page.unreadable
            with pool.connection() as connection, connection.transaction():
                for outcome in append_entries(connection, collection.pins, page.entries):
                    report.triggers += outcome.outcome is AppendOutcome.NEW
                    report.known += outcome.outcome is AppendOutcome.KNOWN
                    report.conflicts += outcome.outcome is AppendOutcome.CONFLICT
    return report


def count_uncollected(connection: Connection[Any], pins: ContextPins, decided_before: int) -> Uncollected:
    """Count what of a run has no case yet. `decided_before` (microseconds): whoever collects comes by later decisions in time."""
    parameters = {"run": pins_digest(pins), "until": sortable_time(decided_before)}
    [row] = connection.execute(_WAITING, parameters).fetchall()
    return Uncollected(*row)


@dataclass
class Collector:
    """Collects again and again. A decision that becomes visible long after it was made is found by the next pass that looks at
    all of them, at most `WHOLE_LOOK_SECONDS` later. `clock`: seconds that never go back.
    """

    pool: Pool
    collection: Collection
    clock: Callable[[], float]
    _whole_at: float | None = field(default=None, init=False)

    def collect(self) -> CollectReport:
        """One pass; see `collect`. Behind one that failed, the next looks at everything.

        Raises:
            As `collect`.
        """
        whole_at, self._whole_at = self._whole_at, None
        at, behind = self.clock(), _FROM_THE_START
        if whole_at is None or at - whole_at >= WHOLE_LOOK_SECONDS:
            whole_at = at
        else:
            behind = {escalations: (sortable_time(self.collection.now() - _LATELY_US), "")}
        report = collect(self.pool, self.collection, SOURCES, behind)
        self._whole_at = whole_at
        return report


def _pages(pool: Pool, collection: Collection, source: Source, place: tuple[str, ...] | None) -> Iterator[SourcePage]:
    while True:
        with pool.connection() as connection:
            page = source(connection, collection, place)
        if page.entries or page.unreadable:
            yield page
        if page.place is None:
            return
        place = page.place
