from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.kernel.accumulate import (
    ROW_WIDTH,
    SQUARE_HIGH,
    SQUARE_LOW,
    SUM_HIGH,
    SUM_LOW,
    accumulate,
    merge,
    merge_runs,
    summarise,
    summarise_chunks,
    wide,
)
from ofp_platform.kernel.native import Int64Array
from ofp_platform.kernel.plan import KernelPlan
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
    plan = KernelPlan.of(case.layout)
    count = case.matrix.shape[1]
    cuts = sorted(min(cut, count) for cut in (first, second))
    parts = summarise_chunks(case.matrix, np.array([0, *cuts, count], np.int64), plan.measures)
    whole = summarise(case.matrix, plan.measures)
    assert whole.shape == (len(case.layout.measures), ROW_WIDTH)
    for measure, (predicate, row) in enumerate(plan.measures.tolist()):
        left, middle, right = parts[:, measure]
        assert np.array_equal(merge(merge(left, middle), right), whole[measure])
        assert np.array_equal(merge(left, merge(middle, right)), whole[measure])
        assert np.array_equal(accumulate(case.matrix, 0, count, predicate, row), whole[measure])
    runs = merge_runs(parts, np.array([0, 0, 2, 3], np.int64))
    assert not runs[0].any()
    assert np.array_equal(merge_runs(runs, np.array([0, 3], np.int64))[0], whole)
