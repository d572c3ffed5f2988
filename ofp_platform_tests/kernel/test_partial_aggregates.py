"""Whole windows from partial aggregates are those from the events, whatever is decoded, merged_run or only known."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.kernel.native import Int64Array
from ofp_platform.kernel.partial_aggregates import (
    CategoryNames,
    PartialSubjects,
    SegmentPartials,
    merged_run,
    partials_of,
    segment_partials,
)
from ofp_platform.kernel.query import BY_COUNT, BY_SUM, CHANGE, LAST_N, QUANTILE, LayoutArrays, Query, make_query
from ofp_platform.kernel.whole_windows import NO_VALUE
from ofp_platform.kernel.windows import EventsMissing, Segments, evaluate, evaluate_state
from ofp_platform.registry.layout import KeyLayout, Measure, Predicate, Slot
from ofp_platform.registry.text_words import text_of, words_of

LAYOUT = KeyLayout(
    "account", True, (Predicate((), ()),) * 2, ("x", "y"), ("u",),
    (Measure(0, -1), Measure(0, 0), Measure(1, 1), Measure(1, -1)),
    (Slot(0, 10, 0), Slot(1, 10, 0), Slot(1, 25, 3), Slot(2, 25, 0), Slot(0, 12, 1, text=0), Slot(3, 30, 0)),
    text_fields=("shop",),
)  # fmt: skip
EVENTS, VALUES, DELAYED, OTHERS, TEXTS, SECOND = range(6)
WHOLE = [
    *((slot, QUANTILE, p, -1) for slot in (VALUES, DELAYED, OTHERS) for p in (1, 500_000, 900_000, 1_000_000)),
    *((slot, LAST_N, n, -1) for slot in (VALUES, OTHERS, TEXTS) for n in (1, 4, 20)),
    *((slot, BY_COUNT, k, -1, *category) for slot in (EVENTS, SECOND) for k in (1, 2, 20) for category in ((0, 0), (0, 1))),
    *((slot, BY_SUM, k, -1, *category) for slot in (DELAYED, OTHERS) for k in (1, 20) for category in ((1, 0), (0, 1))),
    *((slot, CHANGE, 0, 1) for slot in (EVENTS, SECOND)),
]
QUERY = make_query(LayoutArrays.of(LAYOUT), (), whole=WHOLE)
SUBJECTS = PartialSubjects.of(QUERY)
numbers = st.one_of(st.integers(-3, 3), st.sampled_from((10, 12, 100, -10, 2**53 - 1, 1 - 2**53)))
shops = st.sampled_from(("", "a", "ab", "b", "ä", "a\0"))
places = st.lists(st.integers(0, 40), max_size=8)


@st.composite
def matrices(draw: st.DrawFn) -> Int64Array:
    """int64[C, n] by time: time, mask, tie, tie, x, y, token, token, words of the shop."""
    rows = draw(
        st.lists(st.tuples(st.integers(0, 30), st.sampled_from((0, 1, 1, 3, 3, 2)), numbers, numbers, shops), max_size=40)
    )
    rows.sort(key=lambda row: row[0])
    columns = np.array([row[:4] for row in rows], np.int64).reshape(len(rows), 4).T
    zeros = np.zeros((2, len(rows)), np.int64)
    ties = np.stack([zeros[0], np.arange(len(rows))])
    return np.ascontiguousarray(np.concatenate([columns[:2], ties, columns[2:], zeros, words_of([row[4] for row in rows])]))


def bounds_of(matrix: Int64Array, cuts: list[int]) -> list[tuple[int, int]]:
    """Segments that end where the time of an event differs from the next one's."""
    count = matrix.shape[1]
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < count and matrix[0, cut - 1] < matrix[0, cut]}), count]
    return [(begin, end) for begin, end in pairwise(edges) if begin < end]


