from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofp_platform.kernel.query import LayoutArrays, make_query
from ofp_platform.kernel.sliding import (
    NEEDS_ENDS,
    NEEDS_EXTREMES,
    NEEDS_SQUARES,
    NEEDS_SUM,
    NEEDS_TIMES,
    slide_slots,
)
from ofp_platform.kernel.windows import evaluate
from ofp_platform.registry.layout import KeyLayout, Measure, Predicate, Slot
from ofp_platform_tests.oracle.many_times import evaluate_many
from ofp_platform_tests.oracle.matrices import SPAN, Case, cases


@given(cases(), st.lists(st.integers(-5, 2 * SPAN + 10), max_size=30), st.integers(0, 2**62 - 1), st.integers(0, 9))
def test_many_times_are_each_of_them(case: Case, moments: list[int], mask: int, behind: int) -> None:
    slots = range(len(case.layout.slots))
    query = make_query(LayoutArrays.of(case.layout), slots, [(slot, 1) for slot in slots], [mask, 1])
    moments.sort()
    times = np.array(moments, np.int64)
    found = evaluate_many(query, case.matrix, times, times - behind)
    assert found.accumulators.shape == (len(moments), len(case.layout.slots), 11)
    for index, time in enumerate(moments):
        expected = evaluate(query, case.matrix, time, time - behind)
        one = found.at(index)
        assert one.accumulators.tobytes() == expected.accumulators.tobytes()
        assert one.distinct.tobytes() == expected.distinct.tobytes()
        assert one.touches.tobytes() == expected.touches.tobytes()


@given(st.integers(0, 2**32), st.sampled_from((2, 50, 10**6)))
@settings(max_examples=30)
def test_a_dense_key_slides_as_it_stands(seed: int, variety: int) -> None:
    """Hundreds of events leave the window one by one, the least and the greatest among them."""
    random = np.random.default_rng(seed)
    measures = (Measure(0, 0), Measure(1, 0), Measure(1, -1))
    slots = tuple(Slot(measure, window, delay) for measure in range(3) for window in (1, 9, 80) for delay in (0, 13))
    predicates = (Predicate(("p",), ()), Predicate(("q",), ()))
    arrays = LayoutArrays.of(KeyLayout("account", False, predicates, ("x",), ("u",), measures, slots))
    matrix = random.integers(0, variety, (5, 400))
    matrix[0] = np.sort(random.integers(0, 300, 400))
    matrix[1] = random.integers(0, 4, 400)
    times = np.sort(random.integers(-5, 400, 200))
    query = make_query(arrays, range(len(slots)), [(slot, 0) for slot in range(len(slots))], [1, 2])
    found = evaluate_many(query, matrix, times)
    for index, time in enumerate(times.tolist()):
        expected = evaluate(query, matrix, time)
        assert np.array_equal(found.accumulators[index], expected.accumulators)
        assert np.array_equal(found.distinct[index], expected.distinct)
        assert np.array_equal(found.touches[index], expected.touches)


@pytest.mark.parametrize("seed", range(6))
def test_two_masks_two_fields_and_ties_slide_beside_each_other(seed: int) -> None:
    """As above, short: predicates that exclude each other, and a row of values and two of tokens for each slot."""
    random = np.random.default_rng(seed)
    measures = (Measure(0, 0), Measure(0, 1), Measure(1, 0), Measure(1, -1))
    slots = tuple(Slot(measure, window, delay) for measure in range(4) for window in (3, 20) for delay in (0, 4))
    predicates = (Predicate(("p",), ()), Predicate(("q",), ()))
    arrays = LayoutArrays.of(KeyLayout("account", False, predicates, ("x", "y"), ("u", "v"), measures, slots))
    matrix = random.integers(-4, 4, (8, 60))
    matrix[0] = np.sort(random.integers(0, 40, 60))
    matrix[1] = random.choice((0, 1, 2), 60)
    times = np.sort(random.integers(-5, 60, 30))
    counts = [(slot, token) for slot in range(len(slots)) for token in (0, 1)]
    query = make_query(arrays, range(len(slots)), counts, [1, 2, 3, 4])
    horizons = times - random.integers(0, 12, 30)
    found = evaluate_many(query, matrix, times, horizons)
    for index, (time, horizon) in enumerate(zip(times.tolist(), horizons.tolist(), strict=True)):
        expected = evaluate(query, matrix, time, horizon)
        assert found.accumulators[index].tolist() == expected.accumulators.tolist()
        assert found.distinct[index].tolist() == expected.distinct.tolist()
        assert found.touches[index].tolist() == expected.touches.tolist()


def test_no_times_are_no_rows() -> None:
    layout = KeyLayout("account", False, (Predicate(("p",), ()),), (), (), (Measure(0, -1),), (Slot(0, 5, 0),))
    query = make_query(LayoutArrays.of(layout), [0])
    matrix = np.array([[1], [1]], np.int64)
    assert evaluate_many(query, matrix, np.array([], np.int64)).accumulators.shape == (0, 1, 11)


PLACES = {NEEDS_SUM: (1, 2), NEEDS_SQUARES: (3, 4), NEEDS_EXTREMES: (5, 6), NEEDS_ENDS: (7, 8), NEEDS_TIMES: (9, 10)}


@pytest.mark.parametrize("needed", [0, *PLACES, NEEDS_SUM | NEEDS_ENDS, sum(PLACES)])
def test_of_a_row_only_what_is_needed_is_made(needed: int) -> None:
    assert sum(PLACES) == 31
    assert [part.bit_count() for part in PLACES] == [1] * 5
    layout = KeyLayout("account", False, (Predicate(("p",), ()),), ("x",), (), (Measure(0, 0),), (Slot(0, 50, 0),))
    arrays = LayoutArrays.of(layout)
    matrix = np.array([[10, 20, 30], [1, 1, 1], [-(2**62), -(2**62), 7]], np.int64)
    times = np.array([25, 65], np.int64)
    out = np.full((1, 11, 2), 77, np.int64)
    slide_slots(arrays.slots, np.array([0]), np.array([needed]), arrays.edges(times), matrix, 0, 3, times, 0, 2, out)
    expected = evaluate_many(make_query(arrays, [0]), matrix, times).accumulators.transpose(1, 2, 0)
    made = {0, *(place for part, places in PLACES.items() if needed & part for place in places)}
    for place in range(11):
        assert out[0, place].tolist() == (expected[0, place].tolist() if place in made else [77, 77])
