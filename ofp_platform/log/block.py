"""Record-batch blocks: up to `MAX_RECORDS` records of one partition, in columns, compressed (as Kafka's batches are).

Offsets are not in a block: its row says where it begins, so a block is encoded before the place of its records is
known.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import msgspec
import numpy as np
import orjson
import pyarrow as pa

from ofp_platform.log.admitted import AdmittedColumns, Kind
from ofp_platform.log.port import RecordBatch
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import PartitionBasis

MAX_RECORDS = 2000
MAX_BYTES = 16_000_000  # of payload, before compression: a block stays far below the 1 GB of a Postgres value
CODEC = 1  # msgpack of `_Columns`, zstd
AMENDING_CODEC = 2  # msgpack of `_AmendingColumns`, zstd: one of the records is an amendment, which older code must not overlook
_ZSTD = pa.Codec("zstd", compression_level=1)


class _Columns(msgspec.Struct, array_like=True):
    """Integer columns are little-endian arrays; `kinds` are the distinct (event_type, schema_version, pins)."""

    admitted_at: bytes
    ts: bytes
    emitted_at: list[int | None] | None
    event_ids: list[str]
    kinds: list[tuple[str, str, bytes]]
    kind_index: bytes
    payload_hashes: list[bytes]
    payloads: list[bytes]


class _AmendingColumns(_Columns, array_like=True):
    """`amends`: the RFC 8785 bytes of what the amendments amend."""

    amends: list[bytes | None]


_ENCODER = msgspec.msgpack.Encoder()
_DECODERS: dict[int, msgspec.msgpack.Decoder[_Columns]] = {
    CODEC: msgspec.msgpack.Decoder(_Columns),
    AMENDING_CODEC: msgspec.msgpack.Decoder(_AmendingColumns),
}


@dataclass(frozen=True, slots=True)
class Block:
    """A block as it is stored; times in microseconds. `is_declared`: who appended it gave them, not the broker's clock."""

    record_count: int
    first_admitted: int
    last_admitted: int
    codec: int
    raw_bytes: int
    data: bytes
    is_declared: bool = True


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """A block as it is read, with the offset of its first record.

    `admitted_floor`: what the broker had given before, where its clock may have run backwards: no record was admitted earlier.
    """

    first_offset: int
    admitted_floor: int | None
    codec: int
    raw_bytes: int
    data: bytes


def split(payloads: Sequence[bytes]) -> list[tuple[int, int]]:
    """The half-open ranges of the blocks that the records with those payloads fill."""
    bounds, size = [0], 0
    for index, payload in enumerate(payloads):
        if index - bounds[-1] == MAX_RECORDS or (size + len(payload) > MAX_BYTES and index > bounds[-1]):
            bounds.append(index)
            size = 0
        size += len(payload)
    return list(pairwise([*bounds, len(payloads)]))


def encode(records: AdmittedColumns, admitted_at: Sequence[int], is_declared: bool = True) -> Block:
    """One block of at least one record; `admitted_at` in microseconds, given by whoever appends or by the broker's clock."""
    kinds: dict[Kind, int] = {}
    index = [kinds.setdefault(kind, len(kinds)) for kind in records.kinds]
    parts = (
        np.array(admitted_at, "<i8").tobytes(),
        np.array(records.ts, "<i8").tobytes(),
        None if records.emitted_at.count(None) == len(records) else records.emitted_at,
        records.event_ids,
        list(kinds),
        np.array(index, "<i4").tobytes(),
        records.payload_hashes,
        records.payloads,
    )
    has_amendments = records.amends.count(None) < len(records)
    raw = _ENCODER.encode(_AmendingColumns(*parts, records.amends) if has_amendments else _Columns(*parts))
    data = _ZSTD.compress(raw, asbytes=True)
    codec = AMENDING_CODEC if has_amendments else CODEC
    return Block(len(records), min(admitted_at), max(admitted_at), codec, len(raw), data, is_declared)


def decode(blocks: Sequence[StoredBlock], start: int, stop: int, after: PartitionBasis) -> RecordBatch:
    """The records [start, stop) out of adjoining blocks (one at least) that hold them all; `after` is the basis behind.

    Raises:
        ValueError: a block of a codec that this code does not know.
    """
    pins: dict[bytes, int] = {}
    admitted_at, ts, pins_index = [], [], []
    event_ids: list[str] = []
    event_types: list[str] = []
    schema_versions: list[str] = []
    emitted_at: list[int | None] = []
    payload_hashes: list[bytes] = []
    payloads: list[bytes] = []
    amends: list[bytes | None] = []
    for block in blocks:
        decoder = _DECODERS.get(block.codec)
        if decoder is None:
            known = " and ".join(map(str, _DECODERS))
            raise ValueError(f"block {block.first_offset} has codec {block.codec}; this code reads codecs {known} only")
        columns = decoder.decode(_ZSTD.decompress(block.data, decompressed_size=block.raw_bytes, asbytes=True))
        count = len(columns.event_ids)
        low, high = max(start - block.first_offset, 0), min(stop - block.first_offset, count)
        kind_index = np.frombuffer(columns.kind_index, "<i4")[low:high]
        place = np.array([pins.setdefault(kind[2], len(pins)) for kind in columns.kinds], np.int32)
        types = [kind[0] for kind in columns.kinds]
        versions = [kind[1] for kind in columns.kinds]
        kinds = kind_index.tolist()
        event_types += [types[kind] for kind in kinds]
        schema_versions += [versions[kind] for kind in kinds]
        pins_index.append(place[kind_index])
        times = np.frombuffer(columns.admitted_at, "<i8")[low:high]
        admitted_at.append(times if block.admitted_floor is None else np.maximum(times, block.admitted_floor))
        ts.append(np.frombuffer(columns.ts, "<i8")[low:high])
        event_ids += columns.event_ids[low:high]
        emitted_at += [None] * (high - low) if columns.emitted_at is None else columns.emitted_at[low:high]
        payload_hashes += columns.payload_hashes[low:high]
        payloads += columns.payloads[low:high]
        amends += columns.amends[low:high] if isinstance(columns, _AmendingColumns) else [None] * (high - low)
    return RecordBatch(
        after.partition_id,
        list(range(start, stop)),
        np.concatenate(admitted_at),
        event_ids,
        event_types,
        schema_versions,
        np.concatenate(ts),
        emitted_at,
        [pins_of(wire) for wire in pins],
        np.concatenate(pins_index),
        payload_hashes,
        payloads,
        amends,
        after,
    )


@lru_cache(maxsize=1024)
def pins_of(wire: bytes) -> ContextPins:
    """The pins of their canonical bytes."""
    return ContextPins(**orjson.loads(wire))
