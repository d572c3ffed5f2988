"""Aggregations of the events of a window themselves, which no accumulator row replaces: quantiles, changes of a condition, lists.

A quantile or a change is one integer, or NO_VALUE for null; a list is the number of its items and as many places as it has items
at most, zeros behind the last one. Besides distinct counts (`window_loops`, `sliding`, `known_distinct`) these are all that a
query needs whole events for; their results stand behind its distinct counts.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ofp_platform.kernel.accumulate import EARLIEST, PREDICATE, ROW, events_until, subtract_saturating, window_after
from ofp_platform.kernel.known_windows import IN_FLAGS, KnownWindows
from ofp_platform.kernel.native import IN1, IN2, INTEGER, NOTHING, OUT1, OUT2, BoolArray, Int64Array, native
from ofp_platform.kernel.query import CONDITION, DELAY, KIND, LAST_N, PARAMETER, QUANTILE, RESULT, WINDOW, Query
from ofp_platform.registry.aggregations import P_UNITS
from ofp_platform.registry.layout import MASK_ROW, TIME_ROW

NO_VALUE = EARLIEST
"""Instead of a result: null."""
_NOTHING_MISSING = -1


@native()
def rank_of(parameter: int, count: int) -> Any:
    """The rank, from 0, of the quantile of p = parameter / P_UNITS among `count` values: ceil(p * count) - 1."""
    return (parameter * count + P_UNITS - 1) // P_UNITS - 1


@native()
def _write_newest(window: Int64Array, matrix: Int64Array, positions: Int64Array, begin: int, end: int, out: Int64Array) -> None:
    """Write the values of the newest events of those at positions [begin, end), which stand in their order."""
    first = window[RESULT] + 1
    length = min(end - begin, window[PARAMETER])
    out[window[RESULT]] = length
    for place in range(length):
        out[first + place] = matrix[window[ROW], positions[end - 1 - place]]
    out[first + length : first + window[PARAMETER]] = 0


@native()
def _write(window: Int64Array, matrix: Int64Array, positions: Int64Array, count: int, out: Int64Array) -> None:
    """Write the results of one window over `count` events at `positions`, in their order."""
    if window[KIND] == LAST_N:
        _write_newest(window, matrix, positions, 0, count, out)
    else:
        out[window[RESULT]] = _value(window, matrix, positions, count)


@native()
def _value(window: Int64Array, matrix: Int64Array, positions: Int64Array, count: int) -> int:
    """The quantile or change of one window over `count` events at `positions`, in their order."""
    if window[KIND] == QUANTILE:
        if count == 0:
            return NO_VALUE
        values = np.empty(count, np.int64)
        for place in range(count):
            values[place] = matrix[window[ROW], positions[place]]
        return int(np.partition(values, rank_of(window[PARAMETER], count))[rank_of(window[PARAMETER], count)])
    for place in range(count - 1, 0, -1):
        difference = matrix[MASK_ROW, positions[place]] ^ matrix[MASK_ROW, positions[place - 1]]
        if (difference >> window[CONDITION]) & 1:
            return int(matrix[TIME_ROW, positions[place]])
    return NO_VALUE


@native(INTEGER(IN2, INTEGER, IN1, IN1, IN1, IN1, IN2, OUT1))
def _of_segments(
    windows: Int64Array,
    time: int,
    first_ts: Int64Array,
    last_ts: Int64Array,
    starts: Int64Array,
    ends: Int64Array,
    matrix: Int64Array,
    out: Int64Array,
) -> int:
    positions = np.empty(matrix.shape[1], np.int64)
    for index in range(windows.shape[0]):
        window = windows[index]
        high = subtract_saturating(time, window[DELAY])
        low = subtract_saturating(high, window[WINDOW])
        count = 0
        for segment in range(int(np.searchsorted(last_ts, low, side="right")), first_ts.shape[0]):
            if first_ts[segment] > high:
                break
            if starts[segment] < 0:
                return segment
            begin = events_until(matrix, starts[segment], ends[segment], low)
            for event in range(begin, events_until(matrix, begin, ends[segment], high)):
                if (matrix[MASK_ROW, event] >> window[PREDICATE]) & 1:
                    positions[count] = event
                    count += 1
        _write(window, matrix, positions, count, out)
    return _NOTHING_MISSING


@native()
def _add(tree: Int64Array, place: int, weight: int) -> None:
    index = place + 1
    while index < tree.shape[0]:
        tree[index] += weight
        index += index & -index


@native()
def _place_of(tree: Int64Array, rank: int) -> int:
    """The least place with more than `rank` weights at and before it; the tree is of 2^k + 1 nodes."""
    place = 0
    step = (tree.shape[0] - 1) >> 1
    while step > 0:
        if tree[place + step] <= rank:
            place += step
            rank -= tree[place]
        step >>= 1
    return place


@native()
def _slide_newest(
    window: Int64Array, edges: Int64Array, matrix: Int64Array, positions: Int64Array, times: Int64Array, out: Int64Array
) -> None:
    begin = 0
    end = 0
    for row in range(times.shape[0]):
        until = subtract_saturating(times[row], window[DELAY])
        after = window_after(window[WINDOW], until, edges, row)
        while end < positions.shape[0] and matrix[TIME_ROW, positions[end]] <= until:
            end += 1
        while begin < end and matrix[TIME_ROW, positions[begin]] <= after:
            begin += 1
        _write_newest(window, matrix, positions, begin, end, out[row])


@native(NOTHING(IN2, IN2, IN2, IN1, IN1, IN1, IN1, OUT2))
def _slide(
    windows: Int64Array,
    edges: Int64Array,
    matrix: Int64Array,
    starts: Int64Array,
    ends: Int64Array,
    offsets: Int64Array,
    times: Int64Array,
    out: Int64Array,
) -> None:
    for key in range(starts.shape[0]):
        if offsets[key] == offsets[key + 1]:
            continue
        for index in range(windows.shape[0]):
            window = windows[index]
            until = subtract_saturating(times[offsets[key]], window[DELAY])
            first = events_until(matrix, starts[key], ends[key], window_after(window[WINDOW], until, edges, offsets[key]))
            last = events_until(matrix, first, ends[key], times[offsets[key + 1] - 1])
            positions = np.empty(last - first, np.int64)
            count = 0
            for event in range(first, last):
                if (matrix[MASK_ROW, event] >> window[PREDICATE]) & 1:
                    positions[count] = event
                    count += 1
            if window[KIND] == LAST_N:
                rows = slice(offsets[key], offsets[key + 1])
                _slide_newest(window, edges[rows], matrix, positions[:count], times[rows], out[rows])
                continue
            is_quantile = window[KIND] == QUANTILE
            values = np.empty(count if is_quantile else 0, np.int64)
            changes = np.empty(0 if is_quantile else count, np.int64)  # the last place of a change at or before each
            size = 2
            if is_quantile:
                for place in range(count):
                    values[place] = matrix[window[ROW], positions[place]]
                while size < count:
                    size *= 2
            else:
                change = -1
                for place in range(count):
                    if place > 0:
                        difference = matrix[MASK_ROW, positions[place]] ^ matrix[MASK_ROW, positions[place - 1]]
                        if (difference >> window[CONDITION]) & 1:
                            change = place
                    changes[place] = change
            order = np.argsort(values, kind="mergesort")
            ranks = np.empty(values.shape[0], np.int64)
            for rank in range(values.shape[0]):
                ranks[order[rank]] = rank
            tree = np.zeros(size + 1, np.int64)
            begin = 0
            end = 0
            for row in range(offsets[key], offsets[key + 1]):
                until = subtract_saturating(times[row], window[DELAY])
                after = window_after(window[WINDOW], until, edges, row)
                while end < count and matrix[TIME_ROW, positions[end]] <= until:
                    if is_quantile:
                        _add(tree, ranks[end], 1)
                    end += 1
                while begin < end and matrix[TIME_ROW, positions[begin]] <= after:
                    if is_quantile:
                        _add(tree, ranks[begin], -1)
                    begin += 1
                result: Any = NO_VALUE
                if begin < end:
                    if is_quantile:
                        result = values[order[_place_of(tree, rank_of(window[PARAMETER], end - begin))]]
                    elif changes[end - 1] > begin:
                        result = matrix[TIME_ROW, positions[changes[end - 1]]]
                out[row, window[RESULT]] = result


@native(NOTHING(IN2, IN2, IN2, IN1, IN1, IN1, IN1, IN1, IN1, IN_FLAGS, OUT2))
def _of_known(
    windows: Int64Array,
    edges: Int64Array,
    matrix: Int64Array,
    known_from: Int64Array,
    starts: Int64Array,
    ends: Int64Array,
    offsets: Int64Array,
    times: Int64Array,
    known_until: Int64Array,
    incomplete: BoolArray,
    out: Int64Array,
) -> None:
    for key in range(starts.shape[0]):
        positions = np.empty(ends[key] - starts[key], np.int64)
        for row in range(offsets[key], offsets[key + 1]):
            if not incomplete[row]:
                continue
            for index in range(windows.shape[0]):
                window = windows[index]
                until = subtract_saturating(times[row], window[DELAY])
                after = window_after(window[WINDOW], until, edges, row)
                begin = events_until(matrix, starts[key], ends[key], after)
                count = 0
                for event in range(begin, events_until(matrix, begin, ends[key], until)):
                    if (matrix[MASK_ROW, event] >> window[PREDICATE]) & 1 and known_from[event] <= known_until[row]:
                        positions[count] = event
                        count += 1
                _write(window, matrix, positions, count, out[row])


def whole_of_segments(
    query: Query,
    time: int,
    bounds: tuple[Int64Array, Int64Array, Int64Array, Int64Array],
    matrix: Int64Array,
    out: Int64Array,
) -> int:
    """Write the results of a query's whole windows as of `time` into `out` int64[R]; the segment whose events are missing, or -1.

    `bounds`: `first_ts`, `last_ts`, `starts` and `ends` of the segments (see `windows.Segments`).
    """
    return int(_of_segments(query.whole, time, *bounds, matrix, out))


def whole_of_matrix(query: Query, time: int, matrix: Int64Array, out: Int64Array) -> None:
    """The same over the whole event matrix int64[C, n] of a key."""
    count = matrix.shape[1]
    segments = min(count, 1)
    first_ts, last_ts = matrix[TIME_ROW, :segments].copy(), matrix[TIME_ROW, count - segments :].copy()
    _of_segments(query.whole, time, first_ts, last_ts, np.zeros(segments, np.int64), np.full(segments, count), matrix, out)


def slide_whole(
    query: Query,
    edges: Int64Array,
    matrix: Int64Array,
    starts: Int64Array,
    ends: Int64Array,
    offsets: Int64Array,
    times: Int64Array,
    out: Int64Array,
) -> None:
    """Write the results of a query's whole windows into `out` int64[n, R], of rows as `columns.KeyedRows` has them."""
    if len(query.whole):
        _slide(query.whole, edges, matrix, starts, ends, offsets, times, out)


def known_whole(query: Query, reach: int, edges: Int64Array, known: KnownWindows, incomplete: BoolArray, out: Int64Array) -> None:
    """Overwrite the results (`out` int64[n, R]) of the incomplete rows with those over what the row knows."""
    if len(query.whole):
        _of_known(query.whole, edges, *known, incomplete, out)
