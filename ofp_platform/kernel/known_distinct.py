"""Distinct counts for rows that know only some of a key's events.

A token is counted in a window once: by its first known event there, the one whose known predecessor of the same token lies
before the window. So a window's count is a number of (place, predecessor) pairs, and each event that becomes known adds its
pair and moves its successor's. Which pairs stand when a row asks is a dominance question in three dimensions (moment, place,
predecessor), answered for all rows of a key together by divide and conquer over the moments: O(n log^2 n).
"""

from __future__ import annotations

import numpy as np

from ofp_platform.kernel.accumulate import PREDICATE, ROW, events_until, subtract_saturating, window_after
from ofp_platform.kernel.known_windows import IN_FLAGS, KnownWindows, asked_rows
from ofp_platform.kernel.native import IN1, IN2, INTEGER, NOTHING, OUT2, BoolArray, Int64Array, native
from ofp_platform.kernel.query import DELAY, RESULT, WINDOW, Query
from ofp_platform.kernel.tokens import find, table_size
from ofp_platform.registry.layout import MASK_ROW

# the columns of the steps of `_answer`
PLACE, BEFORE, WEIGHT, QUESTION = range(4)
NO_QUESTION = -1
# the columns of the neighbours that an event had when it became known
EARLIER, LATER = range(2)


@native()
def add_weight(tree: Int64Array, place: int, weight: int) -> None:
    """Add to the weight at a place of a Fenwick tree of prefix sums."""
    index = place + 1
    while index < tree.shape[0]:
        tree[index] += weight
        index += index & -index


@native()
def _below(tree: Int64Array, place: int) -> int:
    """The sum of the weights at places < `place`."""
    total = 0
    index = place
    while index > 0:
        total += tree[index]
        index -= index & -index
    return total


@native()
def _link(names: Int64Array, tokens: int, earlier: Int64Array, later: Int64Array) -> None:
    """For each place the place before and after it with the same token, or -1."""
    newest = np.full(tokens, -1, np.int64)
    for place in range(names.shape[0]):
        earlier[place] = newest[names[place]]
        later[place] = -1
        if earlier[place] >= 0:
            later[earlier[place]] = place
        newest[names[place]] = place


@native()
def _answer(steps: Int64Array, places: int, answers: Int64Array) -> None:
    """A step is (place, predecessor, weight, question); a pair that enters or leaves has question -1.

    Add to answers[q] the weights, of steps before the question q, of pairs with place < its place and
    predecessor < its predecessor.
    """
    count = steps.shape[0]
    order = np.arange(count)
    merge_order = np.empty(count, np.int64)
    tree = np.zeros(places + 1, np.int64)
    width = 1
    while width < count:
        for begin in range(0, count, 2 * width):
            middle = min(begin + width, count)
            end = min(begin + 2 * width, count)
            left_at = begin
            right_at = middle
            for out in range(begin, end):
                # of equals the question first: its `before` is a strict bound
                if right_at < end and (left_at == middle or steps[order[right_at], BEFORE] <= steps[order[left_at], BEFORE]):
                    step = order[right_at]
                    if steps[step, QUESTION] >= 0:
                        answers[steps[step, QUESTION]] += _below(tree, steps[step, PLACE])
                    right_at += 1
                else:
                    step = order[left_at]
                    if steps[step, QUESTION] < 0:
                        add_weight(tree, steps[step, PLACE], steps[step, WEIGHT])
                    left_at += 1
                merge_order[out] = step
            for index in range(begin, middle):
                if steps[order[index], QUESTION] < 0:
                    add_weight(tree, steps[order[index], PLACE], -steps[order[index], WEIGHT])
            order[begin:end] = merge_order[begin:end]
        width *= 2


