"""From accumulators to values, in exact integers of any size.

A value is None, an integer, or a decimal as (unscaled, scale). A ratio takes its operands as they would be served: a
mean or a stddev rounded at its own scale, a sum exact however long. Only what is served must fit: an integer on the wire
is within ±(2^53-1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import assert_never

from ofp_platform.kernel.accumulate import (
    COUNT,
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
from ofp_platform.kernel.query import Query
from ofp_platform.kernel.windows import Evaluation
from ofp_platform.registry.aggregations import Finish, rule_of
from ofp_platform.registry.exact_value import ExactValue
from ofp_platform.registry.layout import CompiledFeature, CompiledGroup, CompiledOperand
from ofp_platform.vocabulary.canonical import MAX_INTEGER
from ofp_platform.vocabulary.decimals import divide_half_even, format_decimal, sqrt_ratio_half_even
from ofp_platform.vocabulary.times import MICROS_PER_SECOND

AccumulatorRows = Sequence[Sequence[int]]
Finaliser = Callable[[AccumulatorRows, Sequence[int], int], ExactValue]
"""(accumulator rows of all slots, distinct counts of the query, as-of) -> value"""


class ValueOutOfRange(Exception):
    """An integer feature whose value cannot be served: beyond ±(2^53-1)."""

    def __init__(self, feature: str, value: int) -> None:
        super().__init__(f"feature {feature!r} has a value beyond 2^53-1 in size")
        self.feature = feature
        self.value = value


def _sum(row: Sequence[int]) -> int:
    return wide(row[SUM_HIGH], row[SUM_LOW])


def _value_of(slot: int, column: int) -> Finaliser:
    return lambda rows, distinct, time: rows[slot][column] if rows[slot][COUNT] else None


def _seconds_since(slot: int, column: int) -> Finaliser:
    return lambda rows, distinct, time: (time - rows[slot][column]) // MICROS_PER_SECOND if rows[slot][COUNT] else None


def _mean(slot: int, scale: int) -> Finaliser:
    power = 10**scale

    def mean(rows: AccumulatorRows, distinct: Sequence[int], time: int) -> ExactValue:
        row = rows[slot]
        count = row[COUNT]
        return (divide_half_even(_sum(row) * power, count), scale) if count else None

    return mean


def _stddev(slot: int, scale: int) -> Finaliser:
    def stddev(rows: AccumulatorRows, distinct: Sequence[int], time: int) -> ExactValue:
        row = rows[slot]
        count = row[COUNT]
        if not count:
            return None
        # n * variance * n: never negative, and exact
        spread = count * wide(row[SQUARE_HIGH], row[SQUARE_LOW]) - _sum(row) ** 2
        return sqrt_ratio_half_even(spread, count, scale), scale

    return stddev


def _operand(operand: CompiledOperand, distinct_index: dict[tuple[int, int], int]) -> Finaliser:
    slot, scale, finish = operand.slot, operand.scale, rule_of(operand.aggregation).finish
    match finish:
        case Finish.COUNT:
            return lambda rows, distinct, time: rows[slot][COUNT]
        case Finish.DISTINCT:
            index = distinct_index[slot, operand.token]
            return lambda rows, distinct, time: distinct[index]
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


def ratio_of(numerator: ExactValue, denominator: ExactValue, scale: int) -> ExactValue:
    """numerator / denominator at `scale`, rounded half to even; None when either is None or the denominator is 0."""
    if numerator is None or denominator is None:
        return None
    top, top_scale = numerator if isinstance(numerator, tuple) else (numerator, 0)
    bottom, bottom_scale = denominator if isinstance(denominator, tuple) else (denominator, 0)
    if bottom == 0:
        return None
    return divide_half_even(top * 10 ** (bottom_scale + scale), bottom * 10**top_scale), scale


def finaliser(feature: CompiledFeature, distinct_index: dict[tuple[int, int], int]) -> Finaliser:
    """The function that makes the value of one feature; `distinct_index` is that of the query which made the distinct counts.

    The function raises ValueOutOfRange, naming the feature.
    """
    top = _operand(feature.operand, distinct_index)
    if feature.denominator is not None:
        bottom = _operand(feature.denominator, distinct_index)
        scale = feature.scale or 0
        return lambda rows, distinct, time: ratio_of(top(rows, distinct, time), bottom(rows, distinct, time), scale)
    if feature.scale is not None:
        return top
    name = feature.name

    def in_range(rows: AccumulatorRows, distinct: Sequence[int], time: int) -> ExactValue:
        value = top(rows, distinct, time)
        if isinstance(value, int) and not -MAX_INTEGER <= value <= MAX_INTEGER:
            raise ValueOutOfRange(name, value)
        return value

    return in_range


def group_values(group: CompiledGroup, query: Query, evaluation: Evaluation, time: int) -> dict[str, ExactValue]:
    """Name -> value of a group's windowed features, sorted by name, as of `time` (microseconds).

    `evaluation` is the query's, at that time. On-demand features are the caller's, over these values.

    Raises:
        ValueOutOfRange: an integer value beyond ±(2^53-1); it names the feature.
        KeyError: the query was not made for this group.
    """
    finalisers = query.finalisers.get((group.name, group.version))
    if finalisers is None:
        features = sorted(group.features, key=lambda feature: feature.name)
        finalisers = [(feature.name, finaliser(feature, query.distinct_index)) for feature in features]
        query.finalisers[group.name, group.version] = finalisers
    rows, distinct = evaluation.rows
    return {name: finalise(rows, distinct, time) for name, finalise in finalisers}


def wire(value: ExactValue) -> int | str | None:
    """As on the wire: an integer as it is, a decimal as text with all digits of its scale."""
    return format_decimal(*value) if isinstance(value, tuple) else value
