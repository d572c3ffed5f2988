"""Decisions as they were recorded: appended once, read by id or by the place of their event in the log."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple

import orjson
from psycopg import Connection

from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.identity import ContextPins, FeatureKey, pins_digest
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
from ofp_platform.vocabulary.position import START, Basis, order, place
from ofp_platform.vocabulary.times import format_time

# contents in binary form: as texts they are escaped, in Python, at each quotation mark
_OFFERED = """
    SELECT * FROM unnest(
        %(decision_id)s::text[], %(pins_digest)s::text[], %(stream_name)s::text[], %(partition_id)s::text[],
        %(record_offset)s::numeric[], %(event_id)s::text[], %(snapshot_hash)s::text[], %(content)b::text[]
    ) AS offered (decision_id, pins_digest, stream_name, partition_id, record_offset, event_id, snapshot_hash, content)"""
_COLUMNS = ("decision_id", "pins_digest", "stream_name", "partition_id", "record_offset", "event_id", "snapshot_hash", "content")
# in the order of their ids: two appenders of the same decisions wait for each other, and never in a circle
_TAKE_OVER = f"""
    WITH new AS (
        INSERT INTO ofp.decision_record ({", ".join(_COLUMNS)}, submitted_by)
        SELECT DISTINCT ON (decision_id) {", ".join(_COLUMNS)}, %(submitted_by)s::text
        FROM ({_OFFERED}) AS offered ORDER BY decision_id
        ON CONFLICT (decision_id) DO NOTHING
        RETURNING pins_digest, decided_at, decision_id, content::jsonb -> 'feature_keys' AS feature_keys),
    keys AS (
        INSERT INTO ofp.decision_key (pins_digest, key_type, key_id, decided_at, decision_id)
        SELECT DISTINCT pins_digest, key ->> 'key_type', key ->> 'key_id', decided_at, decision_id
        FROM new, jsonb_array_elements(feature_keys) AS key)
    SELECT count(*) FROM new"""
_OTHER = f"""
    SELECT decision_id FROM ({_OFFERED}) AS offered JOIN ofp.decision_record AS recorded USING (decision_id)
    WHERE recorded.content <> offered.content ORDER BY decision_id LIMIT 1"""
# the texts are canonical, and no field before these two holds one of their names: a text is cut faster than it is read as JSON
_PARTS = """
    WITH own AS (
        SELECT stream_name, partition_id, record_offset,
            split_part(split_part(content, '"event_type":"', 2), '"', 1) AS event_type
        FROM ofp.decision_record
        WHERE pins_digest = %(pins_digest)s AND split_part(split_part(content, '"contract_version":"', 2), '"', 1) <> 'v0'
    ), placed AS (
        SELECT *, (rank() OVER (PARTITION BY event_type, stream_name, partition_id ORDER BY record_offset) - 1) / %(most)s AS turn
        FROM own)
    SELECT event_type, turn, stream_name, partition_id, max(record_offset), count(*) FROM placed
    GROUP BY event_type, turn, stream_name, partition_id ORDER BY event_type, turn, stream_name, partition_id"""
_TOGETHER = 1_000


CURSOR_SEPARATOR = "~"
CURSOR = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}~[0-9a-f]{64}", re.ASCII)
"""The place of a decision in a list: its time and id."""


class DecisionConflict(Exception):
    """A decision of that id is recorded with other content; what was decided is never decided again."""

    def __init__(self, decision_id: str) -> None:
        super().__init__(f"decision {decision_id} is recorded already, with other content")
        self.decision_id = decision_id


def append_decisions(
    connection: Connection[Any], records: Iterable[DecisionRecord], submitted_by: str | None = None
) -> tuple[int, int]:
    """Append all of them or none, in one transaction. How many were new, and how many were there with equal content.

    `submitted_by`: the principal who sent them; None: a decision service of this installation.

    Raises:
        DecisionConflict: one is there, or twice among `records`, with other content; nothing was appended.
    """
    new = offered_count = 0
    remaining = iter(records)
    with connection.transaction():
        while part := list(islice(remaining, _TOGETHER)):
            offered_count += len(part)
            offered = _offered(part)
            row = connection.execute(_TAKE_OVER, {**offered, "submitted_by": submitted_by}).fetchone()
            assert row is not None  # an aggregate has one
            new += int(row[0])
            if int(row[0]) == len(part):
                continue  # each of them is the first of its id
            # a statement of its own sees what another appender has committed meanwhile
            conflict = connection.execute(_OTHER, offered).fetchone()
            if conflict is not None:
                raise DecisionConflict(conflict[0])
    return new, offered_count - new


def _offered(records: Sequence[DecisionRecord]) -> dict[str, Any]:
    """Records as the arrays of `_OFFERED`."""
    columns = zip(*map(_row, records), strict=True)
    return {name: list(column) for name, column in zip(_COLUMNS, columns, strict=True)}


def _row(record: DecisionRecord) -> tuple[Any, ...]:
    """A record in the order of the columns."""
    at = record.event_position
    return (
        record.decision_id,
        pins_digest(record.context_pins),
        at.stream_name,
        at.partition_id,
        order(at.offset),
        record.event_id,
        record.feature_snapshot_hash,
        canonical_bytes(record.wire()).decode("utf-8"),
    )


def recorded_ids(connection: Connection[Any], decision_ids: Sequence[str]) -> set[str]:
    """Which of these decisions are recorded."""
    rows = connection.execute(
        "SELECT decision_id FROM ofp.decision_record WHERE decision_id = ANY(%s)", (list(decision_ids),)
    ).fetchall()
    return {decision_id for (decision_id,) in rows}


def events_decided(connection: Connection[Any], pins: ContextPins, event_type: str, event_ids: Sequence[str]) -> set[str]:
    """Which of these events the plane itself has decided on, wherever in the log they stood."""
    rows = connection.execute(
        "SELECT DISTINCT event_id FROM ofp.decision_record WHERE pins_digest = %s AND event_id = ANY(%s)"
        " AND content::jsonb ->> 'contract_version' = 'v1' AND content::jsonb ->> 'event_type' = %s",
        (pins_digest(pins), list(event_ids), event_type),
    ).fetchall()
    return {event_id for (event_id,) in rows}


def active_decisions(connection: Connection[Any], pins: ContextPins, event_type: str, event_ids: Sequence[str]) -> dict[str, str]:
    """The stored texts of the plane's own decisions on these events, of the ACTIVE slot, by event; those that there are."""
    rows = connection.execute(
        "SELECT event_id, content FROM ofp.decision_record WHERE pins_digest = %s AND event_id = ANY(%s)"
        " AND content::jsonb ->> 'contract_version' = 'v1' AND content::jsonb ->> 'event_type' = %s"
        " AND content::jsonb ->> 'slot' = 'active'",
        (pins_digest(pins), list(event_ids), event_type),
    ).fetchall()
    return dict(rows)


