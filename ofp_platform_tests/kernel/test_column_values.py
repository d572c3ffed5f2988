"""Finalisation in machine words: what it decides is what `finalise` says, and what it cannot hold it leaves."""

from __future__ import annotations

from math import isqrt

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ofp_platform.kernel.accumulate import ROW_WIDTH, accumulate
from ofp_platform.kernel.column_values import (
    _DISTINCT,
    _MEAN,
    _NONE,
    _PICK,
    _RESULT,
    _SECONDS,
    _SECONDS_SINCE_RESULT,
    _STDDEV,
    _SUM,
    NULL,
    UNDECIDED,
    VALUE,
    _divide,
    _exceeds,
    _finalise_plain,
    _quotients,
    _root,
    _root_quotient,
    _times,
    encode_features,
    finalise_into,
    multiply_wide,
)
from ofp_platform.kernel.finalise import finaliser
from ofp_platform.kernel.native import Int64Array
from ofp_platform.registry.aggregations import RULES, Aggregation
from ofp_platform.registry.exact_value import Unservable
from ofp_platform.registry.layout import CompiledFeature, CompiledOperand
from ofp_platform.vocabulary.canonical import MAX_INTEGER
from ofp_platform.vocabulary.decimals import divide_half_even, sqrt_ratio_half_even
from ofp_platform_tests.oracle.aggregate import Item
from ofp_platform_tests.oracle.matrices import halves
from ofp_platform_tests.oracle.whole_results import operand_of, result_index, whole_results

TIME = 1_700_000_000_000_000
SINGLE = [one for one in Aggregation if one is not Aggregation.RATIO and not RULES[one].is_list]
DECIMAL = (Aggregation.MEAN, Aggregation.STDDEV)
INDEX = result_index(2)
positive = st.one_of(st.integers(0, 5), st.integers(0, 2**63 - 1), st.integers(0, 62).map(lambda bits: 2**bits))


def words(number: int) -> tuple[np.int64, np.int64]:
    high, low = halves(number)
    return np.int64(high), np.int64(low)


@given(positive, positive)
@example(2**63 - 1, 2**63 - 1)
@example(2**32 - 1, 2**32 - 1)
@example(2**32, 2**32 + 1)
def test_products_are_exact(left: int, right: int) -> None:
    with np.errstate(over="ignore"):
        found = multiply_wide(np.int64(left), np.int64(right))
    assert [int(word) for word in found] == halves(left * right)


numbers = st.one_of(st.integers(0, 2**122 - 1), st.integers(0, 2**61 - 1).map(lambda root: root * root))


@given(numbers, st.one_of(st.integers(-2, 2), st.sampled_from((2**64, -(2**64), 2**63))))
def test_which_wide_number_is_greater(number: int, apart: int) -> None:
    other = max(0, number + apart)
    assert bool(_exceeds(*words(number), *words(other))) is (number > other)
    assert bool(_exceeds(*words(other), *words(number))) is (other > number)


@given(numbers, st.integers(-1, 1))
@example(2**122 - 1, 0)
@example(0, 0)
def test_roots_are_floors(number: int, beside: int) -> None:
    number = max(0, number + beside)
    with np.errstate(over="ignore"):
        assert int(_root(*words(number))) == isqrt(number)


tops = st.one_of(st.integers(0, 2**120 - 1), st.integers(0, 2**60 - 1).map(lambda root: root * root), st.integers(0, 400))


