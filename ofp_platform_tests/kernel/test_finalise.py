from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.kernel.accumulate import accumulate
from ofp_platform.kernel.finalise import Root, finaliser, group_values, ratio_of, wire
from ofp_platform.kernel.query import LayoutArrays, query_of
from ofp_platform.kernel.windows import evaluate
from ofp_platform.registry.aggregations import RULES, Aggregation
from ofp_platform.registry.exact_value import ExactValue, Unservable
from ofp_platform.registry.layout import (
    CompiledFeature,
    CompiledGroup,
    CompiledOperand,
    KeyLayout,
    Measure,
    Predicate,
    Slot,
)
from ofp_platform_tests.oracle.aggregate import Item, aggregate, decimal_text, divide, signed_square
from ofp_platform_tests.oracle.strategies import LIMIT, integers
from ofp_platform_tests.oracle.whole_results import operand_of, result_index, whole_results

DECIMAL = {Aggregation.MEAN, Aggregation.STDDEV}
SINGLE = [one for one in Aggregation if one is not Aggregation.RATIO and "category" not in RULES[one].takes]
NUMBERS = [one for one in SINGLE if not RULES[one].is_list]
TIME = 100_000_000


def row_of(values: list[int]) -> list[int]:
    ts = [TIME - 1_500_000 * (len(values) - index) for index in range(len(values))]
    return accumulate(np.array([ts, [1] * len(ts), values], np.int64), 0, len(ts), 0, 2).tolist()


def feature(aggregation: Aggregation, scale: int, denominator: CompiledOperand | None = None) -> CompiledFeature:
    decimal = aggregation in DECIMAL or denominator is not None
    return CompiledFeature(
        "the_feature",
        operand_of(aggregation, 0, scale if aggregation in DECIMAL else 0),
        denominator,
        scale if decimal else None,
    )


def value_of(plan: CompiledFeature, values: list[int], denominators: list[int] = ()) -> ExactValue:  # type: ignore[assignment]
    results = whole_results([items(values), items(list(denominators))])
    return finaliser(plan, result_index(2))([row_of(values), row_of(list(denominators))], results, TIME)


def items(values: list[int]) -> list[Item]:
    return [Item(TIME - 1_500_000 * (len(values) - index), index.to_bytes(4, "big"), value) for index, value in enumerate(values)]


@given(st.sampled_from(SINGLE), st.lists(integers(), max_size=12), st.integers(0, 12))
def test_each_aggregation_is_the_oracle_s(aggregation: Aggregation, values: list[int], scale: int) -> None:
    expected = aggregate(aggregation.value, items(values), TIME, scale)
    plan = feature(aggregation, scale)
    if aggregation not in DECIMAL and isinstance(expected, int) and abs(expected) > LIMIT:
        assert value_of(plan, values) is Unservable.OUT_OF_RANGE
    else:
        text = expected
        if isinstance(expected, Fraction):
            text = decimal_text(expected, scale)
        assert wire(value_of(plan, values)) == text


@given(
    st.sampled_from(NUMBERS),
    st.sampled_from(NUMBERS),
    st.lists(integers(), max_size=6),
    st.lists(integers(), max_size=6),
    st.integers(0, 12),
)
def test_ratios_of_any_two_are_the_oracle_s(
    top: Aggregation, bottom: Aggregation, over: list[int], under: list[int], scale: int
) -> None:
    plan = CompiledFeature("share", CompiledOperand(top, 0, 0, 0), CompiledOperand(bottom, 1, 0, 0), scale)
    expected = divide(signed_square(top.value, items(over), TIME), signed_square(bottom.value, items(under), TIME), scale)
    assert wire(value_of(plan, over, under)) == (None if expected is None else decimal_text(expected, scale))


def test_what_a_ratio_of_nothing_is() -> None:
    assert ratio_of(None, 3, 2) is None
    assert ratio_of(3, None, 2) is None
    assert ratio_of(3, 0, 2) is None
    assert ratio_of(3, Fraction(0), 2) is None
    assert ratio_of(3, Root(0, 4), 2) is None
    assert ratio_of(Root(0, 4), Root(0, 4), 2) is None
    assert ratio_of(Fraction(-5, 10), 4, 3) == (-125, 3)