class Held:
    """The partial aggregates of segments as a reader holds them: each was seen by itself, or is merged_run from its halves."""

    def __init__(self, matrix: Int64Array, bounds: list[tuple[int, int]], are_merged: list[bool]) -> None:
        self.names = [CategoryNames() for _ in SUBJECTS.fields]
        self.runs: list[int] = []
        self.bounds = [
            [self._put(self._run(subject, matrix, begin, end, is_merged=is_merged)) for subject in range(len(SUBJECTS))]
            for (begin, end), is_merged in zip(bounds, are_merged, strict=True)
        ]

    def _put(self, run: Int64Array) -> tuple[int, int]:
        begin = len(self.runs)
        self.runs += run.tolist()
        return begin, len(self.runs)

    def _run(self, subject: int, matrix: Int64Array, begin: int, end: int, *, is_merged: bool) -> Int64Array:
        named_matrix = SUBJECTS.named_matrix(np.ascontiguousarray(matrix[:, begin:end]), self.names)
        names = SUBJECTS.names_of(subject, self.names)
        half = (end - begin) // 2 if is_merged else end - begin
        parts = partials_of(SUBJECTS, subject, named_matrix, np.array([0, half, end - begin], np.int64), names)
        return merged_run(SUBJECTS, subject, parts, names) if is_merged else parts[0]

    def of(self, matrix: Int64Array, known: list[bool]) -> SegmentPartials:
        bounds = [own if is_known else None for own, is_known in zip(self.bounds, known, strict=True)]
        return segment_partials(
            SUBJECTS, SUBJECTS.named_matrix(matrix, self.names), bounds, np.array(self.runs, np.int64), self.names
        )


def edges_of(time: int) -> set[int]:
    return {time, *(end - span for slot in LAYOUT.slots for end in [time - slot.delay] for span in (0, slot.window))}


def segments_of(
    matrix: Int64Array, bounds: list[tuple[int, int]], decoded: list[bool], known: list[bool], held: Held
) -> Segments:
    kept = [matrix[:, begin:end] for (begin, end), is_decoded in zip(bounds, decoded, strict=True) if is_decoded]
    events = np.ascontiguousarray(np.concatenate([matrix[:, :0], *kept], axis=1))
    starts, ends = np.full(len(bounds), -1, np.int64), np.full(len(bounds), -1, np.int64)
    stops = np.cumsum([part.shape[1] for part in kept], dtype=np.int64)
    ends[decoded], starts[decoded] = stops, stops - [part.shape[1] for part in kept]
    first, last = (
        np.array([matrix[0, place] for place in side], np.int64) for side in ([b for b, _ in bounds], [e - 1 for _, e in bounds])
    )
    none = np.zeros((len(bounds), len(LAYOUT.measures), 11), np.int64)
    return Segments(first, last, none, starts, ends, events, partials=held.of(events, known))


def results(query: Query, evaluation: Any) -> dict[tuple[int, ...], list[Any]]:
    """Of each window its results, texts as texts; what stands behind the last item of a list is zero."""
    found = evaluation.rows[1]
    stops = [*list(query.distinct_index.values())[1:], query.result_count]
    return {key: found[begin:end] for (key, begin), end in zip(query.distinct_index.items(), stops, strict=True)}


@given(matrices(), st.integers(-1, 45), places, st.data())
def test_partial_aggregates_give_the_results_of_the_events(
    matrix: Int64Array, time: int, cuts: list[int], data: st.DataObject
) -> None:
    bounds = bounds_of(matrix, cuts)
    # of each segment that no edge falls into: its partial aggregates, or its events, or both
    ways = data.draw(st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=len(bounds), max_size=len(bounds)))
    crossed = [any(matrix[0, begin] <= edge < matrix[0, end - 1] for edge in edges_of(time)) for begin, end in bounds]
    decoded = [is_crossed or way > 0 for is_crossed, (way, _) in zip(crossed, ways, strict=True)]
    known = [way < 2 for way, _ in ways]
    held = Held(matrix, bounds, [is_merged for _, is_merged in ways])
    segments = segments_of(matrix, bounds, decoded, known, held)
    assert results(QUERY, evaluate_state(QUERY, segments, time)) == results(QUERY, evaluate(QUERY, matrix, time))


