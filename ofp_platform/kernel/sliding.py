"""A key at many times: the same windows as `windows`, slid along ascending times in O(events + times) per slot."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ofp_platform.kernel.accumulate import (
    EARLIEST,
    ROW_WIDTH,
    add_wide,
    square_wide,
    subtract_saturating,
    subtract_wide,
)
from ofp_platform.kernel.native import IN1, IN2, NOTHING, OUT2, OUT3, Int64Array, native
from ofp_platform.kernel.plan import KernelPlan, Query
from ofp_platform.kernel.tokens import find, table_size
from ofp_platform.kernel.window_loops import NEVER
from ofp_platform.kernel.windows import Evaluation

NEEDS_SQUARES, NEEDS_EXTREMES = 1, 2
"""The parts of an accumulator row that cost most: the sum of squares; minimum and maximum."""


def needs_all(plan: KernelPlan) -> Int64Array:
    """int64[S]: every part of every slot's rows is wanted."""
    return np.full(plan.slot_count, NEEDS_SQUARES | NEEDS_EXTREMES, np.int64)


@dataclass(frozen=True)
class Evaluations:
    """What a query found at m times: `accumulators` int64[m, S, 11], `distinct` int64[m, P], `touches` int64[m, G]."""

    accumulators: Int64Array
    distinct: Int64Array
    touches: Int64Array

    def at(self, index: int) -> Evaluation:
        """The evaluation at one of the times."""
        return Evaluation(self.accumulators[index], self.distinct[index], self.touches[index])


@native()
def _matching(matrix: Int64Array, predicate: int, positions: Int64Array) -> int:
    """Fill `positions` with the events that satisfy the predicate; how many there are."""
    count = 0
    for event in range(matrix.shape[1]):
        if (matrix[1, event] >> predicate) & 1:
            positions[count] = event
            count += 1
    return count


@native(NOTHING(IN2, IN1, IN1, IN2, IN1, OUT3))
def slide_slots(
    slots: Int64Array, chosen: Int64Array, needs: Int64Array, matrix: Int64Array, times: Int64Array, out: Int64Array
) -> None:
    # `needs`: of each slot, the sum of the parts of its rows that anybody will look at; the others may stay 0
    events = matrix.shape[1]
    positions = np.empty(events, np.int64)
    sums = np.zeros((events + 1, 4), np.int64)  # of the matching events before each: sum high, low, square high, low
    rising = np.empty(events, np.int64)  # candidates for the minimum, values rising; for the maximum, values falling
    falling = np.empty(events, np.int64)
    count = 0
    measure = -1
    for index in range(chosen.shape[0]):
        slot = chosen[index]
        column = slots[slot, 1]
        if slots[slot, 4] != measure:
            measure = slots[slot, 4]
            count = _matching(matrix, slots[slot, 0], positions)
            if column >= 0:
                for place in range(count):
                    value = matrix[column, positions[place]]
                    high, low = add_wide(sums[place, 0], sums[place, 1], value >> 63, value)
                    sums[place + 1, 0] = high
                    sums[place + 1, 1] = low
                    value_high, value_low = square_wide(value)
                    high, low = add_wide(sums[place, 2], sums[place, 3], value_high, value_low)
                    sums[place + 1, 2] = high
                    sums[place + 1, 3] = low
        extremes = column >= 0 and needs[slot] & NEEDS_EXTREMES != 0
        squares = column >= 0 and needs[slot] & NEEDS_SQUARES != 0
        begin = 0
        end = 0
        rising_from = 0
        rising_to = 0
        falling_from = 0
        falling_to = 0
        for moment in range(times.shape[0]):
            until = subtract_saturating(times[moment], slots[slot, 3])
            after = subtract_saturating(until, slots[slot, 2])
            while end < count and matrix[0, positions[end]] <= until:
                if extremes:
                    value = matrix[column, positions[end]]
                    while rising_to > rising_from and matrix[column, positions[rising[rising_to - 1]]] >= value:
                        rising_to -= 1
                    rising[rising_to] = end
                    rising_to += 1
                    while falling_to > falling_from and matrix[column, positions[falling[falling_to - 1]]] <= value:
                        falling_to -= 1
                    falling[falling_to] = end
                    falling_to += 1
                end += 1
            while begin < end and matrix[0, positions[begin]] <= after:
                begin += 1
            if begin == end:
                continue
            row = out[moment, slot]
            row[0] = end - begin
            row[9] = matrix[0, positions[begin]]
            row[10] = matrix[0, positions[end - 1]]
            if column >= 0:
                high, low = subtract_wide(sums[end, 0], sums[end, 1], sums[begin, 0], sums[begin, 1])
                row[1] = high
                row[2] = low
                if squares:
                    high, low = subtract_wide(sums[end, 2], sums[end, 3], sums[begin, 2], sums[begin, 3])
                    row[3] = high
                    row[4] = low
                if extremes:
                    while rising[rising_from] < begin:
                        rising_from += 1
                    while falling[falling_from] < begin:
                        falling_from += 1
                    row[5] = matrix[column, positions[rising[rising_from]]]
                    row[6] = matrix[column, positions[falling[falling_from]]]
                row[7] = matrix[column, positions[begin]]
                row[8] = matrix[column, positions[end - 1]]


