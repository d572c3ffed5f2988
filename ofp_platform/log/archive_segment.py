"""An archive segment: the records of one span of a partition as Parquet, and back.

The columns are those of ofp_platform/log/archive_content.py; in the file's metadata are the positions that held no envelope,
and what amendments amend.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from ofp_platform.log.archive_content import HASH, TIME, SegmentContent, SegmentFacts, segment_schema, single
from ofp_platform.log.port import RecordBatch, RefusalReason, UnreadableRecord, empty_batch
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan
from ofp_platform.vocabulary.position import OffsetKind, PartitionBasis, order, place

ROW_GROUP_RECORDS = 16_384
ROW_GROUP_BYTES = 64_000_000  # of payload: what reading a segment may hold at once, beside the segment's own bytes
_UNREADABLE = b"ofp.unreadable"
_AMENDMENTS = b"ofp.amendments"


class SegmentDamaged(Exception):
    """The object of a segment is not what its receipt says: truncated, changed, or of another span."""


class SegmentWriter:
    """Takes the batches of a span in order; holds one row group and the compressed bytes so far."""

    def __init__(self, stream_name: str, span: PartitionSpan) -> None:
        self._content = SegmentContent(stream_name, span)
        self._schema = segment_schema(span.offset_kind)
        self._sink = pa.BufferOutputStream()
        self._writer = pq.ParquetWriter(
            self._sink,
            self._schema,
            compression="zstd",
            compression_level=1,
            use_dictionary=["event_type", "schema_version", "pins"],
            write_statistics=["offset", "admitted_at", "ts"],
        )
        self._pending: list[pa.Table] = []
        self._pending_bytes = 0

    def add(self, batch: RecordBatch) -> None:
        """The next records."""
        table = _table(batch, self._schema)
        self._content.add(table, batch.unreadable)
        amends = zip(batch.offsets, batch.amends, strict=True)
        self._content.amend((offset, amended) for offset, amended in amends if amended is not None)
        if len(batch):
            self._pending.append(table)
            self._pending_bytes += sum(map(len, batch.payloads))
        if sum(map(len, self._pending)) >= ROW_GROUP_RECORDS or self._pending_bytes >= ROW_GROUP_BYTES:
            self._flush()

    def finish(self) -> tuple[bytes, SegmentFacts]:
        """The bytes of the segment, and what is in it."""
        self._flush()
        if self._content.unreadable:
            self._writer.add_key_value_metadata({_UNREADABLE: orjson.dumps(self._content.unreadable)})
        if self._content.amendments:
            self._writer.add_key_value_metadata({_AMENDMENTS: orjson.dumps(self._content.amendments)})
        self._writer.close()
        return self._sink.getvalue().to_pybytes(), self._content.facts()

    def _flush(self) -> None:
        if self._pending:
            rows = pa.concat_tables(self._pending).unify_dictionaries().combine_chunks()
            self._writer.write_table(rows, row_group_size=len(rows))
        self._pending, self._pending_bytes = [], 0


class SegmentFile:
    """The bytes of a segment, opened. `name` is what errors call it."""

    def __init__(self, data: bytes, name: str, kind: OffsetKind) -> None:
        """Raises SegmentDamaged: not a segment of that offset kind."""
        self._name = name
        try:
            self._file = pq.ParquetFile(pa.BufferReader(data))
            if not self._file.schema_arrow.equals(segment_schema(kind)):
                raise SegmentDamaged(f"{name} has other columns than an archive segment of offset kind {kind.value}")
            metadata = self._file.metadata.metadata or {}
            unreadable_entries = orjson.loads(metadata.get(_UNREADABLE, b"[]"))
            self.unreadable = [
                UnreadableRecord(offset, RefusalReason(reason), text) for offset, reason, text in unreadable_entries
            ]
            amended_entries = orjson.loads(metadata.get(_AMENDMENTS, b"[]"))
            self.amendments: dict[int | str, bytes] = {offset: text.encode() for offset, text in amended_entries}
        except (pa.ArrowException, OSError, ValueError, TypeError, AttributeError) as error:
            raise self._damaged(error) from error

    def batches(self, span: PartitionSpan, end: PartitionBasis, max_records: int) -> Iterator[RecordBatch]:
        """The records of `span`, which lies in the segment; the last batch is followed by the basis `end`.

        Raises:
            SegmentDamaged: the bytes cannot be read, or do not hold what a record batch holds.
        """
        after, last = place(span.first), place(span.end)
        waiting = [record for record in self.unreadable if after < order(record.offset) <= last]
        held_batch: RecordBatch | None = None  # the last batch carries `end` and what is unreadable up to it
        for group in range(self._file.num_row_groups):
            offsets = self._read(group, ["offset"]).column(0).to_pylist()
            low, high = bisect_right(offsets, after, key=order), bisect_right(offsets, last, key=order)
            if low == high:
                continue
            rows = self._read(group, None)
            for start in range(low, high, max_records):
                if held_batch is not None:
                    yield held_batch
                cut = rows.slice(start, min(max_records, high - start))
                upto = order(offsets[min(start + max_records, high) - 1])
                inside = tuple(record for record in waiting if order(record.offset) <= upto)
                waiting = waiting[len(inside) :]
                held_batch = self._batch(cut, span, inside)
        if held_batch is None:
            if waiting:
                yield empty_batch(end, tuple(waiting))
            return
        yield _followed_by(held_batch, end, tuple(waiting))

    def hashes(self, span: PartitionSpan) -> dict[int | str, bytes]:
        """The payload hash (32 bytes) of each position of `span`.

        Raises:
            SegmentDamaged: as `batches`.
        """
        hashes: dict[int | str, bytes] = {}
        after, last = place(span.first), place(span.end)
        for group in range(self._file.num_row_groups):
            rows = self._read(group, ["offset", "payload_hash"])
            offsets = rows.column("offset").to_pylist()
            low, high = bisect_right(offsets, after, key=order), bisect_right(offsets, last, key=order)
            values = _objects(rows.column("payload_hash"))
            hashes.update(zip(offsets[low:high], values[low:high], strict=True))
        return hashes

    def facts(self, stream_name: str, span: PartitionSpan) -> SegmentFacts:
        """Compute the content of the segment anew; `span` is the span that it should hold.

        Raises:
            SegmentDamaged: as `batches`, or its positions are not in order inside the span.
        """
        content = SegmentContent(stream_name, span)
        before = place(span.first)
        unreadable, amendments = {record.offset for record in self.unreadable}, dict(self.amendments)
        for group in range(self._file.num_row_groups):
            rows = self._read(group, None)
            content.add(rows, ())
            offsets = rows.column("offset").to_pylist()
            content.amend((offset, amendments.pop(offset)) for offset in offsets if offset in amendments)
            positions = [before, *map(order, offsets)]
            if any(position >= following for position, following in pairwise(positions)):
                raise SegmentDamaged(f"{self._name}: its positions are not in order")
            if unreadable.intersection(offsets):
                raise SegmentDamaged(f"{self._name}: a position is both a record and unreadable")
            before = positions[-1]
        if before > place(span.end):
            raise SegmentDamaged(f"{self._name}: it holds a position behind its end {span.next}")
        if amendments:
            raise SegmentDamaged(f"{self._name}: what it amends is said of a position that has no record")
        content.note(self.unreadable)
        return content.facts()

    def _read(self, group: int, columns: list[str] | None) -> pa.Table:
        try:
            return self._file.read_row_group(group, columns=columns, use_threads=False)
        except (pa.ArrowException, OSError) as error:
            raise self._damaged(error) from error

    def _batch(self, rows: pa.Table, span: PartitionSpan, unreadable: tuple[UnreadableRecord, ...]) -> RecordBatch:
        try:
            return _record_batch(rows, span, unreadable, self.amendments)
        except (pa.ArrowException, ValidationError, ValueError) as error:
            raise self._damaged(error) from error

    def _damaged(self, error: Exception) -> SegmentDamaged:
        first_line = str(error).partition("\n")[0]
        return SegmentDamaged(f"{self._name} cannot be read as an archive segment: {first_line}")


def _table(batch: RecordBatch, schema: pa.Schema) -> pa.Table:
    pins = pa.array([canonical_bytes(run_pins.wire()).decode() for run_pins in batch.pins], pa.string())
    return pa.Table.from_arrays(
        [
            pa.array(batch.offsets, schema.field("offset").type),
            pa.array(batch.admitted_at, pa.int64()).cast(TIME),
            pa.array(batch.ts, pa.int64()).cast(TIME),
            pa.array(batch.emitted_at, pa.int64()).cast(TIME),
            pa.array(batch.event_ids, pa.string()),
            pa.array(batch.event_types, pa.string()).dictionary_encode(),
            pa.array(batch.schema_versions, pa.string()).dictionary_encode(),
            pa.DictionaryArray.from_arrays(pa.array(batch.pins_index, pa.int32()), pins),
            pa.array(batch.payloads, pa.binary()).cast(pa.string()),
            pa.array(batch.payload_hashes, HASH),
        ],
        schema=schema,
    )


def _record_batch(
    rows: pa.Table,
    span: PartitionSpan,
    unreadable: tuple[UnreadableRecord, ...],
    amendments: Mapping[int | str, bytes],
) -> RecordBatch:
    offsets = rows.column("offset").to_pylist()
    pins = single(rows.column("pins"))
    emitted_at = single(rows.column("emitted_at")).cast(pa.int64())
    return RecordBatch(
        span.partition_id,
        offsets,
        _int64(rows.column("admitted_at")),
        _objects(rows.column("event_id")),
        _labels(rows.column("event_type")),
        _labels(rows.column("schema_version")),
        _int64(rows.column("ts")),
        [None] * len(rows) if emitted_at.null_count == len(rows) else emitted_at.to_pylist(),
        [_pins(text) for text in pins.dictionary.to_pylist()],
        np.array(pins.indices.to_numpy(), np.int32),
        _objects(rows.column("payload_hash")),
        _objects(single(rows.column("payload")).view(pa.binary())),
        list(map(amendments.get, offsets)) if amendments else [None] * len(rows),
        span.first.after(offsets[-1]),
        unreadable,
    )


def _followed_by(batch: RecordBatch, end: PartitionBasis, unreadable: tuple[UnreadableRecord, ...]) -> RecordBatch:
    columns = {name: getattr(batch, name) for name in RecordBatch.__dataclass_fields__}
    return RecordBatch(**{**columns, "next": end, "unreadable": batch.unreadable + unreadable})


def _int64(column: pa.ChunkedArray) -> np.ndarray[Any, np.dtype[np.int64]]:
    return np.array(single(column).cast(pa.int64()).to_numpy(), np.int64)  # a copy: Arrow's own memory is read-only


def _objects(column: pa.ChunkedArray | pa.Array) -> list[Any]:
    """str or bytes; several times faster than `to_pylist`."""
    values: list[Any] = single(column).to_numpy(zero_copy_only=False).tolist()
    return values


def _labels(column: pa.ChunkedArray) -> list[str]:
    values = single(column)
    labels: list[str] = values.dictionary.to_pylist()
    if len(labels) == 1:
        return labels * len(values)
    return [labels[index] for index in values.indices.to_pylist()]


@lru_cache(maxsize=1024)
def _pins(text: str) -> ContextPins:
    return ContextPins(**orjson.loads(text))
