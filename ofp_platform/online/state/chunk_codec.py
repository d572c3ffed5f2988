"""A chunk's events as bytes: columns by frame of reference, exact for every int64.

All in little-endian words of 8 bytes, every part padded to a whole word:

    word 0      format version (8 bits), columns (8), zero (16), events (32)
    word 1      checksum of all the other words
    then        one byte per column: width of its values (0, 1, 2, 4, 8), plus 128 when a divisor follows its base; or 64
    per column  base (the least value), [divisor], values: (x - base) / divisor in `width` bytes each
    of a 64     how many of its values are not 0, then place and value of each, ascending: what hardly any event has

Differences are unsigned, so that the two ends of int64 may stand in one column. A change of a single word always
changes the checksum.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types

from ofp_platform.kernel.native import IN1, IN2, INTEGER, NOTHING, OUT1, OUT2, Int64Array, native

Bytes = npt.NDArray[np.uint8]
Words = npt.NDArray[np.uint64]

FORMAT_VERSION = 1
_DIVIDED = 128
_SPARSE = 64
_SPARSE_FROM = 2  # bytes of a value: a narrower column is small as it is
_PRIME = np.uint64(0x9E3779B97F4A7C15)
_FOLD = np.uint64(32)
_ONE = np.uint64(1)
_ZERO = np.uint64(0)
_WIDTHS = types.Array(types.uint8, 2, "C")
_WIDTHS_IN = types.Array(types.uint8, 2, "C", readonly=True)
_WIDE = types.Array(types.uint64, 2, "C")
_WIDE_IN = types.Array(types.uint64, 2, "C", readonly=True)
_VIEWS = tuple(types.Array(kind, 1, "C") for kind in (types.uint8, types.uint16, types.uint32, types.uint64))
_VIEWS_IN = tuple(types.Array(kind, 1, "C", readonly=True) for kind in (types.uint8, types.uint16, types.uint32, types.uint64))


class ChunkCorrupt(Exception):
    """Bytes that this codec did not write, or that changed since."""


@native()
def _words(size: Any) -> Any:
    return (size + 7) >> 3


@native()
def _nonzero(matrix: Int64Array, column: int, begin: int, end: int, limit: int) -> int:
    """How many values of the column are not 0; once they are more than the limit, no more are counted."""
    count = 0
    for event in range(begin, end):
        if matrix[column, event] != 0:
            count += 1
            if count > limit:
                break
    return count


@native()
def words_checksum(words: Words, start: int, end: int) -> Any:
    """Over words [start, end) but the second. Each step is a bijection of the state and of the word."""
    state = _PRIME
    for index in range(start, end):
        if index != start + 1:
            state = (state ^ words[index]) * _PRIME
            state ^= state >> _FOLD
    return state


@native(INTEGER(IN2, IN1, OUT2, _WIDE, _WIDTHS, OUT1))
def _measure(
    matrix: Int64Array, offsets: Int64Array, bases: Int64Array, divisors: Words, widths: Bytes, sizes: Int64Array
) -> int:
    """Base, divisor and width of every column of every chunk, and the sizes of the chunks in words."""
    columns = matrix.shape[0]
    total = 0
    for chunk in range(offsets.shape[0] - 1):
        begin = offsets[chunk]
        end = offsets[chunk + 1]
        size = 2 + _words(columns)
        for column in range(columns):
            base = matrix[column, begin] if end > begin else 0
            greatest = base
            for event in range(begin, end):
                base = min(base, matrix[column, event])
                greatest = max(greatest, matrix[column, event])
            span = np.uint64(greatest) - np.uint64(base)
            divisor = _ONE
            if span > np.uint64(0xFF):  # else one byte will do as it is
                divisor = span
                for event in range(begin, end):
                    rest = (np.uint64(matrix[column, event]) - np.uint64(base)) % divisor
                    while rest != _ZERO:
                        divisor, rest = rest, divisor % rest
                    if divisor == _ONE:
                        break
                span //= divisor
            if span == _ZERO:
                width = 0
            elif span <= np.uint64(0xFF):
                width = 1
            elif span <= np.uint64(0xFFFF):
                width = 2
            elif span <= np.uint64(0xFFFFFFFF):
                width = 4
            else:
                width = 8
            column_size = (1 if divisor != _ONE else 0) + _words((end - begin) * width)
            if width >= _SPARSE_FROM and base <= 0 <= greatest:
                limit = (column_size - 1) >> 1
                nonzero = _nonzero(matrix, column, begin, end, limit)
                if nonzero <= limit:
                    base, divisor, width, column_size = nonzero, _ONE, _SPARSE, 2 * nonzero
            bases[chunk, column] = base
            divisors[chunk, column] = divisor
            widths[chunk, column] = width
            size += 1 + column_size
        sizes[chunk] = size
        total += size
    return total


@native(NOTHING(IN2, IN1, IN2, _WIDE_IN, _WIDTHS_IN, IN1, *_VIEWS))
def _write(
    matrix: Int64Array,
    offsets: Int64Array,
    bases: Int64Array,
    divisors: Words,
    widths: Bytes,
    starts: Int64Array,
    bytes_: Bytes,
    halves: npt.NDArray[np.uint16],
    quarters: npt.NDArray[np.uint32],
    words: Words,
) -> None:
    columns = matrix.shape[0]
    for chunk in range(offsets.shape[0] - 1):
        begin = offsets[chunk]
        count = offsets[chunk + 1] - begin
        start = starts[chunk]
        words[start] = np.uint64(FORMAT_VERSION) | (np.uint64(columns) << np.uint64(8)) | (np.uint64(count) << _FOLD)
        at = start + 2
        for column in range(columns):
            divided_flag = np.uint8(_DIVIDED) if divisors[chunk, column] != _ONE else np.uint8(0)
            bytes_[8 * at + column] = widths[chunk, column] | divided_flag
        at += _words(columns)
        for column in range(columns):
            base = np.uint64(bases[chunk, column])
            divisor = divisors[chunk, column]
            width = np.int64(widths[chunk, column])
            words[at] = base
            at += 1
            if width == _SPARSE:
                for event in range(count):
                    if matrix[column, begin + event] != 0:
                        words[at] = np.uint64(event)
                        words[at + 1] = np.uint64(matrix[column, begin + event])
                        at += 2
                continue
            if divisor != _ONE:
                words[at] = divisor
                at += 1
            for event in range(count):
                value = np.uint64(matrix[column, begin + event]) - base
                if divisor != _ONE:
                    value //= divisor
                if width == 1:
                    bytes_[8 * at + event] = np.uint8(value)
                elif width == 2:
                    halves[4 * at + event] = np.uint16(value)
                elif width == 4:
                    quarters[2 * at + event] = np.uint32(value)
                elif width == 8:
                    words[at + event] = value
            at += _words(count * width)
        words[start + 1] = words_checksum(words, start, at)


@native(INTEGER(IN1, INTEGER, _VIEWS_IN[0], _VIEWS_IN[3], OUT1))
def _check(starts: Int64Array, columns: int, bytes_: Bytes, words: Words, counts: Int64Array) -> int:
    """Read the event counts; the first chunk that is corrupt, or -1. After it, the chunks can be read without care."""
    for chunk in range(starts.shape[0] - 1):
        start = starts[chunk]
        end = starts[chunk + 1]
        if start == end:
            continue
        at = start + 2 + _words(columns)
        if start < 0 or end > words.shape[0] or at > end:
            return chunk
        head = words[start]
        if head & np.uint64(0xFFFFFFFF) != np.uint64(FORMAT_VERSION) | (np.uint64(columns) << np.uint64(8)):
            return chunk
        if words[start + 1] != words_checksum(words, start, end):
            return chunk
        count = np.int64(head >> _FOLD)
        for column in range(columns):
            descriptor = np.int64(bytes_[8 * (start + 2) + column])
            width = descriptor & 127
            if descriptor == _SPARSE:
                if at >= end or words[at] > np.uint64(count):
                    return chunk
                nonzero = np.int64(words[at])
                at += 1
                if at + 2 * nonzero > end:
                    return chunk
                for _ in range(nonzero):
                    if words[at] >= np.uint64(count):
                        return chunk
                    at += 2
                continue
            if width != 0 and width != 1 and width != 2 and width != 4 and width != 8:
                return chunk
            at += 1 + (descriptor >> 7) + _words(count * width)
        if at != end:
            return chunk
        counts[chunk] = count
    return -1


@native(NOTHING(IN1, *_VIEWS_IN, IN1, OUT2))
def _read(
    starts: Int64Array,
    bytes_: Bytes,
    halves: npt.NDArray[np.uint16],
    quarters: npt.NDArray[np.uint32],
    words: Words,
    offsets: Int64Array,
    matrix: Int64Array,
) -> None:
    columns = matrix.shape[0]
    for chunk in range(starts.shape[0] - 1):
        begin = offsets[chunk]
        count = offsets[chunk + 1] - begin
        if count == 0:
            continue
        descriptors = 8 * (starts[chunk] + 2)
        at = starts[chunk] + 2 + _words(columns)
        for column in range(columns):
            descriptor = np.int64(bytes_[descriptors + column])
            width = descriptor & 127
            base = words[at]
            at += 1
            if width == _SPARSE:
                for event in range(count):
                    matrix[column, begin + event] = 0
                for _ in range(np.int64(base)):
                    matrix[column, begin + np.int64(words[at])] = np.int64(words[at + 1])
                    at += 2
                continue
            divisor = _ONE
            if descriptor & _DIVIDED:
                divisor = words[at]
                at += 1
            if width == 0:
                for event in range(count):
                    matrix[column, begin + event] = np.int64(base)
            elif width == 1:
                for event in range(count):
                    matrix[column, begin + event] = np.int64(base + divisor * np.uint64(bytes_[8 * at + event]))
            elif width == 2:
                for event in range(count):
                    matrix[column, begin + event] = np.int64(base + divisor * np.uint64(halves[4 * at + event]))
            elif width == 4:
                for event in range(count):
                    matrix[column, begin + event] = np.int64(base + divisor * np.uint64(quarters[2 * at + event]))
            else:
                for event in range(count):
                    matrix[column, begin + event] = np.int64(base + divisor * words[at + event])
            at += _words(count * width)


def _views(data: Bytes) -> tuple[Bytes, npt.NDArray[np.uint16], npt.NDArray[np.uint32], Words]:
    return data, data.view(np.dtype("<u2")), data.view(np.dtype("<u4")), data.view(np.dtype("<u8"))


def pack_many(matrix: Int64Array, offsets: Int64Array) -> list[bytes]:
    """The blocks of K chunks: events [offsets[k], offsets[k+1]) of int64[C, N], C at most 255.

    Raises:
        ValueError: more columns than the format can say.
    """
    data, edges = pack_together(matrix, offsets)
    whole = data.data
    return [bytes(whole[start:end]) for start, end in pairwise(edges.tolist())]


def pack_together(matrix: Int64Array, offsets: Int64Array) -> tuple[Bytes, Int64Array]:
    """The blocks of `pack_many` one after the other, uint8[], and int64[K+1] where each begins.

    Raises:
        ValueError: more columns than the format can say.
    """
    columns, chunks = matrix.shape[0], len(offsets) - 1
    if columns > 255:
        raise ValueError(f"{columns} columns; the format holds 255")
    bases = np.empty((chunks, columns), np.int64)
    divisors = np.empty((chunks, columns), np.uint64)
    widths = np.empty((chunks, columns), np.uint8)
    starts = np.zeros(chunks + 1, np.int64)
    total = _measure(matrix, offsets, bases, divisors, widths, starts[1:])
    np.cumsum(starts, out=starts)
    data = np.zeros(8 * total, np.uint8)
    _write(matrix, offsets, bases, divisors, widths, starts, *_views(data))
    return data, 8 * starts


def unpack_many(blocks: Sequence[bytes | None], columns: int) -> tuple[Int64Array, Int64Array]:
    """The inverse: the events of K blocks in one int64[C, N], and int64[K+1] where each begins. None has no events.

    Raises:
        ChunkCorrupt: not the bytes of chunks with that many columns.
    """
    sizes = np.array([0 if block is None else len(block) or -1 for block in blocks], np.int64)
    if np.any(sizes % 8):
        raise ChunkCorrupt("a chunk is a whole number of 8-byte words, and not none")
    starts = np.zeros(len(blocks) + 1, np.int64)
    np.cumsum(sizes >> 3, out=starts[1:])
    return _unpack(b"".join([block for block in blocks if block is not None]), starts, columns)


def _unpack(data: bytes, starts: Int64Array, columns: int) -> tuple[Int64Array, Int64Array]:
    offsets = np.zeros(len(starts), np.int64)
    views = _views(np.frombuffer(data, np.uint8))
    corrupt = _check(starts, columns, views[0], views[3], offsets[1:])
    if corrupt >= 0:
        size = 8 * int(starts[corrupt + 1] - starts[corrupt])
        raise ChunkCorrupt(f"chunk {corrupt} of {len(starts) - 1} ({size} bytes) is not as it was written")
    np.cumsum(offsets, out=offsets)
    matrix = np.empty((columns, int(offsets[-1])), np.int64)
    _read(starts, *views, offsets, matrix)
    return matrix, offsets


def pack(matrix: Int64Array) -> bytes:
    """The block of one chunk: a whole int64[C, n]."""
    return pack_many(matrix, np.array([0, matrix.shape[1]], np.int64))[0]


def unpack(block: bytes) -> Int64Array:
    """int64[C, n] of one block, as many columns as it says.

    Raises:
        ChunkCorrupt: not the bytes of a chunk.
    """
    if len(block) < 16 or len(block) % 8:
        raise ChunkCorrupt("a chunk is a whole number of 8-byte words, and not none")
    return _unpack(block, np.array([0, len(block) >> 3], np.int64), block[1])[0]