def loop_decisions_on(
    connection: Connection[Any], pins: ContextPins, event_type: str, partition: tuple[str, str], places: tuple[int, int]
) -> list[tuple[str, dict[str, Any]]]:
    """The plane's own decisions on events of a type in a partition (of a stream), in the order of the log: behind the first of
    two places, up to the second. Of each the stored text, and what it says.
    """
    rows = connection.execute(
        "SELECT content FROM ofp.decision_record WHERE (pins_digest, stream_name, partition_id) = (%s, %s, %s)"
        " AND record_offset > %s AND record_offset <= %s ORDER BY record_offset, decision_id",
        (pins_digest(pins), *partition, *places),
    ).fetchall()
    # read here, once: the database would read each text anew for each field that it is asked about
    decisions = [(text, orjson.loads(text)) for (text,) in rows]
    return [
        (text, content)
        for text, content in decisions
        if content.get("contract_version") == "v1" and content.get("event_type") == event_type
    ]


@dataclass(frozen=True)
class DecidedPart:
    """The plane's own decisions on events of a type in a partition of a stream: behind the place `first`, up to `last`."""

    event_type: str
    stream_name: str
    partition_id: str
    first: int
    last: int
    decisions: int


def decided_parts(connection: Connection[Any], pins: ContextPins, most: int = 4_000) -> list[DecidedPart]:
    """All of the plane's own decisions of a run, in parts of about `most`: type after type, the partitions in turns.

    Decisions of others say v0: a record that says anything else counts as the plane's own, and is missed if it is not read.
    """
    rows = connection.execute(_PARTS, {"pins_digest": pins_digest(pins), "most": most}).fetchall()
    last_places: dict[tuple[str, ...], int] = {}
    parts = []
    for event_type, _, stream_name, partition_id, last, decisions in rows:
        partition = (event_type, stream_name, partition_id)
        parts.append(DecidedPart(*partition, last_places.get(partition, START), int(last), decisions))
        last_places[partition] = int(last)
    return parts


def read_decisions(connection: Connection[Any], decision_ids: Sequence[str]) -> dict[str, DecisionRecord]:
    """The records by id; ids that are not recorded are left out."""
    rows = connection.execute(
        "SELECT decision_id, content FROM ofp.decision_record WHERE decision_id = ANY(%s)", (list(decision_ids),)
    ).fetchall()
    return {decision_id: DecisionRecord.model_validate_json(content) for decision_id, content in rows}


