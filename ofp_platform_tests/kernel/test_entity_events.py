"""Events of several keys as those of one: by time, then by tie as unsigned, and of equal ones as they came."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.kernel.entity_events import merged_in_time, time_order
from ofp_platform.kernel.native import Int64Array

WORD = st.integers(-(2**63), 2**63 - 1)
FEW = st.sampled_from((0, 1, -1, 2**63 - 1, -(2**63)))


@st.composite
def matrices(draw: st.DrawFn) -> Int64Array:
    """int64[5, n]: time, mask, both halves of the tie, and a value; in no order."""
    rows = draw(st.lists(st.tuples(st.integers(0, 3), FEW, FEW, FEW, WORD), max_size=12))
    return np.array(rows, np.int64).reshape(len(rows), 5).T


def unsigned(word: int) -> int:
    return word % 2**64


@given(matrices())
def test_the_order_is_that_of_time_and_unsigned_tie(matrix: Int64Array) -> None:
    columns = matrix.T.tolist()
    expected = sorted(range(len(columns)), key=lambda i: (columns[i][0], unsigned(columns[i][2]), unsigned(columns[i][3]), i))
    assert time_order(matrix, ties=True).tolist() == expected
    assert time_order(matrix, ties=False).tolist() == sorted(range(len(columns)), key=lambda i: (columns[i][0], i))


@given(matrices(), matrices(), st.booleans())
def test_the_events_of_all_keys_are_there_once(one: Int64Array, other: Int64Array, ties: bool) -> None:
    merged = merged_in_time([one, other], ties=ties)
    assert merged.flags.c_contiguous
    assert sorted(merged.T.tolist()) == sorted([*one.T.tolist(), *other.T.tolist()])
    assert time_order(merged, ties=ties).tolist() == list(range(merged.shape[1]))