def test_nothing_is_rounded_before_the_end() -> None:
    def quotient(top: Aggregation, bottom: Aggregation) -> int | str | None:
        plan = CompiledFeature("f", CompiledOperand(top, 0), CompiledOperand(bottom, 1), 6)
        return wire(value_of(plan, [0, 0, 1], [0, 0, 1]))

    assert quotient(Aggregation.MAX, Aggregation.MEAN) == "3.000000"
    assert quotient(Aggregation.STDDEV, Aggregation.MEAN) == "1.414214"
    assert quotient(Aggregation.MEAN, Aggregation.STDDEV) == "0.707107"
    assert quotient(Aggregation.STDDEV, Aggregation.STDDEV) == "1.000000"
    assert quotient(Aggregation.MEAN, Aggregation.MEAN) == "1.000000"


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(("half", "even"), [(1, 0), (3, 2), (5, 2), (7, 4)])
def test_a_quotient_with_a_root_that_lies_halfway_goes_to_the_even(half: int, even: int, sign: int) -> None:
    # half of 1/100, from roots of squares: 25 half^2 / 10^6 has the root half / 200
    assert ratio_of(Root(25 * half**2, 1000), sign, 2) == (sign * even, 2)
    assert ratio_of(sign * half, Root(40_000, 1), 2) == (sign * even, 2)
    assert ratio_of(Root(half**2, 200), Root(9, 3), 2) == (even, 2)
    above, below = Root(25 * half**2 * 10**20 + 1, 1000 * 10**10), Root(25 * half**2 * 10**20 - 1, 1000 * 10**10)
    assert ratio_of(above, sign, 2) == (sign * (half + 1) // 2 if sign > 0 else -((half + 1) // 2), 2)
    assert ratio_of(below, sign, 2) == (sign * ((half - 1) // 2), 2)


@pytest.mark.parametrize(
    ("value", "text"), [(None, None), (0, 0), (-7, -7), ((12345600, 6), "12.345600"), ((-5, 3), "-0.005"), ((4, 0), "4")]
)
def test_the_wire(value: ExactValue, text: int | str | None) -> None:
    assert wire(value) == text


def test_a_group_s_values_are_by_name_and_the_bound_holds_for_what_is_served_only() -> None:
    layout = KeyLayout("account", False, (Predicate(("p",), ()),), ("x",), (), (Measure(0, 0),), (Slot(0, 100, 0),))
    total = CompiledOperand(Aggregation.SUM, 0)
    features = (
        CompiledFeature("z", CompiledOperand(Aggregation.COUNT, 0), None, None),
        CompiledFeature("a", total, CompiledOperand(Aggregation.MEAN, 0), 1),
    )
    matrix = np.array([[1, 2], [1, 1], [LIMIT, LIMIT]], np.int64)

    def group(*plans: CompiledFeature) -> CompiledGroup:
        return CompiledGroup("g", "v1", "account", 60, 1, 100, plans, (), ())

    plan = LayoutArrays.of(layout)
    fine = group(*features)
    query = query_of(plan, [fine])
    assert list(group_values(fine, query, evaluate(query, matrix, 5), 5).items()) == [("a", (20, 1)), ("z", 2)]
    over = group(*features, CompiledFeature("s", total, None, None))
    query = query_of(plan, [over])
    values = group_values(over, query, evaluate(query, matrix, 5), 5)
    assert values == {"a": (20, 1), "s": Unservable.OUT_OF_RANGE, "z": 2}
    assert wire(values["s"]) is None


@pytest.mark.parametrize("aggregation", [Aggregation.SECONDS_SINCE_FIRST, Aggregation.SECONDS_SINCE_LAST])
@pytest.mark.parametrize(("moment", "seconds"), [(-3_000_000, 103), (0, 100), (1, 99), (1_000_000, 99), (TIME, 0)])
def test_seconds_are_whole_and_floored(aggregation: Aggregation, moment: int, seconds: int) -> None:
    row = accumulate(np.array([[moment], [1]], np.int64), 0, 1, 0, -1).tolist()
    assert finaliser(feature(aggregation, 0), {})([row], [], TIME) == seconds


def test_a_ratio_is_no_aggregation_of_one_slot() -> None:
    with pytest.raises(ValueError, match="ratio is not an aggregation of one slot"):
        finaliser(CompiledFeature("f", CompiledOperand(Aggregation.RATIO, 0), None, None), {})


@pytest.mark.parametrize("sign", [1, -1])
def test_an_integer_ends_at_2_53_on_both_sides(sign: int) -> None:
    plan = feature(Aggregation.MIN, 0)
    assert value_of(plan, [sign * LIMIT]) == sign * LIMIT
    assert value_of(plan, [sign * (LIMIT + 1)]) is Unservable.OUT_OF_RANGE


@pytest.mark.parametrize("sign", [1, -1])
def test_a_decimal_ends_at_38_digits_on_both_sides(sign: int) -> None:
    def over_one(value: int) -> ExactValue:
        return value_of(
            CompiledFeature("f", CompiledOperand(Aggregation.SUM, 0), CompiledOperand(Aggregation.COUNT, 1), 30), [value], [1]
        )

    assert over_one(sign * (10**8 - 1)) == (sign * (10**8 - 1) * 10**30, 30)
    assert over_one(sign * 10**8) is Unservable.OUT_OF_RANGE
