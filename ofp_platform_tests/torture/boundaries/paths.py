"""The three ways to a windowed value, each on one case: serving from chunks, columns of a dataset, rows that know a part."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import orjson

from ofp_platform.kernel.accumulate import EARLIEST, merge_runs
from ofp_platform.kernel.columns import ColumnQuery, FeatureColumn, KeyedEvents, KeyedRows, feature_columns
from ofp_platform.kernel.finalise import group_values, wire
from ofp_platform.kernel.known_rows import evaluate_known
from ofp_platform.kernel.native import Int64Array
from ofp_platform.kernel.query import LayoutArrays
from ofp_platform.kernel.windows import NEVER
from ofp_platform.online.projecting import chunk_merge
from ofp_platform.online.serving.evaluation import Evaluator, StoredChunk
from ofp_platform.online.state.chunk_codec import pack_many, unpack_many
from ofp_platform.registry.layout import CompiledGroup
from ofp_platform.registry.question import PlainRequest, Question
from ofp_platform.registry.text_words import text_of
from ofp_platform.vocabulary.decimals import format_decimal
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform_tests.oracle.fold import time_text
from ofp_platform_tests.oracle.small_plane import RUN_CONFIG
from ofp_platform_tests.oracle.strategies import PINS
from ofp_platform_tests.torture.boundaries.cases import KEY, LEVELS, Case, Moment
from ofp_platform_tests.torture.random_worlds.defects import moved_edges
from ofp_platform_tests.torture.random_worlds.packs import WorldPack

_CHUNK_EVENTS, _SPAN_CHUNKS = (1, 2, 3, 256), (1, 2, 4)
Values = dict[str, int | str | None]
Found = tuple[Values, str | None]
"""(values by name, text of the last update)."""


@dataclass(frozen=True)
class Planted:
    """A mistake: all windows begin `left` and end `right` microseconds earlier, or events of equal times stand the wrong way."""

    left: int = 0
    right: int = 0
    ties_reversed: bool = False

    def spoilt(self, case: Case) -> Case:
        """The case as the kernels get it; the oracle asks nothing of the order of events."""
        if not self.ties_reversed:
            return case
        order = np.lexsort((-np.arange(len(case.events)), case.matrix[0]))
        return replace(
            case,
            matrix=np.ascontiguousarray(case.matrix[:, order]),
            events=tuple(case.events[place] for place in order),
            levels=tuple(case.levels[place] for place in order),
        )


class Paths:
    """The plans of one pack and key type, made once for all its cases."""

    def __init__(self, pack: WorldPack, key_type: str, planted: Planted) -> None:
        self.key_type = key_type
        self.planted = planted
        self.layout = pack.registry.layouts[key_type]
        self.groups: tuple[CompiledGroup, ...] = tuple(
            plan for _, plan in sorted(pack.registry.groups.items()) if plan.key_type == key_type
        )
        self.plan = moved_edges(LayoutArrays.of(self.layout), planted.left, planted.right)
        self.columns = ColumnQuery(self.plan, self.groups)
        self.evaluator = Evaluator(pack.registry, ContextPins(**PINS), RUN_CONFIG, 0)
        self.evaluator._arrays[key_type] = self.plan

    # ---- serving ---------------------------------------------------------------------------------------------------

    def serve(self, case: Case, moments: Sequence[Moment]) -> list[list[Found]]:
        """Per moment and group what a server says, from chunks that grew level by level."""
        states = self._states(case)
        return [self._served(case, states[moment.level], moment) for moment in moments]

    def _states(self, case: Case) -> list[list[StoredChunk]]:
        """The key's chunks after each level was merged into those before."""
        limit = _CHUNK_EVENTS[case.seed % len(_CHUNK_EVENTS)]
        levels = np.array(case.levels, np.int64)
        chunks: list[StoredChunk] = []
        states = []
        for level in range(LEVELS):
            new = np.ascontiguousarray(case.matrix[:, levels == level])
            if new.shape[1]:
                chunks = self._merged(chunks, new, limit)
            states.append(chunks)
        return states

    def _merged(self, chunks: list[StoredChunk], new: Int64Array, limit: int) -> list[StoredChunk]:
        existing, offsets = unpack_many([chunk.block for chunk in chunks] or [None], self.layout.column_count)
        begins = np.array([chunk.first_ts for chunk in chunks] or [EARLIEST], np.int64)
        bucket = np.maximum(np.searchsorted(begins, new[0], side="right") - 1, 0)
        merged = chunk_merge.merge(
            existing, offsets, bucket, new, ties=self.layout.ties and not self.planted.ties_reversed, limit=limit
        )
        summaries = chunk_merge.summarise_chunks(self.plan, merged.matrix, merged.chunk_offsets)
        blocks = pack_many(merged.matrix, merged.chunk_offsets)
        first, last = (
            merged.matrix[0, merged.chunk_offsets[:-1]].tolist(),
            merged.matrix[0, merged.chunk_offsets[1:] - 1].tolist(),
        )
        return [
            StoredChunk(begin, end, row.tobytes(), block)
            for begin, end, row, block in zip(first, last, summaries, blocks, strict=True)
        ]

    def _served(self, case: Case, chunks: Sequence[StoredChunk], moment: Moment) -> list[Found]:
        context = dict(case.context) or None
        request = PlainRequest(self.evaluator.pins, time_text(moment.as_of), context, None, None, None)
        question = Question(request, moment.as_of, ((self.key_type, KEY),), self.groups, {self.key_type: self.groups}, context)
        state = self.evaluator.key_state(self.key_type, self._read(chunks, question, case.seed))
        hashed = self.evaluator.hashed(question, "{}", None, [state.events])
        body = orjson.loads(hashed)
        return [
            (values["features"], fresh["last_update_event_time"])
            for values, fresh in zip(body["values"][0]["by_group"], body["freshness"], strict=True)
        ]

    def _read(self, chunks: Sequence[StoredChunk], question: Question, seed: int) -> list[StoredChunk]:
        """What the server's statement reads: spans where no edge falls inside, and blocks only where one does."""
        edges, after = self.evaluator.edges(question), self.evaluator.whole_after(question, self.key_type)
        run = _SPAN_CHUNKS[seed // len(_CHUNK_EVENTS) % len(_SPAN_CHUNKS)]
        spanned = max(len(chunks) // run - 1, 0) * run

        def opened(first: int, last: int) -> bool:
            return last > after or any(first <= edge < last for edge in edges)

        found: list[StoredChunk] = []
        for begin in range(0, spanned, run):
            under = chunks[begin : begin + run]
            first, last = under[0].first_ts, under[-1].last_ts
            if opened(first, last):
                found += under
            else:
                found.append(StoredChunk(first, last, self._together(under), None))
        found += chunks[spanned:]
        return [
            StoredChunk(one.first_ts, one.last_ts, one.summaries, one.block if opened(one.first_ts, one.last_ts) else None)
            for one in found
            if one.first_ts <= question.as_of
        ]

    def _together(self, chunks: Sequence[StoredChunk]) -> bytes:
        rows = np.frombuffer(b"".join([chunk.summaries for chunk in chunks]), np.int64)
        return merge_runs(rows.reshape(len(chunks), self.plan.measure_count, -1), np.array([0, len(chunks)])).tobytes()

    # ---- columns and known rows ------------------------------------------------------------------------------------

    def column_values(self, case: Case) -> list[list[Values]] | str:
        """Per moment and group the values of dataset columns; each level is a key of its own there, and all of it known."""
        levels = np.array(case.levels, np.int64)
        parts = [case.matrix[:, levels <= level] for level in range(LEVELS)]
        ends = np.cumsum([part.shape[1] for part in parts])
        places = [[place for place, one in enumerate(case.moments) if one.level == level] for level in range(LEVELS)]
        order = [place for own in places for place in own]
        events = KeyedEvents(np.ascontiguousarray(np.concatenate(parts, axis=1)), np.array([0, *ends[:-1]]), ends)
        rows = KeyedRows(
            np.cumsum([0, *(len(own) for own in places)]), np.array([case.moments[place].as_of for place in order], np.int64)
        )
        found = self._columns(events, rows)
        back: list[list[Values]] = [[]] * len(order)
        for row, place in enumerate(order):
            back[place] = found[row]
        return back

    def known_column_values(self, case: Case) -> list[list[Values]]:
        """The same of one key whose rows know some of its events."""
        return self._columns(_keyed(case), _rows(case))

    def _columns(self, events: KeyedEvents, rows: KeyedRows) -> list[list[Values]]:
        made = feature_columns(self.columns, events, rows)
        return [
            [{column.name: _value(column, row) for column in made if column.group == group} for group in self._names]
            for row in range(len(rows.times))
        ]

    @cached_property
    def _names(self) -> list[tuple[str, str]]:
        return [(group.name, group.version) for group in self.groups]

    def known_evaluations(self, case: Case) -> list[list[Found]]:
        """Per moment and group what a rebuild of a snapshot finds: rows that know some of the events."""
        horizons = np.full(len(case.moments), EARLIEST, np.int64)
        found = evaluate_known(self.columns, _keyed(case), _rows(case), horizons)
        made: list[list[Found]] = []
        for row, moment in enumerate(case.moments):
            evaluation = found.at(row)
            own: list[Found] = []
            for group, touched in zip(self.groups, evaluation.touches.tolist(), strict=True):
                values = group_values(group, self.columns.query, evaluation, moment.as_of)
                last = None if touched == NEVER else time_text(touched)
                own.append(({name: wire(value) for name, value in values.items()}, last))
            made.append(own)
        return made


def _keyed(case: Case) -> KeyedEvents:
    count = np.array([case.matrix.shape[1]], np.int64)
    return KeyedEvents(case.matrix, np.zeros(1, np.int64), count, np.array(case.levels, np.int64))


def _rows(case: Case) -> KeyedRows:
    times = np.array([one.as_of for one in case.moments], np.int64)
    return KeyedRows(np.array([0, len(times)], np.int64), times, np.array([one.level for one in case.moments], np.int64))


def _items(column: FeatureColumn, row: int) -> list[Any]:
    """The list of a row. A boolean is an integer in a column, as it is elsewhere here."""
    assert column.items is not None
    places = slice(int(column.low[:row].sum()), int(column.low[: row + 1].sum()))
    items: list[Any] = column.items[places].tolist()
    if column.texts is not None:
        items = [text_of(column.texts[rank]) for rank in items]
    if column.numbers is None:
        return items
    numbers = column.numbers[places].tolist()
    return [{"category": category, "value": number} for category, number in zip(items, numbers, strict=True)]


def _value(column: FeatureColumn, row: int) -> Any:
    if not column.valid[row]:
        return None
    low = int(column.low[row])
    if column.items is not None:
        return _items(column, row)
    if column.texts is not None:
        return text_of(column.texts[low])
    if column.high is None or column.scale is None:
        return low
    return format_decimal((int(column.high[row]) << 64) + (low & (2**64 - 1)), column.scale)
