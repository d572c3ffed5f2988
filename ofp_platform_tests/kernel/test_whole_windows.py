"""Quantiles, changes of a condition and lists, by every path, against the naive definitions."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.kernel.known_windows import KnownWindows
from ofp_platform.kernel.native import Int64Array
from ofp_platform.kernel.query import BY_COUNT, BY_SUM, CHANGE, LAST_N, QUANTILE, LayoutArrays, Query, make_query
from ofp_platform.kernel.whole_windows import NO_VALUE, digits_order, known_whole, slide_whole, whole_of_segments
from ofp_platform.kernel.windows import EventsMissing, Segments, evaluate, evaluate_state
from ofp_platform.registry.layout import KeyLayout, Measure, Predicate, Slot
from ofp_platform_tests.oracle.aggregate import Item, aggregate
from ofp_platform_tests.oracle.matrices import halves

LAYOUT = KeyLayout(
    "account", True, (Predicate((), ()),) * 2, ("x",), (), (Measure(0, -1), Measure(0, 0), Measure(1, -1)),
    (Slot(1, 10, 0), Slot(1, 25, 3), Slot(1, 1, 0)),
)  # fmt: skip
PARAMETERS = (1, 250_000, 500_000, 900_000, 1_000_000)
QUERY = make_query(
    LayoutArrays.of(LAYOUT),
    (),
    whole=[
        *((slot, QUANTILE, p, -1) for slot in range(3) for p in PARAMETERS),
        *((slot, LAST_N, n, -1) for slot in range(3) for n in (1, 4, 20)),
        *((slot, kind, k, -1, 0, 0) for slot in range(3) for kind in (BY_COUNT, BY_SUM) for k in (1, 2, 20)),
        *((slot, CHANGE, 0, 1) for slot in range(3)),
    ],
)
small = st.integers(-3, 3)
numbers = st.one_of(small, st.sampled_from((10, 12, 100, -10, -12, 2**53 - 1, 1 - 2**53)))


@st.composite
def matrices(draw: st.DrawFn) -> Int64Array:
    """int64[5, n] by time and tie: time, mask, tie, tie, x."""
    rows = draw(st.lists(st.tuples(st.integers(0, 30), st.sampled_from((0, 1, 1, 3, 3, 2)), small, small, numbers), max_size=40))
    rows.sort(key=lambda row: (row[0], row[2] & (2**64 - 1), row[3] & (2**64 - 1)))
    return np.ascontiguousarray(np.array(rows, np.int64).reshape(len(rows), 5).T)


def naive(matrix: Int64Array, time: int, is_known: list[bool] | None = None) -> list[int]:
    """The results of QUERY."""
    results: list[int] = []
    for slot, kind, parameter, *_ in QUERY.distinct_index:
        until = time - LAYOUT.slots[slot].delay
        events = [
            event
            for event in range(matrix.shape[1])
            if until - LAYOUT.slots[slot].window < matrix[0, event] <= until
            and matrix[1, event] & 1
            and (is_known is None or is_known[event])
        ]
        if kind == QUANTILE:
            values = sorted(matrix[4, events].tolist())
            results.append(values[-(-parameter * len(values) // 1_000_000) - 1] if values else NO_VALUE)
        elif kind == LAST_N:
            newest = matrix[4, events].tolist()[::-1][:parameter]
            results += [len(newest), *newest, *[0] * (parameter - len(newest))]
        elif kind in (BY_COUNT, BY_SUM):
            values = matrix[4, events].tolist()
            totals = Counter(values)
            if kind == BY_SUM:
                totals = Counter({value: value * count for value, count in totals.items()})
            greatest = sorted(totals, key=lambda value: (-totals[value], str(value)))[:parameter]
            rest = [0] * (parameter - len(greatest))
            words = [halves(totals[value]) for value in greatest]
            columns = [[high for high, _ in words]] if kind == BY_SUM else []
            results.append(len(greatest))
            for column in (greatest, *columns, [low for _, low in words]):
                results += [*column, *rest]
        else:
            flags = [bool(matrix[1, event] & 2) for event in events]
            changes = [event for event, flag, before in zip(events[1:], flags[1:], flags, strict=False) if flag != before]
            results.append(int(matrix[0, changes[-1]]) if changes else NO_VALUE)
    return results


def in_pieces(matrix: Int64Array, cuts: list[int]) -> Segments:
    """Segments that end where the time of an event differs from the next one's."""
    count = matrix.shape[1]
    bounds = [0, *sorted({cut for cut in cuts if 0 < cut < count and matrix[0, cut - 1] < matrix[0, cut]}), count]
    pairs = [(begin, end) for begin, end in pairwise(bounds) if begin < end]
    starts, ends = (np.array([pair[side] for pair in pairs], np.int64) for side in (0, 1))
    none = np.zeros((0, 3, 11), np.int64)
    return Segments(matrix[0, starts].copy(), matrix[0, ends - 1].copy(), none, starts, ends, matrix)


