"""Records on the wire of Kinesis and Kafka, and envelopes: the bytes of one record, and a page of records as a batch.

Others may write to the stream too, so a record is validated when it is read, as it is when it is appended; what is no
envelope becomes an `UnreadableRecord` at its position. A part of a page whose records are, byte for byte, what an append sends
is validated in columns; any other is read record by record, and gives the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import attrgetter

import msgspec
import numpy as np
import orjson

from ofp_platform.log.admission import Admission
from ofp_platform.log.admitted import Admitted, AdmittedBatch, AdmittedColumns, Kind
from ofp_platform.log.block import pins_of
from ofp_platform.log.column_admission import PART_RECORDS, admit_plain
from ofp_platform.log.port import RecordBatch, RecordRefusal, RefusalReason, UnreadableRecord, empty_batch
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.columns import EventColumns, are_moments, moments_of, time_texts
from ofp_platform.vocabulary.identity import PIN_NAMES, ContextPins
from ofp_platform.vocabulary.json_text import NotIJson, NotJson, read_json
from ofp_platform.vocabulary.position import PartitionBasis
from ofp_platform.vocabulary.times import parse_time

_AGGREGATED = b"\xf3\x89\x9a\xc2"
"""How a record begins that the Kinesis producer library packed (github.com/awslabs/kinesis-aggregation)."""
_FIELDS = {"admitted_at_utc", "envelope"}


_PinValues = tuple[str | int | None, ...]


class _WireEnvelope(msgspec.Struct, forbid_unknown_fields=True):
    """The envelope of a record, for a first look: what it may hold is told by admission. An amendment is looked at closer."""

    event_id: str
    event_type: str
    schema_version: str
    ts_utc: str
    payload: msgspec.Raw
    scenario_id: str
    run_id: str
    manifest_fingerprint: str
    parameter_hash: str
    seed: int | None = None
    platform_run_id: str | None = None
    scenario_run_id: str | None = None
    emitted_at_utc: str | None = None


class _WireRecord(msgspec.Struct, forbid_unknown_fields=True):
    envelope: _WireEnvelope
    admitted_at_utc: str | None = None


_DECODER = msgspec.json.Decoder(_WireRecord)
_pin_values: Callable[[_WireEnvelope], _PinValues] = attrgetter(*PIN_NAMES)


@dataclass(frozen=True, slots=True)
class WirePage:
    """Records of one partition as the broker gave them, in columns of one length.

    `arrived_at`: when the broker took each, microseconds; None: it does not say, and a record has to say when it was admitted.
    """

    offsets: Sequence[int | str]
    data: Sequence[bytes]
    arrived_at: Sequence[int | None]

    def __len__(self) -> int:
        return len(self.offsets)

    def part(self, start: int, stop: int) -> WirePage:
        """The records [start, stop)."""
        return WirePage(self.offsets[start:stop], self.data[start:stop], self.arrived_at[start:stop])


@dataclass(frozen=True, slots=True)
class ReadRecord:
    """A valid record as it was read; `admitted_at` in microseconds."""

    admitted_at: int
    admitted: Admitted


def wire_records(batch: AdmittedBatch) -> list[bytes]:
    """The data of one record on the wire each; without an admission time the broker's arrival time will be it."""
    forms: dict[tuple[Kind, bool, bool], bytes] = {}
    wire = []
    records = batch.records
    ts_texts = time_texts(np.array(records.ts, np.int64))
    emitted_times = [moment for moment in records.emitted_at if moment is not None]
    emitted_texts = iter(time_texts(np.array(emitted_times, np.int64)) if emitted_times else [])
    with_time = batch.admitted_at is not None
    admitted_texts = time_texts(np.array(batch.admitted_at, np.int64)) if with_time else [""] * len(records)
    rows = zip(
        records.kinds,
        records.event_ids,
        ts_texts,
        records.payloads,
        admitted_texts,
        records.emitted_at,
        records.amends,
        strict=True,
    )
    for kind, event_id, ts_text, payload, admitted_text, emitted_at, amends in rows:
        form_name = (kind, emitted_at is not None, amends is not None)
        form = forms.get(form_name)
        if form is None:
            form = forms[form_name] = _form(*form_name, with_time)
        texts = [event_id.encode(), payload, ts_text.encode()]
        if emitted_at is not None:
            texts.insert(0, next(emitted_texts).encode())
        if amends is not None:
            texts.insert(0, amends)
        if with_time:
            texts.insert(0, admitted_text.encode())
        wire.append(form % tuple(texts))
    return wire


def _form(kind: Kind, emitted: bool, amends: bool, with_time: bool) -> bytes:
    """The canonical bytes of all records of a kind, with `%b` where they differ; no text there needs an escape."""
    text, value = "\0text\0", "\0value\0"
    envelope = {"event_type": kind[0], "schema_version": kind[1], **orjson.loads(kind[2])}
    envelope |= {"event_id": text, "payload": value, "ts_utc": text}
    if emitted:
        envelope["emitted_at_utc"] = text
    if amends:
        envelope["amends"] = value
    record = {"admitted_at_utc": text, "envelope": envelope} if with_time else {"envelope": envelope}
    form = canonical_bytes(record).replace(b"%", b"%%")
    return form.replace(canonical_bytes(text), b'"%b"').replace(canonical_bytes(value), b"%b")


