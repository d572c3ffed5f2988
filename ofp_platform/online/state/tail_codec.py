"""A key's newest events as bytes, each a record of its own, so that one more is written without looking at the others.

A record is

    byte 0      format version
    byte 1      columns
    then        each column as a variable-length integer (zigzag, 7 bits a byte, the least first)
    last 4      checksum of the record's bytes before it

The newest record stands first: what is added goes in front, and the bytes behind it stay as they were.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from numba import types

from ofp_platform.kernel.native import IN1, IN2, INTEGER, NOTHING, OUT1, OUT2, Int64Array, native
from ofp_platform.online.state.chunk_codec import ChunkCorrupt

Bytes = npt.NDArray[np.uint8]

FORMAT_VERSION = 1
MOST_COLUMN_BYTES = 10
_FRAME_BYTES = 6
_PRIME = np.uint32(0x01000193)
_SEED = np.uint32(0x811C9DC5)
_BYTES_IN = types.Array(types.uint8, 1, "C", readonly=True)
_BYTES_OUT = types.Array(types.uint8, 1, "C")
_SEVEN = np.uint64(7)
_ONE = np.uint64(1)
_LOW = np.uint64(0x7F)
_MORE = np.uint64(0x80)
_ZERO = np.uint64(0)


@native()
def _checksum(data: Bytes, start: int, end: int) -> Any:
    """FNV-1a: each step is a bijection of the state and of the byte, so a change of one byte always shows."""
    state = _SEED
    for index in range(start, end):
        state = np.uint32((state ^ np.uint32(data[index])) * _PRIME)
    return state


@native(INTEGER(IN2, _BYTES_OUT, OUT1))
def _write(matrix: Int64Array, data: Bytes, offsets: Int64Array) -> int:
    """Records of the events int64[C, N] in their order; int64[N+1] where each begins. How many bytes."""
    at = 0
    columns = matrix.shape[0]
    for event in range(matrix.shape[1]):
        start = at
        data[at] = np.uint8(FORMAT_VERSION)
        data[at + 1] = np.uint8(columns)
        at += 2
        for column in range(columns):
            value = matrix[column, event]
            rest = (np.uint64(value) << _ONE) ^ np.uint64(value >> 63)
            while rest >= _MORE:
                data[at] = np.uint8((rest & _LOW) | _MORE)
                rest >>= _SEVEN
                at += 1
            data[at] = np.uint8(rest)
            at += 1
        check = _checksum(data, start, at)
        for byte in range(4):
            data[at + byte] = np.uint8((check >> np.uint32(8 * byte)) & np.uint32(0xFF))
        at += 4
        offsets[event + 1] = at
    return at


@native(INTEGER(_BYTES_IN, INTEGER, IN1, OUT2, OUT1))
def _read(data: Bytes, columns: int, starts: Int64Array, matrix: Int64Array, offsets: Int64Array) -> int:
    """The events of each tail, in the order of their arrival. -1, or the first tail that is corrupt."""
    out = 0
    for tail in range(starts.shape[0] - 1):
        at = starts[tail]
        tail_end = starts[tail + 1]
        begin = out
        while at < tail_end:
            start = at
            if at + 2 > tail_end or data[at] != FORMAT_VERSION or data[at + 1] != columns:
                return tail
            at += 2
            for column in range(columns):
                rest = _ZERO
                shift = _ZERO
                more: Any = True
                while more:
                    if at >= tail_end or shift > np.uint64(63):
                        return tail
                    byte = np.uint64(data[at])
                    rest |= (byte & _LOW) << shift
                    shift += _SEVEN
                    more = byte >= _MORE
                    at += 1
                matrix[column, out] = np.int64(rest >> _ONE) ^ -np.int64(rest & _ONE)
            if at + 4 > tail_end:
                return tail
            check = _checksum(data, start, at)
            for byte_number in range(4):
                if data[at + byte_number] != np.uint8((check >> np.uint32(8 * byte_number)) & np.uint32(0xFF)):
                    return tail
            at += 4
            out += 1
        for column in range(columns):
            left = begin
            right = out - 1
            while left < right:
                swapped = matrix[column, left]
                matrix[column, left] = matrix[column, right]
                matrix[column, right] = swapped
                left += 1
                right -= 1
        offsets[tail + 1] = out
    return -1


@native()
def _is_before(matrix: Int64Array, first: int, second: int, ties: bool) -> Any:
    if matrix[0, first] != matrix[0, second]:
        return matrix[0, first] < matrix[0, second]
    if not ties:
        return False
    if matrix[2, first] != matrix[2, second]:
        return np.uint64(matrix[2, first]) < np.uint64(matrix[2, second])
    return np.uint64(matrix[3, first]) < np.uint64(matrix[3, second])


@native(NOTHING(OUT2, types.boolean))
def _sort(matrix: Int64Array, ties: bool) -> None:
    """Sort by insertion, which moves little where events come nearly in order."""
    for event in range(1, matrix.shape[1]):
        place = event
        while place > 0 and _is_before(matrix, place, place - 1, ties):
            for column in range(matrix.shape[0]):
                moved = matrix[column, place]
                matrix[column, place] = matrix[column, place - 1]
                matrix[column, place - 1] = moved
            place -= 1


def write_records(matrix: Int64Array) -> tuple[bytes, Int64Array]:
    """The records of int64[C, N], one after the other in that order, and int64[N+1] where each begins."""
    columns, events = matrix.shape
    data = np.empty(events * (_FRAME_BYTES + MOST_COLUMN_BYTES * columns), np.uint8)
    offsets = np.zeros(events + 1, np.int64)
    size = _write(matrix, data, offsets)
    return data[:size].tobytes(), offsets


def read_records(tails: list[bytes], columns: int) -> tuple[Int64Array, Int64Array]:
    """The events of K tails in one int64[C, N], each tail's in the order of their arrival, and int64[K+1] where each begins.

    Raises:
        ChunkCorrupt: not the bytes of tails with that many columns.
    """
    starts = np.zeros(len(tails) + 1, np.int64)
    np.cumsum([len(tail) for tail in tails], out=starts[1:])
    data = np.frombuffer(b"".join(tails), np.uint8)
    # a record takes at least one byte a column
    matrix = np.empty((columns, len(data) // (_FRAME_BYTES + columns) + 1), np.int64)
    offsets = np.zeros(len(tails) + 1, np.int64)
    corrupt = _read(data, columns, starts, matrix, offsets)
    if corrupt >= 0:
        raise ChunkCorrupt(f"tail {corrupt} of {len(tails)} ({len(tails[corrupt])} bytes) is not as it was written")
    return np.ascontiguousarray(matrix[:, : int(offsets[-1])]), offsets


def read_tail(block: bytes, columns: int, *, ties: bool) -> Int64Array:
    """The events of one tail in the order of their times, then of their ties (rows 2 and 3), or as they came: int64[C, n].

    Raises:
        ChunkCorrupt: not the bytes of a tail with that many columns, or of one without events.
    """
    if not block:
        raise ChunkCorrupt("a tail without events was read")
    matrix, _ = read_records([block], columns)
    _sort(matrix, ties)
    return matrix
