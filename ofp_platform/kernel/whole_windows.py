"""Aggregations of the events of a window themselves, which no accumulator row replaces: quantiles, changes of a condition, and
lists.

A quantile or a change is one integer, or NO_VALUE for null. A list is the number of its items and as many places as it has items
at most, zeros behind the last one; of categories it has these, and likewise their counts, or the high and low words of their
sums.
Besides distinct counts (`window_loops`, `sliding`, `known_distinct`) these are all that a query needs whole events for; their
results stand behind its distinct counts.

Categories stand in the order of their bytes: texts by their ranks, integers (0 and 1 are false and true) by their digits. The
greatest total wins a tournament between neighbours, of equals the one to the left; then it leaves, and the next one wins.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ofp_platform.kernel.accumulate import (
    EARLIEST,
    PREDICATE,
    ROW,
    add_wide,
    events_until,
    subtract_saturating,
    subtract_wide,
    window_after,
)
from ofp_platform.kernel.known_distinct import add_weight
from ofp_platform.kernel.known_windows import IN_FLAGS, KnownWindows
from ofp_platform.kernel.native import IN1, IN2, INTEGER, NOTHING, OUT1, OUT2, BoolArray, Int64Array, native
from ofp_platform.kernel.query import (
    BY_COUNT,
    BY_SUM,
    CATEGORY,
    CONDITION,
    DELAY,
    IS_TEXT,
    KIND,
    LAST_N,
    PARAMETER,
    QUANTILE,
    RESULT,
    WINDOW,
    Query,
)
from ofp_platform.kernel.window_loops import NOTHING_MISSING
from ofp_platform.registry.aggregations import P_UNITS
from ofp_platform.registry.layout import MASK_ROW, TIME_ROW

NO_VALUE = EARLIEST
"""Instead of a result: null."""
_MOST_DIGITS = 16
_NO_CATEGORY = -1
# the rows of totals
_EVENTS, _HIGH, _LOW = range(3)


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
def digits_order(number: int) -> Any:
    """An integer by which integers within ±(2^53-1) stand in the order of their decimal texts, byte by byte."""
    rest = abs(number)
    count = 1
    power = 1
    while rest >= 10:
        rest //= 10
        count += 1
    for _ in range(_MOST_DIGITS - count):
        power *= 10
    # the digits first, then their number: of two that begin alike the shorter one; a sign comes before every digit
    key = (abs(number) * power) * 32 + count
    return key if number >= 0 else key - 2**60


@native()
def _categories(window: Int64Array, matrix: Int64Array, positions: Int64Array) -> Any:
    """(int64[n]: the category of each event, counted from 0 in their order; int64[D]: the categories themselves)."""
    count = positions.shape[0]
    keys = np.empty(count, np.int64)
    for place in range(count):
        value = matrix[window[CATEGORY], positions[place]]
        keys[place] = value if window[IS_TEXT] else digits_order(value)
    order = np.argsort(keys, kind="mergesort")
    names = np.empty(count, np.int64)
    categories = np.empty(count, np.int64)
    different = 0
    for rank in range(count):
        if rank == 0 or keys[order[rank]] != keys[order[rank - 1]]:
            categories[different] = matrix[window[CATEGORY], positions[order[rank]]]
            different += 1
        names[order[rank]] = different - 1
    return names, categories[:different]


@native()
def _change_total(window: Int64Array, matrix: Int64Array, event: int, name: int, is_added: bool, totals: Int64Array) -> None:
    """Let an event into the total of its category, or out of it."""
    value: Any = matrix[window[ROW], event] if window[KIND] == BY_SUM else np.int64(1)
    if is_added:
        totals[_EVENTS, name] += 1
        totals[_HIGH, name], totals[_LOW, name] = add_wide(totals[_HIGH, name], totals[_LOW, name], value >> 63, value)
    else:
        totals[_EVENTS, name] -= 1
        totals[_HIGH, name], totals[_LOW, name] = subtract_wide(totals[_HIGH, name], totals[_LOW, name], value >> 63, value)


@native()
def _winner(totals: Int64Array, left: int, right: int) -> int:
    if left == _NO_CATEGORY or right == _NO_CATEGORY:
        return max(left, right)
    if totals[_HIGH, left] != totals[_HIGH, right]:
        return left if totals[_HIGH, left] > totals[_HIGH, right] else right
    return right if np.uint64(totals[_LOW, right]) > np.uint64(totals[_LOW, left]) else left


@native()
def _tree_of(categories: int) -> Any:
    """int64[2 * size]: a tournament between no categories; the place of category c is size + c, the winner stands at 1."""
    size = 1
    while size < categories:
        size *= 2
    return np.full(2 * size, _NO_CATEGORY, np.int64)


@native()
def _enter(tree: Int64Array, totals: Int64Array, name: int, is_there: bool) -> None:
    """Let a category into the tournament with its present total, or out of it."""
    node = tree.shape[0] // 2 + name
    tree[node] = name if is_there else _NO_CATEGORY
    node //= 2
    while node > 0:
        tree[node] = _winner(totals, tree[2 * node], tree[2 * node + 1])
        node //= 2


@native()
def _write_greatest(window: Int64Array, categories: Int64Array, totals: Int64Array, tree: Int64Array, out: Int64Array) -> None:
    """Write the categories with the greatest totals; the tournament is as before afterwards."""
    first = window[RESULT] + 1
    most = window[PARAMETER]
    words = 2 if window[KIND] == BY_SUM else 1
    out[first : first + (1 + words) * most] = 0
    winners = np.empty(most, np.int64)
    length = 0
    while length < most and tree[1] != _NO_CATEGORY:
        winner = tree[1]
        out[first + length] = categories[winner]
        if words == 2:
            out[first + most + length] = totals[_HIGH, winner]
        out[first + words * most + length] = totals[_LOW, winner]
        winners[length] = winner
        length += 1
        _enter(tree, totals, winner, False)
    for place in range(length):
        _enter(tree, totals, winners[place], True)
    out[window[RESULT]] = length


@native()
def _write_categories(window: Int64Array, matrix: Int64Array, positions: Int64Array, out: Int64Array) -> None:
    """Write the categories of the events at `positions`."""
    names, categories = _categories(window, matrix, positions)
    totals = np.zeros((3, categories.shape[0]), np.int64)
    for place in range(positions.shape[0]):
        _change_total(window, matrix, positions[place], names[place], True, totals)
    tree = _tree_of(categories.shape[0])
    half = tree.shape[0] // 2
    for name in range(categories.shape[0]):
        tree[half + name] = name
    for node in range(half - 1, 0, -1):
        tree[node] = _winner(totals, tree[2 * node], tree[2 * node + 1])
    _write_greatest(window, categories, totals, tree, out)


@native()
def _write(window: Int64Array, matrix: Int64Array, positions: Int64Array, count: int, out: Int64Array) -> None:
    """Write the results of one window over `count` events at `positions`, in their order."""
    if window[KIND] == LAST_N:
        _write_newest(window, matrix, positions, 0, count, out)
    elif window[KIND] == BY_COUNT or window[KIND] == BY_SUM:
        _write_categories(window, matrix, positions[:count], out)
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


@native()
def _gather(window: Int64Array, matrix: Int64Array, begin: int, end: int, positions: Int64Array, count: int) -> int:
    """Put the events in [begin, end) of the window's predicate behind `count` others; how many there are then."""
    for event in range(begin, end):
        if (matrix[MASK_ROW, event] >> window[PREDICATE]) & 1:
            positions[count] = event
            count += 1
    return count


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
            count = _gather(window, matrix, begin, events_until(matrix, begin, ends[segment], high), positions, count)
        _write(window, matrix, positions, count, out)
    return NOTHING_MISSING


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


