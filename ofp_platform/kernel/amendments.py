"""Events in force: which amendment of an event counts at a time, and the events as amended.

An amendment stands in the matrix at the time of the event that it amends, so the two are never in different chunks. It counts
from its own event time on; of several that count, the one with the greatest (own time, identity) decides. Summaries of stored
chunks are made with every amendment counting: they hold at all times from that of the newest one on.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import numpy as np
from numba import types

from ofp_platform.kernel.accumulate import EARLIEST, LATEST
from ofp_platform.kernel.native import IN2, NOTHING, OUT1, BoolArray, Int64Array, native
from ofp_platform.registry.layout import (
    AMENDS_KIND_ROW,
    AMENDS_MASK_ROW,
    AMENDS_TIME_ROW,
    EVENT,
    FIXED_ROW,
    MASK_ROW,
    REPLACE,
    TARGET_ROW,
    TIE_ROW,
    TIME_ROW,
    KeyLayout,
)

_ROWS_AT_ONCE = 1_024
_SIGN = np.int64(EARLIEST)
_OUT_FLAGS = types.Array(types.boolean, 1, "C")
_IN_FLAGS = types.Array(types.boolean, 1, "C", readonly=True)


@native()
def _outranks(matrix: Int64Array, first: int, second: int) -> bool:
    """Whether amendment `first` decides rather than `second`."""
    if matrix[AMENDS_TIME_ROW, first] != matrix[AMENDS_TIME_ROW, second]:
        return bool(matrix[AMENDS_TIME_ROW, first] > matrix[AMENDS_TIME_ROW, second])
    if matrix[TIE_ROW, first] != matrix[TIE_ROW, second]:
        return bool((matrix[TIE_ROW, first] ^ _SIGN) > (matrix[TIE_ROW, second] ^ _SIGN))
    return bool((matrix[TIE_ROW + 1, first] ^ _SIGN) > (matrix[TIE_ROW + 1, second] ^ _SIGN))


@native()
def _amends(matrix: Int64Array, amendment: int, event: int) -> bool:
    """Whether the amendment is of that event: a replacement has the event's values where none may change."""
    for row in range(TARGET_ROW, FIXED_ROW):
        if matrix[row, amendment] != matrix[row, event]:
            return False
    if matrix[AMENDS_KIND_ROW, amendment] == REPLACE:
        for row in range(FIXED_ROW, AMENDS_TIME_ROW):
            if matrix[row, amendment] != matrix[row, event]:
                return False
    return True


@native(NOTHING(IN2, _IN_FLAGS, OUT1))
def _decide(matrix: Int64Array, counts: BoolArray, out: Int64Array) -> None:
    """Per event the amendment that decides about it, among those that count; -1: none."""
    events = matrix.shape[1]
    begin = 0
    while begin < events:
        end = begin + 1
        some = counts[begin]
        while end < events and matrix[TIME_ROW, end] == matrix[TIME_ROW, begin]:
            some |= counts[end]
            end += 1
        for event in range(begin, end):
            out[event] = -1
            if some and matrix[AMENDS_KIND_ROW, event] == EVENT:
                for amendment in range(begin, end):
                    if (
                        counts[amendment]
                        and (out[event] < 0 or _outranks(matrix, amendment, out[event]))
                        and _amends(matrix, amendment, event)
                    ):
                        out[event] = amendment
        begin = end


@native(NOTHING(IN2, _OUT_FLAGS))
def _meet(matrix: Int64Array, out: BoolArray) -> None:
    """Per amendment whether it is of an event there."""
    events = matrix.shape[1]
    for amendment in range(events):
        out[amendment] = False
        if matrix[AMENDS_KIND_ROW, amendment] == EVENT:
            continue
        event = amendment
        while event > 0 and matrix[TIME_ROW, event - 1] == matrix[TIME_ROW, amendment]:
            event -= 1
        while event < events and matrix[TIME_ROW, event] == matrix[TIME_ROW, amendment]:
            if matrix[AMENDS_KIND_ROW, event] == EVENT and _amends(matrix, amendment, event):
                out[amendment] = True
                break
            event += 1


def is_amendment(matrix: Int64Array) -> BoolArray:
    """bool[n]: which columns of an amendable layout's matrix int64[C, n] are amendments."""
    flags: BoolArray = matrix[AMENDS_KIND_ROW] != EVENT
    return flags


def counting_at(matrix: Int64Array, time: int) -> BoolArray:
    """bool[n]: the amendments of an amendable layout's matrix int64[C, n] that count at `time`."""
    flags: BoolArray = is_amendment(matrix) & (matrix[AMENDS_TIME_ROW] <= time)
    return flags


def deciding(matrix: Int64Array, counts: BoolArray) -> Int64Array:
    """int64[n]: of each event of one key the amendment that decides about it; -1: none, or it is an amendment itself.

    `matrix` int64[C, n] in the order of time; `counts` bool[n]: the amendments that count.
    """
    deciding_columns = np.empty(matrix.shape[1], np.int64)
    _decide(np.ascontiguousarray(matrix), counts, deciding_columns)
    return deciding_columns


def meeting(matrix: Int64Array) -> BoolArray:
    """bool[n]: the amendments that are of an event of the key, whose matrix int64[C, n] is in the order of time."""
    meeting_columns = np.empty(matrix.shape[1], np.bool_)
    _meet(np.ascontiguousarray(matrix), meeting_columns)
    return meeting_columns


def apply_amendments(layout: KeyLayout, matrix: Int64Array, counts: BoolArray) -> Int64Array:
    """The matrix int64[C, n] of one key with the amendments that count applied; they themselves are in no window."""
    return put_in_place(layout, matrix, deciding(matrix, counts)) if counts.any() else matrix


