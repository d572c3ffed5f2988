"""Receipts and quarantine, read again: by batch, by event, and what waits for an operator."""

from __future__ import annotations

import json
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row

from ofp_platform.ingress.receipt_block import decode_receipts
from ofp_platform.storage.objects import ObjectNotFound, ObjectStore
from ofp_platform.vocabulary.admission_receipt import AdmissionBatch, AdmissionReceipt
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.times import format_time

_BATCHES = """
    SELECT batch_id, producer, class_map_digest, received_at, records, admitted, duplicates, quarantined
    FROM ofp.admission_batch JOIN ofp.admission_run USING (run_number)
    WHERE pins_digest = %s AND (%s::bigint IS NULL OR batch_id < %s) ORDER BY batch_id DESC LIMIT %s"""
_RECEIPTS = """
    SELECT receipts FROM ofp.admission_batch JOIN ofp.admission_run USING (run_number) WHERE pins_digest = %s AND batch_id = %s"""
_QUARANTINE = """
    SELECT q.quarantine_id, q.batch_id, q.place, b.received_at, b.producer, q.reason, q.detail, q.event_type, q.event_id,
        q.object_path, (SELECT count(*) FROM ofp.quarantine_replay AS r WHERE r.quarantine_id = q.quarantine_id) AS replays
    FROM ofp.quarantined_record AS q JOIN ofp.admission_batch AS b USING (batch_id)
        JOIN ofp.admission_run AS run USING (run_number)
    WHERE run.pins_digest = %(run)s AND (%(id)s::bigint IS NULL OR q.quarantine_id = %(id)s)
        AND (%(reason)s::text IS NULL OR q.reason = %(reason)s)
    ORDER BY q.quarantine_id DESC LIMIT %(limit)s"""
_COUNTS = """
    SELECT coalesce(sum(records), 0)::bigint, coalesce(sum(admitted), 0)::bigint, coalesce(sum(duplicates), 0)::bigint,
        coalesce(sum(quarantined), 0)::bigint, count(*)
    FROM ofp.admission_batch JOIN ofp.admission_run USING (run_number)
    WHERE pins_digest = %s AND (%s::bigint IS NULL OR received_at >= %s) AND (%s::bigint IS NULL OR received_at < %s)"""
_BY_REASON = """
    SELECT q.reason, count(*) FROM ofp.quarantined_record AS q JOIN ofp.admission_batch USING (batch_id)
        JOIN ofp.admission_run AS run USING (run_number)
    WHERE run.pins_digest = %s GROUP BY q.reason ORDER BY q.reason"""


class UnknownReceipt(Exception):
    """There is no batch, or no record in quarantine, of that id in this run; the text says what to do."""


@dataclass(frozen=True)
class QuarantinedRecord:
    """A record that was set aside. `object_path`: where it is kept, with its line behind `#`; None: nowhere."""

    quarantine_id: int
    batch_id: int
    place: int
    received_at_utc: str
    producer: str
    reason: str
    detail: str
    event_type: str | None
    event_id: str | None
    object_path: str | None
    replays: int


def read_batches(
    connection: Connection[Any], pins: ContextPins, *, before: int | None = None, limit: int = 20
) -> list[AdmissionBatch]:
    """The newest batches of a run, newest first; `before`: those with a smaller id."""
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_BATCHES, (pins_digest(pins), before, before, limit)).fetchall()
    return [AdmissionBatch(context_pins=pins, received_at_utc=format_time(row.pop("received_at")), **row) for row in rows]


def count_receipts(
    connection: Connection[Any], pins: ContextPins, begin: int | None = None, end: int | None = None
) -> dict[str, int]:
    """The counters of a run's batches by `sent`, `admitted`, `duplicates`, `set_aside` and `batches`; of those received in
    [begin, end), microseconds.
    """
    row = connection.execute(_COUNTS, (pins_digest(pins), begin, begin, end, end)).fetchone()
    assert row is not None
    return dict(zip(("sent", "admitted", "duplicates", "set_aside", "batches"), row, strict=True))


def read_receipts(
    connection: Connection[Any], pins: ContextPins, batch_id: int, streams: tuple[str, str | None]
) -> list[AdmissionReceipt]:
    """The receipts of a batch. `streams`: the names of those of traffic and of context.

    Raises:
        UnknownReceipt: no such batch of this run. ValueError: its receipts are damaged.
    """
    row = connection.execute(_RECEIPTS, (pins_digest(pins), batch_id)).fetchone()
    if row is None:
        raise UnknownReceipt(f"run {pins.run_id!r} has no batch {batch_id}: `ofp ingress receipts` lists the newest")
    return decode_receipts(row[0], pins, batch_id, streams)


def read_quarantine(
    connection: Connection[Any], pins: ContextPins, *, reason: str | None = None, limit: int = 50
) -> list[QuarantinedRecord]:
    """The records in quarantine, newest first."""
    return _quarantine(connection, pins, None, reason, limit)


def quarantine_by_reason(connection: Connection[Any], pins: ContextPins) -> dict[str, int]:
    """How many records each reason has set aside."""
    return dict(connection.execute(_BY_REASON, (pins_digest(pins),)).fetchall())


def quarantined_record(connection: Connection[Any], pins: ContextPins, quarantine_id: int) -> QuarantinedRecord:
    """One record in quarantine.

    Raises:
        UnknownReceipt: there is none of that id in this run.
    """
    records = _quarantine(connection, pins, quarantine_id, None, 1)
    if not records:
        raise UnknownReceipt(f"run {pins.run_id!r} has no record {quarantine_id} in quarantine: `ofp quarantine list` lists them")
    return records[0]


def _quarantine(
    connection: Connection[Any], pins: ContextPins, quarantine_id: int | None, reason: str | None, limit: int
) -> list[QuarantinedRecord]:
    arguments = {"run": pins_digest(pins), "id": quarantine_id, "reason": reason, "limit": limit}
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_QUARANTINE, arguments).fetchall()
    return [QuarantinedRecord(received_at_utc=format_time(row.pop("received_at")), **row) for row in rows]


def kept_record(objects: ObjectStore, record: QuarantinedRecord) -> dict[str, Any]:
    """A record in quarantine as it was sent.

    Raises:
        UnknownReceipt: it is kept nowhere, or its object is gone or not what its name says.
        ObjectStoreUnavailable: see there.
    """
    if record.object_path is None:
        raise UnknownReceipt(f"record {record.quarantine_id} is kept nowhere ({record.reason}): its producer has it")
    path, _, line = record.object_path.partition("#")
    try:
        lines = objects.get(path).split(b"\n")
    except ObjectNotFound:
        raise UnknownReceipt(f"record {record.quarantine_id}: its object {path} is not in {objects.url}: restore it") from None
    if sha256(b"\n".join(lines)).hexdigest() != path.rpartition("/")[2].removesuffix(".jsonl") or int(line) >= len(lines) - 1:
        raise UnknownReceipt(f"record {record.quarantine_id}: its object {path} is not what its name says: restore it")
    content: dict[str, Any] = json.loads(lines[int(line)])
    return content
