"""Distinct counts by the names of values are those over the events, whatever is decoded and whatever is only named."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.kernel.accumulate import EARLIEST, PREDICATE, ROW, summarise_chunks
from ofp_platform.kernel.named_values import SegmentNames, ValueNames, different_names, segment_names
from ofp_platform.kernel.native import BoolArray, Int64Array
from ofp_platform.kernel.query import DELAY, WINDOW, LayoutArrays, Query, make_query
from ofp_platform.kernel.windows import EventsMissing, Segments, evaluate_state, segments_of_chunks
from ofp_platform_tests.oracle.matrices import SPAN, Case, cases, naive_distinct

moments = st.integers(-5, 2 * SPAN + 10)
places = st.sets(st.integers(1, 60), max_size=20)


def cuts(matrix: Int64Array, wanted: set[int]) -> Int64Array:
    """Offsets of segments: cut where wanted, but never between equal times."""
    ts = matrix[0]
    inner = [place for place in sorted(wanted) if 0 < place < len(ts) and ts[place - 1] != ts[place]]
    return np.array([0, *inner, len(ts)] if len(ts) else [0], np.int64)


def whole(query: Query, time: int, first: Int64Array, last: Int64Array) -> BoolArray:
    """bool[K]: segments that no edge of a window falls into, nor the as-of."""
    edges = {time}
    for window, delay in query.distinct[:, [WINDOW, DELAY]].tolist():
        high = max(time - delay, EARLIEST)
        edges |= {high, max(high - window, EARLIEST)}
    crossed = np.zeros(len(first), np.bool_)
    for edge in edges:
        crossed |= (first <= edge) & (edge < last)
    return ~crossed


def named(query: Query, case: Case, offsets: Int64Array, decoded: BoolArray, known: BoolArray) -> tuple[SegmentNames, Int64Array]:
    """The names of the segments, taken in one piece after the other as a reader does, and the decoded events' matrix."""
    pairs = np.ascontiguousarray(np.unique(query.distinct[:, : ROW + 1], axis=0))
    names = {row: ValueNames() for row in pairs[:, ROW].tolist()}
    rows, values = [], []
    for predicate, row in pairs.tolist():
        parts = []
        for begin, end in pairwise(offsets.tolist()):  # each chunk of its own: the table grows
            part = np.ascontiguousarray(case.matrix[:, begin:end])
            own = names[row].name(part, row)
            parts.append((own, part))
        size = names[row].count
        rows.append(
            np.concatenate([own for (own, _), there in zip(parts, decoded, strict=True) if there] or [np.empty(0, np.int64)])
        )
        values.append([different_names(part, np.array([0, part.shape[1]]), own, size, predicate)[0] for own, part in parts])
    of_segments = [
        list(of_pairs) if is_known else None for of_pairs, is_known in zip(zip(*values, strict=True), known, strict=True)
    ]
    kept = [case.matrix[:, offsets[k] : offsets[k + 1]] for k in np.flatnonzero(decoded)]
    matrix = np.ascontiguousarray(np.concatenate([*kept, np.empty((case.matrix.shape[0], 0), np.int64)], axis=1))
    size = max([one.count for one in names.values()], default=0)
    return segment_names(pairs, np.stack(rows), size, of_segments), matrix


def distinct_query(case: Case) -> Query:
    slots = range(len(case.layout.slots))
    return make_query(LayoutArrays.of(case.layout), (), [(slot, token) for slot in slots for token in (0, 1)])


def segments(query: Query, case: Case, offsets: Int64Array, decoded: BoolArray, known: BoolArray) -> Segments:
    summaries = summarise_chunks(case.matrix, offsets, query.arrays.measures)
    names, matrix = named(query, case, offsets, decoded, known)
    sizes = np.diff(offsets)[decoded]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    first, last = case.matrix[0, offsets[:-1]], case.matrix[0, offsets[1:] - 1]
    return segments_of_chunks(first, last, summaries, decoded, matrix, starts, names)