@given(matrices(), places, st.data())
def test_a_span_has_the_partial_aggregates_of_its_events(matrix: Int64Array, cuts: list[int], data: st.DataObject) -> None:
    """Whatever the cut of the parts; a window over the whole is that of the events."""
    bounds = bounds_of(matrix, cuts)
    held = Held(matrix, bounds, [False] * len(bounds))
    names = held.names
    for subject in range(len(SUBJECTS)):
        parts = [np.array(held.runs[slice(*own[subject])], np.int64) for own in held.bounds]
        whole = partials_of(
            SUBJECTS,
            subject,
            SUBJECTS.named_matrix(matrix, names),
            np.array([0, matrix.shape[1]]),
            SUBJECTS.names_of(subject, names),
        )[0]
        span = merged_run(SUBJECTS, subject, parts or [whole[:0]], SUBJECTS.names_of(subject, names))
        if SUBJECTS.rows[subject, 2] in (BY_COUNT, BY_SUM):  # in the order of names, not of events
            width = 3 if SUBJECTS.rows[subject, 2] == BY_SUM else 2
            assert sorted(span.reshape(-1, width).tolist()) == sorted(whole.reshape(-1, width).tolist())
        else:
            assert span.tolist() == whole.tolist()


def test_a_segment_without_events_and_partial_aggregates_is_missing() -> None:
    matrix = np.zeros((LAYOUT.column_count, 2), np.int64)
    matrix[0], matrix[1] = [1, 2], 1
    bounds = [(0, 1), (1, 2)]
    held = Held(matrix, bounds, [False, False])
    with pytest.raises(EventsMissing, match="segment 0"):
        evaluate_state(QUERY, segments_of(matrix, bounds, [False, True], [False, True], held), 5)
    # known, but an edge falls into it
    wide_bounds = [(0, 2)]
    straddling = segments_of(matrix, wide_bounds, [False], [True], Held(matrix, wide_bounds, [False]))
    with pytest.raises(EventsMissing, match="segment 0"):
        evaluate_state(QUERY, straddling, 1)
    assert evaluate_state(QUERY, straddling, 5).distinct.any()


def test_one_partial_aggregate_serves_windows_of_any_length_and_number_of_items() -> None:
    kinds = [int(row[2]) for row in SUBJECTS.rows]
    assert len(SUBJECTS) == len(set(SUBJECTS.places.values())) < len(QUERY.whole)
    # two of values; three lists by their longest; counts and sums by two categories each, of both predicates
    assert [kinds.count(kind) for kind in (QUANTILE, LAST_N, BY_COUNT, BY_SUM, CHANGE)] == [2, 3, 4, 4, 2]
    assert {int(row[3]) for row in SUBJECTS.rows if row[2] == LAST_N} == {20}
    assert len(SUBJECTS.fields) == 3  # x, y, shop


def test_ties_at_the_last_place_go_by_the_bytes_of_the_category() -> None:
    values = [5, 10, -1, 7, 100, 7, 10, 5, -1, 100, 7]
    matrix = np.zeros((LAYOUT.column_count, len(values)), np.int64)
    matrix[0], matrix[1], matrix[4] = np.arange(len(values)), 3, values
    bounds = [(0, 4), (4, 9), (9, 11)]
    segments = segments_of(matrix, bounds, [False, False, True], [True, True, False], Held(matrix, bounds, [True, False, False]))
    with pytest.raises(KeyError):  # what is not held cannot be asked for
        evaluate_state(make_query(LayoutArrays.of(LAYOUT), (), whole=[(SECOND, BY_SUM, 3, -1, 0, 0)]), segments, 20)
    query = make_query(LayoutArrays.of(LAYOUT), (), whole=[(SECOND, BY_COUNT, 3, -1, 0, 0)])
    found = evaluate_state(query, segments, len(values)).distinct.tolist()
    assert found == [3, 7, -1, 10, 3, 2, 2]
    assert evaluate(query, matrix, len(values)).distinct.tolist() == found


def worked_matrix() -> Int64Array:
    """Twelve events: one at each time, but for two at 6; the flag (bit 1) and the first predicate come and go."""
    times = [0, 1, 2, 3, 4, 5, 6, 6, 8, 9, 10, 11]
    masks = [1, 3, 3, 2, 1, 1, 3, 1, 0, 3, 3, 1]
    values = [5, 7, 7, 9, 5, -2, 7, 10, 1, -2, -2, 100]
    others = [1, -1, 4, 2, 9, -9, 3, 8, 0, 2, 2, 6]
    shops = ["a", "b", "a", "c", "ab", "a", "b", "c", "a", "", "b", "b"]
    rows = [times, masks, [0] * 12, list(range(12)), values, others, [0] * 12, [0] * 12]
    return np.concatenate([np.array(rows, np.int64), words_of(shops)])


