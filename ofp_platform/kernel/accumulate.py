"""Accumulator rows: what a window needs to know of a run of events, exact, and mergeable in time order.

A row is int64[11]: count, sum high, sum low, square high, square low, min, max, first value, last value, first time,
last time. Sum and sum of squares are 128-bit two's complement: the high half, and the low 64 bits reinterpreted as
int64. A row of no events is all zeros; so are the value columns of a measure without a column.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ofp_platform.kernel.native import IN1, IN2, IN3, INTEGER, NOTHING, OUT1, OUT2, OUT3, Int64Array, native
from ofp_platform.registry.layout import MASK_ROW, TIME_ROW

ROW_WIDTH = 11
# the places of a row
COUNT, SUM_HIGH, SUM_LOW, SQUARE_HIGH, SQUARE_LOW, MIN, MAX, FIRST, LAST, FIRST_TS, LAST_TS = range(ROW_WIDTH)
EARLIEST = -(2**63)
LATEST = 2**63 - 1
# the columns of a table of measures; those of a table of slots begin alike (see `query`)
PREDICATE, ROW = range(2)
_HALF = np.uint64(32)
_LOW_HALF = np.uint64(0xFFFFFFFF)


@native()
def subtract_saturating(time: int, span: int) -> int:
    """time - span for span >= 0, held at the least int64."""
    return EARLIEST if time < EARLIEST + span else time - span


def times_before(times: Int64Array, span: int) -> Int64Array:
    """int64[n]: each time less the span >= 0, held at the least int64."""
    return np.where(times < EARLIEST + span, EARLIEST, times - span)


@native()
def window_after(window: int, until: int, edges: Int64Array, row: int) -> int:
    """The time after which the events of a window stand that ends with `until`; a window below 0 has an edge of the row."""
    return subtract_saturating(until, window) if window >= 0 else int(edges[row, -1 - window])


@native()
def events_until(matrix: Int64Array, low: int, high: int, time: int) -> int:
    """The least i in [low, high] such that every event of [i, high) is later than `time`."""
    while low < high:
        middle = (low + high) >> 1
        if matrix[TIME_ROW, middle] <= time:
            low = middle + 1
        else:
            high = middle
    return low


@native(NOTHING(IN2, IN1, IN1, IN1, IN1, OUT2))
def events_between(
    matrix: Int64Array, starts: Int64Array, ends: Int64Array, after: Int64Array, until: Int64Array, out: Int64Array
) -> None:
    """Of each key's events [starts[k], ends[k]), those with after[k] < time <= until[k] by time: out[k] = (begin, end)."""
    for key in range(starts.shape[0]):
        out[key, 0] = events_until(matrix, starts[key], ends[key], after[key])
        out[key, 1] = events_until(matrix, starts[key], ends[key], until[key])


@native()
def add_wide(high: int, low: int, other_high: int, other_low: int) -> tuple[Any, Any]:
    """128-bit sum of two (high, low) pairs, as a pair of int64."""
    total = np.uint64(low) + np.uint64(other_low)
    carry = 1 if total < np.uint64(low) else 0
    return high + other_high + carry, np.int64(total)


@native()
def subtract_wide(high: int, low: int, other_high: int, other_low: int) -> tuple[Any, Any]:
    """128-bit difference of two (high, low) pairs, as a pair of int64."""
    borrow = 1 if np.uint64(low) < np.uint64(other_low) else 0
    return high - other_high - borrow, np.int64(np.uint64(low) - np.uint64(other_low))


@native()
def square_wide(value: int) -> tuple[Any, Any]:
    """128-bit square of any int64, as a pair of int64."""
    size = np.uint64(value) if value >= 0 else np.uint64(0) - np.uint64(value)
    upper = size >> _HALF
    lower = size & _LOW_HALF
    middle = (upper * lower) << np.uint64(1)  # at most 2 * 2^31 * (2^32 - 1): it fits
    low = lower * lower
    total = low + (middle << _HALF)
    high = upper * upper + (middle >> _HALF)
    if total < low:
        high += np.uint64(1)
    return np.int64(high), np.int64(total)


@native()
def clear(row: Int64Array) -> None:
    """Reset the row to an empty window's."""
    for index in range(ROW_WIDTH):
        row[index] = 0


@native()
def accumulate_into(matrix: Int64Array, low: int, high: int, predicate: int, column: int, row: Int64Array) -> None:
    """Overwrite `row` with the accumulator of events [low, high) that satisfy the predicate; column -1: no values."""
    clear(row)
    count = 0
    first = -1
    last = -1
    if column < 0:
        for event in range(low, high):
            if (matrix[MASK_ROW, event] >> predicate) & 1:
                count += 1
                if first < 0:
                    first = event
                last = event
    else:
        sum_high = 0
        sum_low = 0
        square_high = 0
        square_low = 0
        least = 0
        greatest = 0
        for event in range(low, high):
            if (matrix[MASK_ROW, event] >> predicate) & 1:
                value = matrix[column, event]
                if first < 0:
                    first = event
                    least = value
                    greatest = value
                last = event
                count += 1
                sum_high, sum_low = add_wide(sum_high, sum_low, value >> 63, value)
                value_high, value_low = square_wide(value)
                square_high, square_low = add_wide(square_high, square_low, value_high, value_low)
                least = min(least, value)
                greatest = max(greatest, value)
        if count > 0:
            row[SUM_HIGH] = sum_high
            row[SUM_LOW] = sum_low
            row[SQUARE_HIGH] = square_high
            row[SQUARE_LOW] = square_low
            row[MIN] = least
            row[MAX] = greatest
            row[FIRST] = matrix[column, first]
            row[LAST] = matrix[column, last]
    if count > 0:
        row[COUNT] = count
        row[FIRST_TS] = matrix[TIME_ROW, first]
        row[LAST_TS] = matrix[TIME_ROW, last]


