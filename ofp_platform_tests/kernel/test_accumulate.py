from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.kernel.accumulate import (
    EARLIEST,
    ROW_WIDTH,
    SQUARE_HIGH,
    SQUARE_LOW,
    SUM_HIGH,
    SUM_LOW,
    accumulate,
    add_wide,
    events_until,
    merge,
    merge_runs,
    square_wide,
    subtract_saturating,
    subtract_wide,
    summarise_chunks,
    times_before,
    wide,
)
from ofp_platform.kernel.native import Int64Array
from ofp_platform.kernel.query import LayoutArrays
from ofp_platform_tests.oracle.matrices import Case, cases, halves, naive_row
from ofp_platform_tests.oracle.strategies import LIMIT, integers


def matrix_of(values: list[int]) -> Int64Array:
    return np.array([range(len(values)), [1] * len(values), values], np.int64)


@given(st.lists(integers(), max_size=300))
def test_sums_and_squares_are_exact(values: list[int]) -> None:
    row = accumulate(matrix_of(values), 0, len(values), 0, 2).tolist()
    assert wide(row[SUM_HIGH], row[SUM_LOW]) == sum(values)
    assert wide(row[SQUARE_HIGH], row[SQUARE_LOW]) == sum(value**2 for value in values)
    assert row == naive_row(list(range(len(values))), values)


@given(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=2))
def test_squares_are_exact_for_every_int64(values: list[int]) -> None:
    row = accumulate(matrix_of(values), 0, len(values), 0, 2).tolist()
    total = sum(value**2 for value in values)
    assert row[SQUARE_HIGH : SQUARE_LOW + 1] == halves((total + 2**127) % 2**128 - 2**127)


def test_a_million_extreme_values_do_not_wrap() -> None:
    for sign in (1, -1):
        row = accumulate(matrix_of([sign * LIMIT] * 1_000_000), 0, 1_000_000, 0, 2).tolist()
        assert wide(row[SUM_HIGH], row[SUM_LOW]) == sign * LIMIT * 1_000_000
        assert wide(row[SQUARE_HIGH], row[SQUARE_LOW]) == LIMIT**2 * 1_000_000


@given(cases(), st.integers(0, 60), st.integers(0, 60))
def test_merging_runs_of_events_is_accumulating_them_together(case: Case, first: int, second: int) -> None:
    arrays = LayoutArrays.of(case.layout)
    count = case.matrix.shape[1]
    cuts = sorted(min(cut, count) for cut in (first, second))
    parts = summarise_chunks(case.matrix, np.array([0, *cuts, count], np.int64), arrays.measures)
    whole = summarise_chunks(case.matrix, np.array([0, count], np.int64), arrays.measures)[0]
    assert whole.shape == (len(case.layout.measures), ROW_WIDTH)
    for measure, (predicate, row) in enumerate(arrays.measures.tolist()):
        left, middle, right = parts[:, measure]
        assert np.array_equal(merge(merge(left, middle), right), whole[measure])
        assert np.array_equal(merge(left, merge(middle, right)), whole[measure])
        assert np.array_equal(accumulate(case.matrix, 0, count, predicate, row), whole[measure])
    runs = merge_runs(parts, np.array([0, 0, 2, 3], np.int64))
    assert not runs[0].any()
    assert np.array_equal(merge_runs(runs, np.array([0, 3], np.int64))[0], whole)


words = st.one_of(st.integers(-(2**127), 2**127 - 1), st.integers(-3, 3), st.sampled_from((2**63, 2**64, -(2**63), -(2**64))))


def wrapped(number: int) -> list[int]:
    return halves((number + 2**127) % 2**128 - 2**127)


def int64s(number: int) -> list[np.int64]:
    return [np.int64(word) for word in halves(number)]


@given(words, words)
def test_wide_arithmetic_is_modulo_2_128(one: int, other: int) -> None:
    with np.errstate(over="ignore"):
        assert [int(word) for word in add_wide(*int64s(one), *int64s(other))] == wrapped(one + other)
        assert [int(word) for word in subtract_wide(*int64s(one), *int64s(other))] == wrapped(one - other)
    assert wide(*halves(one)) == one


@given(st.one_of(st.integers(-(2**63), 2**63 - 1), st.integers(-(2**33), 2**33), st.just(-(2**63))))
def test_a_square_is_exact(value: int) -> None:
    with np.errstate(over="ignore"):
        assert [int(word) for word in square_wide(np.int64(value))] == halves(value * value)


def test_subtraction_stops_at_the_least_time() -> None:
    assert EARLIEST == -9_223_372_036_854_775_808
    for time, span in ((0, 0), (5, 7), (EARLIEST, 0), (EARLIEST, 1), (EARLIEST + 9, 9), (EARLIEST + 9, 10), (EARLIEST + 9, 8)):
        assert int(subtract_saturating(time, span)) == max(EARLIEST, time - span)
        assert times_before(np.array([time, 2**62], np.int64), span).tolist() == [max(EARLIEST, time - span), 2**62 - span]


@given(st.lists(st.integers(0, 9), max_size=12), st.integers(-1, 10), st.data())
def test_where_the_events_until_a_time_end(times: list[int], time: int, data: st.DataObject) -> None:
    matrix = np.array([sorted(times), [0] * len(times)], np.int64)
    low = data.draw(st.integers(0, len(times)))
    high = data.draw(st.integers(low, len(times)))
    assert int(events_until(matrix, low, high, time)) == low + sum(ts <= time for ts in sorted(times)[low:high])
