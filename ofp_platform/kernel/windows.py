"""One key at one time: windows over segments of its events.

The events of a key come as segments in time order, none sharing a time with another. A segment is known by the
summaries of its measures, by its events, or by both: a chunk that lies whole inside a window (or a span of many chunks,
merged) is one row to merge, and only those that straddle an edge of a window must have been decoded.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from ofp_platform.kernel.accumulate import EARLIEST, ROW_WIDTH, summarise_chunks
from ofp_platform.kernel.amendments import in_force
from ofp_platform.kernel.named_values import SegmentNames, count_names
from ofp_platform.kernel.native import BoolArray, Int64Array
from ofp_platform.kernel.partial_aggregates import SegmentPartials, whole_of_partials
from ofp_platform.kernel.query import LayoutArrays, Query
from ofp_platform.kernel.texts import NO_TEXTS, TextTables, with_ranks
from ofp_platform.kernel.whole_windows import whole_of_matrix, whole_of_segments
from ofp_platform.kernel.window_loops import NEVER as NEVER
from ofp_platform.kernel.window_loops import NOTHING_MISSING, answer, answer_whole


class EventsMissing(ValueError):
    """A segment was not decoded, and the question needs its events."""


@dataclass(frozen=True)
class Segments:
    """The events of one key.

    `first_ts`, `last_ts` int64[K], microseconds; `summaries` int64[K, M, 11], or int64[0, M, 11] when there are none
    and every segment has its events; `starts`, `ends` int64[K]: the segment's events are matrix[:, start:end], start -1
    when they are not there; `matrix` int64[C, N]. `value_names`: distinct counts go by these, so that a segment whole inside a
    window needs no events for them; `partials`: so do the other whole windows. `amended_ts` int64[K] (of an amendable layout):
    the time of each segment's newest amendment, from which on its summaries hold; EARLIEST where it has none.
    """

    first_ts: Int64Array
    last_ts: Int64Array
    summaries: Int64Array
    starts: Int64Array
    ends: Int64Array
    matrix: Int64Array
    value_names: SegmentNames | None = None
    amended_ts: Int64Array | None = None
    partials: SegmentPartials | None = None


def segments_of_chunks(
    first_ts: Int64Array,
    last_ts: Int64Array,
    summaries: Int64Array,
    has_events: BoolArray,
    matrix: Int64Array,
    offsets: Int64Array,
    value_names: SegmentNames | None = None,
    amended_ts: Int64Array | None = None,
    partials: SegmentPartials | None = None,
) -> Segments:
    """Segments; those with `has_events` bool[K] have events, the i-th of them matrix[:, offsets[i]:offsets[i+1]]."""
    starts = np.full(len(first_ts), -1, np.int64)
    ends = np.full(len(first_ts), -1, np.int64)
    starts[has_events] = offsets[:-1]
    ends[has_events] = offsets[1:]
    return Segments(first_ts, last_ts, summaries, starts, ends, matrix, value_names, amended_ts, partials)


def segments_in_force(arrays: LayoutArrays, segments: Segments, time: int) -> Segments:
    """The segments as of `time`: events as amended, and summaries of them where stored ones do not hold yet.

    Raises:
        EventsMissing: a segment has amendments newer than that, and no events.
    """
    amended_ts = segments.amended_ts
    if amended_ts is None or not (amended_ts > EARLIEST).any():
        return segments
    is_early = (amended_ts > time) & (segments.first_ts <= time)
    if (is_missing := is_early & (segments.starts < 0)).any():
        raise EventsMissing(f"segment {int(np.flatnonzero(is_missing)[0])} was amended after {time}, and was not decoded")
    matrix = in_force(arrays.layout, segments.matrix, time)
    summaries = segments.summaries
    if len(summaries) and is_early.any():
        summaries = summaries.copy()
        for number in np.flatnonzero(is_early).tolist():
            bounds = segments.starts[number], segments.ends[number]
            summaries[number] = summarise_chunks(matrix, np.array(bounds, np.int64), arrays.measures)[0]
    return replace(segments, matrix=matrix, summaries=summaries)


@dataclass(frozen=True)
class Evaluation:
    """The result of a query at one time.

    `accumulators` int64[S, 11], zeros in slots that were not requested, ranks in `texts` where values are texts;
    `distinct` int64[R], the results, in the order of the query's index; `touches` int64[G]: per mask the last time of an event,
    microseconds, or NEVER.
    """

    accumulators: Int64Array
    distinct: Int64Array
    touches: Int64Array
    texts: TextTables = NO_TEXTS

    @cached_property
    def rows(self) -> tuple[list[list[Any]], list[Any]]:
        """Accumulators and results as Python integers, values that are texts as these."""
        rows: list[list[Any]] = self.accumulators.tolist()
        results: list[Any] = self.distinct.tolist()
        self.texts.put_in(rows, results)
        return rows, results


KeyEvents = Int64Array | Segments | Evaluation
"""One key as an answer is made from it: its whole event matrix int64[C, n], its segments, or the evaluation of its query."""


def _blank(query: Query, texts: TextTables) -> Evaluation:
    return Evaluation(
        np.zeros((len(query.arrays.slots), ROW_WIDTH), np.int64),
        np.empty(query.result_count, np.int64),
        np.empty(len(query.masks), np.int64),
        texts,
    )


def evaluate(query: Query, matrix: Int64Array, time: int, horizon: int = EARLIEST) -> Evaluation:
    """The query over a whole event matrix int64[C, n], as of `time`; touches at or behind `horizon` do not count."""
    texts, query = NO_TEXTS, query.at(time)
    matrix = in_force(query.arrays.layout, matrix, time)
    if query.has_texts:
        matrix, texts = with_ranks(query, matrix)
    evaluation = _blank(query, texts)
    arrays = query.arrays
    answer_whole(
        arrays.slots, query.slot_numbers, query.distinct, query.masks, arrays.measures, time, horizon, matrix,
        evaluation.accumulators, evaluation.distinct, evaluation.touches,
    )  # fmt: skip
    if len(query.whole):
        whole_of_matrix(query, time, matrix, evaluation.distinct)
    return evaluation


def evaluate_state(query: Query, segments: Segments, time: int, horizon: int = EARLIEST) -> Evaluation:
    """The query over segments, as of `time`; equal to `evaluate` over the whole matrix.

    Raises:
        EventsMissing: a segment that a window ends in, or whose values are counted, or that was amended later, has no events.
    """
    segments = segments_in_force(query.arrays, segments, time)
    matrix, texts, query = segments.matrix, NO_TEXTS, query.at(time)
    partials = segments.partials
    if query.has_texts:
        matrix, texts = with_ranks(query, matrix, None if partials is None else partials.text_tables(query))
    evaluation = _blank(query, texts)
    arrays = query.arrays
    value_names = segments.value_names
    walked = query.distinct if value_names is None else query.distinct[:0]
    missing = answer(
        arrays.slots, query.merged_slots, walked, query.masks, arrays.measures, time, horizon,
        segments.first_ts, segments.last_ts, segments.summaries, segments.starts, segments.ends, matrix,
        evaluation.accumulators, evaluation.distinct, evaluation.touches,
    )  # fmt: skip
    if missing == NOTHING_MISSING and value_names is not None and len(query.distinct):
        bounds = segments.first_ts, segments.last_ts, segments.starts, segments.ends
        missing = count_names(query.distinct, time, bounds, segments.matrix, value_names, evaluation.distinct)
    if missing == NOTHING_MISSING and len(query.whole):
        bounds = segments.first_ts, segments.last_ts, segments.starts, segments.ends
        if partials is None:
            missing = whole_of_segments(query, time, bounds, matrix, evaluation.distinct)
        else:
            missing = whole_of_partials(query, time, bounds, partials, evaluation.distinct)
    if missing == NOTHING_MISSING and query.has_texts:
        missing = answer(
            arrays.slots, query.text_slots, query.distinct[:0], query.masks[:0], arrays.measures, time, horizon,
            segments.first_ts, segments.last_ts, segments.summaries[:0], segments.starts, segments.ends, matrix,
            evaluation.accumulators, evaluation.distinct, evaluation.touches,
        )  # fmt: skip
    if missing != NOTHING_MISSING:
        raise EventsMissing(f"the events of segment {missing} are needed at {time}, but it was not decoded")
    return evaluation
