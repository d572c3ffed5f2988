"""New events of a commit into the rows of their keys: tails, chunks and spans; and the pruning that goes with it.

Nothing here says when: who writes holds the transaction, and moves the version in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from psycopg import Connection

from ofp_platform.kernel.amendments import newest_amendments
from ofp_platform.kernel.query import LayoutArrays
from ofp_platform.online.projecting import chunk_merge
from ofp_platform.online.projecting.projector_settings import ProjectorSettings
from ofp_platform.online.projecting.record_intake import LOWEST
from ofp_platform.online.state.binary_rows import Column
from ofp_platform.online.state.buckets import KEY_TYPE_CODES, Buckets, ChunkTimes, read_buckets, replace_chunks
from ofp_platform.online.state.chunk_codec import pack_together, unpack_many
from ofp_platform.online.state.chunk_spans import ChangedChunk, refresh_spans
from ofp_platform.online.state.key_shards import KeyEvents, KeyShard, Run, shard_of
from ofp_platform.online.state.key_tails import append_to_tails
from ofp_platform.online.state.pruning import FIRST_PLACE, PruningPlace, begin_pruning, pruning_step
from ofp_platform.registry.compile import CompiledRegistry

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class WrittenKeys:
    """Where the events of a commit went: ids of their keys by key type, and how many tails and chunks were written.

    `count`: how many keys, of the key types that have events in front of the horizon.
    """

    key_ids: Mapping[str, list[str]]
    count: int
    chunks: int

    def names(self, pruned_keys: Mapping[str, list[str]]) -> dict[str, list[str]]:
        """The keys that a commit touched, those among them that a pruning took something of."""
        kinds = sorted(self.key_ids.keys() | pruned_keys.keys())
        return {kind: [*self.key_ids.get(kind, ()), *pruned_keys.get(kind, ())] for kind in kinds}


# Rows of few keys are all that a commit reads. One hot key that fills a table makes the planner read all of it for each of them.
_BY_KEYS = "SET LOCAL enable_seqscan = off"


class StateWriter:
    """Writes the state of one projection's keys. Holds nothing of the store, so nothing has to be forgotten."""

    def __init__(
        self,
        registry: CompiledRegistry,
        projection_id: int,
        settings: ProjectorSettings,
    ) -> None:
        self._plans = {key_type: LayoutArrays.of(layout) for key_type, layout in registry.layouts.items()}
        self._projection_id = projection_id
        self._retained_us = registry.reach + settings.allowed_lateness_us
        self._chunk_events = settings.chunk_events
        self._span_chunks = settings.span_chunks
        self._tail_bytes = settings.tail_bytes
        self._least_step = settings.least_step

    def merge(self, connection: Connection[Any], key_events: KeyEvents, horizon: int | None) -> WrittenKeys:
        """Merge new events into tails and chunks, in a transaction. What it reads until its end, it looks up by keys."""
        connection.execute(_BY_KEYS)
        key_ids = {}
        count = chunks = 0
        for key_type, touched_runs in sorted(key_events.items()):
            numbered = _number(touched_runs)
            key_ids[key_type] = numbered.key_ids
            key_count, chunk_count = self._merge(connection, key_type, numbered, horizon)
            count, chunks = count + key_count, chunks + chunk_count
        return WrittenKeys(key_ids, count, chunks)

    def begins_pruning(self, place: PruningPlace | None, pruned_to: int | None, horizon: int | None) -> bool:
        """Whether another pruning is to begin: none is under way, and the horizon moved far enough since the last one."""
        return (
            place is None
            and horizon is not None
            and horizon - (LOWEST if pruned_to is None else pruned_to) > self._retained_us // 8
        )

    def prune(
        self,
        connection: Connection[Any],
        place: PruningPlace | None,
        pruned_to: int | None,
        horizon: int | None,
        chunks: int,
        shard: KeyShard | None = None,
    ) -> Mapping[str, list[str]]:
        """Take a step of pruning, where there is one to take. The ids of the keys that lost something, by key type.

        `chunks`: tails and chunks that the commit has written; `shard`: the one whose keys are pruned, None: all are.
        """
        number = 0 if shard is None else shard.number
        if self.begins_pruning(place, pruned_to, horizon):
            assert horizon is not None
            begin_pruning(connection, self._projection_id, horizon, number)
            place, pruned_to = FIRST_PLACE, horizon
        if place is None or pruned_to is None:
            return {}
        step = max(self._least_step, 2 * chunks)
        if shard is None:
            return pruning_step(connection, self._projection_id, place, pruned_to, step)
        count = shard.count

        def is_own(key_type: str, key_id: str) -> bool:
            return shard_of(key_type, key_id, count) == number

        return pruning_step(connection, self._projection_id, place, pruned_to, step, number, is_own)

    def _merge(self, connection: Connection[Any], key_type: str, events: _NumberedEvents, horizon: int | None) -> tuple[int, int]:
        """Merge new events of one key type into its tails and chunks. Returns keys touched, and tails and chunks written."""
        keys, matrix = events.keys, events.matrix
        if horizon is not None and not (servable := matrix[0] > horizon).all():
            keys, matrix = keys[servable], np.ascontiguousarray(matrix[:, servable])
        if not len(keys):
            return 0, 0
        code = KEY_TYPE_CODES[key_type]
        owner = (self._projection_id, code)
        floor = LOWEST if horizon is None else horizon
        rest = append_to_tails(connection, *owner, events.key_ids, keys, matrix, horizon=floor, tail_bytes=self._tail_bytes)
        if not rest.key_ids:
            return len(events.key_ids), rest.tails
        key_ids, keys, matrix = rest.key_ids, rest.keys, rest.matrix
        texts = Column.of_texts(key_ids)
        buckets = read_buckets(connection, self._projection_id, key_type, texts, keys, matrix[0])
        existing, offsets = unpack_many(buckets.blocks, matrix.shape[0])
        plan = self._plans[key_type]
        merged_chunks = chunk_merge.merge(
            existing, offsets, buckets.of_event, matrix, ties=plan.layout.ties, limit=self._chunk_events
        )
        summaries = chunk_merge.summarise_chunks(plan, merged_chunks.matrix, merged_chunks.chunk_offsets)
        blocks = Column.of_pieces(*pack_together(merged_chunks.matrix, merged_chunks.chunk_offsets))
        starts, ends = merged_chunks.chunk_offsets[:-1], merged_chunks.chunk_offsets[1:] - 1
        first_ts, last_ts = merged_chunks.matrix[0, starts], merged_chunks.matrix[0, ends]
        times = ChunkTimes(first_ts, last_ts, newest_amendments(plan.layout, merged_chunks.matrix, merged_chunks.chunk_offsets))
        stored = np.flatnonzero([block is not None for block in buckets.blocks])
        old = (texts.take(buckets.key[stored]), buckets.first_ts[stored])
        owners = texts.take(buckets.key[merged_chunks.chunk_bucket])
        replace_chunks(connection, self._projection_id, key_type, old, owners, times, summaries, blocks)
        changed_chunks, grown_keys = _changes(key_ids, buckets, merged_chunks.chunk_bucket, first_ts, last_ts)
        refresh_spans(connection, *owner, plan, changed_chunks, grown_keys, self._span_chunks)
        return len(events.key_ids), rest.tails + len(first_ts)


