"""Questions about a projection's state: from the chunks of the requested keys to an answer. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ofp_platform.kernel.accumulate import ROW_WIDTH
from ofp_platform.kernel.plan import DELAY, WINDOW, Query
from ofp_platform.kernel.snapshot import Answer, SnapshotMaker
from ofp_platform.kernel.windows import Evaluation, evaluate, evaluate_state, segments_of_chunks
from ofp_platform.online.chunk_codec import unpack, unpack_many
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.layout import GroupPlan
from ofp_platform.registry.question import Question
from ofp_platform.vocabulary.identity import ContextPins

LATEST = int(np.iinfo(np.int64).max)


@dataclass(frozen=True)
class StoredChunk:
    """One chunk as read; `block` is None where its summaries are enough."""

    first_ts: int
    last_ts: int
    summaries: bytes
    block: bytes | None


@dataclass(frozen=True)
class StoredState:
    """One consistent read: the projection's row and the chunks of each requested key, in time order."""

    version: int
    basis: str
    watermark: int | None
    chunks: Sequence[Sequence[StoredChunk]]


class Evaluator(SnapshotMaker):
    """Answers questions about one projection: its registry, pins and policy, and everything derived from them once."""

    def __init__(self, registry: CompiledRegistry, pins: ContextPins, run_config_digest: str, allowed_lateness_us: int) -> None:
        super().__init__(registry, pins, run_config_digest, allowed_lateness_us)
        self._spans: dict[tuple[tuple[str, str], ...], tuple[int, ...]] = {}

    def edges(self, question: Question) -> set[int]:
        """Times at which a window of the question begins or ends, and the as-of: a chunk across one must be decoded."""
        as_of = question.as_of
        return {as_of - span for groups in question.groups_of.values() for span in self._spans_of(groups)}

    def _spans_of(self, groups: tuple[GroupPlan, ...]) -> tuple[int, ...]:
        """How far before the as-of the windows of these groups begin and end, microseconds."""
        key = tuple((group.name, group.version) for group in groups)
        spans = self._spans.get(key)
        if spans is None:
            if len(self._spans) > 4096:
                self._spans.clear()
            query = self.query(groups)
            found = {0}
            for row in (*query.plan.slots[query.chosen].tolist(), *query.distinct.tolist()):
                found |= {row[DELAY], row[DELAY] + row[WINDOW]}
            spans = self._spans[key] = tuple(sorted(found))
        return spans

    def whole_after(self, question: Question, key_type: str) -> int:
        """Every event after this time is needed: a distinct count cannot be merged from summaries. LATEST: none is."""
        distinct = self.query(question.groups_of[key_type]).distinct
        if not len(distinct):
            return LATEST
        return question.as_of - int((distinct[:, DELAY] + distinct[:, WINDOW]).max())

    def answer(self, question: Question, state: StoredState, posture: Mapping[str, Any]) -> Answer:
        """Evaluate and encode.

        Raises:
            ContractError: see `SnapshotMaker.snapshot`.
        """

        def evaluation(place: int, query: Query, horizon: int) -> Evaluation:
            return self._evaluate(query, state.chunks[place], question.as_of, horizon)

        return self.snapshot(question, state.basis, state.watermark, evaluation, posture)

    def _evaluate(self, query: Query, chunks: Sequence[StoredChunk], as_of: int, horizon: int) -> Evaluation:
        columns = query.plan.layout.column_count
        if not chunks:
            return evaluate(query, np.empty((columns, 0), np.int64), as_of, horizon)
        if len(chunks) == 1 and chunks[0].block is not None:
            return evaluate(query, unpack(chunks[0].block), as_of, horizon)
        decoded = np.array([chunk.block is not None for chunk in chunks])
        matrix, offsets = unpack_many([chunk.block for chunk in chunks if chunk.block is not None], columns)
        segments = segments_of_chunks(
            np.array([chunk.first_ts for chunk in chunks], np.int64),
            np.array([chunk.last_ts for chunk in chunks], np.int64),
            np.frombuffer(b"".join([chunk.summaries for chunk in chunks]), np.int64).reshape(
                len(chunks), query.plan.measure_count, ROW_WIDTH
            ),
            decoded,
            matrix,
            offsets,
        )
        return evaluate_state(query, segments, as_of, horizon)