def test_every_cut_of_one_key_gives_the_results_of_the_events() -> None:
    matrix = worked_matrix()
    for first in range(1, 11):
        for second in range(first, 12):
            bounds = bounds_of(matrix, [first, second])
            held = {is_merged: Held(matrix, bounds, [is_merged] * len(bounds)) for is_merged in (False, True)}
            for time in range(-1, 45, 2):
                crossed = [any(matrix[0, begin] <= edge < matrix[0, end - 1] for edge in edges_of(time)) for begin, end in bounds]
                wanted = results(QUERY, evaluate(QUERY, matrix, time))
                for is_merged, own in held.items():
                    segments = segments_of(matrix, bounds, crossed, [True] * len(bounds), own)
                    assert results(QUERY, evaluate_state(QUERY, segments, time)) == wanted, (first, second, time, is_merged)


def test_the_runs_of_one_segment_are_as_documented() -> None:
    matrix, names = worked_matrix(), [CategoryNames() for _ in SUBJECTS.fields]
    named_matrix = SUBJECTS.named_matrix(matrix, names)
    runs = {}
    for key, subject in SUBJECTS.places.items():
        offsets = np.array([0, 0, 7, 12], np.int64)
        runs[key] = partials_of(SUBJECTS, subject, named_matrix, offsets, SUBJECTS.names_of(subject, names))
        assert runs[key][0].tolist() == []  # no event, nothing
    x, y, shop = (LAYOUT.first_integer_row, LAYOUT.first_integer_row + 1, LAYOUT.first_text_row)
    assert runs[0, x, QUANTILE, -1, -1][1].tolist() == [-2, 5, 5, 7, 7, 7]
    assert runs[0, x, LAST_N, -1, -1][2].tolist() == [100, -2, -2, 10]
    assert runs[1, y, QUANTILE, -1, -1][1].tolist() == [-1, 2, 3, 4]
    # first flag and its time, last flag, newest change
    assert runs[0, -1, CHANGE, 1, -1][1].tolist() == [0, 0, 1, 6]
    assert runs[0, -1, CHANGE, 1, -1][2].tolist() == [0, 6, 0, 11]
    shops = [text_of(cell) for cell in names[SUBJECTS.fields.index(shop)].values if isinstance(cell, bytes)]
    counts = runs[0, -1, BY_COUNT, -1, shop][1].reshape(-1, 2).tolist()
    assert {shops[name]: count for name, count in counts} == {"a": 3, "b": 2, "ab": 1}
    sums = runs[1, y, BY_SUM, -1, shop][1].reshape(-1, 3).tolist()
    assert {shops[name]: (high, low) for name, high, low in sums} == {"b": (0, 2), "a": (0, 4), "c": (0, 2)}
    negative = runs[0, x, BY_SUM, -1, y][2].reshape(-1, 3).tolist()
    by_value = {names[SUBJECTS.fields.index(y)].values[name]: (high, low) for name, high, low in negative}
    assert by_value == {8: (0, 10), 2: (-1, -4), 6: (0, 100)}


def test_changes_merge_in_the_order_of_time() -> None:
    (subject,) = [place for key, place in SUBJECTS.places.items() if key[0] == 0 and key[2] == CHANGE]

    def merge(*runs: list[int]) -> list[int]:
        return merged_run(SUBJECTS, subject, [np.array(run, np.int64) for run in runs], 0).tolist()

    none = NO_VALUE
    assert merge([]) == merge([], []) == []
    assert merge([], [1, 5, 1, none], []) == [1, 5, 1, none]
    assert merge([1, 5, 1, none], [1, 7, 1, none]) == [1, 5, 1, none]
    assert merge([1, 5, 1, none], [0, 7, 0, none]) == [1, 5, 0, 7]
    assert merge([1, 5, 0, 6], [0, 7, 1, 8], [1, 9, 1, none]) == [1, 5, 1, 8]
    assert merge([1, 5, 0, 6], [1, 7, 1, none], [1, 9, 1, none]) == [1, 5, 1, 7]


def test_sizes_are_told() -> None:
    matrix = worked_matrix()
    bounds = [(0, 6), (6, 12)]
    partials = Held(matrix, bounds, [False, False]).of(matrix, [True, True])
    assert partials.nbytes == partials.matrix.nbytes + partials.starts.nbytes + partials.ends.nbytes > 0
    assert CategoryNames().nbytes == 0
