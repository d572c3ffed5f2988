from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.kernel.plan import KernelPlan, make_query
from ofp_platform.kernel.sliding import evaluate_many
from ofp_platform.kernel.windows import evaluate
from ofp_platform.registry.layout import KeyLayout, Measure, Predicate, Slot
from ofp_platform_tests.oracle.matrices import SPAN, Case, cases


@given(cases(), st.lists(st.integers(-5, 2 * SPAN + 10), max_size=30), st.integers(0, 2**62 - 1), st.integers(0, 9))
def test_many_times_are_each_of_them(case: Case, moments: list[int], mask: int, behind: int) -> None:
    slots = range(len(case.layout.slots))
    query = make_query(KernelPlan.of(case.layout), slots, [(slot, 1) for slot in slots], [mask, 1])
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


def test_times_must_ascend_and_horizons_match() -> None:
    layout = KeyLayout("account", False, (Predicate(("p",), ()),), (), (), (Measure(0, -1),), (Slot(0, 5, 0),))
    query = make_query(KernelPlan.of(layout), [0])
    matrix = np.array([[1], [1]], np.int64)
    with pytest.raises(ValueError, match="ascend"):
        evaluate_many(query, matrix, np.array([2, 1], np.int64))
    with pytest.raises(ValueError, match="1 horizons for 2 times"):
        evaluate_many(query, matrix, np.array([1, 2], np.int64), np.array([0], np.int64))
    assert evaluate_many(query, matrix, np.array([], np.int64)).accumulators.shape == (0, 1, 11)
