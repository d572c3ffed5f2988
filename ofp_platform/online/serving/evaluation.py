"""Questions about a projection's state: from the chunks of the requested keys to an answer. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ofp_platform.kernel.accumulate import EARLIEST, LATEST, ROW, ROW_WIDTH, summarise_chunks
from ofp_platform.kernel.amendments import in_force, newest_amendments
from ofp_platform.kernel.named_values import SegmentNames
from ofp_platform.kernel.native import Int64Array
from ofp_platform.kernel.partial_aggregates import PartialSubjects, SegmentPartials
from ofp_platform.kernel.query import DELAY, RESULT, WINDOW, LayoutArrays
from ofp_platform.kernel.snapshot import Answer, SnapshotMaker
from ofp_platform.kernel.windows import Segments, segments_of_chunks
from ofp_platform.online.state.chunk_codec import ChunkCorrupt, unpack, unpack_many
from ofp_platform.online.state.tail_codec import read_tail
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.layout import CompiledGroup, KeyLayout
from ofp_platform.registry.question import Question
from ofp_platform.vocabulary.identity import ContextPins

_CHUNK_BYTES = 200  # the objects of one chunk besides its bytes


@dataclass(frozen=True)
class StoredChunk:
    """One chunk as read; `block` is None where its summaries are enough.

    A tail is read with them, always as the last one: `block` has its records and `summaries` nothing. `level`: 0 for a chunk,
    else that of a span; below zero for a span whose parts are read as well. `row_id`: that of the transaction that wrote the
    row, so rows of one level, first time and id have the same events. `amended_ts`: the time of its newest amendment, from
    which on the summaries hold; None: there is none, or the layout is not amendable.
    """

    first_ts: int
    last_ts: int
    summaries: bytes
    block: bytes | None
    is_tail: bool = False
    level: int = 0
    row_id: int = 0
    amended_ts: int | None = None

    @property
    def is_mark(self) -> bool:
        """It says only that there is such a span: its parts are read too."""
        return self.level < 0


@dataclass(frozen=True)
class StoredState:
    """One consistent read: the projection's row and the chunks of each requested key, in time order."""

    version: int
    basis: str
    watermark: int | None
    chunks: Sequence[Sequence[StoredChunk]]


@dataclass(frozen=True, eq=False)
class HeldSubjects:
    """The subjects of the values that are held of a key: `pairs` int64[D, 2], predicate and token row of each distinct count, and
    those of partial aggregates.
    """

    pairs: Int64Array
    partials: PartialSubjects

    def __bool__(self) -> bool:
        return len(self.pairs) > 0 or len(self.partials) > 0


@dataclass(frozen=True)
class HeldValues:
    """The values that are held of the segments of a key. None: the key type has no such windows."""

    names: SegmentNames | None
    partials: SegmentPartials | None

    @property
    def nbytes(self) -> int:
        """Its size in memory."""
        return sum([values.nbytes for values in (self.names, self.partials) if values is not None])


_NOTHING_HELD = HeldValues(None, None)


class ValueMemory(Protocol):
    """The values of chunks and spans of one key, held for distinct counts and other whole windows."""

    def take(self, chunks: Sequence[StoredChunk], matrix: Int64Array, offsets: Int64Array) -> HeldValues:
        """The values of these chunks, and of a last segment where there is a tail.

        `matrix` int64[C, N], `offsets` int64[B+1]: the events of those that have a block, and of the tail.
        """

    def forget(self) -> None:
        """Hold nothing of the key any more: its events were amended."""


class KeyState:
    """The state of one key, decoded. `events`: its whole event matrix, or segments.

    `nbytes`: its size in memory; `decoded_bytes`: that of the decoded events, which a question may have to walk over.
    """

    __slots__ = ("chunks", "decoded_bytes", "events", "nbytes")

    def __init__(self, arrays: LayoutArrays, chunks: Sequence[StoredChunk], memory: ValueMemory | None = None) -> None:
        columns = arrays.layout.column_count
        self.events: Int64Array | Segments
        self.chunks: Sequence[StoredChunk] = ()  # kept only where more of them may have to be decoded
        tail = read_tail(chunks[-1].block or b"", columns, ties=arrays.layout.ties) if chunks and chunks[-1].is_tail else None
        body = chunks if tail is None else chunks[:-1]
        if tail is not None and body and body[-1].last_ts >= tail[0, 0]:
            raise ChunkCorrupt("the tail of a key begins before its chunks end")
        if not body:
            self.events = np.empty((columns, 0), np.int64) if tail is None else tail
        elif len(body) == 1 and body[0].block is not None:
            events = unpack(body[0].block)
            self.events = events if tail is None else np.concatenate([events, tail], axis=1)
        else:
            self.chunks = chunks
            self.events = _segments(arrays, body, tail, memory)
        matrix = self.events.matrix if isinstance(self.events, Segments) else self.events
        self.decoded_bytes = matrix.nbytes
        self.nbytes = _size(self.events, self.chunks)