def slid(query: Query, matrix: Int64Array, times: list[int]) -> Int64Array:
    out = query.no_results(len(times))
    bounds = np.array([0]), np.array([matrix.shape[1]]), np.array([0, len(times)])
    edges = query.arrays.edges(np.array(times, np.int64))
    slide_whole(query, edges, matrix, *bounds, np.array(times, np.int64), out)
    return out


@given(matrices(), st.lists(st.integers(-1, 40), min_size=1, max_size=8), st.lists(st.integers(0, 40), max_size=4))
def test_every_path_has_the_naive_results(matrix: Int64Array, times: list[int], cuts: list[int]) -> None:
    times.sort()
    along = slid(QUERY, matrix, times)
    for row, time in enumerate(times):
        expected = naive(matrix, time)
        assert evaluate(QUERY, matrix, time).distinct.tolist() == expected
        assert evaluate_state(QUERY, in_pieces(matrix, cuts), time).distinct.tolist() == expected
        assert along[row].tolist() == expected


@given(matrices(), st.lists(st.tuples(st.integers(-1, 40), st.integers(0, 3)), min_size=1, max_size=8), st.randoms())
def test_a_row_that_knows_some_events_has_the_results_over_these(
    matrix: Int64Array, rows: list[tuple[int, int]], random: object
) -> None:
    rows.sort()
    moments = np.array([random.randrange(4) for _ in range(matrix.shape[1])], np.int64)  # type: ignore[attr-defined]
    times, until = (np.array([row[side] for row in rows], np.int64) for side in (0, 1))
    bounds = np.array([0]), np.array([matrix.shape[1]]), np.array([0, len(rows)])
    out = slid(QUERY, matrix, times.tolist())
    whole = out.copy()
    incomplete = np.arange(len(rows)) % 2 == 0
    known = KnownWindows(matrix, moments, *bounds, times, until)
    known_whole(QUERY, 28, QUERY.arrays.edges(times), known, incomplete, out)
    for row, (time, latest) in enumerate(rows):
        if incomplete[row]:
            assert out[row].tolist() == naive(matrix, time, (moments <= latest).tolist())
        else:
            assert out[row].tolist() == whole[row].tolist()


def test_the_median_and_the_change_are_the_oracle_s() -> None:
    matrix = np.array([[1, 2, 2, 9], [3, 1, 3, 3], [0, 1, -1, 0], [0] * 4, [5, 1, 9, 1]], np.int64)
    items = [Item(int(ts), b"%d" % place, int(x)) for place, (ts, x) in enumerate(zip(matrix[0], matrix[4], strict=True))]
    found = naive(matrix, 9)
    results = {key: found[place] for key, place in QUERY.distinct_index.items()}
    assert evaluate(QUERY, matrix, 9).distinct.tolist() == found
    newest = QUERY.distinct_index[1, LAST_N, 4, -1]  # as of 6: the event at 9 is not in it
    assert found[newest : newest + 5] == [3, *aggregate("last_n", items[:3], 9, 0, length=4), 0]  # type: ignore[misc]
    assert results[0, QUANTILE, 500_000, -1] == aggregate("median", items, 9, 0) == 1
    # at 2 two events: in the order of their ties the condition ceases and holds again
    assert results[0, CHANGE, 0, 1] == 2


@given(st.lists(st.integers(1 - 2**53, 2**53 - 1) | st.integers(-200, 200), min_size=2))
def test_integers_are_ordered_by_their_digits(values: list[int]) -> None:
    assert sorted(values, key=digits_order) == sorted(values, key=str)
    assert len({int(digits_order(value)) for value in values}) == len(set(values))


def test_a_segment_whose_events_are_missing_is_named() -> None:
    matrix = np.array([[1, 2], [3, 3], [0, 0], [0, 0], [5, 6]], np.int64)
    pieces = in_pieces(matrix, [1])
    bare = Segments(pieces.first_ts, pieces.last_ts, np.zeros((2, 3, 11), np.int64), np.array([-1, 1]), np.array([-1, 2]), matrix)
    with pytest.raises(EventsMissing, match="segment 0"):
        evaluate_state(QUERY, bare, 5)
    bounds = bare.first_ts, bare.last_ts, bare.starts, bare.ends
    assert whole_of_segments(QUERY, 40, bounds, matrix, QUERY.no_results(1)[0]) == -1  # no window reaches it


def test_a_query_without_whole_windows_is_left_alone() -> None:
    query = make_query(LayoutArrays.of(LAYOUT), [0])
    matrix = np.array([[1], [1], [0], [0], [5]], np.int64)
    assert query.no_results(2).shape == (2, 0)
    assert slid(query, matrix, [5]).shape == (1, 0)
    known = KnownWindows(matrix, *(np.array(part) for part in ([0], [0], [1], [0, 1], [5], [0])))
    known_whole(query, 10, query.arrays.edges(known.times), known, np.array([True]), query.no_results(1))