@dataclass(frozen=True, eq=False)
class _NumberedEvents:
    """Events of one key type: `key_ids` distinct, `keys` int64[m] indexes them, `matrix` int64[C, m]."""

    key_ids: list[str]
    keys: Int64
    matrix: Int64


def _number(touched_runs: Sequence[Run]) -> _NumberedEvents:
    """Events of one key type, their keys numbered in the order in which they come."""
    texts = pa.chunked_array([pa.array(ids, pa.large_string()) for ids, _ in touched_runs]).combine_chunks()
    encoded = texts.dictionary_encode()
    keys = encoded.indices.to_numpy().astype(np.int64)
    matrix = touched_runs[0][1] if len(touched_runs) == 1 else np.concatenate([part for _, part in touched_runs], axis=1)
    return _NumberedEvents(encoded.dictionary.to_pylist(), keys, np.ascontiguousarray(matrix))


def _changes(
    key_ids: list[str], buckets: Buckets, chunk_bucket: Int64, first_ts: Int64, last_ts: Int64
) -> tuple[list[ChangedChunk], list[str]]:
    """The changes that spans must follow: merged chunks other than a key's newest, and keys whose newest was split."""
    edges = np.searchsorted(chunk_bucket, np.arange(len(buckets.key) + 1))
    begins, ends = edges[:-1], edges[1:]
    is_changed = ~buckets.newest & (begins < ends)
    changed_chunks = [
        ChangedChunk(
            key_ids[buckets.key[bucket]],
            int(buckets.first_ts[bucket]),
            int(first_ts[begins[bucket]]),
            int(last_ts[ends[bucket] - 1]),
        )
        for bucket in np.flatnonzero(is_changed).tolist()
    ]
    is_grown = buckets.newest & (ends - begins > 1)
    return changed_chunks, [key_ids[key] for key in buckets.key[is_grown].tolist()]
