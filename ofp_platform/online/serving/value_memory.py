"""The values in the chunks and spans of a key with many, held from read to read for its whole windows.

A chunk or span that stands in the store as the row that was read before has the same events: each version of a row is written by
one transaction, and names it. So its block is asked for once. From then on it is the list of the names of its different values
(see `kernel.named_values`), and its partial aggregates (see `kernel.partial_aggregates`). A row that a commit changes is another
one, and is read again.

The memory is of one incarnation of the store: whoever cannot follow the commits any more forgets it, as it does the states of
keys.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from threading import Lock

import numpy as np

from ofp_platform.kernel.accumulate import PREDICATE, ROW
from ofp_platform.kernel.named_values import Names, ValueNames, different_names, segment_names
from ofp_platform.kernel.native import Int64Array
from ofp_platform.kernel.partial_aggregates import CategoryNames, merged_run, partials_of, segment_partials
from ofp_platform.online.serving.evaluation import HeldSubjects, HeldValues, StoredChunk
from ofp_platform.online.serving.value_runs import ValueRuns
from ofp_platform.online.state.chunk_spans import SPAN_LEVELS

LEAST_CHUNKS = 16
"""Blocks of one reading from which on a key's values are held."""

_LEVELS = range(SPAN_LEVELS + 1)
_PART_BYTES = 300  # the objects of one part besides its names and runs
_BOUNDS_BYTES = 120
_NO_TIMES = np.empty(0, np.int64)
_NO_NAMES = np.empty((0, 0), np.int64)
_Bounds = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class _Part:
    """One row whose values are known: of a chunk or a span. `names`: pair by pair, each value once.

    `bounds`: subject by subject, where the run of its partial aggregate begins and ends.
    """

    last_ts: int
    row_id: int
    names: tuple[Names, ...]
    bounds: _Bounds

    @property
    def nbytes(self) -> int:
        return _PART_BYTES + _BOUNDS_BYTES * len(self.bounds) + sum(values.nbytes for values in self.names)


