"""Which rows have to be computed anew, by the definition; and that computing them anew gives what they know."""

from __future__ import annotations

import numpy as np
import pytest

from ofp_platform.kernel.known_windows import KnownWindows, asked_rows, mark_incomplete
from ofp_platform.kernel.native import Int64Array


def crowd(seed: int) -> tuple[Int64Array, ...]:
    """matrix, known_from, starts, ends, offsets, times, known_until of five keys; some without events, some without rows."""
    random = np.random.default_rng(seed)
    counts, asked = random.integers(0, 9, 5), random.integers(0, 5, 5)
    counts[seed % 5], asked[(seed + 1) % 5] = 0, 0
    ends, offsets = np.cumsum(counts), np.array([0, *np.cumsum(asked)])
    times = [np.sort(random.integers(0, 20, size)) for size in counts]
    matrix = np.zeros((2, int(ends[-1])), np.int64)
    matrix[0] = np.concatenate(times)
    moments = np.concatenate([np.sort(random.integers(-2, 30, size)) for size in asked])
    known_from = random.integers(0, 6, matrix.shape[1])
    return matrix, known_from, ends - counts, ends, offsets, moments, random.integers(-1, 7, len(moments))


@pytest.mark.parametrize("seed", range(40))
@pytest.mark.parametrize("reach", [1, 4, 50])
def test_a_row_is_incomplete_when_its_reach_holds_what_it_does_not_know(seed: int, reach: int) -> None:
    matrix, known_from, starts, ends, offsets, times, known_until = crowd(seed)
    wanted = []
    for key in range(len(starts)):
        own = slice(starts[key], ends[key])
        for row in range(offsets[key], offsets[key + 1]):
            inside = (matrix[0, own] > times[row] - reach) & (matrix[0, own] <= times[row])
            wanted.append(bool((known_from[own][inside] > known_until[row]).any()))
    found = mark_incomplete(KnownWindows(matrix, known_from, starts, ends, offsets, times, known_until), reach)
    assert found.tolist() == wanted


def test_rows_are_asked_in_the_order_of_what_they_know() -> None:
    incomplete = np.array([True, True, False, True, True, True], np.bool_)
    known_until = np.array([0, 7, 1, 3, 7, 2], np.int64)
    assert asked_rows(incomplete, known_until, 1, 6).tolist() == [5, 3, 1, 4]
    assert asked_rows(incomplete, known_until, 0, 1).tolist() == [0]
    assert asked_rows(incomplete, known_until, 2, 3).tolist() == []
