"""Distinct counts where most segments are known by the different values in them, not by their events.

The values of one token field of one key get names, 0, 1, 2, ... in the order in which they are first seen. A segment that lies
whole inside a window is then its list of names, each once; only a segment that straddles an edge needs its events. The count is
exact: a name stands for one 128-bit token, and each is counted once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from numba import types

from ofp_platform.kernel.accumulate import PREDICATE, ROW, events_until, subtract_saturating
from ofp_platform.kernel.native import IN1, IN2, INTEGER, OUT1, OUT2, Int64Array, native
from ofp_platform.kernel.query import DELAY, RESULT, WINDOW
from ofp_platform.kernel.tokens import find, table_size
from ofp_platform.kernel.window_loops import NOTHING_MISSING
from ofp_platform.registry.layout import MASK_ROW

Names = npt.NDArray[np.int32]
UNKNOWN = -1
"""Instead of where a segment's names begin: they are not known."""
_TABLE = types.Array(types.uint32, 1, "C")
_NAMES = types.Array(types.int32, 1, "C")
_NAMES_IN = types.Array(types.int32, 1, "C", readonly=True)


@native(INTEGER(_TABLE, OUT2, INTEGER, IN2, INTEGER, OUT1))
def _name(table: npt.NDArray[np.uint32], tokens: Int64Array, count: int, matrix: Int64Array, row: int, names: Int64Array) -> int:
    for event in range(matrix.shape[1]):
        tokens[0, count] = matrix[row, event]
        tokens[1, count] = matrix[row + 1, event]
        place = find(table, tokens, 0, count)
        if table[place] == 0:
            count += 1
            table[place] = count
        names[event] = np.int64(table[place]) - 1
    return count


@native(INTEGER(IN2, IN1, IN1, INTEGER, INTEGER, _NAMES, OUT1))
def _different(
    matrix: Int64Array, offsets: Int64Array, names: Int64Array, size: int, predicate: int, out: Names, ends: Int64Array
) -> int:
    newest = np.full(size, -1, np.int64)
    count = 0
    for segment in range(offsets.shape[0] - 1):
        for event in range(offsets[segment], offsets[segment + 1]):
            if (matrix[MASK_ROW, event] >> predicate) & 1 and newest[names[event]] != segment:
                newest[names[event]] = segment
                out[count] = names[event]
                count += 1
        ends[segment] = count
    return count


@native(INTEGER(IN2, INTEGER, IN1, IN1, IN1, IN1, IN2, IN2, IN2, INTEGER, IN2, IN2, _NAMES_IN, OUT1))
def _count(
    distinct_windows: Int64Array,
    time: int,
    first_ts: Int64Array,
    last_ts: Int64Array,
    starts: Int64Array,
    ends: Int64Array,
    matrix: Int64Array,
    pairs: Int64Array,
    names: Int64Array,
    size: int,
    set_starts: Int64Array,
    set_ends: Int64Array,
    values: Names,
    out: Int64Array,
) -> int:
    # the walk is that of `window_loops`, which has the events of every segment
    is_counted = np.zeros(size, np.uint8)
    count = 0
    high = 0
    segment = -1
    inside = -1
    pair = 0
    for index in range(distinct_windows.shape[0]):
        predicate = distinct_windows[index, PREDICATE]
        row = distinct_windows[index, ROW]
        if (
            index == 0
            or distinct_windows[index - 1, PREDICATE] != predicate
            or distinct_windows[index - 1, ROW] != row
            or distinct_windows[index - 1, DELAY] != distinct_windows[index, DELAY]
        ):
            is_counted[:] = 0
            count = 0
            high = subtract_saturating(time, distinct_windows[index, DELAY])
            segment = int(np.searchsorted(first_ts, high, side="right")) - 1
            inside = -1
            pair = 0
            while pairs[pair, PREDICATE] != predicate or pairs[pair, ROW] != row:
                pair += 1
        low = subtract_saturating(high, distinct_windows[index, WINDOW])
        while segment >= 0 and last_ts[segment] > low:
            if inside < 0:
                if set_starts[pair, segment] >= 0 and last_ts[segment] <= high and first_ts[segment] > low:
                    for place in range(set_starts[pair, segment], set_ends[pair, segment]):
                        if is_counted[values[place]] == 0:
                            is_counted[values[place]] = 1
                            count += 1
                    segment -= 1
                    continue
                if starts[segment] < 0:
                    return segment
                inside = events_until(matrix, starts[segment], ends[segment], high)
            begin = events_until(matrix, starts[segment], inside, low)
            for event in range(begin, inside):
                if (matrix[MASK_ROW, event] >> predicate) & 1 and is_counted[names[pair, event]] == 0:
                    is_counted[names[pair, event]] = 1
                    count += 1
            inside = begin
            if begin > starts[segment]:
                break
            segment -= 1
            inside = -1
        out[distinct_windows[index, RESULT]] = count
    return NOTHING_MISSING


