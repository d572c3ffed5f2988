"""Many rows for COPY, and lists of texts and integers for statements, in PostgreSQL's binary form.

psycopg makes each value on its own, which takes about a microsecond. A commit that catches up writes tens of thousands of them,
so here a whole column is put down by one compiled loop.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg
import pyarrow as pa
from numba import types
from psycopg import Connection
from psycopg.adapt import Dumper
from psycopg.pq import Format

from ofp_platform.kernel.native import IN1, NOTHING, OUT1, Int64Array, native

Bytes = npt.NDArray[np.uint8]
_BYTES_IN = types.Array(types.uint8, 1, "C", readonly=True)
_BYTES_OUT = types.Array(types.uint8, 1, "C")

_FIELD_COUNT, _LENGTH = 2, 4
_COPY_HEADER = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_COPY_TRAILER = b"\xff\xff"
_TEXT, _TEXTS = 25, 1009
_BIGINT, _BIGINTS = 20, 1016


@native(NOTHING(_BYTES_IN, IN1, IN1, OUT1, _BYTES_OUT))
def _put(data: Bytes, starts: Int64Array, sizes: Int64Array, places: Int64Array, out: Bytes) -> None:
    """Put value i, with its length in front, at places[i], which moves behind it."""
    for value in range(places.shape[0]):
        at = places[value]
        size = sizes[value]
        for byte in range(_LENGTH):
            out[at + byte] = np.uint8((size >> (8 * (_LENGTH - 1 - byte))) & 0xFF)
        at += _LENGTH
        start = starts[value]
        for byte in range(size):
            out[at + byte] = data[start + byte]
        places[value] = at + size


@dataclass(frozen=True, eq=False)
class Column:
    """n values as the database takes them: value i is data[starts[i] : starts[i] + sizes[i]], int64[n] each."""

    data: Bytes
    starts: Int64Array
    sizes: Int64Array

    def __len__(self) -> int:
        return len(self.starts)

    @classmethod
    def of_texts(cls, texts: Sequence[str]) -> Column:
        """Texts, in UTF-8."""
        array = pa.array(texts, pa.large_string())
        _, offsets, data = array.buffers()
        edges = np.frombuffer(offsets, np.int64, len(texts) + 1) if len(texts) else np.zeros(1, np.int64)
        return cls(np.frombuffer(data or b"", np.uint8), edges[:-1], np.diff(edges))

    @classmethod
    def of_integers(cls, values: Int64Array, width: int = 8) -> Column:
        """Integers of 8 or fewer bytes."""
        data = np.ascontiguousarray(values).astype(f">i{width}").view(np.uint8)
        return cls(data, width * np.arange(len(values)), np.full(len(values), width, np.int64))

    @classmethod
    def of_pieces(cls, data: bytes | Bytes, edges: Int64Array) -> Column:
        """The pieces of bytes between edges, int64[n+1]."""
        return cls(np.frombuffer(data, np.uint8), edges[:-1], np.diff(edges))

    @classmethod
    def of_bytes(cls, values: Sequence[bytes]) -> Column:
        """Bytes."""
        edges = np.zeros(len(values) + 1, np.int64)
        np.cumsum(np.fromiter(map(len, values), np.int64, len(values)), out=edges[1:])
        return cls.of_pieces(b"".join(values), edges)

    @classmethod
    def of_rows(cls, values: Int64Array) -> Column:
        """The bytes of each values[i] of an int64[n, ...], as they are in memory (little-endian)."""
        size = 8 * int(np.prod(values.shape[1:]))
        data = np.ascontiguousarray(values).reshape(-1).view(np.uint8)
        return cls(data, size * np.arange(len(values)), np.full(len(values), size, np.int64))

    def take(self, indexes: Int64Array) -> Column:
        """The values at these places."""
        return Column(self.data, self.starts[indexes], self.sizes[indexes])


def copy_rows(connection: Connection[Any], table: str, columns: Mapping[str, Column]) -> None:
    """COPY rows, given as columns by their names, into a table. The values must be of the columns' very types."""
    parts = list(columns.values())
    if not len(parts[0]):
        return
    sizes = _FIELD_COUNT + sum(_LENGTH + part.sizes for part in parts)
    edges = np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])
    out = np.empty(int(edges[-1]), np.uint8)
    places = edges[:-1].copy()
    out[places], out[places + 1] = divmod(len(parts), 256)
    places += _FIELD_COUNT
    for part in parts:
        _put(part.data, part.starts, part.sizes, places, out)
    with connection.cursor() as cursor, cursor.copy(f"COPY {table} ({', '.join(columns)}) FROM STDIN (FORMAT BINARY)") as copy:
        copy.write(b"".join((_COPY_HEADER, out.data, _COPY_TRAILER)))


@dataclass(frozen=True, eq=False)
class BinaryArray:
    """A `text[]` or `bigint[]` argument of a statement; made once, it serves several."""

    content: bytes

    def __len__(self) -> int:
        return int.from_bytes(self.content[12:16], "big")


class TextArray(BinaryArray):
    """A `text[]`."""

    @classmethod
    def of(cls, texts: Column) -> TextArray:
        """That of a column of texts."""
        return cls(_array(texts, _TEXT))


class BigintArray(BinaryArray):
    """A `bigint[]`."""

    @classmethod
    def of(cls, values: Int64Array) -> BigintArray:
        """That of int64[n]."""
        return cls(_array(Column.of_integers(values), _BIGINT))


def _array(column: Column, element: int) -> bytes:
    out = np.empty(int(column.sizes.sum()) + _LENGTH * len(column), np.uint8)
    places = np.zeros(len(column), np.int64)
    np.cumsum(_LENGTH + column.sizes[:-1], out=places[1:])
    _put(column.data, column.starts, column.sizes, places, out)
    dimensions, has_nulls, first = 1, 0, 1
    header = np.array([dimensions, has_nulls, element, len(column), first], ">i4")
    return header.tobytes() + out.tobytes()


class _TextsDumper(Dumper):
    format = Format.BINARY
    oid = _TEXTS

    def dump(self, obj: BinaryArray) -> bytes:
        return obj.content


class _BigintsDumper(_TextsDumper):
    oid = _BIGINTS


psycopg.adapters.register_dumper(TextArray, _TextsDumper)
psycopg.adapters.register_dumper(BigintArray, _BigintsDumper)