def _segments(
    arrays: LayoutArrays, chunks: Sequence[StoredChunk], tail: Int64Array | None, memory: ValueMemory | None
) -> Segments:
    """The segments of chunks, and behind them one of the events of the tail."""
    is_decoded = [chunk.block is not None for chunk in chunks]
    blocks = [chunk.block for chunk in chunks if chunk.block is not None]
    matrix, offsets = unpack_many(blocks, arrays.layout.column_count)
    first_ts, last_ts = [chunk.first_ts for chunk in chunks], [chunk.last_ts for chunk in chunks]
    summaries = np.frombuffer(b"".join([chunk.summaries for chunk in chunks]), np.int64)
    summaries = summaries.reshape(len(chunks), arrays.measure_count, ROW_WIDTH)
    if tail is not None:
        first_ts.append(int(tail[0, 0]))
        last_ts.append(int(tail[0, -1]))
        of_tail = summarise_chunks(in_force(arrays.layout, tail), np.array([0, tail.shape[1]], np.int64), arrays.measures)
        summaries = np.concatenate([summaries, of_tail])
        is_decoded.append(True)
        matrix = np.concatenate([matrix, tail], axis=1)
        offsets = np.append(offsets, matrix.shape[1])
    amended_ts = _amended_ts(arrays.layout, chunks, tail)
    if memory is not None and amended_ts is not None and (amended_ts > EARLIEST).any():
        memory.forget()  # the values of an amended chunk are others at other times
        memory = None
    held_values = _NOTHING_HELD if memory is None else memory.take(chunks, matrix, offsets)
    edges = np.array(first_ts, np.int64), np.array(last_ts, np.int64)
    has_events = np.array(is_decoded)
    return segments_of_chunks(*edges, summaries, has_events, matrix, offsets, held_values.names, amended_ts, held_values.partials)


def _amended_ts(layout: KeyLayout, chunks: Sequence[StoredChunk], tail: Int64Array | None) -> Int64Array | None:
    """The time of the newest amendment of each chunk, and of the tail; None: the layout is not amendable."""
    if not layout.amendable:
        return None
    times = [EARLIEST if chunk.amended_ts is None else chunk.amended_ts for chunk in chunks]
    of_tail = None if tail is None else newest_amendments(layout, tail, np.array([0, tail.shape[1]], np.int64))
    return np.array(times if of_tail is None else [*times, int(of_tail[0])], np.int64)


def _size(events: Int64Array | Segments, chunks: Sequence[StoredChunk]) -> int:
    if not isinstance(events, Segments):
        return events.nbytes
    kept_bytes = sum(len(chunk.summaries) + len(chunk.block or b"") + _CHUNK_BYTES for chunk in chunks)
    held_bytes = HeldValues(events.value_names, events.partials).nbytes
    return events.matrix.nbytes + events.summaries.nbytes + held_bytes + kept_bytes


def refine(coarse: Sequence[StoredChunk], fine: Sequence[StoredChunk]) -> list[StoredChunk]:
    """Two readings of one key at one version, together: chunks rather than their span, and blocks where either has them.

    A reading is a partition of the key's events in time order: spans, and chunks of those spans that it opened.
    """
    chunks: list[StoredChunk] = []
    coarse_chunks, fine_chunks = deque(coarse), deque(fine)
    while coarse_chunks and fine_chunks:
        if coarse_chunks[0].last_ts == fine_chunks[0].last_ts:
            coarse_chunk, fine_chunk = coarse_chunks.popleft(), fine_chunks.popleft()
            chunks.append(fine_chunk if coarse_chunk.block is None else coarse_chunk)
            continue
        whole, parts = (
            (coarse_chunks, fine_chunks) if coarse_chunks[0].last_ts > fine_chunks[0].last_ts else (fine_chunks, coarse_chunks)
        )
        end = whole.popleft().last_ts
        while parts and parts[0].last_ts <= end:
            chunks.append(parts.popleft())
    return [*chunks, *coarse_chunks, *fine_chunks]


