"""A key at many times: the same windows as `windows`, slid along ascending times in O(events + times) per slot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ofp_platform.kernel.accumulate import (
    COUNT,
    FIRST,
    FIRST_TS,
    LAST,
    LAST_TS,
    LATEST,
    MAX,
    MIN,
    PREDICATE,
    ROW,
    SQUARE_HIGH,
    SUM_HIGH,
    add_wide,
    square_wide,
    subtract_saturating,
    subtract_wide,
    window_after,
)
from ofp_platform.kernel.native import IN1, IN2, INTEGER, NOTHING, OUT2, OUT3, Int64Array, native
from ofp_platform.kernel.query import DELAY, MEASURE, RESULT, WINDOW, LayoutArrays
from ofp_platform.kernel.texts import NO_TEXTS, TextTables
from ofp_platform.kernel.tokens import find, table_size
from ofp_platform.kernel.windows import Evaluation
from ofp_platform.registry.aggregations import ALL_PARTS, Parts
from ofp_platform.registry.layout import MASK_ROW, TIME_ROW

# the compiled loops take no flags: plain integers
NEEDS_SUM, NEEDS_SQUARES, NEEDS_EXTREMES = int(Parts.SUM), int(Parts.SQUARES), int(Parts.EXTREMES)
NEEDS_ENDS, NEEDS_TIMES = int(Parts.ENDS), int(Parts.TIMES)
_ABREAST = 4  # times that are compared at once


def needs_all(arrays: LayoutArrays) -> Int64Array:
    """int64[S]: every part of every slot's rows."""
    return np.full(arrays.slot_count, ALL_PARTS, np.int64)


@dataclass(frozen=True)
class Evaluations:
    """The results of a query at m times: `accumulators` int64[m, S, 11], `distinct` int64[m, R], `touches` int64[m, G]."""

    accumulators: Int64Array
    distinct: Int64Array
    touches: Int64Array
    texts: TextTables = NO_TEXTS

    def at(self, index: int) -> Evaluation:
        """The evaluation at one of the times."""
        return Evaluation(self.accumulators[index], self.distinct[index], self.touches[index], self.texts)


@native()
def _matching(matrix: Int64Array, first: int, last: int, predicate: int, positions: Int64Array) -> int:
    """Fill `positions` with the events of [first, last) that satisfy the predicate; how many there are."""
    count = 0
    for event in range(first, last):
        positions[count] = event
        count += (matrix[MASK_ROW, event] >> predicate) & 1
    return count


@native()
def _count_until(ts: Int64Array, count: int, times: Int64Array, span: int, out: Int64Array) -> None:
    """How many of `count` ascending `ts` are at or before each of `times` less the span; behind them stand 4 times LATEST."""
    index = 0
    for moment in range(times.shape[0]):
        until = subtract_saturating(times[moment], span)
        step = _ABREAST
        while step == _ABREAST and index < count:
            # four comparisons without a branch cost less than one branch that cannot be foretold
            step = 0
            for ahead in range(_ABREAST):
                step += ts[index + ahead] <= until
            index += step
        index = min(index, count)
        out[moment] = index


@native()
def _sum_up(values: Int64Array, count: int, of_squares: bool, high: Int64Array, low: Int64Array) -> None:
    """128-bit sums of the values, or of their squares, before each of them and behind the last."""
    high[0] = 0
    low[0] = 0
    for index in range(count):
        value = values[index]
        if of_squares:
            value_high, value_low = square_wide(value)
        else:
            value_high, value_low = value >> 63, value
        high[index + 1], low[index + 1] = add_wide(high[index], low[index], value_high, value_low)


@native()
def _differences(
    high: Int64Array, low: Int64Array, begins: Int64Array, ends: Int64Array, out_high: Int64Array, out_low: Int64Array
) -> None:
    for moment in range(begins.shape[0]):
        begin = begins[moment]
        end = ends[moment]
        out_high[moment], out_low[moment] = subtract_wide(high[end], low[end], high[begin], low[begin])


@native()
def _ends(values: Int64Array, begins: Int64Array, ends: Int64Array, first: Int64Array, last: Int64Array) -> None:
    """The first and the last of the values of each window; 0 of none."""
    for moment in range(begins.shape[0]):
        some = begins[moment] < ends[moment]
        first[moment] = values[begins[moment]] if some else 0
        last[moment] = values[ends[moment] - 1] if some else 0


@native()
def _extremes(values: Int64Array, begins: Int64Array, ends: Int64Array, least: Int64Array, greatest: Int64Array) -> None:
    rising = np.empty(values.shape[0], np.int64)  # candidates for the minimum, values rising; for the maximum, values falling
    falling = np.empty(values.shape[0], np.int64)
    rising_from = 0
    rising_to = 0
    falling_from = 0
    falling_to = 0
    end = 0
    for moment in range(begins.shape[0]):
        while end < ends[moment]:
            value = values[end]
            while rising_to > rising_from and values[rising[rising_to - 1]] >= value:
                rising_to -= 1
            rising[rising_to] = end
            rising_to += 1
            while falling_to > falling_from and values[falling[falling_to - 1]] <= value:
                falling_to -= 1
            falling[falling_to] = end
            falling_to += 1
            end += 1
        begin = begins[moment]
        least[moment] = 0
        greatest[moment] = 0
        if begin < end:
            while rising[rising_from] < begin:
                rising_from += 1
            while falling[falling_from] < begin:
                falling_from += 1
            least[moment] = values[rising[rising_from]]
            greatest[moment] = values[falling[falling_from]]


