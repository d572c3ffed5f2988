"""The events of a folded replay by key: any key is read alone, out of the sorted shards."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ofp_platform.kernel.accumulate import events_between
from ofp_platform.kernel.entity_events import time_order
from ofp_platform.offline.replay.key_shards import COPY_EVENT, COPY_PARTITION, COPY_POSITION, EventShard, KeyDigests, shard_of
from ofp_platform.offline.replay.known_events import FoldedReplay
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.layout import AMENDS_KIND_ROW, AMENDS_TIME_ROW, EVENT, TIME_ROW

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class KeyEvents:
    """Events of some keys, each once, sorted by (time, tie) within a key.

    `matrix` int64[C, N]; those of key k are [starts[k], ends[k]) (int64[K]). `copies` int64[M, 3]: (event, partition number,
    position), see `COPY_EVENT`, of every record that is a copy of one. `admitted_at` int64[N]: see `EventShard`. `amendable`:
    whether the layout is.
    """

    matrix: Int64s
    starts: Int64s
    ends: Int64s
    copies: Int64s
    admitted_at: Int64s
    amendable: bool = False

    def own_time(self, event: int) -> int:
        """The event time of its record, microseconds: of an amendment its own, and not that of the event where it stands."""
        is_own = not self.amendable or self.matrix[AMENDS_KIND_ROW, event] == EVENT
        return int(self.matrix[TIME_ROW if is_own else AMENDS_TIME_ROW, event])

    def is_known(self, bounds: Int64s) -> npt.NDArray[np.bool_]:
        """bool[N]: the events that come before `bounds` int64[P] (see `Knowledge.bounds`)."""
        is_known = np.zeros(self.matrix.shape[1], np.bool_)
        copies = self.copies
        is_before = copies[:, COPY_POSITION] < bounds[copies[:, COPY_PARTITION]]
        is_known[copies[is_before, COPY_EVENT]] = True
        return is_known


class EventIndex:
    """The keys of one folded replay. Not safe for threads."""

    def __init__(self, folded_replay: FoldedReplay, registry: CompiledRegistry) -> None:
        self._folded_replay = folded_replay
        self._registry = registry
        self._digests = KeyDigests()
        self._shards: dict[tuple[str, int], EventShard] = {}

    def prepare(self, key_types: Iterable[str], threads: int) -> None:
        """Sort every shard of these key types now."""
        shards = [(key_type, shard) for key_type in key_types for shard in range(self._folded_replay.shards)]
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(lambda key_shard: self._folded_replay.events(self._registry, *key_shard), shards):
                pass

    def events(self, key_type: str, key_ids: Sequence[str], after: Int64s, until: Int64s) -> KeyEvents:
        """The events of each key (of each at most once) with after[k] < ts <= until[k], int64[K], microseconds."""
        high, low, _ = self._digests.columns(key_ids)
        shard_numbers = shard_of(high, self._folded_replay.shards)
        rows = self._registry.layouts[key_type].column_count
        starts, ends = np.zeros(len(key_ids), np.int64), np.zeros(len(key_ids), np.int64)
        matrices, copies = [np.empty((rows, 0), np.int64)], [np.empty((0, 3), np.int64)]
        admitted_at = [np.empty(0, np.int64)]
        total = 0
        for number in np.unique(shard_numbers).tolist():
            shard = self._shard(key_type, number)
            key_indices = np.flatnonzero(shard_numbers == number)
            begin, end = _key_ranges(shard, high[key_indices], low[key_indices], after[key_indices], until[key_indices])
            sizes = end - begin
            ends[key_indices] = total + np.cumsum(sizes)
            starts[key_indices] = ends[key_indices] - sizes
            event_indices = _numbers_in(begin, end)
            matrices.append(shard.matrix.take(event_indices, axis=1))
            admitted_at.append(shard.admitted_at.take(event_indices))
            copy_sizes = shard.copy_offsets[event_indices + 1] - shard.copy_offsets[event_indices]
            part = shard.copies[_numbers_in(shard.copy_offsets[begin], shard.copy_offsets[end])]
            part[:, COPY_EVENT] = total + np.repeat(np.arange(len(event_indices)), copy_sizes)
            copies.append(part)
            total += len(event_indices)
        matrix = np.ascontiguousarray(np.concatenate(matrices, axis=1))
        amendable = self._registry.layouts[key_type].amendable
        return KeyEvents(matrix, starts, ends, np.concatenate(copies), np.concatenate(admitted_at), amendable)

    def entity_events(self, key_type: str, entities: Sequence[tuple[str, ...]], after: Int64s, until: Int64s) -> KeyEvents:
        """As `events`, of entities: the events of all members of each, in the order of time and tie. A key may be in several."""
        places: dict[str, int] = {}
        for members in entities:
            for member in members:
                places.setdefault(member, len(places))
        if all(len(members) == 1 for members in entities) and len(places) == len(entities):
            return self.events(key_type, list(places), after, until)
        earliest, latest = np.full(len(places), np.iinfo(np.int64).max), np.full(len(places), np.iinfo(np.int64).min)
        for number, members in enumerate(entities):
            of_members = [places[member] for member in members]
            earliest[of_members] = np.minimum(earliest[of_members], after[number])
            latest[of_members] = np.maximum(latest[of_members], until[number])
        single = self.events(key_type, list(places), earliest, latest)
        ties = self._registry.layouts[key_type].ties
        columns = [_entity_columns(single, [places[member] for member in members], ties) for members in entities]
        return _taken(single, columns)

    def _shard(self, key_type: str, number: int) -> EventShard:
        shard = self._shards.get((key_type, number))
        if shard is None:
            shard = self._shards[key_type, number] = self._folded_replay.events(self._registry, key_type, number)
        return shard


def _entity_columns(events: KeyEvents, keys: Sequence[int], ties: bool) -> Int64s:
    """The columns of the events of these keys, in the order of time and tie."""
    columns = np.concatenate([np.arange(events.starts[key], events.ends[key]) for key in keys])
    return columns if len(keys) == 1 else columns[time_order(events.matrix[:, columns], ties=ties)]


def _taken(events: KeyEvents, columns: Sequence[Int64s]) -> KeyEvents:
    """The events in these columns, of one entity after the other."""
    every = np.concatenate([np.empty(0, np.int64), *columns])
    ends = np.cumsum([len(part) for part in columns])
    copies = events.copies[np.argsort(events.copies[:, COPY_EVENT], kind="stable")]
    offsets = np.searchsorted(copies[:, COPY_EVENT], np.arange(events.matrix.shape[1] + 1))
    of_columns = copies[_numbers_in(offsets[every], offsets[every + 1])]
    of_columns[:, COPY_EVENT] = np.repeat(np.arange(len(every)), offsets[every + 1] - offsets[every])
    starts = ends - np.array([len(part) for part in columns])
    matrix = np.ascontiguousarray(events.matrix[:, every])
    return KeyEvents(matrix, starts, ends, of_columns, events.admitted_at[every], events.amendable)


def _key_ranges(shard: EventShard, high: Int64s, low: Int64s, after: Int64s, until: Int64s) -> tuple[Int64s, Int64s]:
    """The events of each key in (after, until], as [begin, end); an empty range for an absent key."""
    ranges = np.zeros((len(high), 2), np.int64)
    keys = len(shard.key_high)
    key_index = np.searchsorted(shard.key_high, high)
    is_present = key_index < keys
    is_present[is_present] = shard.key_high[key_index[is_present]] == high[is_present]
    for index in np.flatnonzero(is_present)[
        shard.key_low[key_index[is_present]] != low[is_present]
    ].tolist():  # digests with one high half
        same = np.flatnonzero((shard.key_high == high[index]) & (shard.key_low == low[index]))
        is_present[index] = len(same) == 1
        key_index[index] = same[0] if len(same) else 0
    present_keys = key_index[is_present]
    present_ranges = np.empty((len(present_keys), 2), np.int64)
    events_between(
        shard.matrix, shard.starts[present_keys], shard.ends[present_keys], after[is_present], until[is_present], present_ranges
    )
    ranges[is_present] = present_ranges
    return ranges[:, 0], ranges[:, 1]


def _numbers_in(begin: Int64s, end: Int64s) -> Int64s:
    """The numbers of [begin[i], end[i]), one range after the other."""
    sizes = end - begin
    starts = np.cumsum(sizes) - sizes
    numbers: Int64s = np.arange(int(sizes.sum()), dtype=np.int64) + np.repeat(begin - starts, sizes)
    return numbers