class Evaluator(SnapshotMaker):
    """Answers questions about one projection: its registry, pins and policy, and everything derived from them once."""

    def __init__(self, registry: CompiledRegistry, pins: ContextPins, run_config_digest: str, allowed_lateness_us: int) -> None:
        super().__init__(registry, pins, run_config_digest, allowed_lateness_us)
        self._spans: dict[tuple[tuple[str, str], ...], tuple[int, ...]] = {}
        self._subjects: dict[str, HeldSubjects] = {}

    def edges(self, question: Question) -> set[int]:
        """Times at which a window of the question begins or ends, and the as-of: a chunk across one must be decoded."""
        as_of = question.as_of
        return {as_of - span for groups in question.groups_of.values() for span in self._spans_of(groups, as_of)}

    def _spans_of(self, groups: tuple[CompiledGroup, ...], as_of: int) -> tuple[int, ...]:
        """How far before the as-of the windows of these groups begin and end, microseconds."""
        key = tuple((group.name, group.version) for group in groups)
        spans = self._spans.get(key)
        if spans is None:
            if len(self._spans) > 4096:
                self._spans.clear()
            query = self.query(groups).at(as_of)
            span_indexes = {0}
            for row in (*query.arrays.slots[query.slot_numbers].tolist(), *query.distinct.tolist(), *query.whole.tolist()):
                span_indexes |= {row[DELAY], row[DELAY] + row[WINDOW]}
            spans = tuple(sorted(span_indexes))
            if not query.has_calendars:  # else they are of this as-of
                self._spans[key] = spans
        return spans

    def whole_after(self, question: Question, key_type: str) -> int:
        """Every event after this time is needed: whole windows and texts cannot be merged from summaries. LATEST: none is."""
        query = self.query(question.groups_of[key_type]).at(question.as_of)
        if not len(query.distinct) and not len(query.whole) and not len(query.text_slots):
            return LATEST
        windows = np.concatenate([query.distinct, query.whole[:, : RESULT + 1], query.arrays.slots[query.text_slots]])
        return question.as_of - int((windows[:, DELAY] + windows[:, WINDOW]).max())

    def subjects(self, key_type: str) -> HeldSubjects:
        """The subjects of the values to hold of a key of that type: for the whole windows of any group."""
        subjects = self._subjects.get(key_type)
        if subjects is None:
            query = self.query(tuple(group for _, group in sorted(self.registry.groups.items()) if group.key_type == key_type))
            pairs = np.ascontiguousarray(np.unique(query.distinct[:, : ROW + 1], axis=0))
            subjects = self._subjects[key_type] = HeldSubjects(pairs, PartialSubjects.of(query))
        return subjects

    def needs_events(self, question: Question, key_type: str) -> bool:
        """Whether the question asks a key of that type for what needs its events: the least, greatest, first or last text."""
        return len(self.query(question.groups_of[key_type]).text_slots) > 0

    def answer(self, question: Question, state: StoredState, posture: Mapping[str, Any]) -> Answer:
        """Evaluate and encode.

        Raises:
            ContractError: see `SnapshotMaker.snapshot`.
        """

        keys = [self.key_state(key[0], chunks) for key, chunks in zip(question.keys, state.chunks, strict=True)]
        return self.answer_from(question, state.basis, state.watermark, keys, posture)

    def key_state(self, key_type: str, chunks: Sequence[StoredChunk], memory: ValueMemory | None = None) -> KeyState:
        """The decoded state of a key of that type, with what `memory` holds of it."""
        return KeyState(self._arrays[key_type], chunks, memory)

    def answer_from(
        self, question: Question, basis: str, watermark: int | None, keys: Sequence[KeyState], posture: Mapping[str, Any]
    ) -> Answer:
        """Evaluate and encode, from the states of the question's keys in their order, all of them at this basis.

        Raises:
            ContractError: see `SnapshotMaker.snapshot`.
            EventsMissing: a state has not all the events that this question needs.
        """
        return self.snapshot(question, basis, watermark, [key.events for key in keys], posture)