@native()
def _slide_categories(
    window: Int64Array, edges: Int64Array, matrix: Int64Array, positions: Int64Array, times: Int64Array, out: Int64Array
) -> None:
    names, categories = _categories(window, matrix, positions)
    totals = np.zeros((3, categories.shape[0]), np.int64)
    tree = _tree_of(categories.shape[0])
    begin = 0
    end = 0
    for row in range(times.shape[0]):
        until = subtract_saturating(times[row], window[DELAY])
        after = window_after(window[WINDOW], until, edges, row)
        while end < positions.shape[0] and matrix[TIME_ROW, positions[end]] <= until:
            _change_total(window, matrix, positions[end], names[end], True, totals)
            _enter(tree, totals, names[end], True)
            end += 1
        while begin < end and matrix[TIME_ROW, positions[begin]] <= after:
            _change_total(window, matrix, positions[begin], names[begin], False, totals)
            _enter(tree, totals, names[begin], totals[_EVENTS, names[begin]] > 0)
            begin += 1
        _write_greatest(window, categories, totals, tree, out[row])


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
            count = _gather(window, matrix, first, last, positions, 0)
            if window[KIND] == LAST_N:
                rows = slice(offsets[key], offsets[key + 1])
                _slide_newest(window, edges[rows], matrix, positions[:count], times[rows], out[rows])
                continue
            if window[KIND] == BY_COUNT or window[KIND] == BY_SUM:
                rows = slice(offsets[key], offsets[key + 1])
                _slide_categories(window, edges[rows], matrix, positions[:count], times[rows], out[rows])
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
                        add_weight(tree, ranks[end], 1)
                    end += 1
                while begin < end and matrix[TIME_ROW, positions[begin]] <= after:
                    if is_quantile:
                        add_weight(tree, ranks[begin], -1)
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