@given(cases(), moments, places, st.data())
def test_counts_by_names_are_the_naive_ones(case: Case, time: int, wanted: set[int], data: st.DataObject) -> None:
    query = distinct_query(case)
    offsets = cuts(case.matrix, wanted)
    count = len(offsets) - 1
    is_whole = whole(query, time, case.matrix[0, offsets[:-1]], case.matrix[0, offsets[1:] - 1])
    # of each segment that no edge falls into: its names, or its events, or both
    ways = data.draw(st.lists(st.integers(0, 2), min_size=count, max_size=count))
    decoded = np.array([not free or way > 0 for free, way in zip(is_whole, ways, strict=True)], np.bool_)
    known = np.array([way < 2 for way in ways], np.bool_)
    found = evaluate_state(query, segments(query, case, offsets, decoded, known), time)
    for (slot, token), index in query.distinct_index.items():
        assert found.distinct[index] == naive_distinct(case, slot, token, time)


@given(cases(), moments, places)
def test_a_segment_in_a_window_without_names_and_events_is_missing(case: Case, time: int, wanted: set[int]) -> None:
    query = distinct_query(case)
    offsets = cuts(case.matrix, wanted)
    first, last = case.matrix[0, offsets[:-1]], case.matrix[0, offsets[1:] - 1]
    nothing = np.zeros(len(first), np.bool_)
    needed = False
    for window, delay in query.distinct[:, [WINDOW, DELAY]].tolist():
        high = max(time - delay, EARLIEST)
        needed |= bool(np.any((first <= high) & (last > max(high - window, EARLIEST))))
    bare = segments(query, case, offsets, nothing, nothing)
    if needed:
        with pytest.raises(EventsMissing, match="was not decoded"):
            evaluate_state(query, bare, time)
    else:
        assert not evaluate_state(query, bare, time).distinct.any()


def test_a_name_stands_for_one_token_and_stays() -> None:
    names = ValueNames()
    high = np.array([5, 5, -1, 5, 7], np.int64)
    low = np.array([1, 2, 1, 1, 5], np.int64)
    empty = np.zeros((3, 0), np.int64)
    assert names.name(empty, 1).tolist() == []
    assert names.name(np.stack([np.zeros(5, np.int64), high, low]), 1).tolist() == [0, 1, 2, 0, 3]
    many = np.arange(5000, dtype=np.int64)
    matrix = np.stack([many, many % 4000, many * 0 + 1])
    first = names.name(matrix, 1)
    assert names.name(matrix, 1).tolist() == first.tolist()
    assert first[5] == 0  # (5, 1) has its name already
    assert names.count == len(set(first.tolist())) + 3  # (5, 2), (-1, 1) and (7, 5) are not among them
    assert sorted(set(first.tolist()) | {0, 1, 2, 3}) == list(range(names.count))
    assert names.nbytes > 16 * names.count


def test_names_of_segments_are_by_predicate_and_each_once() -> None:
    matrix = np.array([[1, 2, 3, 4, 5], [1, 3, 2, 1, 1], [0] * 5], np.int64)
    names = np.array([4, 4, 1, 4, 4], np.int64)
    offsets = np.array([0, 3, 3, 5], np.int64)
    assert [part.tolist() for part in different_names(matrix, offsets, names, 5, 0)] == [[4], [], [4]]
    assert [part.tolist() for part in different_names(matrix, offsets, names, 5, 1)] == [[4, 1], [], []]
    made = segment_names(
        np.array([[0, 2], [1, 2]]), np.stack([names, names]), 5, [None, different_names(matrix, offsets, names, 5, 0)[:2]]
    )
    assert made.pairs[:, PREDICATE].tolist() == [0, 1]
    assert made.starts.tolist() == [[-1, 0], [-1, 1]]
    assert made.ends.tolist() == [[-1, 1], [-1, 1]]
    assert made.values.tolist() == [4]
    assert made.nbytes > made.names.nbytes
