"""From accumulators to values, in exact integers of any size.

A value is None, an integer, a boolean, a text, a decimal as (unscaled, scale), or a list. A ratio is the exact quotient of its
operands, rounded once: a mean enters as a fraction, a standard deviation as a root, a sum however long. Only what is served must
fit: an integer on the wire is within ±(2^53-1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, assert_never, cast

from ofp_platform.kernel.accumulate import (
    COUNT,
    EARLIEST,
    FIRST,
    FIRST_TS,
    LAST,
    LAST_TS,
    MAX,
    MIN,
    SQUARE_HIGH,
    SQUARE_LOW,
    SUM_HIGH,
    SUM_LOW,
    wide,
)
from ofp_platform.kernel.query import Query, ResultIndex, result_key
from ofp_platform.kernel.windows import Evaluation
from ofp_platform.registry.aggregations import Finish, rule_of
from ofp_platform.registry.exact_value import ExactValue, Unservable, in_range
from ofp_platform.registry.layout import CompiledFeature, CompiledGroup, CompiledOperand
from ofp_platform.registry.models import FieldType
from ofp_platform.vocabulary.decimals import divide_half_even, format_decimal, sqrt_ratio_half_even
from ofp_platform.vocabulary.times import MICROS_PER_SECOND

AccumulatorRows = Sequence[Sequence[Any]]
"""Integers, and texts where the values of a slot are texts."""
Finaliser = Callable[[AccumulatorRows, Sequence[Any], int], ExactValue]
"""(accumulator rows of all slots, results of the query's distinct counts and whole windows, as-of) -> value"""


def _sum(row: Sequence[int]) -> int:
    return wide(row[SUM_HIGH], row[SUM_LOW])


def _value_of(slot: int, column: int) -> Finaliser:
    return lambda rows, distinct, time: rows[slot][column] if rows[slot][COUNT] else None


def _seconds_since(slot: int, column: int) -> Finaliser:
    return lambda rows, distinct, time: (time - rows[slot][column]) // MICROS_PER_SECOND if rows[slot][COUNT] else None


@dataclass(frozen=True)
class Root:
    """The root of an integer >= 0 over an integer > 0, exact: a standard deviation before it is rounded."""

    radicand: int
    divisor: int


Operand = int | Fraction | Root | None
OperandOf = Callable[[AccumulatorRows, Sequence[int], int], Operand]
"""As a finaliser, but exact: an operand of a ratio."""


def _mean(slot: int, scale: int) -> Finaliser:
    power = 10**scale

    def mean(rows: AccumulatorRows, distinct: Sequence[int], time: int) -> ExactValue:
        row = rows[slot]
        count = row[COUNT]
        return (divide_half_even(_sum(row) * power, count), scale) if count else None

    return mean


def _spread(row: Sequence[int]) -> int:
    """n * variance * n: never negative, and exact."""
    return row[COUNT] * wide(row[SQUARE_HIGH], row[SQUARE_LOW]) - _sum(row) ** 2


def _stddev(slot: int, scale: int) -> Finaliser:
    def stddev(rows: AccumulatorRows, distinct: Sequence[int], time: int) -> ExactValue:
        row = rows[slot]
        count = row[COUNT]
        return (sqrt_ratio_half_even(_spread(row), count, scale), scale) if count else None

    return stddev


def _result(index: int) -> Finaliser:
    return lambda rows, distinct, time: None if distinct[index] == EARLIEST else distinct[index]


def _items(index: int) -> Finaliser:
    return lambda rows, distinct, time: list(distinct[index + 1 : index + 1 + distinct[index]]) or None


def _pairs(index: int, most: int, is_sum: bool) -> Finaliser:
    """Categories with their counts or sums; `index`, `most`: the first result, and the most items that there are."""

    def pairs(rows: AccumulatorRows, distinct: Sequence[Any], time: int) -> ExactValue:
        found: list[dict[str, Any]] = []
        for place in range(index + 1, index + 1 + distinct[index]):
            number = wide(distinct[place + most], distinct[place + 2 * most]) if is_sum else distinct[place + most]
            if in_range(number) is Unservable.OUT_OF_RANGE:
                return Unservable.OUT_OF_RANGE
            found.append({"category": distinct[place], "value": number})
        return found or None

    return pairs


def _seconds_since_result(index: int) -> Finaliser:
    return lambda rows, distinct, time: None if distinct[index] == EARLIEST else (time - distinct[index]) // MICROS_PER_SECOND


def _value(operand: CompiledOperand, distinct_index: ResultIndex) -> Finaliser:
    slot, scale, finish = operand.slot, operand.scale, rule_of(operand.aggregation).finish
    match finish:
        case Finish.COUNT:
            return lambda rows, distinct, time: rows[slot][COUNT]
        case Finish.DISTINCT:
            index = distinct_index[result_key(operand)]
            return lambda rows, distinct, time: distinct[index]
        case Finish.QUANTILE:
            return _result(distinct_index[result_key(operand)])
        case Finish.SECONDS_SINCE_CHANGE:
            return _seconds_since_result(distinct_index[result_key(operand)])
        case Finish.LAST_N | Finish.TOP_K:
            return _items(distinct_index[result_key(operand)])
        case Finish.COUNT_BY | Finish.SUM_BY:
            return _pairs(distinct_index[result_key(operand)], operand.parameter, finish is Finish.SUM_BY)
        case Finish.SUM:
            return lambda rows, distinct, time: _sum(rows[slot])
        case Finish.MIN:
            return _value_of(slot, MIN)
        case Finish.MAX:
            return _value_of(slot, MAX)
        case Finish.FIRST:
            return _value_of(slot, FIRST)
        case Finish.LAST:
            return _value_of(slot, LAST)
        case Finish.SECONDS_SINCE_FIRST:
            return _seconds_since(slot, FIRST_TS)
        case Finish.SECONDS_SINCE_LAST:
            return _seconds_since(slot, LAST_TS)
        case Finish.MEAN:
            return _mean(slot, scale)
        case Finish.STDDEV:
            return _stddev(slot, scale)
        case Finish.QUOTIENT:
            raise ValueError(f"{operand.aggregation} is not an aggregation of one slot")
        case _:
            assert_never(finish)


def _exact(operand: CompiledOperand, distinct_index: ResultIndex) -> OperandOf:
    """An operand of a ratio: nothing of it is rounded."""
    slot = operand.slot
    match rule_of(operand.aggregation).finish:
        case Finish.MEAN:
            return lambda rows, distinct, time: Fraction(_sum(rows[slot]), rows[slot][COUNT]) if rows[slot][COUNT] else None
        case Finish.STDDEV:
            return lambda rows, distinct, time: Root(_spread(rows[slot]), rows[slot][COUNT]) if rows[slot][COUNT] else None
        case _:
            return cast("OperandOf", _value(operand, distinct_index))  # an integer is exact as it is


def ratio_of(numerator: Operand, denominator: Operand, scale: int) -> ExactValue:
    """numerator / denominator at `scale`, rounded half to even once; None when either is None or the denominator is 0.

    With a root on either side the quotient is the root of a fraction, and what it is rounded to is decided between squares.
    """
    if numerator is None or denominator is None:
        return None
    if not isinstance(numerator, Root) and not isinstance(denominator, Root):
        if denominator == 0:
            return None
        top, bottom = Fraction(numerator), Fraction(denominator)
        quotient_top, quotient_bottom = top.numerator * bottom.denominator, top.denominator * bottom.numerator
        return divide_half_even(quotient_top * 10**scale, quotient_bottom), scale
    top_sign, top = _square(numerator)
    bottom_sign, bottom = _square(denominator)
    if bottom == 0:
        return None
    square = top / bottom
    # sqrt(n / d) = sqrt(n * d) / d
    root = sqrt_ratio_half_even(square.numerator * square.denominator, square.denominator, scale)
    return top_sign * bottom_sign * root, scale


def _square(operand: int | Fraction | Root) -> tuple[int, Fraction]:
    """The sign (1 of 0) and the square of an operand."""
    if isinstance(operand, Root):
        return 1, Fraction(operand.radicand, operand.divisor**2)
    return -1 if operand < 0 else 1, Fraction(operand) ** 2


def finaliser(feature: CompiledFeature, distinct_index: ResultIndex) -> Finaliser:
    """The function that makes the value of one feature; `distinct_index` is that of the query which made the distinct counts.

    What cannot be served comes out as OUT_OF_RANGE.
    """
    if feature.denominator is not None:
        dividend, divisor = _exact(feature.operand, distinct_index), _exact(feature.denominator, distinct_index)
        scale = feature.scale or 0
        return lambda rows, distinct, time: in_range(
            ratio_of(dividend(rows, distinct, time), divisor(rows, distinct, time), scale)
        )
    value = _value(feature.operand, distinct_index)
    if feature.value_type is FieldType.BOOLEAN:
        return lambda rows, distinct, time: _boolean(value(rows, distinct, time))
    return lambda rows, distinct, time: in_range(value(rows, distinct, time))


def _boolean(value: ExactValue) -> ExactValue:
    if isinstance(value, list):
        return [{**item, "category": bool(item["category"])} if isinstance(item, dict) else bool(item) for item in value]
    return bool(value) if isinstance(value, int) else value


def group_values(group: CompiledGroup, query: Query, evaluation: Evaluation, time: int) -> dict[str, ExactValue]:
    """Name -> value of a group's windowed features, sorted by name, as of `time` (microseconds).

    `evaluation` is the query's, at that time. On-demand features are the caller's, over these values.

    Raises:
        KeyError: the query was not made for this group.
    """
    finalisers = query.finalisers.get((group.name, group.version))
    if finalisers is None:
        features = sorted(group.features, key=lambda feature: feature.name)
        finalisers = [(feature.name, finaliser(feature, query.distinct_index)) for feature in features]
        query.finalisers[group.name, group.version] = finalisers
    rows, distinct = evaluation.rows
    return {name: finalise(rows, distinct, time) for name, finalise in finalisers}


def wire(value: ExactValue) -> int | str | list[Any] | None:
    """As on the wire: an integer, a boolean, a text or a list as it is, a decimal with all digits, null where nothing is."""
    if isinstance(value, Unservable):
        return None
    return format_decimal(*value) if isinstance(value, tuple) else value