def put_in_place(layout: KeyLayout, matrix: Int64Array, deciding_columns: Int64Array) -> Int64Array:
    """The matrix int64[C, n] with each event as the amendment leaves it that decides about it, int64[n] (see `deciding`)."""
    events = np.flatnonzero(deciding_columns >= 0)
    if not len(events):
        return matrix
    by = deciding_columns[events]
    out = matrix.copy()
    out[MASK_ROW, events] = matrix[AMENDS_MASK_ROW, by]
    first = layout.first_integer_row
    out[first:, events] = matrix[first:, by]
    return out


def in_force(layout: KeyLayout, matrix: Int64Array, time: int = LATEST) -> Int64Array:
    """The matrix int64[C, n] of one key as of `time`; of a layout that is not amendable, as it is."""
    if not layout.amendable:
        return matrix
    return apply_amendments(layout, matrix, counting_at(matrix, time))


def newest_amendments(layout: KeyLayout, matrix: Int64Array, offsets: Int64Array) -> Int64Array | None:
    """int64[K]: the time of the newest amendment in each run of columns [offsets[k], offsets[k+1]), EARLIEST where there is none.

    None: the layout is not amendable.
    """
    if not layout.amendable:
        return None
    times = np.where(is_amendment(matrix), matrix[AMENDS_TIME_ROW], EARLIEST)
    newest = np.full(len(offsets) - 1, EARLIEST)
    nonempty_runs = np.flatnonzero(offsets[1:] > offsets[:-1])
    if len(nonempty_runs):
        newest[nonempty_runs] = np.maximum.reduceat(times, offsets[nonempty_runs])
    return newest


class AmendedKeys(NamedTuple):
    """Events of many keys, and rows that ask about them, a key with amendments split into one for each state of these.

    `matrix` int64[C, N], `starts`, `ends` int64[K'], `offsets` int64[K'+1], `known_from` int64[N] or None: as in `columns`, for
    the same rows in the same order.
    """

    matrix: Int64Array
    starts: Int64Array
    ends: Int64Array
    offsets: Int64Array
    known_from: Int64Array | None


def split_amended(
    layout: KeyLayout,
    keys: AmendedKeys,
    times: Int64Array,
    known_until: Int64Array | None,
    after: Int64Array,
) -> AmendedKeys:
    """Give each run of a key's rows at which the same amendments count a copy of the events as these amend them.

    Args:
        times: int64[n], of the rows, ascending within a key, microseconds.
        known_until: int64[n], the moment up to which a row knows events and amendments; None: all.
        after: int64[n], per row the time at or before which it asks about no event.
    """
    if not layout.amendable:
        return keys
    counts = np.concatenate([np.zeros(1, np.int64), np.cumsum(is_amendment(keys.matrix))])
    has_amendments = (counts[keys.ends] > counts[keys.starts]) & (keys.offsets[1:] > keys.offsets[:-1])
    if not has_amendments.any():
        return keys
    matrices, moments = [keys.matrix], [keys.known_from]
    starts: list[int] = []
    ends: list[int] = []
    offsets = [0]
    total = keys.matrix.shape[1]
    for key, is_amended in enumerate(has_amendments.tolist()):
        start, end = int(keys.starts[key]), int(keys.ends[key])
        first, last = int(keys.offsets[key]), int(keys.offsets[key + 1])
        if not is_amended:
            starts.append(start)
            ends.append(end)
            offsets.append(last)
            continue
        matrix = keys.matrix[:, start:end]
        known_from = None if keys.known_from is None else keys.known_from[start:end]
        for begin, stop, counting in _states(matrix, known_from, times, known_until, first, last):
            low = int(np.searchsorted(matrix[TIME_ROW], after[begin:stop].min(), side="right"))
            high = int(np.searchsorted(matrix[TIME_ROW], times[stop - 1], side="right"))
            low = min(low, high)
            part = apply_amendments(layout, np.ascontiguousarray(matrix[:, low:high]), counting[low:high])
            matrices.append(part)
            moments.append(None if known_from is None else known_from[low:high])
            starts.append(total)
            total += part.shape[1]
            ends.append(total)
            offsets.append(stop)
    return AmendedKeys(
        np.ascontiguousarray(np.concatenate(matrices, axis=1)),
        np.array(starts, np.int64),
        np.array(ends, np.int64),
        np.array(offsets, np.int64),
        None if keys.known_from is None else np.concatenate([part for part in moments if part is not None]),
    )


def _states(
    matrix: Int64Array,
    known_from: Int64Array | None,
    times: Int64Array,
    known_until: Int64Array | None,
    first: int,
    last: int,
) -> list[tuple[int, int, BoolArray]]:
    """The runs of rows [first, last) at which the same amendments count, and which columns of the matrix these are."""
    columns = np.flatnonzero(is_amendment(matrix))
    runs: list[tuple[int, int, BoolArray]] = []
    for begin in range(first, last, _ROWS_AT_ONCE):
        rows = slice(begin, min(begin + _ROWS_AT_ONCE, last))
        counting = matrix[AMENDS_TIME_ROW, columns] <= times[rows, np.newaxis]
        if known_from is not None and known_until is not None:
            counting &= known_from[columns] <= known_until[rows, np.newaxis]
        changes = np.flatnonzero((counting[1:] != counting[:-1]).any(axis=1)) + 1
        edges = [0, *changes.tolist(), len(counting)]
        for low, high in pairwise(edges):
            flags = np.zeros(matrix.shape[1], np.bool_)
            flags[columns] = counting[low]
            runs.append((begin + low, begin + high, flags))
    return runs