@native(NOTHING(IN2, INTEGER, IN2, IN2, IN1, IN1, IN1, IN1, IN1, IN1, IN_FLAGS, OUT2))
def _count_known(
    distinct_windows: Int64Array,
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
    for key in range(starts.shape[0]):
        row_order = asked_rows(incomplete, known_until, offsets[key], offsets[key + 1])
        if row_order.shape[0] == 0:
            continue
        first = events_until(matrix, starts[key], ends[key], subtract_saturating(times[row_order].min(), reach))
        last = events_until(matrix, first, ends[key], times[row_order].max())
        start = 0
        while start < distinct_windows.shape[0]:
            stop = start
            while (
                stop < distinct_windows.shape[0]
                and distinct_windows[stop, PREDICATE] == distinct_windows[start, PREDICATE]
                and distinct_windows[stop, ROW] == distinct_windows[start, ROW]
            ):
                stop += 1
            # the events that satisfy the predicate, as places 0, 1, ... in time
            positions = np.empty(last - first, np.int64)
            count = 0
            for event in range(first, last):
                if (matrix[MASK_ROW, event] >> distinct_windows[start, PREDICATE]) & 1:
                    positions[count] = event
                    count += 1
            positions = positions[:count]
            table = np.zeros(table_size(count), np.uint32)
            names = np.empty(count, np.int64)
            for place in range(count):
                names[place] = find(table, matrix, distinct_windows[start, ROW], positions[place])
                table[names[place]] = positions[place] + 1
            earlier = np.empty(count, np.int64)
            later = np.empty(count, np.int64)
            _link(names, table.shape[0], earlier, later)
            moments = known_from[positions]
            entering = np.argsort(moments, kind="mergesort")
            # backwards: each event leaves, and what it changed when it came is what stands around it then
            changes = np.empty((count, 2), np.int64)
            place = count - 1
            while place >= 0 and moments[entering[place]] > known_until[row_order[0]]:
                entrant = entering[place]
                changes[place, EARLIER] = earlier[entrant]
                changes[place, LATER] = later[entrant]
                if earlier[entrant] >= 0:
                    later[earlier[entrant]] = later[entrant]
                if later[entrant] >= 0:
                    earlier[later[entrant]] = earlier[entrant]
                place -= 1
            known_count = place + 1
            questions = row_order.shape[0] * (stop - start)
            steps = np.empty((3 * count + questions, 4), np.int64)
            answers = np.zeros(questions, np.int64)
            standing = np.zeros(count + 1, np.int64)  # of known events, by place
            total = 0
            for place in range(known_count):
                entrant = entering[place]
                add_weight(standing, entrant, 1)
                steps[total, PLACE] = entrant
                steps[total, BEFORE] = earlier[entrant]
                steps[total, WEIGHT] = 1
                steps[total, QUESTION] = NO_QUESTION
                total += 1
            for turn in range(row_order.shape[0]):
                row = row_order[turn]
                while known_count < count and moments[entering[known_count]] <= known_until[row]:
                    entrant = entering[known_count]
                    before = changes[known_count, EARLIER]
                    behind = changes[known_count, LATER]
                    add_weight(standing, entrant, 1)
                    steps[total, PLACE] = entrant
                    steps[total, BEFORE] = before
                    steps[total, WEIGHT] = 1
                    steps[total, QUESTION] = NO_QUESTION
                    total += 1
                    if behind >= 0:
                        for weight in (-1, 1):
                            steps[total, PLACE] = behind
                            steps[total, BEFORE] = before if weight < 0 else entrant
                            steps[total, WEIGHT] = weight
                            steps[total, QUESTION] = NO_QUESTION
                            total += 1
                    known_count += 1
                for index in range(start, stop):
                    until = subtract_saturating(times[row], distinct_windows[index, DELAY])
                    after = window_after(distinct_windows[index, WINDOW], until, edges, row)
                    low = int(np.searchsorted(positions, events_until(matrix, first, last, after)))
                    high = int(np.searchsorted(positions, events_until(matrix, first, last, until)))
                    question = turn * (stop - start) + index - start
                    steps[total, PLACE] = high
                    steps[total, BEFORE] = low
                    steps[total, WEIGHT] = 0
                    steps[total, QUESTION] = question
                    total += 1
                    # every known event before the window is among the pairs that the question will count
                    answers[question] = -_below(standing, low)
            _answer(steps[:total], count, answers)
            for turn in range(row_order.shape[0]):
                for index in range(start, stop):
                    out[row_order[turn], distinct_windows[index, RESULT]] = answers[turn * (stop - start) + index - start]
            start = stop


def count_known_distinct(
    query: Query, reach: int, edges: Int64Array, known: KnownWindows, incomplete: BoolArray, out: Int64Array
) -> None:
    """Overwrite the distinct counts (`out` int64[n, P]) of the incomplete rows with those over what the row knows."""
    if len(query.distinct):
        _count_known(query.distinct, reach, edges, *known, incomplete, out)
