"""The columns of an archive segment and the digest of their content.

Columns: offset, admitted_at, ts, emitted_at (null: not emitted), event_id, event_type, schema_version, pins (RFC 8785
text), payload (RFC 8785 text), payload_hash. What the amendments among the records amend is no column: few records are any.

The content digest does not depend on Parquet, row groups, compression or the writer. It is the SHA-256 over the RFC 8785
bytes of {stream_name, partition_id, first, next, unreadable, columns} and, if there are any, `amendments`. `unreadable` is
[position, reason] each, `amendments` [position, the RFC 8785 text of what it amends] each, and `columns` has for every column
the SHA-256 of its values one after the other: integers and times (microseconds; null is -2^63) as 8 bytes little-endian, a
payload hash as its 32 bytes, a text as its UTF-8 bytes; texts have another entry `<column>.lengths`, 4 bytes little-endian
each.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from ofp_platform.log.port import UnreadableRecord
from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.columns import NOT_EMITTED
from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan
from ofp_platform.vocabulary.position import OffsetKind

TIME = pa.timestamp("us", tz="UTC")
LABEL = pa.dictionary(pa.int32(), pa.string())
HASH = pa.binary(32)
_HASH_BYTES = 32


@dataclass(frozen=True)
class SegmentFacts:
    """A receipt's statement about the content of a segment; times in microseconds, None without a readable record."""

    records: int
    unreadable: int
    admitted_min: int | None
    admitted_max: int | None
    event_time_max: int | None
    content_digest: str


def segment_schema(kind: OffsetKind) -> pa.Schema:
    """The columns of a segment."""
    return pa.schema(
        [
            pa.field("offset", pa.int64() if kind.is_integer else pa.string(), nullable=False),
            pa.field("admitted_at", TIME, nullable=False),
            pa.field("ts", TIME, nullable=False),
            pa.field("emitted_at", TIME),
            pa.field("event_id", pa.string(), nullable=False),
            pa.field("event_type", LABEL, nullable=False),
            pa.field("schema_version", LABEL, nullable=False),
            pa.field("pins", LABEL, nullable=False),
            pa.field("payload", pa.string(), nullable=False),
            pa.field("payload_hash", HASH, nullable=False),
        ]
    )


class SegmentContent:
    """The content digest and the counts, row group by row group."""

    def __init__(self, stream_name: str, span: PartitionSpan) -> None:
        self.unreadable: list[tuple[int | str, str, str]] = []
        self.amendments: list[tuple[int | str, str]] = []
        self._span = span
        self._stream_name = stream_name
        self._records = 0
        self._admitted: list[int] = []  # least and greatest so far
        self._event_time_max: int | None = None
        self._hashes: dict[str, Any] = {}
        for field in segment_schema(span.offset_kind):
            self._hashes[field.name] = hashlib.sha256()
            if field.type in (pa.string(), LABEL):
                self._hashes[f"{field.name}.lengths"] = hashlib.sha256()

    def add(self, rows: pa.Table, unreadable: Iterable[UnreadableRecord]) -> None:
        """The next records, in the columns of `segment_schema`."""
        self.note(unreadable)
        if not len(rows):
            return
        self._records += len(rows)
        for name in rows.column_names:
            values = single(rows.column(name))
            if values.type == LABEL:
                values = values.dictionary_decode()
            if values.type == pa.string():
                lengths, data = _text_buffers(values)
                self._hashes[f"{name}.lengths"].update(lengths)
                self._hashes[name].update(data)
            elif values.type == HASH:
                data = values.buffers()[1]
                self._hashes[name].update(
                    memoryview(data)[values.offset * _HASH_BYTES : (values.offset + len(values)) * _HASH_BYTES]
                )
            else:
                integers = values.cast(pa.int64()).fill_null(NOT_EMITTED).to_numpy()
                self._hashes[name].update(integers.astype("<i8", copy=False).data)
                if name == "admitted_at":
                    self._admitted = [min([*self._admitted, int(integers.min())]), max([*self._admitted, int(integers.max())])]
                if name == "ts":
                    greatest = int(integers.max())
                    self._event_time_max = greatest if self._event_time_max is None else max(self._event_time_max, greatest)

    def note(self, unreadable: Iterable[UnreadableRecord]) -> None:
        """The next positions that hold no envelope."""
        self.unreadable += [(record.offset, record.reason.value, record.message) for record in unreadable]

    def amend(self, amendments: Iterable[tuple[int | str, bytes]]) -> None:
        """The next records that are amendments: position and what it amends, RFC 8785 bytes."""
        self.amendments += [(offset, text.decode()) for offset, text in amendments]

    def facts(self) -> SegmentFacts:
        """Counts and digest of all that was added."""
        amendments = {"amendments": [list(one) for one in self.amendments]} if self.amendments else {}
        digest = digest_of(
            {
                **amendments,
                "stream_name": self._stream_name,
                "partition_id": self._span.partition_id,
                "first": self._span.start,
                "next": self._span.next,
                "unreadable": [[offset, reason] for offset, reason, _ in self.unreadable],
                "columns": {name: hasher.hexdigest() for name, hasher in self._hashes.items()},
            }
        )
        least, greatest = self._admitted or (None, None)
        return SegmentFacts(self._records, len(self.unreadable), least, greatest, self._event_time_max, digest)


def single(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """The column as one array."""
    return column.combine_chunks() if isinstance(column, pa.ChunkedArray) else column


def _text_buffers(values: pa.Array) -> tuple[bytes, memoryview]:
    """The lengths (4 bytes little-endian each) and the bytes of the texts, one after the other."""
    _, ends, data = values.buffers()
    bounds = np.frombuffer(ends, np.int32)[values.offset : values.offset + len(values) + 1]
    content = memoryview(data if data is not None else b"")
    return np.diff(bounds).astype("<i4").tobytes(), content[bounds[0] : bounds[-1]]