class ValueNames:
    """The names of the values of one token field of one key. They only become more."""

    def __init__(self) -> None:
        self.count = 0
        self._tokens = np.zeros((2, 1), np.int64)
        self._table = np.zeros(table_size(0), np.uint32)

    @property
    def nbytes(self) -> int:
        """Its size in memory."""
        return self._tokens.nbytes + self._table.nbytes

    def name(self, matrix: Int64Array, row: int) -> Int64Array:
        """int64[N]: the names of the tokens in rows `row` and `row + 1` of int64[C, N]."""
        names = np.empty(matrix.shape[1], np.int64)
        most = self.count + matrix.shape[1]
        if most >= self._tokens.shape[1]:
            tokens = np.zeros((2, most + most // 4 + 1), np.int64)
            tokens[:, : self.count] = self._tokens[:, : self.count]
            self._tokens = tokens
        if table_size(most) > len(self._table):
            former = np.ascontiguousarray(self._tokens[:, : self.count])
            self._table = np.zeros(table_size(2 * most), np.uint32)
            _name(self._table, self._tokens, 0, former, 0, np.empty(self.count, np.int64))
        self.count = int(_name(self._table, self._tokens, self.count, matrix, row, names))
        return names


def different_names(matrix: Int64Array, offsets: Int64Array, names: Int64Array, size: int, predicate: int) -> list[Names]:
    """Of each segment, events [offsets[k], offsets[k+1]) of int64[C, N], the names of those with the predicate, each once.

    `names` int64[N] of all events, each less than `size`.
    """
    out, ends = np.empty(matrix.shape[1], np.int32), np.zeros(len(offsets), np.int64)
    _different(matrix, offsets, names, size, predicate, out, ends[1:])
    return [out[begin:end].copy() for begin, end in pairwise(ends.tolist())]


@dataclass(frozen=True)
class SegmentNames:
    """The names of the values in the segments of one key.

    `pairs` int64[D, 2]: predicate and token row, those of each distinct count among them; `names` int64[D, N]: of all
    events that are there; `size`: more than any name; `starts`, `ends` int64[D, K]: the names of segment k are values[start:end],
    start UNKNOWN where they are not known.
    """

    pairs: Int64Array
    names: Int64Array
    size: int
    starts: Int64Array
    ends: Int64Array
    values: Names

    @property
    def nbytes(self) -> int:
        """Its size in memory."""
        return self.names.nbytes + self.starts.nbytes + self.ends.nbytes + self.values.nbytes


def segment_names(
    pairs: Int64Array, names: Int64Array, size: int, names_of_segments: Sequence[Sequence[Names] | None]
) -> SegmentNames:
    """`SegmentNames`; `names_of_segments`: of each segment its names, pair by pair, or None where they are not known."""
    starts = np.full((len(pairs), len(names_of_segments)), UNKNOWN, np.int64)
    ends = np.full(starts.shape, UNKNOWN, np.int64)
    parts: list[Names] = [np.empty(0, np.int32)]
    at = 0
    for segment, of_pairs in enumerate(names_of_segments):
        for pair, values in enumerate(of_pairs or ()):
            starts[pair, segment] = at
            at += len(values)
            ends[pair, segment] = at
            parts.append(values)
    return SegmentNames(pairs, names, size, starts, ends, np.concatenate(parts))


def count_names(
    distinct_windows: Int64Array,
    time: int,
    bounds: tuple[Int64Array, Int64Array, Int64Array, Int64Array],
    matrix: Int64Array,
    of_segments: SegmentNames,
    out: Int64Array,
) -> int:
    """Write the distinct counts of a query as of `time` into `out` int64[P]; the segment whose events are missing, or -1.

    `bounds`: `first_ts`, `last_ts`, `starts` and `ends` of the segments (see `windows.Segments`).
    """
    names = of_segments.pairs, of_segments.names, of_segments.size
    sets = of_segments.starts, of_segments.ends, of_segments.values
    return int(_count(distinct_windows, time, *bounds, matrix, *names, *sets, out))