@given(tops, tops.filter(bool), st.integers(-1, 1))
@example(2**120 - 1, 2**120 - 1, 0)
@example(2**100, 1, 0)
@example(2**100 + 2**51, 1, 0)
@example(2**120 - 1, 2**20 - 1, 0)
@example(1, 4, 0)  # halfway, to 0
@example(9, 4, 0)  # halfway, to 2
@example(9 * 2**100, 4 * 2**100, 1)
def test_roots_of_quotients_are_rounded_half_to_even_or_left(top: int, bottom: int, beside: int) -> None:
    top = min(max(0, top + beside), 2**120 - 1)
    with np.errstate(over="ignore"):
        status, value = _root_quotient(*words(top), *words(bottom))
    if isqrt(top // bottom) < 2**50 - 2:
        assert status == VALUE
    if status == VALUE:
        assert int(value) == sqrt_ratio_half_even(top * bottom, bottom, 0)


@given(st.integers(0, 2**120 - 1), st.integers(0, 2**63 - 1))
@example(2**120 - 1, 1)
@example(2**64 - 1, 2**56)
@example(2**64, 2**56 - 1)
def test_products_of_wide_numbers_are_exact_or_left(number: int, factor: int) -> None:
    with np.errstate(over="ignore"):
        found = [int(word) for word in _times(*words(number), np.int64(factor))]
    assert found == (halves(number * factor) if number * factor < 2**120 else [-1, 0])


small = st.integers(-(2**61) + 1, 2**61 - 1)


@given(st.one_of(small, st.integers(-20, 20)), st.one_of(small, st.integers(-8, 8)).filter(bool))
def test_quotients_are_rounded_half_to_even(numerator: int, denominator: int) -> None:
    assert int(_divide(np.int64(numerator), np.int64(denominator))) == divide_half_even(numerator, denominator)


edges = st.one_of(st.integers(0, 2**51 + 2), st.integers(0, 12), st.integers(0, 52).map(lambda bits: 2**bits - 1))


@given(edges, edges, st.sampled_from((1, -1)), st.integers(0, 3), st.integers(-1, 1))
@example(2**51, 2**51, 1, 0, 0)
@example(2**51 + 1, 1, 1, 0, 0)
@example(1, 2**51 + 1, 1, 0, 0)
@example(2**51 // 10, 2**51, 1, 1, 0)
def test_quotients_of_doubles_are_exact_or_left(numerator: int, bottom: int, sign: int, power: int, beside: int) -> None:
    halfway = min(numerator // max(2 * bottom, 1), 2**20)
    for top in (sign * numerator, sign * (halfway * bottom + bottom // 2 + beside)):
        values, statuses = np.full(2, 77, np.int64), np.full(2, 99, np.uint8)
        tops, bottoms = np.array([top, 1], np.int64), np.array([bottom, 2], np.int64)
        done = _quotients(tops, np.int64(10**power), bottoms, values, statuses)
        assert done is (abs(top) <= 2**51 // 10**power and bottom <= 2**51)
        if done:
            wanted = divide_half_even(top * 10**power, bottom) if bottom else 0
            second = divide_half_even(10**power, 2)
            assert (values.tolist(), statuses.tolist()) == ([wanted, second], [int(bottom > 0), VALUE])


def row_of(values: list[int]) -> list[int]:
    ts = [TIME - 1_500_000 * (len(values) - index) for index in range(len(values))]
    return accumulate(np.array([ts, [1] * len(ts), values], np.int64), 0, len(ts), 0, 2).tolist()


def results(*values_of_slots: list[int]) -> list[int]:
    return whole_results(
        [
            [Item(TIME - 1_500_000 * (len(values) - index), b"", value) for index, value in enumerate(values)]
            for values in values_of_slots
        ]
    )


def operand(aggregation: Aggregation, slot: int, scale: int) -> CompiledOperand:
    return operand_of(aggregation, slot, scale if aggregation in DECIMAL else 0)


def finalised(
    features: list[CompiledFeature], rows: Int64Array, counted: Int64Array, times: Int64Array
) -> tuple[Int64Array, Int64Array]:
    """Values and statuses; what stands before and behind them in the whole is left alone."""
    values = np.full((len(features), len(times) + 3), 77, np.int64)
    statuses = np.full(values.shape, 99, np.uint8)
    columns = np.ascontiguousarray(rows.transpose(1, 2, 0))
    undecided = finalise_into(encode_features(features, INDEX), columns, counted, times, 2, values, statuses)
    assert (values[:, [0, 1, -1]] == 77).all()
    assert (statuses[:, [0, 1, -1]] == 99).all()
    assert undecided == (statuses == UNDECIDED).sum()
    return values[:, 2:-1], statuses[:, 2:-1].astype(np.int64)


def found(feature: CompiledFeature, over: list[int], under: list[int]) -> tuple[int, int]:
    """Status and value in machine words."""
    rows = np.array([[row_of(over), row_of(under)]], np.int64)
    counted = np.array([results(over, under)], np.int64)
    values, statuses = finalised([feature], rows, counted, np.array([TIME], np.int64))
    return int(statuses[0, 0]), int(values[0, 0])


def agree(feature: CompiledFeature, over: list[int], under: list[int], must_decide: bool) -> None:
    status, value = found(feature, over, under)
    wanted = finaliser(feature, INDEX)([row_of(over), row_of(under)], results(over, under), TIME)
    if isinstance(wanted, Unservable):
        assert (status, value) == (UNDECIDED, 0)
        return
    if must_decide:
        assert status != UNDECIDED
    if status == UNDECIDED:
        assert value == 0
    elif wanted is None:
        assert (status, value) == (NULL, 0)
    else:
        assert (status, value) == (VALUE, wanted[0] if isinstance(wanted, tuple) else wanted)


cents = st.lists(st.integers(-100_000, 100_000), max_size=6)
sizes = st.sampled_from((3, 2**20, 2**40, 2**50, 2**53 - 1))
any_size = st.one_of(cents, sizes.flatmap(lambda size: st.lists(st.integers(-size, size), max_size=6)))


@pytest.mark.parametrize("aggregation", SINGLE)
@given(any_size, st.integers(0, 18))
def test_each_aggregation_is_decided_as_finalise_does(aggregation: Aggregation, values: list[int], scale: int) -> None:
    feature = CompiledFeature("f", operand(aggregation, 0, scale), None, scale if aggregation in DECIMAL else None)
    agree(feature, values, [], must_decide=max(map(abs, values), default=0) <= 100_000 and scale <= 4)


@given(st.sampled_from(SINGLE), st.sampled_from(SINGLE), any_size, any_size, st.integers(0, 12), st.booleans())
@example(Aggregation.STDDEV, Aggregation.MEAN, [0, 0, 1], [0, 0, 1], 6, True)
@example(Aggregation.MEAN, Aggregation.STDDEV, [0, 0, 1], [0, 0, 1], 6, True)
@example(Aggregation.STDDEV, Aggregation.STDDEV, [1, 3], [0, 8], 0, False)
def test_ratios_are_decided_as_finalise_does(
    top: Aggregation, bottom: Aggregation, over: list[int], under: list[int], scale: int, same: bool
) -> None:
    under = over if same else under
    feature = CompiledFeature("f", operand(top, 0, 0), operand(bottom, 1, 0), scale)
    plain = max(map(abs, [*over, *under]), default=0) <= 100_000 and scale <= 2
    agree(feature, over, under, must_decide=plain)


@pytest.mark.parametrize("aggregation", [Aggregation.SUM, Aggregation.MIN, Aggregation.MAX, Aggregation.FIRST, Aggregation.LAST])
@pytest.mark.parametrize("sign", [1, -1])
def test_an_integer_ends_at_2_53(aggregation: Aggregation, sign: int) -> None:
    feature = CompiledFeature("f", operand(aggregation, 0, 0), None, None)
    assert found(feature, [sign * MAX_INTEGER], []) == (VALUE, sign * MAX_INTEGER)
    assert found(feature, [sign * (MAX_INTEGER + 1)], []) == (UNDECIDED, 0)
    # the bound is of what is served: inside a ratio any size will do
    ratio = CompiledFeature("f", operand(aggregation, 0, 0), operand(Aggregation.COUNT, 1, 0), 0)
    assert found(ratio, [sign * (MAX_INTEGER + 1)], [1]) == (VALUE, sign * (MAX_INTEGER + 1))


def test_of_no_events_only_counts_and_sums_have_a_value() -> None:
    for aggregation in SINGLE:
        status, value = found(CompiledFeature("f", operand(aggregation, 0, 2), None, None), [], [])
        counted = aggregation in (Aggregation.COUNT, Aggregation.SUM, Aggregation.DISTINCT_COUNT)
        assert (status, value) == (VALUE if counted else NULL, 0)


@pytest.mark.parametrize("count", [0, 1, 19, 20, 21])
def test_of_a_list_there_is_the_number_of_its_items(count: int) -> None:
    feature = CompiledFeature("f", operand(Aggregation.LAST_N, 0, 0), None, None)
    assert found(feature, list(range(count)), []) == (VALUE, min(count, 20))


def test_what_a_ratio_is_of_nothing_and_of_what_is_not_decided() -> None:
    count, mean, total = (operand(one, 1, 2) for one in (Aggregation.COUNT, Aggregation.MEAN, Aggregation.SUM))
    top = operand(Aggregation.SUM, 0, 0)
    assert found(CompiledFeature("f", top, count, 2), [5], []) == (NULL, 0)  # by zero
    assert found(CompiledFeature("f", top, mean, 2), [5], []) == (NULL, 0)  # by null
    assert found(CompiledFeature("f", operand(Aggregation.MEAN, 0, 2), count, 2), [], [5]) == (NULL, 0)
    huge = [2**62, 2**62]
    assert found(CompiledFeature("f", top, count, 2), huge, [1]) == (UNDECIDED, 0)
    assert found(CompiledFeature("f", operand(Aggregation.COUNT, 0, 0), total, 2), [1], huge) == (UNDECIDED, 0)
    assert found(CompiledFeature("f", top, mean, 2), huge, []) == (UNDECIDED, 0)
    assert found(CompiledFeature("f", operand(Aggregation.MIN, 0, 0), total, 2), [], huge) == (UNDECIDED, 0)


def test_how_features_are_written_down() -> None:
    features = [
        CompiledFeature("a", operand(Aggregation.COUNT, 3, 0), None, None),
        CompiledFeature("b", operand(Aggregation.MEAN, 1, 4), None, 4),
        CompiledFeature("c", operand(Aggregation.STDDEV, 2, 0), operand(Aggregation.DISTINCT_COUNT, 1, 0), 3),
        CompiledFeature("d", operand(Aggregation.SECONDS_SINCE_LAST, 0, 0), operand(Aggregation.MEAN, 1, 0), 19),
        CompiledFeature("e", operand(Aggregation.SUM, 0, 0), operand(Aggregation.MAX, 2, 0), None),
        CompiledFeature("f", operand(Aggregation.MEDIAN, 1, 0), operand(Aggregation.SECONDS_SINCE_CHANGE, 0, 0), None),
    ]
    assert encode_features(features, INDEX).tolist() == [
        [_PICK, 3, 0, 1, _NONE, 0, 0, 0, 1, 1],
        [_MEAN, 1, 0, 10**4, _NONE, 0, 0, 0, 1, 0],
        [_STDDEV, 2, 0, 1, _DISTINCT, 1, 0, 1, 10**3, 0],
        [_SECONDS, 0, 10, 1, _MEAN, 1, 0, 1, 0, 0],  # 10^19 fits no machine word
        [_SUM, 0, 0, 1, _PICK, 2, 6, 1, 1, 1],
        [_RESULT, 3, 0, 1, _SECONDS_SINCE_RESULT, 4, 0, 1, 1, 1],
    ]
    assert encode_features([], INDEX).shape == (0, 10)


def test_rows_and_features_do_not_mix() -> None:
    features = [
        CompiledFeature("a", operand(Aggregation.SUM, 0, 0), None, None),
        CompiledFeature("b", operand(Aggregation.SECONDS_SINCE_LAST, 1, 0), None, None),
        CompiledFeature("c", operand(Aggregation.DISTINCT_COUNT, 1, 0), None, None),
    ]
    rows = np.zeros((2, 2, ROW_WIDTH), np.int64)
    rows[0, 0], rows[0, 1], rows[1, 0], rows[1, 1] = row_of([4]), row_of([1, 2]), row_of([]), row_of([9])
    times = np.array([TIME, TIME + 10_000_000], np.int64)
    values, statuses = finalised(features, rows, np.array([[7, 2], [8, 1]], np.int64), times)
    assert values.tolist() == [[4, 0], [1, 11], [2, 1]]
    assert statuses.tolist() == [[VALUE, VALUE], [VALUE, VALUE], [VALUE, VALUE]]


@pytest.mark.parametrize("bits", range(10, 63, 2))
@pytest.mark.parametrize("scale", [0, 2, 6, 9])
def test_decimals_are_exact_or_left_at_every_size(bits: int, scale: int) -> None:
    for values in ([2**bits], [2**bits, -(2**bits)], [0, 2**bits - 1], [2**bits + 1, 3, 2**bits], [-(2**bits), 1 - 2**bits]):
        for aggregation in DECIMAL:
            feature = CompiledFeature("f", operand(aggregation, 0, scale), None, scale)
            agree(feature, values, [], must_decide=bits <= 30 and scale <= 6)
        for top, bottom in (("sum", "count"), ("count", "sum"), ("mean", "max"), ("max", "stddev"), ("stddev", "mean")):
            ratio = CompiledFeature("f", operand(Aggregation(top), 0, scale), operand(Aggregation(bottom), 1, 2), scale)
            agree(ratio, values, values[::-1], must_decide=bits <= 20 and scale <= 2)


@pytest.mark.parametrize(("moment", "seconds"), [(-3_000_000, 103), (0, 100), (1, 99), (1_000_000, 99), (100_000_000, 0)])
def test_seconds_are_whole_and_floored_here_too(moment: int, seconds: int) -> None:
    feature = CompiledFeature("f", operand(Aggregation.SECONDS_SINCE_FIRST, 0, 0), None, None)
    rows = accumulate(np.array([[moment], [1]], np.int64), 0, 1, 0, -1).reshape(1, 1, ROW_WIDTH)
    values, statuses = finalised([feature], rows, np.zeros((1, 2), np.int64), np.array([100_000_000], np.int64))
    assert (values.tolist(), statuses.tolist()) == ([[seconds]], [[VALUE]])


def of_sums(feature: CompiledFeature, over: tuple[int, int], under: int = 0) -> tuple[int, int]:
    """Status and value where the sums are `over` (of so many events) and `under` (of one)."""
    rows = np.zeros((1, 2, ROW_WIDTH), np.int64)
    for slot, (total, count) in enumerate((over, (under, 1))):
        rows[0, slot, [0, 1, 2]] = count, *halves(total)
    values, statuses = finalised([feature], rows, np.zeros((1, 2), np.int64), np.array([TIME], np.int64))
    return int(statuses[0, 0]), int(values[0, 0])


TOTAL, COUNTED, BELOW = operand(Aggregation.SUM, 0, 0), operand(Aggregation.COUNT, 0, 0), operand(Aggregation.SUM, 1, 0)
MOST = 2**61 - 1


@pytest.mark.parametrize("sign", [1, -1])
def test_where_the_loop_stops_to_decide(sign: int) -> None:
    ratio, tenths = CompiledFeature("f", TOTAL, BELOW, 0), CompiledFeature("f", TOTAL, BELOW, 1)
    assert of_sums(ratio, (sign * MOST, 1), 1) == (VALUE, sign * MOST)
    assert of_sums(ratio, (sign * (MOST + 1), 1), 1) == (UNDECIDED, 0)
    assert of_sums(ratio, (MOST, 1), sign * MOST) == (VALUE, sign)
    assert of_sums(ratio, (1, 1), sign * (MOST + 1)) == (UNDECIDED, 0)
    assert of_sums(tenths, (sign * (2**61 // 10), 1), 1) == (VALUE, sign * 10 * (2**61 // 10))
    assert of_sums(tenths, (sign * (2**61 // 10 + 1), 1), 1) == (UNDECIDED, 0)
    # a mean of ten over a sum: the sum is made ten times as large
    mean = CompiledFeature("f", operand(Aggregation.MEAN, 0, 0), BELOW, 0)
    assert of_sums(mean, (20, 10), sign * (2**61 // 10)) == (VALUE, 0)
    assert of_sums(mean, (20, 10), sign * (2**61 // 10 + 1)) == (UNDECIDED, 0)
    # of the least word there is no size
    assert of_sums(mean, (-(2**63), 10), 1) == (UNDECIDED, 0)
    assert of_sums(mean, (1, 10), -(2**63)) == (UNDECIDED, 0)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("scale", [0, 1])
def test_means_beyond_an_integer_are_decided_up_to_their_room(scale: int, sign: int) -> None:
    mean, most = CompiledFeature("f", operand(Aggregation.MEAN, 0, scale), None, scale), MOST if scale == 0 else 2**61 // 10
    assert of_sums(mean, (sign * most, 1)) == (VALUE, sign * most * 10**scale)
    assert of_sums(mean, (sign * (most + 1), 1)) == (UNDECIDED, 0)


@pytest.mark.parametrize("total", [2**64, -(2**64), 2**63, -(2**63) - 1, 3 * 2**64, -(2**65)])
def test_a_sum_of_more_than_a_word_is_left(total: int) -> None:
    for feature in (
        CompiledFeature("f", TOTAL, None, None),
        CompiledFeature("f", operand(Aggregation.MEAN, 0, 0), None, 0),
        CompiledFeature("f", operand(Aggregation.STDDEV, 0, 0), None, 0),
        CompiledFeature("f", COUNTED, CompiledFeature("f", TOTAL, None, None).operand, 0),
    ):
        assert of_sums(feature, (total, 2)) == (UNDECIDED, 0)


def plainly(feature: CompiledFeature, total: int = 6, *, up: int | None = None) -> tuple[bool, list[int]]:
    """Whether the loop without a look at each row takes the feature, and what it makes of three rows: 3, 0 and 3 events."""
    columns = np.zeros((2, ROW_WIDTH, 3), np.int64)
    columns[:, 0] = 3, 0, 3
    columns[0, 1, [0, 2]], columns[0, 2, [0, 2]] = halves(total)
    columns[1, 0] = 4, 0, 2
    encoded = encode_features([feature], INDEX)[0]
    encoded[8] = encoded[8] if up is None else up
    values, statuses = np.full(3, 77, np.int64), np.full(3, 99, np.uint8)
    done = bool(_finalise_plain(encoded, columns, values, statuses))
    return done, [int(value) for value, status in zip(values, statuses, strict=True) if status == VALUE]


def test_which_features_need_no_look_at_each_row() -> None:
    other = operand(Aggregation.COUNT, 1, 0)
    assert plainly(CompiledFeature("f", COUNTED, None, None)) == (True, [3, 0, 3])
    assert plainly(CompiledFeature("f", COUNTED, other, 2)) == (True, [75, 150])
    for total in (6, -6, 0):
        assert plainly(CompiledFeature("f", operand(Aggregation.MEAN, 0, 2), None, 2), total) == (True, [total * 100 // 3] * 2)


@pytest.mark.parametrize(
    "feature",
    [
        CompiledFeature("f", TOTAL, None, None),
        CompiledFeature("f", operand(Aggregation.MAX, 0, 0), None, None),
        CompiledFeature("f", operand(Aggregation.DISTINCT_COUNT, 0, 0), None, None),
        CompiledFeature("f", operand(Aggregation.STDDEV, 0, 2), None, 2),
        CompiledFeature("f", COUNTED, BELOW, 2),
        CompiledFeature("f", COUNTED, operand(Aggregation.MIN, 1, 0), 2),
        CompiledFeature("f", COUNTED, operand(Aggregation.SECONDS_SINCE_LAST, 1, 0), 2),
        CompiledFeature("f", operand(Aggregation.FIRST, 0, 0), operand(Aggregation.COUNT, 1, 0), 2),
        CompiledFeature("f", operand(Aggregation.MEAN, 0, 2), operand(Aggregation.COUNT, 1, 0), 2),
        CompiledFeature("f", COUNTED, operand(Aggregation.COUNT, 1, 0), 19),  # 10^19 fits no machine word
    ],
)
def test_what_each_row_has_to_be_looked_at_for(feature: CompiledFeature) -> None:
    assert plainly(feature) == (False, [])


def test_factors_and_sums_that_fit_no_word_are_left_to_the_other_loop() -> None:
    ratio = CompiledFeature("f", COUNTED, operand(Aggregation.COUNT, 1, 0), 2)
    assert plainly(ratio, up=1)[0]
    assert not plainly(ratio, up=0)[0]
    mean = CompiledFeature("f", operand(Aggregation.MEAN, 0, 0), None, 0)
    for total in (2**64, -(2**64), 2**63, -(2**63) - 1, 6 + 2**64):
        assert not plainly(mean, total)[0]
