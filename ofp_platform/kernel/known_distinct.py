"""Distinct counts for rows that know only some of a key's events.

A token is counted in a window once: by its first known event there, the one whose known predecessor of the same token lies
before the window. So a window's count is a number of (place, predecessor) pairs, and each event that becomes known adds its
pair and moves its successor's. Which pairs stand when a row asks is a dominance question in three dimensions (moment, place,
predecessor), answered for all rows of a key together by divide and conquer over the moments: O(n log^2 n).
"""

from __future__ import annotations

import numpy as np

from ofp_platform.kernel.accumulate import events_until, subtract_saturating
from ofp_platform.kernel.known_windows import IN_FLAGS, asked_rows
from ofp_platform.kernel.native import IN1, IN2, INTEGER, NOTHING, OUT2, BoolArray, Int64Array, native
from ofp_platform.kernel.query import Query
from ofp_platform.kernel.tokens import find, table_size


@native()
def _add(tree: Int64Array, place: int, weight: int) -> None:
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
    merged = np.empty(count, np.int64)
    tree = np.zeros(places + 1, np.int64)
    width = 1
    while width < count:
        for begin in range(0, count, 2 * width):
            middle = min(begin + width, count)
            end = min(begin + 2 * width, count)
            left = begin
            right = middle
            for out in range(begin, end):
                # of equals the question first: its `before` is a strict bound
                if right < end and (left == middle or steps[order[right], 1] <= steps[order[left], 1]):
                    step = order[right]
                    if steps[step, 3] >= 0:
                        answers[steps[step, 3]] += _below(tree, steps[step, 0])
                    right += 1
                else:
                    step = order[left]
                    if steps[step, 3] < 0:
                        _add(tree, steps[step, 0], steps[step, 2])
                    left += 1
                merged[out] = step
            for index in range(begin, middle):
                if steps[order[index], 3] < 0:
                    _add(tree, steps[order[index], 0], -steps[order[index], 2])
            order[begin:end] = merged[begin:end]
        width *= 2


@native(NOTHING(IN2, INTEGER, IN2, IN1, IN1, IN1, IN1, IN1, IN1, IN_FLAGS, OUT2))
def _count_known(
    wanted: Int64Array,
    reach: int,
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
        asked = asked_rows(incomplete, known_until, offsets[key], offsets[key + 1])
        if asked.shape[0] == 0:
            continue
        first = events_until(matrix, starts[key], ends[key], subtract_saturating(times[asked].min(), reach))
        last = events_until(matrix, first, ends[key], times[asked].max())
        start = 0
        while start < wanted.shape[0]:
            stop = start
            while stop < wanted.shape[0] and wanted[stop, 0] == wanted[start, 0] and wanted[stop, 1] == wanted[start, 1]:
                stop += 1
            # the events that satisfy the predicate, as places 0, 1, ... in time
            positions = np.empty(last - first, np.int64)
            count = 0
            for event in range(first, last):
                if (matrix[1, event] >> wanted[start, 0]) & 1:
                    positions[count] = event
                    count += 1
            positions = positions[:count]
            table = np.zeros(table_size(count), np.uint32)
            names = np.empty(count, np.int64)
            for place in range(count):
                names[place] = find(table, matrix, wanted[start, 1], positions[place])
                table[names[place]] = positions[place] + 1
            earlier = np.empty(count, np.int64)
            later = np.empty(count, np.int64)
            _link(names, table.shape[0], earlier, later)
            moments = known_from[positions]
            entering = np.argsort(moments, kind="mergesort")
            # backwards: each event leaves, and what it changed when it came is what stands around it then
            changes = np.empty((count, 2), np.int64)
            place = count - 1
            while place >= 0 and moments[entering[place]] > known_until[asked[0]]:
                own = entering[place]
                changes[place, 0] = earlier[own]
                changes[place, 1] = later[own]
                if earlier[own] >= 0:
                    later[earlier[own]] = later[own]
                if later[own] >= 0:
                    earlier[later[own]] = earlier[own]
                place -= 1
            known = place + 1
            questions = asked.shape[0] * (stop - start)
            steps = np.empty((3 * count + questions, 4), np.int64)
            answers = np.zeros(questions, np.int64)
            standing = np.zeros(count + 1, np.int64)  # of known events, by place
            total = 0
            for place in range(known):
                own = entering[place]
                _add(standing, own, 1)
                steps[total, 0] = own
                steps[total, 1] = earlier[own]
                steps[total, 2] = 1
                steps[total, 3] = -1
                total += 1
            for turn in range(asked.shape[0]):
                row = asked[turn]
                while known < count and moments[entering[known]] <= known_until[row]:
                    own = entering[known]
                    before = changes[known, 0]
                    behind = changes[known, 1]
                    _add(standing, own, 1)
                    steps[total, 0] = own
                    steps[total, 1] = before
                    steps[total, 2] = 1
                    steps[total, 3] = -1
                    total += 1
                    if behind >= 0:
                        for weight in (-1, 1):
                            steps[total, 0] = behind
                            steps[total, 1] = before if weight < 0 else own
                            steps[total, 2] = weight
                            steps[total, 3] = -1
                            total += 1
                    known += 1
                for index in range(start, stop):
                    until = subtract_saturating(times[row], wanted[index, 3])
                    after = subtract_saturating(until, wanted[index, 2])
                    low = int(np.searchsorted(positions, events_until(matrix, first, last, after)))
                    high = int(np.searchsorted(positions, events_until(matrix, first, last, until)))
                    question = turn * (stop - start) + index - start
                    steps[total, 0] = high
                    steps[total, 1] = low
                    steps[total, 2] = 0
                    steps[total, 3] = question
                    total += 1
                    # every known event before the window is among the pairs that the question will count
                    answers[question] = -_below(standing, low)
            _answer(steps[:total], count, answers)
            for turn in range(asked.shape[0]):
                for index in range(start, stop):
                    out[asked[turn], wanted[index, 4]] = answers[turn * (stop - start) + index - start]
            start = stop


def count_known_distinct(
    query: Query,
    reach: int,
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
    """Overwrite the distinct counts (`out` int64[n, P]) of the incomplete rows with those over what the row knows."""
    if len(query.distinct):
        _count_known(query.distinct, reach, matrix, known_from, starts, ends, offsets, times, known_until, incomplete, out)
