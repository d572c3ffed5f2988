"""The receipts of a batch as they are stored: columns in one compressed block, as the log has its records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa

from ofp_platform.vocabulary.admission_receipt import AdmissionOutcome, AdmissionReceipt, QuarantineReason
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import Position

_ZSTD = pa.Codec("zstd", compression_level=1)
_OUTCOMES = tuple(AdmissionOutcome)


@dataclass(frozen=True, slots=True)
class PlacedAt:
    """Where a record stands."""

    is_context: bool
    partition_id: str
    offset: int | str
    incarnation: str | None


@dataclass(slots=True)
class RecordOutcome:
    """The outcome of one record of a batch; see AdmissionReceipt. Digests are 32 bytes."""

    outcome: AdmissionOutcome
    event_class: str | None = None
    event_id: str | None = None
    payload_hash: bytes | None = None
    position: PlacedAt | None = None
    reason: QuarantineReason | None = None
    detail: str | None = None
    admitted_payload_hash: bytes | None = None


class _Columns(msgspec.Struct, array_like=True):
    """Of n receipts. `outcomes`: a byte each; `positions`: (index of place, offset); `places`: the distinct (is_context,
    partition, incarnation)."""

    outcomes: bytes
    classes: list[str | None]
    class_index: list[int]
    event_ids: list[str | None]
    payload_hashes: list[bytes | None]
    places: list[tuple[bool, str, str | None]]
    positions: list[tuple[int, int | str] | None]
    aside_rows: list[tuple[int, str, str, bytes | None]]
    """Place in the batch, reason, detail, hash of the payload that was admitted."""


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(_Columns)


def encode_receipts(outcomes: Sequence[RecordOutcome]) -> bytes:
    """The block of a batch; in front of it the size of what is compressed, 8 bytes."""
    classes: dict[str | None, int] = {}
    places: dict[tuple[bool, str, str | None], int] = {}
    positions: list[tuple[int, int | str] | None] = []
    for outcome in outcomes:
        at = outcome.position
        if at is None:
            positions.append(None)
        else:
            positions.append((places.setdefault((at.is_context, at.partition_id, at.incarnation), len(places)), at.offset))
    columns = _Columns(
        bytes(_OUTCOMES.index(outcome.outcome) for outcome in outcomes),
        [],
        [classes.setdefault(outcome.event_class, len(classes)) for outcome in outcomes],
        [outcome.event_id for outcome in outcomes],
        [outcome.payload_hash for outcome in outcomes],
        list(places),
        positions,
        [
            (place, outcome.reason.value, outcome.detail or "", outcome.admitted_payload_hash)
            for place, outcome in enumerate(outcomes)
            if outcome.reason is not None
        ],
    )
    columns.classes = list(classes)
    raw = _ENCODER.encode(columns)
    return len(raw).to_bytes(8, "big") + bytes(_ZSTD.compress(raw, asbytes=True))


def decode_outcomes(block: bytes) -> list[RecordOutcome]:
    """The outcomes of the records of a batch.

    Raises:
        ValueError: it is no such block.
    """
    try:
        raw = _ZSTD.decompress(block[8:], decompressed_size=int.from_bytes(block[:8], "big"), asbytes=True)
        columns = _DECODER.decode(raw)
    except (msgspec.DecodeError, pa.ArrowException, OSError) as error:
        raise ValueError(f"a block of receipts cannot be read: {error}") from None
    details = {place: (reason, detail, admitted_hash) for place, reason, detail, admitted_hash in columns.aside_rows}
    outcomes = []
    for place, code in enumerate(columns.outcomes):
        position = None
        if (at := columns.positions[place]) is not None:
            is_context, partition_id, incarnation = columns.places[at[0]]
            position = PlacedAt(is_context, partition_id, at[1], incarnation)
        reason, detail, admitted_hash = details.get(place, (None, None, None))
        outcomes.append(
            RecordOutcome(
                _OUTCOMES[code],
                columns.classes[columns.class_index[place]],
                columns.event_ids[place],
                columns.payload_hashes[place],
                position,
                None if reason is None else QuarantineReason(reason),
                detail,
                admitted_hash,
            )
        )
    return outcomes


def position_of(at: PlacedAt, streams: tuple[str, str | None]) -> Position:
    """The position on the wire. `streams`: the names of those of traffic and of context."""
    stream_name = streams[at.is_context]
    assert stream_name is not None
    return Position(stream_name=stream_name, partition_id=at.partition_id, offset=at.offset, incarnation=at.incarnation)


def receipt_fields(place: int, outcome: RecordOutcome, streams: tuple[str, str | None]) -> dict[str, Any]:
    """The wire form of RecordReceipt. `streams`: the names of those of traffic and of context."""
    if outcome.reason is None and (at := outcome.position) is not None and outcome.payload_hash is not None:  # nearly all
        position: dict[str, Any] = {
            "stream_name": streams[at.is_context],
            "partition_id": at.partition_id,
            "offset": at.offset,
        }
        if at.incarnation is not None:
            position["incarnation"] = at.incarnation
        return {
            "place": place,
            "outcome": outcome.outcome.value,
            "event_class": outcome.event_class,
            "event_id": outcome.event_id,
            "payload_hash": outcome.payload_hash.hex(),
            "position": position,
        }
    fields: dict[str, Any] = {
        "place": place,
        "outcome": outcome.outcome.value,
        "event_class": outcome.event_class,
        "event_id": outcome.event_id,
        "payload_hash": None if outcome.payload_hash is None else outcome.payload_hash.hex(),
        "reason": None if outcome.reason is None else outcome.reason.value,
        "detail": outcome.detail,
        "admitted_payload_hash": None if outcome.admitted_payload_hash is None else outcome.admitted_payload_hash.hex(),
    }
    if (at := outcome.position) is not None:  # as `position_of`, without an object for each of many
        position = {"stream_name": streams[at.is_context], "partition_id": at.partition_id, "offset": at.offset}
        fields["position"] = position if at.incarnation is None else {**position, "incarnation": at.incarnation}
    return {name: value for name, value in fields.items() if value is not None}


def decode_receipts(block: bytes, pins: ContextPins, batch_id: int, streams: tuple[str, str | None]) -> list[AdmissionReceipt]:
    """The receipts of a batch. `streams`: the names of those of traffic and of context.

    Raises:
        ValueError: it is no such block.
    """
    head = {"context_pins": pins, "batch_id": batch_id}
    return [
        AdmissionReceipt.model_validate({**head, **receipt_fields(place, outcome, streams)})
        for place, outcome in enumerate(decode_outcomes(block))
    ]
