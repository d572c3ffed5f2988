"""New events into buckets: each bucket (a chunk, or the empty state of a new key) merged, and split where it grew.

A chunk is named by its first time, so a split never falls between events of one time; a run of equal times longer than
the limit stays one chunk. A bucket that grows at its end is cut into full chunks and a rest, so that a key which only
ever appends has full chunks; one that grows elsewhere is cut into equal parts, so that each has room.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import types

from ofp_platform.kernel import accumulate
from ofp_platform.kernel.accumulate import EARLIEST
from ofp_platform.kernel.amendments import in_force
from ofp_platform.kernel.native import IN1, IN2, INTEGER, NOTHING, OUT1, OUT2, Int64Array, native
from ofp_platform.kernel.query import LayoutArrays

CHUNK_EVENTS = 256
_RUN = 16
_SIGN = np.int64(EARLIEST)
_FLAG = types.boolean


@dataclass(frozen=True)
class MergedChunks:
    """The chunks of all buckets, in the order of the buckets, in time order inside each.

    `matrix` int64[C, N]; `chunk_offsets` int64[K+1]: the events of each chunk; `chunk_bucket` int64[K], ascending.
    """

    matrix: Int64Array
    chunk_offsets: Int64Array
    chunk_bucket: Int64Array


@native()
def _before(new: Int64Array, first: int, old: Int64Array, second: int, ties: bool) -> Any:
    """Whether event `first` of `new` stands before event `second` of `old`."""
    if new[0, first] != old[0, second]:
        return new[0, first] < old[0, second]
    if not ties:
        return False
    if new[2, first] != old[2, second]:
        return (new[2, first] ^ _SIGN) < (old[2, second] ^ _SIGN)
    return (new[3, first] ^ _SIGN) < (old[3, second] ^ _SIGN)


@native(NOTHING(IN2, IN1, IN1, _FLAG, OUT1, OUT1))
def _order(new: Int64Array, of_event: Int64Array, offsets: Int64Array, ties: bool, order: Int64Array, merged: Int64Array) -> None:
    """The new events bucket by bucket, each in the order of time and tie, equal ones as they came. `merged` is scratch.

    Events come nearly in order, so runs are sorted by insertion, and two runs that are in order already are not merged.
    """
    places = offsets.copy()
    for event in range(of_event.shape[0]):
        order[places[of_event[event]]] = event
        places[of_event[event]] += 1
    for bucket in range(offsets.shape[0] - 1):
        begin = offsets[bucket]
        end = offsets[bucket + 1]
        for start in range(begin, end, _RUN):
            for event in range(start + 1, min(start + _RUN, end)):
                place = event
                moved = order[event]
                while place > start and _before(new, moved, new, order[place - 1], ties):
                    order[place] = order[place - 1]
                    place -= 1
                order[place] = moved
        width = _RUN
        while width < end - begin:
            for start in range(begin, end - width, 2 * width):
                middle = start + width
                if not _before(new, order[middle], new, order[middle - 1], ties):
                    continue
                stop = min(middle + width, end)
                left = start
                right = middle
                for place in range(start, stop):
                    if left == middle or (right < stop and _before(new, order[right], new, order[left], ties)):
                        merged[place] = order[right]
                        right += 1
                    else:
                        merged[place] = order[left]
                        left += 1
                order[start:stop] = merged[start:stop]
            width *= 2


@native()
def _time(old: Int64Array, new: Int64Array, event: int) -> Any:
    return old[0, event] if event >= 0 else new[0, -1 - event]


@native()
def _boundary(old: Int64Array, new: Int64Array, source: Int64Array, cut: int, end: int, limit: int) -> int:
    """Where to cut instead of `end`: before the run of equal times there, or behind a run that begins at `cut`."""
    time = _time(old, new, source[end])
    begin = end
    while begin > cut and _time(old, new, source[begin - 1]) == time:
        begin -= 1
    if begin > cut:
        return begin
    while end < limit and _time(old, new, source[end]) == time:
        end += 1
    return end


@native(INTEGER(IN2, IN1, IN2, IN1, _FLAG, INTEGER, OUT1, OUT1, OUT1))
def _plan(
    old: Int64Array,
    old_offsets: Int64Array,
    new: Int64Array,
    new_offsets: Int64Array,
    ties: bool,
    limit: int,
    source: Int64Array,
    offsets: Int64Array,
    buckets: Int64Array,
) -> int:
    """Merge into `source` (of each resulting event: an old event, or -1 - a new one) and cut. How many chunks."""
    chunks = 0
    out = 0
    for bucket in range(old_offsets.shape[0] - 1):
        start = out
        old_event = old_offsets[bucket]
        left_end = old_offsets[bucket + 1]
        right = new_offsets[bucket]
        right_end = new_offsets[bucket + 1]
        grows = right < right_end
        while old_event < left_end or right < right_end:
            if old_event == left_end or (right < right_end and _before(new, right, old, old_event, ties)):
                source[out] = -1 - right
                right += 1
            else:
                source[out] = old_event
                old_event += 1
            out += 1
        size = out - start
        if size == 0:
            continue
        most = size
        if grows and size > limit:
            most = limit
            if source[out - 1] >= 0:  # nothing was appended
                parts = (size + limit - 1) // limit
                most = (size + parts - 1) // parts
        cut = start
        while cut < out:
            end = min(cut + most, out)
            if end < out:
                end = _boundary(old, new, source, cut, end, out)
            chunks += 1
            offsets[chunks] = end
            buckets[chunks - 1] = bucket
            cut = end
    return chunks


@native(NOTHING(IN2, IN2, IN1, OUT2))
def _gather(old: Int64Array, new: Int64Array, source: Int64Array, matrix: Int64Array) -> None:
    for row in range(matrix.shape[0]):
        for event in range(matrix.shape[1]):
            index = source[event]
            matrix[row, event] = old[row, index] if index >= 0 else new[row, -1 - index]


def merge(
    existing: Int64Array,
    offsets: Int64Array,
    of_event: Int64Array,
    new: Int64Array,
    *,
    ties: bool,
    limit: int = CHUNK_EVENTS,
) -> MergedChunks:
    """Merge new events, in any order, none of them held already, into b buckets.

    Args:
        existing: int64[C, N], the events of all buckets; bucket i is [offsets[i], offsets[i+1]), in (time, tie) order.
        offsets: int64[b+1].
        of_event: int64[m], the bucket of each new event.
        new: int64[C, m].
        ties: whether rows 2 and 3 are the tie (compared as unsigned); without, equal times keep the order of arrival.
        limit: events of a chunk, unless more have one time.
    """
    new = np.ascontiguousarray(new)
    arrived_offsets = np.zeros(len(offsets), np.int64)
    np.cumsum(np.bincount(of_event, minlength=len(offsets) - 1), out=arrived_offsets[1:])
    order = np.empty(len(of_event), np.int64)
    _order(new, of_event, arrived_offsets, ties, order, np.empty(len(of_event), np.int64))
    new_events = np.take(new, order, axis=1)
    total = existing.shape[1] + new.shape[1]
    # a cut at equal times can make two chunks of one, and equal parts are at least half full
    most = len(offsets) + 4 * (total // limit) + 1
    source = np.empty(total, np.int64)
    chunk_offsets = np.zeros(most + 1, np.int64)
    buckets = np.empty(most, np.int64)
    chunks = _plan(existing, offsets, new_events, arrived_offsets, ties, limit, source, chunk_offsets, buckets)
    chunk_offsets = chunk_offsets[: chunks + 1].copy()
    matrix = np.empty((new.shape[0], int(chunk_offsets[-1])), np.int64)
    _gather(existing, new_events, source, matrix)
    return MergedChunks(matrix, chunk_offsets, buckets[:chunks].copy())


def summarise_chunks(plan: LayoutArrays, matrix: Int64Array, chunk_offsets: Int64Array) -> Int64Array:
    """int64[K, M, 11]: the accumulator row of every measure over every chunk, all of its amendments applied."""
    return accumulate.summarise_chunks(in_force(plan.layout, matrix), chunk_offsets, plan.measures)
