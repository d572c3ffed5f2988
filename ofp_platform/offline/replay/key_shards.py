"""Events by key, on disk: rows of integers in one file per shard of the keys' digests, sorted shard by shard.

A shard is what one worker holds in memory. A copy of an event has the same content, so the same key and time: copies meet
in their shard, and no table of all events is needed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ofp_platform.registry.layout import KeyLayout

Int64s = npt.NDArray[np.int64]
BUFFERED_ROWS = 65_536
# columns of an event row; behind them the event matrix without its tie rows
KEY_HIGH, KEY_LOW, TIE_HIGH, TIE_LOW, ADMITTED, PARTITION, POSITION, TIME = range(8)
COPY_EVENT, COPY_PARTITION, COPY_POSITION = range(3)
"""Columns of the table of copies."""
_TIE_ROWS = 2
KEYS_HELD = 1_000_000
"""Ids whose digests one process remembers."""


class KeyDigests:
    """The digest of a key id (first 128 bits of its SHA-256) in two halves, kept for up to a bound of keys."""

    def __init__(self, limit: int = KEYS_HELD) -> None:
        self._limit = limit
        self._places: dict[str, int] = {}
        self._halves: Int64s = np.empty((0, 2), np.int64)

    def columns(self, key_ids: Sequence[str]) -> tuple[Int64s, Int64s, list[str]]:
        """High and low halves, int64[len(key_ids)] each, and the ids that were not held."""
        try:
            return (*self._look_up(key_ids), [])
        except KeyError:
            new = sorted(set(key_ids).difference(self._places))
        if len(self._places) + len(new) > self._limit:
            self._places.clear()
            self._halves = np.empty((0, 2), np.int64)
            new = sorted(set(key_ids))
        self._places |= {key_id: index for index, key_id in enumerate(new, start=len(self._places))}
        digests = b"".join(hashlib.sha256(key_id.encode()).digest()[:16] for key_id in new)
        self._halves = np.concatenate([self._halves, np.frombuffer(digests, ">i8").astype(np.int64).reshape(-1, 2)])
        return (*self._look_up(key_ids), new)

    def _look_up(self, key_ids: Sequence[str]) -> tuple[Int64s, Int64s]:
        indices = np.fromiter(map(self._places.__getitem__, key_ids), np.int64, len(key_ids))
        return self._halves[indices, 0], self._halves[indices, 1]


def shard_of(high: Int64s, shards: int) -> npt.NDArray[np.uint16]:
    """uint16[n]: the shard of each digest, by its high half."""
    return ((high.view(np.uint64) >> np.uint64(32)) % np.uint64(shards)).astype(np.uint16)


class ShardSpool:
    """int64 rows of one width, appended to a file per shard and writer. Not safe for threads while rows are added."""

    def __init__(self, folder: Path, width: int, shards: int, writer: int = 0) -> None:
        self.folder = folder
        self.width = width
        self.shards = shards
        self.writer = writer
        self._parts: list[tuple[npt.NDArray[np.uint16], Int64s]] = []
        self._buffered = 0
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, shard: npt.NDArray[np.uint16], rows: Int64s) -> None:
        """Add rows int64[n, width]; row i goes to `shard[i]`."""
        self._parts.append((shard, rows))
        self._buffered += len(rows)
        if self._buffered >= BUFFERED_ROWS:
            self.flush()

    def flush(self) -> None:
        """Write what is buffered."""
        if not self._buffered:
            self._parts = []
            return
        shard = np.concatenate([part for part, _ in self._parts])
        rows = np.concatenate([part for _, part in self._parts])
        self._parts, self._buffered = [], 0
        order = np.argsort(shard, kind="stable")
        rows = rows[order]
        bounds = np.searchsorted(shard[order], np.arange(self.shards + 1))
        for number in range(self.shards):
            if bounds[number] < bounds[number + 1]:
                with (self.folder / f"{number:05d}-{self.writer:03d}.rows").open("ab") as file:
                    file.write(rows[bounds[number] : bounds[number + 1]].tobytes())


def read_shard(folder: Path, number: int, width: int) -> Int64s:
    """int64[n, width]: the rows of a shard, of one writer after the other, in the order in which each added them."""
    parts = [np.fromfile(path, np.int64) for path in sorted(folder.glob(f"{number:05d}-*.rows"))]
    if len(parts) == 1:
        return parts[0].reshape(-1, width)
    return np.concatenate([np.empty(0, np.int64), *parts]).reshape(-1, width)


@dataclass(frozen=True, eq=False)
class EventShard:
    """The known events of the keys of one shard, sorted by (key, time, tie), each once.

    `key_high`, `key_low` int64[K] ascending digests; the events of key k are [starts[k], ends[k]); `matrix` int64[C, N];
    `admitted_at` int64[N]: the least admission of the event's copies, microseconds. `copies` int64[M, 3]: (event,
    partition number, position) of every record that is a copy of an event, first ones included, those of event e are
    copies[copy_offsets[e] : copy_offsets[e + 1]] (int64[N + 1]).
    """

    key_high: Int64s
    key_low: Int64s
    starts: Int64s
    ends: Int64s
    matrix: Int64s
    admitted_at: Int64s
    copies: Int64s
    copy_offsets: Int64s


def event_width(layout: KeyLayout) -> int:
    """Columns of an event row of that layout."""
    return TIME + layout.column_count - (_TIE_ROWS if layout.ties else 0)


def event_rows(
    layout: KeyLayout,
    key: tuple[Int64s, Int64s],
    tie: Int64s,
    admitted_at: Int64s,
    partition: int,
    position: Int64s,
    matrix: Int64s,
) -> Int64s:
    """int64[m, width] of m events: digests of their keys (high, low), `tie` int64[m, 2], and their columns."""
    rows = np.empty((matrix.shape[1], event_width(layout)), np.int64)
    rows[:, KEY_HIGH], rows[:, KEY_LOW] = key
    rows[:, TIE_HIGH : TIE_LOW + 1] = tie
    rows[:, ADMITTED] = admitted_at
    rows[:, PARTITION] = partition
    rows[:, POSITION] = position
    rows[:, TIME : TIME + 2] = matrix[:2].T
    rows[:, TIME + 2 :] = matrix[4 if layout.ties else 2 :].T
    return rows


def dense_keys(high: Int64s, low: Int64s) -> tuple[Int64s, Int64s, npt.NDArray[np.uint32]]:
    """The distinct digests in ascending order (high, low: int64[K]) and the index of each of n digests among them."""
    unique, first, codes = np.unique(high, return_index=True, return_inverse=True)
    if np.array_equal(low, low[first][codes]):
        return unique, low[first], codes.astype(np.uint32)
    pairs, codes = np.unique(np.stack([high, low], axis=1), axis=0, return_inverse=True)
    return np.ascontiguousarray(pairs[:, 0]), np.ascontiguousarray(pairs[:, 1]), codes.reshape(-1).astype(np.uint32)


def by_key_and_time(codes: npt.NDArray[np.uint32], times: Int64s) -> Int64s:
    """The order by (key, time), stable."""
    order = np.argsort(times, kind="stable")
    # numpy sorts 16-bit numbers by radix
    narrow = codes.astype(np.uint16) if len(codes) and codes.max() < 2**16 else codes
    return order[np.argsort(narrow[order], kind="stable")]


def event_shard(rows: Int64s, layout: KeyLayout) -> EventShard:
    """Sort a shard's event rows (int64[M, width]) and merge the copies of an event."""
    key_high, key_low, codes = dense_keys(rows[:, KEY_HIGH], rows[:, KEY_LOW])
    order = by_key_and_time(codes, rows[:, TIME])
    rows, codes = rows[order], codes[order]
    together = (codes[1:] == codes[:-1]) & (rows[1:, TIME] == rows[:-1, TIME])
    if together.any():
        _order_ties(rows, together)
    copy = np.zeros(len(rows), np.bool_)
    copy[1:] = together & (rows[1:, TIE_HIGH] == rows[:-1, TIE_HIGH]) & (rows[1:, TIE_LOW] == rows[:-1, TIE_LOW])
    copies = np.stack([np.cumsum(~copy) - 1, rows[:, PARTITION], rows[:, POSITION]], axis=1)
    if copy.any():
        rows, codes = rows[~copy], codes[~copy]
    matrix = np.empty((layout.column_count, len(rows)), np.int64)
    matrix[:2] = rows[:, TIME : TIME + 2].T
    if layout.ties:
        matrix[2:4] = rows[:, TIE_HIGH : TIE_LOW + 1].T
    matrix[4 if layout.ties else 2 :] = rows[:, TIME + 2 :].T
    bounds = np.searchsorted(codes, np.arange(len(key_high) + 1))
    copy_offsets = np.concatenate([np.flatnonzero(~copy), [len(copy)]])
    return EventShard(key_high, key_low, bounds[:-1], bounds[1:], matrix, rows[:, ADMITTED].copy(), copies, copy_offsets)


def _order_ties(rows: Int64s, together: npt.NDArray[np.bool_]) -> None:
    """Sort rows of equal key and time among themselves: by tie as unsigned, then admission, partition, position."""
    is_tied = np.zeros(len(rows), np.bool_)
    is_tied[1:] |= together
    is_tied[:-1] |= together
    tied_rows = np.flatnonzero(is_tied)
    tie_group = np.cumsum(~np.concatenate([[False], together]))[tied_rows]
    part = rows[tied_rows]
    tie = part[:, TIE_HIGH : TIE_LOW + 1].view(np.uint64)
    columns = (part[:, POSITION], part[:, PARTITION], part[:, ADMITTED], tie[:, 1], tie[:, 0], tie_group)
    rows[tied_rows] = part[np.lexsort(columns)]