@native()
def merge_into(earlier: Int64Array, later: Int64Array, row: Int64Array) -> None:
    """Overwrite `row` (which may be either argument) with the accumulator of both runs of events."""
    nothing_earlier = earlier[COUNT] == 0
    if nothing_earlier or later[COUNT] == 0:
        for index in range(ROW_WIDTH):
            row[index] = later[index] if nothing_earlier else earlier[index]
        return
    sum_high, sum_low = add_wide(earlier[SUM_HIGH], earlier[SUM_LOW], later[SUM_HIGH], later[SUM_LOW])
    square_high, square_low = add_wide(earlier[SQUARE_HIGH], earlier[SQUARE_LOW], later[SQUARE_HIGH], later[SQUARE_LOW])
    row[COUNT] = earlier[COUNT] + later[COUNT]
    row[SUM_HIGH] = sum_high
    row[SUM_LOW] = sum_low
    row[SQUARE_HIGH] = square_high
    row[SQUARE_LOW] = square_low
    row[MIN] = min(earlier[MIN], later[MIN])
    row[MAX] = max(earlier[MAX], later[MAX])
    row[FIRST] = earlier[FIRST]
    row[LAST] = later[LAST]
    row[FIRST_TS] = earlier[FIRST_TS]
    row[LAST_TS] = later[LAST_TS]


@native(NOTHING(IN2, INTEGER, INTEGER, INTEGER, INTEGER, OUT1))
def _accumulate(matrix: Int64Array, low: int, high: int, predicate: int, column: int, row: Int64Array) -> None:
    accumulate_into(matrix, low, high, predicate, column, row)


@native(NOTHING(IN1, IN1, OUT1))
def _merge(earlier: Int64Array, later: Int64Array, row: Int64Array) -> None:
    merge_into(earlier, later, row)


@native(NOTHING(IN2, IN1, IN2, OUT3))
def _summarise(matrix: Int64Array, offsets: Int64Array, measures: Int64Array, out: Int64Array) -> None:
    for chunk in range(offsets.shape[0] - 1):
        for measure in range(measures.shape[0]):
            accumulate_into(
                matrix,
                offsets[chunk],
                offsets[chunk + 1],
                measures[measure, PREDICATE],
                measures[measure, ROW],
                out[chunk, measure],
            )


@native(NOTHING(IN1, IN3, OUT3))
def _merge_runs(offsets: Int64Array, rows: Int64Array, out: Int64Array) -> None:
    for run in range(offsets.shape[0] - 1):
        for measure in range(rows.shape[1]):
            clear(out[run, measure])
            for index in range(offsets[run], offsets[run + 1]):
                merge_into(out[run, measure], rows[index, measure], out[run, measure])


def accumulate(matrix: Int64Array, low: int, high: int, predicate: int, row: int) -> Int64Array:
    """int64[11] over events [low, high) of a matrix int64[C, n]; `row` is the matrix row of the values, or -1."""
    out = np.empty(ROW_WIDTH, np.int64)
    _accumulate(matrix, low, high, predicate, row, out)
    return out


def merge(earlier: Int64Array, later: Int64Array) -> Int64Array:
    """int64[11] of two runs of events, every event of `later` strictly later in time order."""
    out = np.empty(ROW_WIDTH, np.int64)
    _merge(earlier, later, out)
    return out


def summarise_chunks(matrix: Int64Array, offsets: Int64Array, measures: Int64Array) -> Int64Array:
    """int64[K, M, 11] of events [offsets[k], offsets[k+1]) of int64[C, N]; `measures` int64[M, 2]: (predicate, row)."""
    out = np.empty((len(offsets) - 1, len(measures), ROW_WIDTH), np.int64)
    _summarise(matrix, offsets, measures, out)
    return out


def merge_runs(rows: Int64Array, offsets: Int64Array) -> Int64Array:
    """int64[R, M, 11]: run r merges summaries [offsets[r], offsets[r+1]) of int64[K, M, 11], in time order."""
    out = np.empty((len(offsets) - 1, *rows.shape[1:]), np.int64)
    _merge_runs(offsets, rows, out)
    return out


def wide(high: int, low: int) -> int:
    """The Python integer of a 128-bit pair."""
    return (high << 64) + (low & 0xFFFFFFFFFFFFFFFF)