class KeyValues:
    """The values of one key's chunks and spans, for these subjects.

    `held_rows` may be called while another thread learns; only one learns at a time, and who would be the second does without.
    """

    def __init__(self, subjects: HeldSubjects) -> None:
        self.learning = Lock()
        self.readings = 0
        self._pairs, self._subjects = subjects.pairs, subjects.partials
        self._names = {row: ValueNames() for row in self._pairs[:, ROW].tolist()}
        self._categories = [CategoryNames() for _ in self._subjects.fields]
        self._runs = ValueRuns()
        self._parts: tuple[dict[int, _Part], ...] = tuple({} for _ in _LEVELS)
        self._part_bytes = 0
        self._stale_levels = set(_LEVELS)  # levels whose bounds are to be made anew
        # replaced as a whole: first and last times of the parts of each level, in order
        self._bounds: tuple[tuple[Int64Array, Int64Array], ...] = ((_NO_TIMES, _NO_TIMES),) * len(_LEVELS)

    @property
    def nbytes(self) -> int:
        """Its size in memory."""
        names_bytes = sum(names.nbytes for names in self._names.values()) + sum(names.nbytes for names in self._categories)
        return self._part_bytes + self._runs.nbytes + names_bytes

    def held_rows(self, edges: Sequence[int]) -> tuple[list[int], ...]:
        """First times, level by level, of rows that a question with these edges need not read: chunks only where it would."""
        bounds = self._bounds
        first_times = [first.tolist() for first, _ in bounds]
        (first, _), (span_first, span_last) = bounds[0], bounds[1]
        is_opened = first > span_last[-1] if len(span_last) else np.ones(len(first), np.bool_)
        for edge in edges:
            place = int(np.searchsorted(span_first, edge, side="right")) - 1
            if place >= 0 and edge < span_last[place]:
                is_opened |= (first >= span_first[place]) & (first <= span_last[place])
        # the newest chunk grows: it is read each time
        first_times[0] = first[is_opened][:-1].tolist()
        return tuple(first_times)

    def take(self, chunks: Sequence[StoredChunk], matrix: Int64Array, offsets: Int64Array) -> HeldValues:
        """See `evaluation.ValueMemory`. The values of chunks with a block are held from then on."""
        names_of_rows = {row: names.name(matrix, row) for row, names in self._names.items()}
        size = max([names.count for names in self._names.values()], default=0)
        names = np.stack([names_of_rows[row] for row in self._pairs[:, ROW].tolist()]) if self._names else _NO_NAMES
        different = [
            different_names(matrix, offsets, names[pair], size, predicate)
            for pair, predicate in enumerate(self._pairs[:, PREDICATE].tolist())
        ]
        named_matrix = self._subjects.named_matrix(matrix, self._categories)
        chunk_offsets = offsets[: 1 + sum([chunk.block is not None for chunk in chunks])]  # without the tail
        aggregates = [
            partials_of(self._subjects, subject, named_matrix, chunk_offsets, self._subjects.names_of(subject, self._categories))
            for subject in range(len(self._subjects))
        ]
        blocks = iter(range(len(offsets) - 1))
        parts: list[_Part | None] = []
        for chunk in chunks:
            if chunk.block is not None:
                block = next(blocks)
                names_of_block = tuple(of_pair[block] for of_pair in different)
                parts.append(self._put(0, chunk, names_of_block, tuple(runs[block] for runs in aggregates)))
                continue
            part = self._parts[chunk.level].get(chunk.first_ts)
            if part is not None and part.row_id != chunk.row_id:
                self._forget(chunk)
                part = None
            parts.append(part)
        names_of_segments = [None if part is None else part.names for part in parts]
        bounds = [None if part is None else part.bounds for part in parts]
        for tail in blocks:
            names_of_segments.append(tuple(of_pair[tail] for of_pair in different))
            bounds.append(None)
        return HeldValues(
            segment_names(self._pairs, names, size, names_of_segments) if self._names else None,
            segment_partials(self._subjects, named_matrix, bounds, self._runs.values, self._categories)
            if self._subjects
            else None,
        )

    def forget(self) -> None:
        """See `evaluation.ValueMemory`."""
        for parts in self._parts:
            parts.clear()
        self._runs = ValueRuns()
        self._part_bytes = 0
        self._stale_levels = set(_LEVELS)

    def learn(self, reading: Sequence[StoredChunk]) -> None:
        """Hold the values of the spans whose parts were read, all of them in this one reading."""
        for level in _LEVELS[1:]:
            for mark in reading:
                if mark.level == -level:
                    parts = [
                        self._part(chunk)
                        for chunk in reading
                        if abs(chunk.level) == level - 1 and not chunk.is_tail and mark.first_ts <= chunk.first_ts <= mark.last_ts
                    ]
                    self._learn_span(level, mark, [part for part in parts if part is not None], len(parts))
        if self._runs.is_sparse():
            self._gather_runs()
        self.readings += 1
        if self._stale_levels:
            bounds = zip(_LEVELS, self._parts, self._bounds, strict=True)
            self._bounds = tuple(_bounds(parts) if level in self._stale_levels else former for level, parts, former in bounds)
            self._stale_levels = set()

    def _learn_span(self, level: int, mark: StoredChunk, parts: Sequence[_Part], count: int) -> None:
        if count and len(parts) == count:
            names = tuple(np.unique(np.concatenate(of_pair)) for of_pair in zip(*[part.names for part in parts], strict=True))
            aggregates = tuple(
                merged_run(
                    self._subjects,
                    subject,
                    [self._runs.values[slice(*part.bounds[subject])] for part in parts],
                    self._subjects.names_of(subject, self._categories),
                )
                for subject in range(len(self._subjects))
            )
            self._put(level, mark, names, aggregates)
        else:
            self._drop(level, mark.first_ts)

    def _gather_runs(self) -> None:
        """Leave behind the runs of rows that are gone."""
        former, self._runs = self._runs, ValueRuns()
        for parts in self._parts:
            for first_ts, part in parts.items():
                bounds = tuple(self._runs.put(former.values[begin:end]) for begin, end in part.bounds)
                parts[first_ts] = replace(part, bounds=bounds)

    def _part(self, chunk: StoredChunk) -> _Part | None:
        part = self._parts[abs(chunk.level)].get(chunk.first_ts)
        return part if part is not None and part.row_id == chunk.row_id else None

    def _forget(self, chunk: StoredChunk) -> None:
        """A row is another than the one that was known: then so may be what is under it."""
        for level, parts in enumerate(self._parts):
            for first_ts in [first_ts for first_ts in parts if chunk.first_ts <= first_ts <= chunk.last_ts]:
                self._drop(level, first_ts)

    def _put(self, level: int, row: StoredChunk, names: tuple[Names, ...], aggregates: tuple[Int64Array, ...]) -> _Part:
        former = self._parts[level].get(row.first_ts)
        part = _Part(row.last_ts, row.row_id, names, tuple(self._runs.put(run) for run in aggregates))
        self._parts[level][row.first_ts] = part
        self._part_bytes += part.nbytes
        if former is not None:
            self._part_bytes -= former.nbytes
            self._runs.drop(former.bounds)
        if former is None or (level and former.last_ts != part.last_ts):  # the last times of chunks are of no use
            self._stale_levels.add(level)
        return part

    def _drop(self, level: int, first_ts: int) -> None:
        former = self._parts[level].pop(first_ts, None)
        if former is not None:
            self._part_bytes -= former.nbytes
            self._runs.drop(former.bounds)
            self._stale_levels.add(level)


def _bounds(parts: dict[int, _Part]) -> tuple[Int64Array, Int64Array]:
    first = np.array(sorted(parts), np.int64)
    return first, np.array([parts[first_ts].last_ts for first_ts in first.tolist()], np.int64)


class ValuesOfKeys:
    """The memories of all keys that have one: the least lately used goes when they are larger than `capacity_bytes`."""

    def __init__(self, capacity_bytes: int) -> None:
        self._capacity_bytes = capacity_bytes
        self._epoch = -1
        self._keys: dict[tuple[str, str], KeyValues] = {}
        self._too_large: set[tuple[str, str]] = set()

    def at(self, epoch: int) -> None:
        """Forget everything if the cache was emptied since: it could not follow the store."""
        if epoch != self._epoch:
            self._epoch = epoch
            self._keys.clear()
            self._too_large.clear()

    def get(self, key: tuple[str, str]) -> KeyValues | None:
        """The values that are held of the key."""
        values = self._keys.pop(key, None)
        if values is not None:
            self._keys[key] = values  # the order is that of the last use
        return values

    def begin(self, key: tuple[str, str], subjects: HeldSubjects) -> KeyValues | None:
        """Begin to hold the key's values; None: they alone are more than there is room for, its events are read each time."""
        return None if key in self._too_large else self._keys.setdefault(key, KeyValues(subjects))

    def fit(self) -> None:
        """Keep to the capacity."""
        total = sum([values.nbytes for values in self._keys.values()])
        for key in list(self._keys):
            if total <= self._capacity_bytes:
                return
            values = self._keys.pop(key)
            total -= values.nbytes
            # one that has grown too large over many readings has names of values that are gone: it begins anew
            if values.nbytes > self._capacity_bytes and values.readings <= 1:
                self._too_large.add(key)
