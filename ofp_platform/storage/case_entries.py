"""Timelines of cases in the database: entries are appended under a lock of their run, once each, and never changed.

With each entry stands where its case stands once it has it, and where it stands now is a row of its own (`case_standing`),
written with the entry: the queue is read off an index, however many cases are closed. Entries of a run are numbered 0, 1, 2, ...
in the order in which they become visible.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from psycopg import Connection

from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.loop.case import (
    CONTENT,
    ActionRequested,
    CaseContent,
    CaseEntry,
    CaseEntryConflict,
    CaseEvent,
    LabelPending,
    Triggered,
    case_id,
    content_digest,
    content_wire,
)
from ofp_platform.vocabulary.loop.case_standing import CaseStanding, CaseState, not_now, standing_of
from ofp_platform.vocabulary.times import format_time, parse_time

_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtextextended('ofp.case_entry/' || %s, 0))"
_COLUMNS = "case_id, event_class, event_id, sequence, source_ref, at_time, actor, content"
_TIMELINES = f"SELECT {_COLUMNS} FROM ofp.case_entry WHERE pins_digest = %s AND case_id = ANY(%s) ORDER BY sequence"
_NEXT = "SELECT coalesce(max(sequence) + 1, 0) FROM ofp.case_entry WHERE pins_digest = %s"
_ADD = f"""
    INSERT INTO ofp.case_entry (pins_digest, entry_type, {_COLUMNS}, state, priority, opened_time)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)"""
# the lock of the run puts writers one behind the other; a case that gets several entries at once stands where the last says
_STAND = """
    INSERT INTO ofp.case_standing (pins_digest, case_id, sequence, state, priority, opened_time) VALUES (%s, %s, %s, %s, %s, %s)
    ON CONFLICT (pins_digest, case_id) DO UPDATE
    SET sequence = excluded.sequence, state = excluded.state, priority = excluded.priority, opened_time = excluded.opened_time"""
_ADD_CONFLICT = """
    INSERT INTO ofp.case_entry_conflict
        (pins_digest, case_id, entry_type, source_ref, first_digest, other_digest, content, at_time, actor)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"""
_CONFLICTS = """
    SELECT case_id, entry_type, source_ref, first_digest, other_digest, at_time, actor FROM ofp.case_entry_conflict
    WHERE pins_digest = %s AND case_id = %s ORDER BY at_time, entry_type, source_ref, other_digest"""
_COUNT_CONFLICTS = "SELECT count(*) FROM ofp.case_entry_conflict WHERE pins_digest = %s"
_QUEUE = """
    SELECT case_id, priority, opened_time FROM ofp.case_standing
    WHERE pins_digest = %s AND state = %s AND (priority, opened_time, case_id) > (%s, %s, %s)
    ORDER BY priority, opened_time, case_id LIMIT %s"""
_COUNT_CASES = "SELECT state, count(*) FROM ofp.case_standing WHERE pins_digest = %s GROUP BY state"
_STRAYING = """
    SELECT coalesce(entry.case_id, standing.case_id) FROM (
        SELECT DISTINCT ON (case_id) case_id, sequence, state, priority, opened_time FROM ofp.case_entry
        WHERE pins_digest = %(run)s ORDER BY case_id, sequence DESC) AS entry
    FULL JOIN (SELECT * FROM ofp.case_standing WHERE pins_digest = %(run)s) AS standing USING (case_id)
    WHERE (entry.sequence, entry.state, entry.priority, entry.opened_time)
        IS DISTINCT FROM (standing.sequence, standing.state, standing.priority, standing.opened_time)
    ORDER BY 1"""
_OF_EVENT = "SELECT DISTINCT case_id FROM ofp.case_entry WHERE pins_digest = %s AND event_id = %s ORDER BY case_id"
_BEGINNING = """
    SELECT DISTINCT case_id FROM ofp.case_entry
    WHERE pins_digest = %s AND case_id >= %s AND case_id < %s ORDER BY case_id LIMIT 10"""
_REQUESTED = """
    SELECT case_id, sequence, actor, at_time, content FROM ofp.case_entry AS entry
    WHERE pins_digest = %(run)s AND sequence > %(after)s AND entry_type = 'ACTION_REQUESTED' AND NOT EXISTS (
        SELECT FROM ofp.action_intent AS intent
        WHERE intent.pins_digest = %(run)s AND intent.content::jsonb #>> '{origin,origin_kind}' = 'case'
            AND intent.content::jsonb #>> '{origin,reference}' = entry.case_id || '/' || entry.sequence)
    ORDER BY sequence LIMIT %(limit)s"""
_LAST = "SELECT coalesce(max(sequence), -1) FROM ofp.case_entry WHERE pins_digest = %s"
_FIRST_DIGITS = re.compile("[0-9a-f]{8,64}", re.ASCII)
_IS_PENDING = """
    FROM ofp.case_entry AS entry
    WHERE pins_digest = %s AND entry_type = 'LABEL_PENDING' AND NOT EXISTS (
        SELECT FROM ofp.case_entry AS answer
        WHERE answer.pins_digest = entry.pins_digest AND answer.case_id = entry.case_id
            AND answer.entry_type IN ('LABEL_ACCEPTED', 'LABEL_REJECTED')
            AND answer.source_ref = entry.content::jsonb ->> 'assertion_id')"""
_PENDING = f"SELECT event_class, event_id, content, actor {_IS_PENDING} ORDER BY sequence LIMIT %s"
_COUNT_PENDING = f"SELECT count(*) {_IS_PENDING}"


class QueuePlace(NamedTuple):
    """Where a case stands in the queue: priority, since when it has been open (microseconds), its id."""

    priority: int
    opened_us: int
    case_id: str


QUEUE_START = QueuePlace(0, 0, "")


@dataclass(frozen=True)
class OfferedEntry:
    """An entry that somebody wants to append. `at_us`: microseconds since the epoch."""

    event: CaseEvent
    source_ref: str
    at_us: int
    actor: str
    content: CaseContent


class RequestedAction(NamedTuple):
    """An action that was asked for in a case, at a place of its run's entries."""

    case_id: str
    sequence: int
    actor: str
    at_utc: str
    content: ActionRequested


def requested_actions(connection: Connection[Any], pins: ContextPins, limit: int, after: int = -1) -> list[RequestedAction]:
    """Actions asked for in cases of a run that nobody has recorded an intent of, the oldest first; in entries behind `after`."""
    run = pins_digest(pins)
    rows = connection.execute(_REQUESTED, {"run": run, "limit": limit, "after": after}).fetchall()
    return [
        RequestedAction(case_id, sequence, actor, format_time(at), ActionRequested.model_validate_json(content))
        for case_id, sequence, actor, at, content in rows
    ]


def last_entry(connection: Connection[Any], pins: ContextPins) -> int:
    """Number of the last entry of a run; -1: there is none."""
    row = connection.execute(_LAST, (pins_digest(pins),)).fetchone()
    assert row is not None
    return int(row[0])


class AppendOutcome(StrEnum):
    """The fate of an offered entry.

    CONFLICT: one is there with other content; NOT_NOW: it cannot follow where the case stands; NO_CASE: it opens none, and there
    is none.
    """

    NEW = "NEW"
    KNOWN = "KNOWN"
    CONFLICT = "CONFLICT"
    NOT_NOW = "NOT_NOW"
    NO_CASE = "NO_CASE"


@dataclass(frozen=True)
class AppendedEntry:
    """The outcome of one offered entry: the entry that stands, where its case stands then, and why it was not appended."""

    case_id: str
    outcome: AppendOutcome
    entry: CaseEntry | None = None
    standing: CaseStanding | None = None
    words: str = ""


@dataclass(frozen=True)
class Timeline:
    """A case as it is kept: its event and its entries, in order."""

    case_id: str
    event: CaseEvent
    entries: tuple[CaseEntry, ...]


def append_entries(
    connection: Connection[Any], pins: ContextPins, offered_entries: Sequence[OfferedEntry]
) -> list[AppendedEntry]:
    """Append entries to cases of a run, in the caller's transaction; one outcome each, in their order.

    An entry that is there already stays as it is. One that comes again with other content is kept as a conflict: the caller must
    commit, whatever it makes of that.
    """
    digest = pins_digest(pins)
    connection.execute(_ONE_AT_A_TIME, (digest,))
    ids = [case_id(pins, offered.event.event_class, offered.event.event_id) for offered in offered_entries]
    timelines: dict[str, list[CaseEntry]] = {name: [] for name in ids}
    for kept in _timelines(connection, digest, ids):
        timelines[kept.case_id] += kept.entries
    known = {
        (name, entry.content.entry_type, entry.source_ref): entry for name, timeline in timelines.items() for entry in timeline
    }
    row = connection.execute(_NEXT, (digest,)).fetchone()
    assert row is not None  # an aggregate has one
    sequence = int(row[0])
    rows, conflict_rows, outcomes = [], [], []
    standings: dict[str, tuple[object, ...]] = {}
    for name, offered in zip(ids, offered_entries, strict=True):
        timeline, content = timelines[name], offered.content
        key = (name, content.entry_type, offered.source_ref)
        text = canonical_bytes(content_wire(content)).decode()
        if key in known:
            outcome = _again(name, known[key], timeline, content)
            if outcome.outcome is AppendOutcome.CONFLICT:
                digests = (content_digest(known[key].content), content_digest(content))
                conflict_rows.append((digest, *key, *digests, text, offered.at_us, offered.actor))
            outcomes.append(outcome)
            continue
        refusal = _cannot_follow(name, timeline, content)
        if refusal is not None:
            outcomes.append(refusal)
            continue
        entry = CaseEntry(
            sequence=sequence,
            source_ref=offered.source_ref,
            at_utc=format_time(offered.at_us),
            actor=offered.actor,
            content=content,
        )
        sequence += 1
        timeline.append(entry)
        known[key] = entry
        standing = standing_of(timeline)
        stands = (standing.state, standing.priority, parse_time(standing.opened_at_utc))
        rows.append(
            (
                *(digest, content.entry_type, name, offered.event.event_class, offered.event.event_id, entry.sequence),
                *(entry.source_ref, offered.at_us, entry.actor, text),
                *stands,
            )
        )
        standings[name] = (digest, name, entry.sequence, *stands)
        outcomes.append(AppendedEntry(name, AppendOutcome.NEW, entry, standing))
    with connection.cursor() as cursor:
        cursor.executemany(_ADD, rows)
        cursor.executemany(_STAND, list(standings.values()))
        cursor.executemany(_ADD_CONFLICT, conflict_rows)
    return outcomes


def _again(name: str, first: CaseEntry, timeline: Sequence[CaseEntry], content: CaseContent) -> AppendedEntry:
    standing = standing_of(timeline)
    if first.content == content:
        return AppendedEntry(name, AppendOutcome.KNOWN, first, standing)
    words = f"{content.entry_type} of {first.source_ref} is in the case with other content; the first stands"
    return AppendedEntry(name, AppendOutcome.CONFLICT, first, standing, words)


def _cannot_follow(name: str, timeline: Sequence[CaseEntry], content: CaseContent) -> AppendedEntry | None:
    if not timeline:
        return (
            None if isinstance(content, Triggered) else AppendedEntry(name, AppendOutcome.NO_CASE, words="there is no such case")
        )
    standing = standing_of(timeline)
    words = not_now(standing, content)
    return None if words is None else AppendedEntry(name, AppendOutcome.NOT_NOW, None, standing, words)


def read_timelines(connection: Connection[Any], pins: ContextPins, ids: Sequence[str]) -> list[Timeline]:
    """The cases of a run with these ids, in the order of `ids`; those that there are."""
    timelines = {timeline.case_id: timeline for timeline in _timelines(connection, pins_digest(pins), ids)}
    return [timelines[name] for name in ids if name in timelines]


def _timelines(connection: Connection[Any], digest: str, ids: Sequence[str]) -> Iterable[Timeline]:
    entries: dict[str, tuple[CaseEvent, list[CaseEntry]]] = {}
    for row in connection.execute(_TIMELINES, (digest, list(dict.fromkeys(ids)))):
        name, event_class, event_id, sequence, source_ref, at_us, actor, content = row
        event = CaseEvent(event_class=event_class, event_id=event_id)
        entry = CaseEntry(
            sequence=sequence,
            source_ref=source_ref,
            at_utc=format_time(at_us),
            actor=actor,
            content=CONTENT.validate_json(content),
        )
        entries.setdefault(name, (event, []))[1].append(entry)
    return [Timeline(name, event, tuple(timeline)) for name, (event, timeline) in entries.items()]


def queue(
    connection: Connection[Any], pins: ContextPins, state: CaseState, limit: int, behind: QueuePlace = QUEUE_START
) -> list[QueuePlace]:
    """At most `limit` cases of a state behind a place: the most urgent first, then those that have been open longest."""
    rows = connection.execute(_QUEUE, (pins_digest(pins), state, *behind, limit)).fetchall()
    return [QueuePlace(priority, opened_us, name) for name, priority, opened_us in rows]


def count_cases(connection: Connection[Any], pins: ContextPins) -> dict[CaseState, int]:
    """How many cases of a run are in which state; states of none are left out."""
    rows = connection.execute(_COUNT_CASES, (pins_digest(pins),)).fetchall()
    return {CaseState(state): count for state, count in rows}


def straying_cases(connection: Connection[Any], pins: ContextPins) -> list[str]:
    """The cases of a run that the queue has elsewhere than their entries say: nothing here writes one without the other."""
    return [name for (name,) in connection.execute(_STRAYING, {"run": pins_digest(pins)}).fetchall()]


def cases_named(connection: Connection[Any], pins: ContextPins, name: str) -> list[str]:
    """The cases about events of that id, one for each class that has it; else those whose ids begin so, with 8 digits or more."""
    digest = pins_digest(pins)
    rows = connection.execute(_OF_EVENT, (digest, name)).fetchall()
    if not rows and _FIRST_DIGITS.fullmatch(name):
        rows = connection.execute(_BEGINNING, (digest, name, f"{name}g")).fetchall()  # g stands behind every digit
    return [row[0] for row in rows]


def read_conflicts(connection: Connection[Any], pins: ContextPins, name: str) -> list[CaseEntryConflict]:
    """Entries that came again with other content in one case, the oldest first."""
    return [
        CaseEntryConflict(
            case_id=of_case,
            entry_type=entry_type,
            source_ref=source_ref,
            first_digest=first_digest,
            other_digest=other_digest,
            at_utc=format_time(at_us),
            actor=actor,
        )
        for of_case, entry_type, source_ref, first_digest, other_digest, at_us, actor in connection.execute(
            _CONFLICTS, (pins_digest(pins), name)
        )
    ]


def count_conflicts(connection: Connection[Any], pins: ContextPins) -> int:
    """How many entries of a run came again with other content."""
    row = connection.execute(_COUNT_CONFLICTS, (pins_digest(pins),)).fetchone()
    assert row is not None  # an aggregate has one
    return int(row[0])


@dataclass(frozen=True)
class PendingLabel:
    """A label that waits for an answer of the label store. `actor`: who asserted it."""

    event: CaseEvent
    content: LabelPending
    actor: str


def pending_labels(connection: Connection[Any], pins: ContextPins, limit: int) -> list[PendingLabel]:
    """The oldest labels of a run without an answer, at most `limit`."""
    pending = []
    for event_class, event_id, text, actor in connection.execute(_PENDING, (pins_digest(pins), limit)):
        content = LabelPending.model_validate_json(text)
        pending.append(PendingLabel(CaseEvent(event_class=event_class, event_id=event_id), content, actor))
    return pending


def count_pending_labels(connection: Connection[Any], pins: ContextPins) -> int:
    """How many labels of a run wait for an answer of the label store."""
    row = connection.execute(_COUNT_PENDING, (pins_digest(pins),)).fetchone()
    assert row is not None  # an aggregate has one
    return int(row[0])
