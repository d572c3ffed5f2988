"""New events of a commit into the rows of their keys: tails, chunks and spans; and the pruning that goes with it.

Nothing here says when: who writes holds the transaction, and moves the version in it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt
from psycopg import Connection

from ofp_platform.kernel.query import LayoutArrays
from ofp_platform.online.projecting import chunk_merge
from ofp_platform.online.projecting.projector_settings import ProjectorSettings
from ofp_platform.online.projecting.record_intake import LOWEST
from ofp_platform.online.state.buckets import KEY_TYPE_CODES, Buckets, read_buckets, replace_chunks
from ofp_platform.online.state.chunk_codec import pack_many, unpack_many
from ofp_platform.online.state.chunk_spans import ChangedChunk, refresh_spans
from ofp_platform.online.state.key_shards import KeyEvents, KeyShard, shard_of
from ofp_platform.online.state.key_tails import append_to_tails
from ofp_platform.online.state.pruning import FIRST_PLACE, PruningPlace, begin_pruning, pruning_step
from ofp_platform.registry.compile import CompiledRegistry

Int64 = npt.NDArray[np.int64]


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

    def merge(self, connection: Connection[Any], key_events: KeyEvents, horizon: int | None) -> tuple[int, int]:
        """Merge new events into tails and chunks. Returns keys touched, and tails and chunks written."""
        chunks = keys = 0
        for key_type, touched_runs in sorted(key_events.items()):
            merged_keys, chunk_count = self._merge(connection, key_type, touched_runs, horizon)
            keys, chunks = keys + merged_keys, chunks + chunk_count
        return keys, chunks

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

    def _merge(
        self, connection: Connection[Any], key_type: str, touched_runs: Sequence[tuple[list[str], Int64]], horizon: int | None
    ) -> tuple[int, int]:
        """Merge new events of one key type into its tails and chunks. Returns keys touched, and tails and chunks written."""
        numbers = dict.fromkeys(chain.from_iterable(ids for ids, _ in touched_runs), 0)
        numbers.update(zip(numbers, range(len(numbers)), strict=True))
        keys = np.fromiter(map(numbers.__getitem__, chain.from_iterable(ids for ids, _ in touched_runs)), np.int64)
        matrix = np.concatenate([part for _, part in touched_runs], axis=1)
        if horizon is not None:
            servable = matrix[0] > horizon
            keys, matrix = keys[servable], np.ascontiguousarray(matrix[:, servable])
        if not len(keys):
            return 0, 0
        code = KEY_TYPE_CODES[key_type]
        owner = (self._projection_id, code)
        floor = LOWEST if horizon is None else horizon
        rest = append_to_tails(connection, *owner, list(numbers), keys, matrix, horizon=floor, tail_bytes=self._tail_bytes)
        if not rest.key_ids:
            return len(numbers), rest.tails
        key_ids, keys, matrix = rest.key_ids, rest.keys, rest.matrix
        buckets = read_buckets(connection, self._projection_id, key_type, key_ids, keys, matrix[0])
        existing, offsets = unpack_many(buckets.blocks, matrix.shape[0])
        plan = self._plans[key_type]
        merged_chunks = chunk_merge.merge(
            existing, offsets, buckets.of_event, matrix, ties=plan.layout.ties, limit=self._chunk_events
        )
        summaries = chunk_merge.summarise_chunks(plan, merged_chunks.matrix, merged_chunks.chunk_offsets)
        packed_chunks = pack_many(merged_chunks.matrix, merged_chunks.chunk_offsets)
        starts, ends = merged_chunks.chunk_offsets[:-1], merged_chunks.chunk_offsets[1:] - 1
        first_ts, last_ts = merged_chunks.matrix[0, starts].tolist(), merged_chunks.matrix[0, ends].tolist()
        owners = buckets.key[merged_chunks.chunk_bucket].tolist()
        rows = [
            (key_ids[owner], first, last, summary.tobytes(), block)
            for owner, first, last, summary, block in zip(owners, first_ts, last_ts, summaries, packed_chunks, strict=True)
        ]
        stored_buckets = [index for index, block in enumerate(buckets.blocks) if block is not None]
        old = (
            [key_ids[buckets.key[index]] for index in stored_buckets],
            [int(buckets.first_ts[index]) for index in stored_buckets],
        )
        replace_chunks(connection, self._projection_id, key_type, old, rows)
        changed_chunks, grown_keys = _changes(key_ids, buckets, merged_chunks.chunk_bucket, first_ts, last_ts)
        refresh_spans(connection, *owner, plan, changed_chunks, grown_keys, self._span_chunks)
        return len(numbers), rest.tails + len(rows)


def _changes(
    key_ids: list[str], buckets: Buckets, chunk_bucket: Int64, first_ts: list[int], last_ts: list[int]
) -> tuple[list[ChangedChunk], list[str]]:
    """The changes that spans must follow: merged chunks other than a key's newest, and keys whose newest was split."""
    begins = np.searchsorted(chunk_bucket, np.arange(len(buckets.key)), side="left").tolist()
    ends = np.searchsorted(chunk_bucket, np.arange(len(buckets.key)), side="right").tolist()
    changed_chunks, grown_keys = [], []
    for bucket, (begin, end) in enumerate(zip(begins, ends, strict=True)):
        if begin == end:
            continue
        if not buckets.newest[bucket]:
            before = int(buckets.first_ts[bucket])
            changed_chunks.append(ChangedChunk(key_ids[buckets.key[bucket]], before, first_ts[begin], last_ts[end - 1]))
        elif end - begin > 1:
            grown_keys.append(key_ids[buckets.key[bucket]])
    return changed_chunks, grown_keys
