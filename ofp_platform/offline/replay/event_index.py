"""The events of a folded replay by key: any key is read alone, out of the sorted shards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ofp_platform.kernel.accumulate import events_between
from ofp_platform.offline.replay.key_shards import EventShard, KeyDigests, shard_of
from ofp_platform.offline.replay.known_events import FoldedReplay
from ofp_platform.registry.compile import CompiledRegistry

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class KeyEvents:
    """Events of some keys, each once, sorted by (time, tie) within a key.

    `matrix` int64[C, N]; those of key k are [starts[k], ends[k]) (int64[K]). `copies` int64[M, 3]: (event, partition number,
    position) of every record that is a copy of one.
    """

    matrix: Int64s
    starts: Int64s
    ends: Int64s
    copies: Int64s

    def known(self, bounds: Int64s) -> npt.NDArray[np.bool_]:
        """bool[N]: the events that come before `bounds` int64[P] (see `Knowledge.bounds`)."""
        found = np.zeros(self.matrix.shape[1], np.bool_)
        found[self.copies[self.copies[:, 2] < bounds[self.copies[:, 1]], 0]] = True
        return found


class EventIndex:
    """Looks keys up in one folded replay. Not safe for threads."""

    def __init__(self, folded: FoldedReplay, registry: CompiledRegistry) -> None:
        self._folded = folded
        self._registry = registry
        self._digests = KeyDigests()
        self._shards: dict[tuple[str, int], EventShard] = {}

    def prepare(self, key_types: Iterable[str], threads: int) -> None:
        """Sort every shard of these key types now."""
        wanted = [(key_type, shard) for key_type in key_types for shard in range(self._folded.shards)]
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(lambda one: self._folded.events(self._registry, *one), wanted):
                pass

    def events(self, key_type: str, key_ids: Sequence[str], after: Int64s, until: Int64s) -> KeyEvents:
        """The events of each key (of each at most once) with after[k] < ts <= until[k], int64[K], microseconds."""
        high, low, _ = self._digests.columns(key_ids)
        shard_numbers = shard_of(high, self._folded.shards)
        rows = self._registry.layouts[key_type].column_count
        starts, ends = np.zeros(len(key_ids), np.int64), np.zeros(len(key_ids), np.int64)
        matrices, copies = [np.empty((rows, 0), np.int64)], [np.empty((0, 3), np.int64)]
        total = 0
        for number in np.unique(shard_numbers).tolist():
            shard = self._shard(key_type, number)
            own = np.flatnonzero(shard_numbers == number)
            begin, end = _spans(shard, high[own], low[own], after[own], until[own])
            sizes = end - begin
            ends[own] = total + np.cumsum(sizes)
            starts[own] = ends[own] - sizes
            chosen = _ranges(begin, end)
            matrices.append(shard.matrix.take(chosen, axis=1))
            copy_sizes = shard.copy_offsets[chosen + 1] - shard.copy_offsets[chosen]
            part = shard.copies[_ranges(shard.copy_offsets[begin], shard.copy_offsets[end])]
            part[:, 0] = total + np.repeat(np.arange(len(chosen)), copy_sizes)
            copies.append(part)
            total += len(chosen)
        return KeyEvents(np.ascontiguousarray(np.concatenate(matrices, axis=1)), starts, ends, np.concatenate(copies))

    def _shard(self, key_type: str, number: int) -> EventShard:
        found = self._shards.get((key_type, number))
        if found is None:
            found = self._shards[key_type, number] = self._folded.events(self._registry, key_type, number)
        return found


def _spans(shard: EventShard, high: Int64s, low: Int64s, after: Int64s, until: Int64s) -> tuple[Int64s, Int64s]:
    """The events of each key in its span of time, [begin, end); none of a key that is not there."""
    spans = np.zeros((len(high), 2), np.int64)
    keys = len(shard.key_high)
    at = np.searchsorted(shard.key_high, high)
    inside = at < keys
    inside[inside] = shard.key_high[at[inside]] == high[inside]
    for place in np.flatnonzero(inside)[shard.key_low[at[inside]] != low[inside]].tolist():  # digests with one high half
        same = np.flatnonzero((shard.key_high == high[place]) & (shard.key_low == low[place]))
        inside[place] = len(same) == 1
        at[place] = same[0] if len(same) else 0
    own = at[inside]
    found = np.empty((len(own), 2), np.int64)
    events_between(shard.matrix, shard.starts[own], shard.ends[own], after[inside], until[inside], found)
    spans[inside] = found
    return spans[:, 0], spans[:, 1]


def _ranges(begin: Int64s, end: Int64s) -> Int64s:
    """The numbers of [begin[i], end[i]), one range after the other."""
    sizes = end - begin
    starts = np.cumsum(sizes) - sizes
    found: Int64s = np.arange(int(sizes.sum()), dtype=np.int64) + np.repeat(begin - starts, sizes)
    return found
