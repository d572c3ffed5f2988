"""Runs stay where they are, for whoever has the array."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.online.serving.value_runs import ValueRuns


@given(st.lists(st.lists(st.integers(-(2**63), 2**63 - 1), max_size=700), max_size=12))
def test_a_run_that_was_put_is_there_in_every_array_since(runs: list[list[int]]) -> None:
    held, seen = ValueRuns(), []
    for run in runs:
        bounds = held.put(np.array(run, np.int64))
        seen.append((held.values, bounds, run))
        for values, (begin, end), wanted in seen:
            assert values[begin:end].tolist() == wanted
            assert held.values[begin:end].tolist() == wanted
    assert held.size == sum(map(len, runs))
    assert held.nbytes >= 8 * held.size


def test_it_is_sparse_when_more_is_dropped_than_left() -> None:
    held = ValueRuns()
    bounds = [held.put(np.arange(1_000)) for _ in range(5)]
    held.drop(bounds[:2])
    assert not held.is_sparse()
    held.drop(bounds[2:3])
    assert held.is_sparse()
    small = ValueRuns()
    small.drop([small.put(np.arange(500))])
    assert not small.is_sparse()  # not worth it
