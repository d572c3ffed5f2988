"""Receipts of hours that are over, in write-once Parquet objects with an index in the database.

An hour is of the clock that gave batches their time, and is over when no batch of it can be committed any more. Its segments are
written once: the same receipts give the same bytes, and an hour that has some is read, not written.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from psycopg import Connection

from ofp_platform.ingress.receipt_block import RecordOutcome, decode_outcomes
from ofp_platform.storage.objects import ObjectConflict, ObjectNotFound, ObjectStore
from ofp_platform.vocabulary.canonical import sha256_hex
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.position import offset_columns
from ofp_platform.vocabulary.times import MICROS_PER_SECOND, format_time

HOUR = 3_600 * MICROS_PER_SECOND
MARGIN = 600 * MICROS_PER_SECOND
"""From the end of an hour until it is over: a session of ingress waits for a minute at most before it commits."""
SEGMENT_RECEIPTS = 1_000_000
"""From which on a segment takes no further batch."""
_NOW = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_HOURS = """
    SELECT DISTINCT received_at / %(hour)s * %(hour)s AS begin FROM ofp.admission_batch JOIN ofp.admission_run USING (run_number)
    WHERE pins_digest = %(run)s AND received_at < %(before)s ORDER BY begin"""
_BATCHES = """
    SELECT batch_id, received_at, producer, class_map_digest, receipts
    FROM ofp.admission_batch JOIN ofp.admission_run USING (run_number)
    WHERE pins_digest = %s AND received_at >= %s AND received_at < %s ORDER BY batch_id"""
_COUNT = """
    SELECT coalesce(sum(records), 0)::bigint FROM ofp.admission_batch JOIN ofp.admission_run USING (run_number)
    WHERE pins_digest = %s AND received_at >= %s AND received_at < %s"""
_SEGMENTS = """
    SELECT hour_begin, part, object_path, content_sha256, batches, receipts
    FROM ofp.receipt_segment JOIN ofp.admission_run USING (run_number)
    WHERE pins_digest = %s AND (%s::bigint IS NULL OR hour_begin = %s) ORDER BY hour_begin, part"""
_ADD = """
    INSERT INTO ofp.receipt_segment (run_number, hour_begin, part, object_path, content_sha256, batches, receipts)
    SELECT run_number, %s, %s, %s, %s, %s, %s FROM ofp.admission_run WHERE pins_digest = %s
    ON CONFLICT DO NOTHING"""
SCHEMA = pa.schema(
    [
        ("batch_id", pa.int64()),
        ("place", pa.int32()),
        ("received_at", pa.timestamp("us", tz="UTC")),
        ("producer", pa.string()),
        ("class_map_digest", pa.string()),
        ("outcome", pa.string()),
        ("event_class", pa.string()),
        ("event_id", pa.string()),
        ("payload_hash", pa.binary(32)),
        ("is_context", pa.bool_()),
        ("partition_id", pa.string()),
        ("record_offset", pa.int64()),
        ("record_token", pa.string()),
        ("incarnation", pa.string()),
        ("reason", pa.string()),
        ("detail", pa.string()),
        ("admitted_payload_hash", pa.binary(32)),
    ]
)
"""Of a segment: a row for each receipt, in the order of batches and places. A position has an offset or a token."""


class SegmentConflict(Exception):
    """A segment is not what the index says, or an hour has other receipts than its segments; the text says which."""


@dataclass(frozen=True)
class ReceiptSegment:
    """Part `part` of an hour (its begin in microseconds): the object, its SHA-256, and how much is in it."""

    hour_begin: int
    part: int
    object_path: str
    content_sha256: str
    batches: int
    receipts: int

    @property
    def hour(self) -> str:
        """When the hour begins."""
        return format_time(self.hour_begin)


def hours_over(connection: Connection[Any], pins: ContextPins) -> list[int]:
    """The begin of each hour with a batch of the run that is over, by the clock of the database."""
    (now,) = connection.execute(_NOW).fetchone() or (0,)
    before = (now - MARGIN) // HOUR * HOUR
    arguments = {"hour": HOUR, "run": pins_digest(pins), "before": before}
    return [begin for (begin,) in connection.execute(_HOURS, arguments).fetchall()]


def is_over(connection: Connection[Any], hour_begin: int) -> bool:
    """Whether no batch of an hour can be committed any more."""
    (now,) = connection.execute(_NOW).fetchone() or (0,)
    return bool(now >= hour_begin + HOUR + MARGIN)


def read_segments(connection: Connection[Any], pins: ContextPins, hour_begin: int | None = None) -> list[ReceiptSegment]:
    """The segments of a run, or of an hour of it."""
    rows = connection.execute(_SEGMENTS, (pins_digest(pins), hour_begin, hour_begin)).fetchall()
    return [ReceiptSegment(*row) for row in rows]


def write_segments(connection: Connection[Any], objects: ObjectStore, pins: ContextPins, hour_begin: int) -> list[ReceiptSegment]:
    """Write the segments of an hour that is over, or give those that it has; empty: no batch came in it.

    Raises:
        SegmentConflict: the hour is not over, or other segments of it are there. ObjectStoreUnavailable: see there.
    """
    if existing_segments := read_segments(connection, pins, hour_begin):
        return existing_segments
    if not is_over(connection, hour_begin):
        over_at = format_time(hour_begin + HOUR + MARGIN)
        raise SegmentConflict(f"the hour from {format_time(hour_begin)} is not over before {over_at}")
    segments = []
    for part, (content, batches, receipts) in enumerate(_contents(connection, pins, hour_begin)):
        name = datetime.fromtimestamp(hour_begin // MICROS_PER_SECOND, UTC).strftime("%Y-%m-%dT%H")
        path = f"ingress/receipts/{pins_digest(pins)[:16]}/{name}-{part:04d}.parquet"
        try:
            objects.put_same(path, content)
        except ObjectConflict as error:
            raise SegmentConflict(str(error)) from None
        segments.append(ReceiptSegment(hour_begin, part, path, sha256_hex(content), batches, receipts))
    with connection.transaction():  # the index is written whole: an hour has all of its segments, or none
        for segment in segments:
            row = (
                segment.hour_begin,
                segment.part,
                segment.object_path,
                segment.content_sha256,
                segment.batches,
                segment.receipts,
                pins_digest(pins),
            )
            connection.execute(_ADD, row)
    return segments


def verify_segments(
    connection: Connection[Any], objects: ObjectStore, pins: ContextPins, hour_begin: int
) -> tuple[int, list[str]]:
    """Read the segments of an hour again: how many receipts they hold, and what is wrong, in words.

    Raises:
        ObjectStoreUnavailable: see there.
    """
    problems: list[str] = []
    total = 0
    for segment in read_segments(connection, pins, hour_begin):
        try:
            content = objects.get(segment.object_path)
        except ObjectNotFound:
            problems.append(f"{segment.object_path} is not in {objects.url}: restore it")
            continue
        if sha256_hex(content) != segment.content_sha256:
            problems.append(f"{segment.object_path} is not what the index says: restore it")
            continue
        total += pq.read_metadata(BytesIO(content)).num_rows
    (expected_count,) = connection.execute(_COUNT, (pins_digest(pins), hour_begin, hour_begin + HOUR)).fetchone() or (0,)
    if not problems and total != expected_count:
        problems.append(
            f"the hour from {format_time(hour_begin)} has {expected_count:,} receipts, its segments hold {total:,}"
            + ("" if total else ": it has none yet")
        )
    return total, problems


def _contents(connection: Connection[Any], pins: ContextPins, hour_begin: int) -> Iterator[tuple[bytes, int, int]]:
    """Parquet files of an hour, each with its batches and receipts."""
    with connection.transaction(), connection.cursor(name="receipts_of_hour") as cursor:
        cursor.itersize = 100
        tables: list[pa.Table] = []
        receipts = 0
        for row in cursor.execute(_BATCHES, (pins_digest(pins), hour_begin, hour_begin + HOUR)):
            table = _table(*row)
            tables.append(table)
            receipts += len(table)
            if receipts >= SEGMENT_RECEIPTS:
                yield _file(tables), len(tables), receipts
                tables, receipts = [], 0
        if tables:
            yield _file(tables), len(tables), receipts


def _table(batch_id: int, received_at: int, producer: str, class_map_digest: str, block: bytes) -> pa.Table:
    outcomes = decode_outcomes(bytes(block))
    head = {"batch_id": batch_id, "received_at": received_at, "producer": producer, "class_map_digest": class_map_digest}
    return pa.Table.from_pylist([{**head, **_row(place, outcome)} for place, outcome in enumerate(outcomes)], SCHEMA)


def _row(place: int, outcome: RecordOutcome) -> dict[str, Any]:
    at = outcome.position
    offset, token = offset_columns(None if at is None else at.offset)
    return {
        "place": place,
        "outcome": outcome.outcome.value,
        "event_class": outcome.event_class,
        "event_id": outcome.event_id,
        "payload_hash": outcome.payload_hash,
        "is_context": None if at is None else at.is_context,
        "partition_id": None if at is None else at.partition_id,
        "record_offset": offset,
        "record_token": token,
        "incarnation": None if at is None else at.incarnation,
        "reason": None if outcome.reason is None else outcome.reason.value,
        "detail": outcome.detail,
        "admitted_payload_hash": outcome.admitted_payload_hash,
    }


def _file(tables: list[pa.Table]) -> bytes:
    sink = BytesIO()
    pq.write_table(pa.concat_tables(tables), sink, compression="zstd", row_group_size=100_000)
    return sink.getvalue()