def parse_record(offset: int | str, text: bytes, arrived_at: int | None, admission: Admission) -> ReadRecord | UnreadableRecord:
    """One record of a page, validated."""

    def unreadable(reason: RefusalReason, message: str) -> UnreadableRecord:
        return UnreadableRecord(offset, reason, message)

    if text.startswith(_AGGREGATED):
        return unreadable(
            RefusalReason.AGGREGATED_RECORD,
            "several records packed into one by the Kinesis producer library: switch its aggregation off",
        )
    try:
        data = read_json(text)
    except NotJson:
        return unreadable(RefusalReason.INVALID_ENVELOPE, "the record is not JSON")
    except NotIJson as error:
        return unreadable(RefusalReason.NOT_I_JSON, f"the record: {error}")
    if not isinstance(data, dict) or "envelope" not in data or not _FIELDS.issuperset(data):
        return unreadable(RefusalReason.INVALID_ENVELOPE, "the record is not {admitted_at_utc, envelope}")
    try:
        admitted_at = parse_time(data["admitted_at_utc"]) if "admitted_at_utc" in data else arrived_at
    except (ValueError, TypeError):
        return unreadable(RefusalReason.INVALID_TIME, "admitted_at_utc: must be an RFC 3339 UTC time with 'Z'")
    if admitted_at is None:
        text_of_refusal = "admitted_at_utc: neither the record nor the broker says when it was admitted"
        return unreadable(RefusalReason.INVALID_TIME, text_of_refusal)
    admitted_record = admission.admit(0, data["envelope"])
    if isinstance(admitted_record, RecordRefusal):
        return unreadable(admitted_record.reason, admitted_record.message)
    return ReadRecord(admitted_at, admitted_record)


def batch_of(page: WirePage, admission: Admission, after: PartitionBasis) -> RecordBatch:
    """A page of one partition as a batch; `after` is the basis after the page."""
    records = AdmittedColumns()
    admitted_at: list[int] = []
    unreadable: list[UnreadableRecord] = []
    for start in range(0, len(page), PART_RECORDS):
        part = page.part(start, start + PART_RECORDS)
        plain = _plain_part(part, admission, start)
        if plain is not None:
            records.extend(plain.records)
            admitted_at += plain.admitted_at or []
            continue
        for place in range(start, start + len(part)):
            record = parse_record(page.offsets[place], page.data[place], page.arrived_at[place], admission)
            if isinstance(record, UnreadableRecord):
                unreadable.append(record)
            else:
                records.add(place, record.admitted)
                admitted_at.append(record.admitted_at)
    if not len(records):
        return empty_batch(after, tuple(unreadable))
    pins: dict[bytes, int] = {}
    pins_index = [pins.setdefault(kind[2], len(pins)) for kind in records.kinds]
    return RecordBatch(
        after.partition_id,
        [page.offsets[place] for place in records.places],
        np.array(admitted_at, np.int64),
        records.event_ids,
        [kind[0] for kind in records.kinds],
        [kind[1] for kind in records.kinds],
        np.array(records.ts, np.int64),
        records.emitted_at,
        [pins_of(wire) for wire in pins],
        np.array(pins_index, np.int32),
        records.payload_hashes,
        records.payloads,
        records.amends,
        after,
        tuple(unreadable),
    )


def _plain_part(part: WirePage, admission: Admission, start: int) -> AdmittedBatch | None:
    """The records of a part of a page, which begins at record `start`; None where one of them needs a closer look.

    The look into a record is forgiving: members named twice, blanks, another order, other texts of one time. So what was
    admitted is put on the wire again: where that is what stands in the stream, there was nothing to forgive.
    """
    try:
        wire_structs = [_DECODER.decode(text) for text in part.data]
        envelopes = [record.envelope for record in wire_structs]
        pins: dict[_PinValues, int] = {}
        pins_index = [pins.setdefault(_pin_values(envelope), len(pins)) for envelope in envelopes]
        columns = EventColumns(
            [envelope.event_id for envelope in envelopes],
            [envelope.event_type for envelope in envelopes],
            [envelope.schema_version for envelope in envelopes],
            moments_of([envelope.ts_utc for envelope in envelopes]),
            moments_of([envelope.emitted_at_utc for envelope in envelopes]),
            [ContextPins.model_validate(dict(zip(PIN_NAMES, values, strict=True))) for values in pins],
            np.array(pins_index, np.int32),
            [bytes(envelope.payload) for envelope in envelopes],
        )
        admission_texts = [record.admitted_at_utc for record in wire_structs if record.admitted_at_utc is not None]
        if admission_texts and len(admission_texts) != len(wire_structs):
            return None
        admitted_at = moments_of(admission_texts)
    except (ValueError, TypeError):  # of msgspec and pydantic too
        return None
    records = admit_plain(admission, columns, start) if are_moments(admitted_at).all() else None
    if records is None:
        return None
    times = admitted_at.tolist() if admission_texts else None
    if wire_records(AdmittedBatch(len(part), records, [], times)) != part.data:
        return None
    arrived_at = [moment for moment in part.arrived_at if moment is not None]
    if times is None and len(arrived_at) != len(part):
        return None
    return AdmittedBatch(len(part), records, [], times or arrived_at)
