"""Kinesis records and envelopes: the bytes of one record, and a page of records as a batch.

Others may write to the stream too, so a record is validated when it is read, as it is when it is appended; what is no
envelope becomes an `UnreadableRecord` at its position.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import orjson

from ofp_platform.log.admission import Admission
from ofp_platform.log.admitted import Admitted, AdmittedBatch, Kind
from ofp_platform.log.port import RecordBatch, RecordRefusal, RefusalReason, UnreadableRecord, empty_batch
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.json_text import NotIJson, NotJson, read_json
from ofp_platform.vocabulary.position import PartitionBasis
from ofp_platform.vocabulary.times import format_time, parse_time, to_micros

if TYPE_CHECKING:
    from mypy_boto3_kinesis.type_defs import RecordTypeDef

_AGGREGATED = b"\xf3\x89\x9a\xc2"
"""How a record begins that the Kinesis producer library packed (github.com/awslabs/kinesis-aggregation)."""
_FIELDS = {"admitted_at_utc", "envelope"}


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """A valid record as it was read; `admitted_at` in microseconds."""

    offset: str
    admitted_at: int
    admitted: Admitted


def wire_records(batch: AdmittedBatch) -> list[bytes]:
    """The data of one Kinesis record each; without an admission time the broker's arrival time will be it."""
    runs: dict[Kind, dict[str, object]] = {}
    wire = []
    records = batch.records
    for index, kind in enumerate(records.kinds):
        if kind not in runs:
            runs[kind] = {"event_type": kind[0], "schema_version": kind[1], **orjson.loads(kind[2])}
        envelope = runs[kind] | {
            "event_id": records.event_ids[index],
            "ts_utc": format_time(records.ts[index]),
            "payload": orjson.Fragment(records.payloads[index]),
        }
        emitted = records.emitted_at[index]
        if emitted is not None:
            envelope["emitted_at_utc"] = format_time(emitted)
        record: dict[str, object] = {"envelope": envelope}
        if batch.admitted_at is not None:
            record["admitted_at_utc"] = format_time(batch.admitted_at[index])
        wire.append(canonical_bytes(record))
    return wire


def parse_record(record: RecordTypeDef, admission: Admission) -> ReadRecord | UnreadableRecord:
    """One record of a page, validated."""
    offset = record["SequenceNumber"]

    def unreadable(reason: RefusalReason, message: str) -> UnreadableRecord:
        return UnreadableRecord(offset, reason, message)

    if record["Data"].startswith(_AGGREGATED):
        return unreadable(
            RefusalReason.AGGREGATED_RECORD,
            "several records packed into one by the Kinesis producer library: switch its aggregation off",
        )
    try:
        data = read_json(record["Data"])
    except NotJson:
        return unreadable(RefusalReason.INVALID_ENVELOPE, "the record is not JSON")
    except NotIJson as error:
        return unreadable(RefusalReason.NOT_I_JSON, f"the record: {error}")
    if not isinstance(data, dict) or "envelope" not in data or not _FIELDS.issuperset(data):
        return unreadable(RefusalReason.INVALID_ENVELOPE, "the record is not {admitted_at_utc, envelope}")
    try:
        at = to_micros(record["ApproximateArrivalTimestamp"])
        admitted_at = parse_time(data["admitted_at_utc"]) if "admitted_at_utc" in data else at
    except (ValueError, TypeError):
        return unreadable(RefusalReason.INVALID_TIME, "admitted_at_utc: must be an RFC 3339 UTC time with 'Z'")
    admitted = admission.admit(0, data["envelope"])
    if isinstance(admitted, RecordRefusal):
        return unreadable(admitted.reason, admitted.message)
    return ReadRecord(offset, admitted_at, admitted)


def batch_of(page: Sequence[RecordTypeDef], admission: Admission, after: PartitionBasis) -> RecordBatch:
    """A page of one shard as a batch; `after` is the basis after the page."""
    parsed = [parse_record(record, admission) for record in page]
    unreadable = tuple(record for record in parsed if isinstance(record, UnreadableRecord))
    records = [record for record in parsed if isinstance(record, ReadRecord)]
    if not records:
        return empty_batch(after, unreadable)
    pins: dict[ContextPins, int] = {}
    pins_index = [pins.setdefault(record.admitted.pins, len(pins)) for record in records]
    envelopes = [record.admitted.envelope for record in records]
    return RecordBatch(
        after.partition_id,
        [record.offset for record in records],
        np.array([record.admitted_at for record in records], np.int64),
        [envelope.event_id for envelope in envelopes],
        [envelope.event_type for envelope in envelopes],
        [envelope.schema_version for envelope in envelopes],
        np.array([record.admitted.ts for record in records], np.int64),
        [record.admitted.emitted_at for record in records],
        list(pins),
        np.array(pins_index, np.int32),
        [record.admitted.payload_hash for record in records],
        [record.admitted.payload for record in records],
        after,
        unreadable,
    )