@native(NOTHING(IN2, IN1, IN1, IN2, IN2, INTEGER, INTEGER, IN1, INTEGER, INTEGER, OUT3))
def slide_slots(
    slots: Int64Array,
    slot_numbers: Int64Array,
    needs: Int64Array,
    edges: Int64Array,
    matrix: Int64Array,
    first: int,
    last: int,
    times: Int64Array,
    begin: int,
    end: int,
    out: Int64Array,
) -> None:
    # Events [first, last) as seen at times [begin, end), into out[:, :, begin:end] of int64[S, 11, m]: each place of a slot's
    # rows is a column. `needs`: of each slot, the parts of its rows that anybody will look at; the others are left alone.
    # `edges`: where the windows of the times begin that have no length (see query.LayoutArrays).
    moments = times[begin:end]
    begins = np.empty(end - begin, np.int64)
    ends = np.empty(end - begin, np.int64)
    positions = np.empty(last - first + 1, np.int64)
    ts = np.empty(last - first + _ABREAST, np.int64)
    values = np.empty(last - first, np.int64)
    sums = np.empty((4, last - first + 1), np.int64)
    count = 0
    measure = -1
    delay = -1
    summed_parts = 0
    for index in range(slot_numbers.shape[0]):
        slot = slot_numbers[index]
        column = slots[slot, ROW]
        parts = needs[slot]
        if slots[slot, MEASURE] != measure:
            measure = slots[slot, MEASURE]
            delay = -1
            summed_parts = 0
            count = _matching(matrix, first, last, slots[slot, PREDICATE], positions)
            for place in range(count):
                ts[place] = matrix[TIME_ROW, positions[place]]
                if column >= 0:
                    values[place] = matrix[column, positions[place]]
            ts[count : count + _ABREAST] = LATEST
        if slots[slot, DELAY] != delay:
            delay = slots[slot, DELAY]
            _count_until(ts, count, moments, delay, ends)
        if slots[slot, WINDOW] >= 0:
            _count_until(ts, count, moments, delay + slots[slot, WINDOW], begins)
        else:
            _count_until(ts, count, edges[begin:end, -1 - slots[slot, WINDOW]].copy(), 0, begins)
        counts = out[slot, COUNT, begin:end]
        for moment in range(end - begin):
            counts[moment] = ends[moment] - begins[moment]
        if parts & NEEDS_TIMES:
            _ends(ts, begins, ends, out[slot, FIRST_TS, begin:end], out[slot, LAST_TS, begin:end])
        if column < 0:
            continue
        for part, place in ((NEEDS_SUM, SUM_HIGH), (NEEDS_SQUARES, SQUARE_HIGH)):
            if parts & part:
                high = sums[place - 1]
                low = sums[place]
                if not summed_parts & part:
                    _sum_up(values, count, part == NEEDS_SQUARES, high, low)
                    summed_parts |= part
                _differences(high, low, begins, ends, out[slot, place, begin:end], out[slot, place + 1, begin:end])
        if parts & NEEDS_EXTREMES:
            _extremes(values, begins, ends, out[slot, MIN, begin:end], out[slot, MAX, begin:end])
        if parts & NEEDS_ENDS:
            _ends(values, begins, ends, out[slot, FIRST, begin:end], out[slot, LAST, begin:end])


@native(NOTHING(IN2, IN2, IN2, IN1, OUT2))
def slide_distinct(
    distinct_windows: Int64Array, edges: Int64Array, matrix: Int64Array, times: Int64Array, out: Int64Array
) -> None:
    if distinct_windows.shape[0] == 0:
        return
    events = matrix.shape[1]
    positions = np.empty(events + 1, np.int64)
    names = np.empty(events, np.int64)  # of each matching event: the place of its token in the table
    table = np.zeros(table_size(events), np.uint32)
    inside = np.zeros(table.shape[0], np.int64)  # of each token: how often it is in the window
    count = 0
    for index in range(distinct_windows.shape[0]):
        predicate = distinct_windows[index, PREDICATE]
        row = distinct_windows[index, ROW]
        if index == 0 or distinct_windows[index - 1, PREDICATE] != predicate or distinct_windows[index - 1, ROW] != row:
            table[:] = 0
            count = _matching(matrix, 0, events, predicate, positions)
            for place in range(count):
                names[place] = find(table, matrix, row, positions[place])
                table[names[place]] = positions[place] + 1
        inside[:] = 0
        begin = 0
        end = 0
        different = 0
        for moment in range(times.shape[0]):
            until = subtract_saturating(times[moment], distinct_windows[index, DELAY])
            after = window_after(distinct_windows[index, WINDOW], until, edges, moment)
            while end < count and matrix[TIME_ROW, positions[end]] <= until:
                if inside[names[end]] == 0:
                    different += 1
                inside[names[end]] += 1
                end += 1
            while begin < end and matrix[TIME_ROW, positions[begin]] <= after:
                inside[names[begin]] -= 1
                if inside[names[begin]] == 0:
                    different -= 1
                begin += 1
            out[moment, distinct_windows[index, RESULT]] = different


def as_rows(columns: Int64Array) -> Int64Array:
    """int64[m, S, 11] of int64[S, 11, m]."""
    return np.ascontiguousarray(columns.transpose(2, 0, 1))
