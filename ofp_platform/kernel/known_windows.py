"""Windows for rows that know only some of a key's events: those that became known by a moment of the row's own.

The events of a key enter a tree over their places in time, in the order in which they became known, and each row asks the
tree when everything that it knows is in: O(log events) per event and question, however hot the key and however many rows
miss something.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from numba import types

from ofp_platform.kernel.accumulate import (
    PREDICATE,
    ROW,
    ROW_WIDTH,
    accumulate_into,
    clear,
    events_until,
    merge_into,
    subtract_saturating,
    window_after,
)
from ofp_platform.kernel.native import IN1, IN2, INTEGER, NOTHING, OUT3, BoolArray, Int64Array, native
from ofp_platform.kernel.query import DELAY, MEASURE, WINDOW, Query
from ofp_platform.registry.layout import MASK_ROW, TIME_ROW

FLAGS = types.Array(types.boolean, 1, "C")
IN_FLAGS = types.Array(types.boolean, 1, "C", readonly=True)


@native(NOTHING(IN2, IN1, IN1, IN1, IN1, IN1, IN1, INTEGER, FLAGS))
def _mark(
    matrix: Int64Array,
    known_from: Int64Array,
    starts: Int64Array,
    ends: Int64Array,
    offsets: Int64Array,
    times: Int64Array,
    known_until: Int64Array,
    reach: int,
    out: BoolArray,
) -> None:
    for key in range(starts.shape[0]):
        if offsets[key] == offsets[key + 1]:
            continue
        begin = events_until(matrix, starts[key], ends[key], subtract_saturating(times[offsets[key]], reach))
        end = begin
        latest = np.empty(ends[key] - begin, np.int64)  # candidates for the greatest known_from, falling
        head = 0
        tail = 0
        for row in range(offsets[key], offsets[key + 1]):
            while end < ends[key] and matrix[TIME_ROW, end] <= times[row]:
                while tail > head and known_from[latest[tail - 1]] <= known_from[end]:
                    tail -= 1
                latest[tail] = end
                tail += 1
                end += 1
            after = subtract_saturating(times[row], reach)
            while head < tail and matrix[TIME_ROW, latest[head]] <= after:
                head += 1
            out[row] = head < tail and known_from[latest[head]] > known_until[row]


class KnownWindows(NamedTuple):
    """Events of keys and the rows that ask for them, each event with the moment from which it is known, each row with the moment
    until which it knows. Arrays as in `columns`, in the order in which the loops take them."""

    matrix: Int64Array
    known_from: Int64Array
    starts: Int64Array
    ends: Int64Array
    offsets: Int64Array
    times: Int64Array
    known_until: Int64Array


def mark_incomplete(known: KnownWindows, reach: int) -> npt.NDArray[np.bool_]:
    """bool[n]: the rows with an event of their key in (T - reach, T] that they do not know."""
    out = np.zeros(len(known.times), np.bool_)
    _mark(*known, reach, out)
    return out


@native()
def asked_rows(incomplete: BoolArray, known_until: Int64Array, begin: int, end: int) -> Int64Array:
    """The incomplete rows of [begin, end), in the order of what they know."""
    rows = np.empty(end - begin, np.int64)
    count = 0
    for row in range(begin, end):
        if incomplete[row]:
            rows[count] = row
            count += 1
    rows = rows[:count]
    return rows[np.argsort(known_until[rows], kind="mergesort")]


@native()
def _enter(tree: Int64Array, matrix: Int64Array, event: int, leaf: int, predicate: int, column: int) -> None:
    """Put one event in and bring every node above it up to date."""
    accumulate_into(matrix, event, event + 1, predicate, column, tree[leaf])
    node = leaf >> 1
    while node > 0:
        merge_into(tree[2 * node], tree[2 * node + 1], tree[node])
        node >>= 1


@native()
def _gather(tree: Int64Array, size: int, low: int, high: int, right: Int64Array, row: Int64Array) -> None:
    """Overwrite `row` with the merged leaves [low, high), in their order."""
    clear(row)
    clear(right)
    low += size
    high += size
    while low < high:
        if low & 1:
            merge_into(row, tree[low], row)
            low += 1
        if high & 1:
            high -= 1
            merge_into(tree[high], right, right)
        low >>= 1
        high >>= 1
    merge_into(row, right, row)


@native(NOTHING(IN2, IN1, INTEGER, IN2, IN2, IN1, IN1, IN1, IN1, IN1, IN1, IN_FLAGS, OUT3))
def _evaluate_known(
    slots: Int64Array,
    slot_numbers: Int64Array,
    reach: int,
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
    right = np.zeros(ROW_WIDTH, np.int64)
    for key in range(starts.shape[0]):
        row_order = asked_rows(incomplete, known_until, offsets[key], offsets[key + 1])
        if row_order.shape[0] == 0:
            continue
        first = events_until(matrix, starts[key], ends[key], subtract_saturating(times[row_order].min(), reach))
        last = events_until(matrix, first, ends[key], times[row_order].max())
        entering = np.argsort(known_from[first:last], kind="mergesort") + first
        size = 1
        while size < last - first:
            size *= 2
        tree = np.empty((2 * size, ROW_WIDTH), np.int64)
        begin = 0
        while begin < slot_numbers.shape[0]:
            measure = slots[slot_numbers[begin], MEASURE]
            end = begin
            while end < slot_numbers.shape[0] and slots[slot_numbers[end], MEASURE] == measure:
                end += 1
            predicate = slots[slot_numbers[begin], PREDICATE]
            column = slots[slot_numbers[begin], ROW]
            tree[:] = 0
            place = 0
            # what the first row knows enters at once
            while place < entering.shape[0] and known_from[entering[place]] <= known_until[row_order[0]]:
                event = entering[place]
                accumulate_into(matrix, event, event + 1, predicate, column, tree[size + event - first])
                place += 1
            for node in range(size - 1, 0, -1):
                merge_into(tree[2 * node], tree[2 * node + 1], tree[node])
            for row in row_order:
                while place < entering.shape[0] and known_from[entering[place]] <= known_until[row]:
                    event = entering[place]
                    if (matrix[MASK_ROW, event] >> predicate) & 1:
                        _enter(tree, matrix, event, size + event - first, predicate, column)
                    place += 1
                for index in range(begin, end):
                    slot = slot_numbers[index]
                    until = subtract_saturating(times[row], slots[slot, DELAY])
                    after = window_after(slots[slot, WINDOW], until, edges, row)
                    low = events_until(matrix, first, last, after)
                    high = events_until(matrix, low, last, until)
                    _gather(tree, size, low - first, high - first, right, out[row, slot])
            begin = end


def known_accumulators(
    query: Query, reach: int, edges: Int64Array, known: KnownWindows, incomplete: BoolArray, out: Int64Array
) -> None:
    """Overwrite the accumulators (`out` int64[n, S, 11]) of the incomplete rows with those over what the row knows."""
    _evaluate_known(query.arrays.slots, query.slot_numbers, reach, edges, *known, incomplete, out)
