"""Trees in exact form: thresholds, the value of inner nodes, and what is no tree."""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.learning.exact_trees import GREATEST_SCALE, GrownTree, NotExportable, exact_tree, exact_trees
from ofp_platform.vocabulary.loop.exact_model import PayloadInput

ASKED = (PayloadInput(field="amount", scale=2),)


def stump(bound: Fraction, *, is_strict: bool, covers: tuple[int, int] = (3, 1)) -> GrownTree:
    return GrownTree(
        asked_input=[0, -1, -1],
        bounds=[bound, Fraction(0), Fraction(0)],
        left_children=[1, -1, -1],
        right_children=[2, -1, -1],
        absent_left=[True, False, False],
        leaf_values=[Fraction(0), Fraction(1), Fraction(5)],
        covers=[Fraction(sum(covers)), *map(Fraction, covers)],
        is_strict=is_strict,
    )


@given(bound=st.fractions(-100, 100), value=st.integers(-20_000, 20_000), is_strict=st.booleans())
def test_a_decimal_goes_where_the_bound_sends_it(bound: Fraction, value: int, is_strict: bool) -> None:
    tree = exact_tree(stump(bound, is_strict=is_strict), ASKED, 3)
    exact = Fraction(value, 100)
    assert (value <= tree.thresholds[0]) == (exact < bound if is_strict else exact <= bound)


def test_an_inner_node_says_the_mean_of_its_leaves_by_their_cover() -> None:
    unit = 10**3
    assert exact_tree(stump(Fraction(1), is_strict=False), ASKED, 3).values == (2 * unit, unit, 5 * unit)
    nobody_came = stump(Fraction(1), is_strict=False, covers=(0, 0))
    assert exact_tree(nobody_came, ASKED, 3).values[0] == 3 * unit


@pytest.mark.parametrize(
    ("left_children", "right_children"), [([0, -1, -1], [2, -1, -1]), ([1, -1, -1], [7, -1, -1]), ([2, -1, -1], [2, -1, -1])]
)
def test_arrays_that_are_no_tree_are_refused(left_children: list[int], right_children: list[int]) -> None:
    grown = stump(Fraction(1), is_strict=False)
    broken = replace(grown, left_children=left_children, right_children=right_children)
    with pytest.raises(NotExportable, match="are no tree"):
        exact_tree(broken, ASKED, 3)


def test_the_scale_is_the_greatest_at_which_no_sum_can_wrap() -> None:
    grown = stump(Fraction(1), is_strict=False)
    assert exact_trees("m", [grown], ASKED, Fraction(0), "log_odds").score_scale == GREATEST_SCALE
    large = replace(grown, leaf_values=[Fraction(0), Fraction(-400_000), Fraction(5)])
    assert exact_trees("m", [large], ASKED, Fraction(0), "log_odds").score_scale == 10
    assert exact_trees("m", [large] * 300, ASKED, Fraction(0), "log_odds").score_scale == 9
    huge = [Fraction(0), Fraction(10**16), Fraction(5)]
    beyond = GrownTree(
        grown.asked_input, grown.bounds, grown.left_children, grown.right_children, grown.absent_left, huge, grown.covers, False
    )
    with pytest.raises(NotExportable, match="too large for any scale"):
        exact_trees("m", [beyond], ASKED, Fraction(0), "log_odds")