@native(NOTHING(IN2, IN2, IN1, OUT2))
def slide_distinct(wanted: Int64Array, matrix: Int64Array, times: Int64Array, out: Int64Array) -> None:
    if wanted.shape[0] == 0:
        return
    events = matrix.shape[1]
    positions = np.empty(events, np.int64)
    names = np.empty(events, np.int64)  # of each matching event: the place of its token in the table
    table = np.zeros(table_size(events), np.uint32)
    inside = np.zeros(table.shape[0], np.int64)  # of each token: how often it is in the window
    count = 0
    for index in range(wanted.shape[0]):
        predicate = wanted[index, 0]
        row = wanted[index, 1]
        if index == 0 or wanted[index - 1, 0] != predicate or wanted[index - 1, 1] != row:
            table[:] = 0
            count = _matching(matrix, predicate, positions)
            for place in range(count):
                names[place] = find(table, matrix, row, positions[place])
                table[names[place]] = positions[place] + 1
        inside[:] = 0
        begin = 0
        end = 0
        different = 0
        for moment in range(times.shape[0]):
            until = subtract_saturating(times[moment], wanted[index, 3])
            after = subtract_saturating(until, wanted[index, 2])
            while end < count and matrix[0, positions[end]] <= until:
                if inside[names[end]] == 0:
                    different += 1
                inside[names[end]] += 1
                end += 1
            while begin < end and matrix[0, positions[begin]] <= after:
                inside[names[begin]] -= 1
                if inside[names[begin]] == 0:
                    different -= 1
                begin += 1
            out[moment, wanted[index, 4]] = different


@native(NOTHING(IN1, IN2, IN1, IN1, OUT2))
def _slide_touches(masks: Int64Array, matrix: Int64Array, times: Int64Array, horizons: Int64Array, out: Int64Array) -> None:
    for index in range(masks.shape[0]):
        event = 0
        found = NEVER
        for moment in range(times.shape[0]):
            while event < matrix.shape[1] and matrix[0, event] <= times[moment]:
                if matrix[1, event] & masks[index]:
                    found = matrix[0, event]
                event += 1
            out[moment, index] = found if found > horizons[moment] else NEVER


def evaluate_many(query: Query, matrix: Int64Array, times: Int64Array, horizons: Int64Array | None = None) -> Evaluations:
    """The query over an event matrix int64[C, n] at each of `times` int64[m], ascending; equal to `evaluate` at each.

    `horizons` int64[m], microseconds: touches at or behind them do not count. The accumulators take 88 bytes per time
    and slot: cut a very long list of times into blocks.

    Raises:
        ValueError: the times do not ascend, or the horizons are not as many.
    """
    if np.any(times[1:] < times[:-1]):
        raise ValueError("the times must ascend")
    if horizons is None:
        horizons = np.full(len(times), EARLIEST, np.int64)
    if len(horizons) != len(times):
        raise ValueError(f"{len(horizons)} horizons for {len(times)} times")
    plan = query.plan
    found = Evaluations(
        np.zeros((len(times), plan.slot_count, ROW_WIDTH), np.int64),
        np.zeros((len(times), len(query.distinct)), np.int64),
        np.full((len(times), len(query.masks)), NEVER, np.int64),
    )
    slide_slots(plan.slots, query.chosen, needs_all(plan), matrix, times, found.accumulators)
    slide_distinct(query.distinct, matrix, times, found.distinct)
    _slide_touches(query.masks, matrix, times, horizons, found.touches)
    return found