class StoredDecision(NamedTuple):
    """The stored text of a record, unread, and who sent it first; None: a decision service of this installation."""

    content: str
    submitted_by: str | None


def stored_decision(connection: Connection[Any], decision_id: str, pins: ContextPins | None = None) -> StoredDecision | None:
    """A decision (of that run) as it is stored; None: it is not."""
    row = connection.execute(
        "SELECT content, submitted_by FROM ofp.decision_record"
        " WHERE decision_id = %s AND pins_digest = coalesce(%s, pins_digest)",
        (decision_id, None if pins is None else pins_digest(pins)),
    ).fetchone()
    return None if row is None else StoredDecision(*row)


@dataclass(frozen=True)
class DecisionFilter:
    """Which decisions of a run: about an entity, on an event, decided in `[from_us, to_us)` (microseconds); None: whichever."""

    key: FeatureKey | None = None
    event_id: str | None = None
    from_us: int | None = None
    to_us: int | None = None


def list_decisions(
    connection: Connection[Any], pins: ContextPins, chosen: DecisionFilter, limit: int, before: str | None = None
) -> list[tuple[str, str]]:
    """At most `limit` decisions of a run, the latest first: cursor and stored text of each. `before`: the cursor of a decision
    behind which the list goes on.
    """
    conditions, parameters = ["record.pins_digest = %s"], [pins_digest(pins)]
    source, decided_at = "ofp.decision_record AS record", "record.decided_at"
    if chosen.key is not None:
        source = "ofp.decision_key AS key JOIN ofp.decision_record AS record USING (decision_id)"
        decided_at = "key.decided_at"
        conditions.append("(key.pins_digest, key.key_type, key.key_id) = (%s, %s, %s)")
        parameters += [pins_digest(pins), chosen.key.key_type.value, chosen.key.key_id]
    if chosen.event_id is not None:
        conditions.append("record.event_id = %s")
        parameters.append(chosen.event_id)
    for bound, operator in ((chosen.from_us, ">="), (chosen.to_us, "<")):
        if bound is not None:
            conditions.append(f"{decided_at} {operator} %s")
            parameters.append(sortable_time(bound))
    decision_id = "record.decision_id" if chosen.key is None else "key.decision_id"
    if before is not None:
        conditions.append(f"({decided_at}, {decision_id}) < (%s, %s)")
        parameters += before.split(CURSOR_SEPARATOR)
    rows = connection.execute(
        f"SELECT {decided_at}, {decision_id}, record.content FROM {source} WHERE {' AND '.join(conditions)}"
        f" ORDER BY {decided_at} DESC, {decision_id} DESC LIMIT {limit:d}",
        parameters,
    ).fetchall()
    return [(f"{at}{CURSOR_SEPARATOR}{name}", content) for at, name, content in rows]


def sortable_time(micros: int) -> str:
    """A time as the column `decided_at` has it: without Z, with six digits of a fraction."""
    whole, _, fraction = format_time(micros).removesuffix("Z").partition(".")
    return f"{whole}.{fraction:0<6}"


def ids_by_basis(connection: Connection[Any], decision_ids: Sequence[str]) -> Iterator[tuple[Basis, list[str]]]:
    """The recorded decisions among these, by the input basis that they recorded; many decisions have the same."""
    rows = connection.execute(
        "SELECT content::json ->> 'input_basis', array_agg(decision_id) FROM ofp.decision_record"
        " WHERE decision_id = ANY(%s) GROUP BY 1",
        (list(decision_ids),),
    ).fetchall()
    for basis, ids in rows:
        yield Basis.model_validate_json(basis), ids


def decision_ids_in(connection: Connection[Any], pins: ContextPins, basis: ReplayBasis) -> list[str]:
    """The ids of the run's decisions with a vector whose event lies in the replay basis, sorted."""
    decision_ids: set[str] = set()
    for span in basis.partitions:
        rows = connection.execute(
            "SELECT decision_id FROM ofp.decision_record"
            " WHERE (pins_digest, stream_name, partition_id) = (%s, %s, %s) AND record_offset > %s AND record_offset <= %s"
            " AND snapshot_hash IS NOT NULL",
            (pins_digest(pins), basis.stream_name, span.partition_id, place(span.first), place(span.end)),
        ).fetchall()
        decision_ids.update(decision_id for (decision_id,) in rows)
    return sorted(decision_ids)
