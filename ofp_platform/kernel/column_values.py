"""Finalisation of many rows at once: what `finalise` computes, in 64- and 128-bit machine arithmetic.

A value that does not fit that arithmetic is never guessed at: it is marked `UNDECIDED`, and `finalise` computes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import Any, assert_never

import numpy as np
import numpy.typing as npt
from numba import types

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
    square_wide,
    subtract_wide,
)
from ofp_platform.kernel.native import IN1, IN2, IN3, INTEGER, NOTHING, OUT2, Int64Array, native
from ofp_platform.kernel.query import ResultIndex, result_key
from ofp_platform.registry.aggregations import Finish, rule_of
from ofp_platform.registry.layout import CompiledFeature, CompiledOperand
from ofp_platform.vocabulary.canonical import MAX_INTEGER
from ofp_platform.vocabulary.times import MICROS_PER_SECOND

NULL, VALUE, UNDECIDED = 0, 1, 2
_NONE, _PICK, _SUM, _SECONDS, _MEAN, _STDDEV = range(6)
# those of which the value is made of a result of the query, not of an accumulator row
_DISTINCT, _RESULT, _SECONDS_SINCE_RESULT = range(6, 9)
_EXACT = 2**51  # doubles divide numbers up to it so that the quotient can be rounded
_ROOM = 2**61  # no product that is kept below it overflows when it is doubled
_MOST_ROOT = 2**50  # a root up to it comes out of doubles within one of the true one
_FEATURE_WIDTH = 10
_HALF = np.uint64(32)
_LOW_HALF = np.uint64(0xFFFFFFFF)
_STATUS2 = types.Array(types.uint8, 2, "C")


def _encode(operand: CompiledOperand | None, distinct_index: ResultIndex) -> tuple[int, int, int, int]:
    """(code, slot or index of the result, place in the accumulator row, power of ten of a decimal)."""
    if operand is None:
        return _NONE, 0, 0, 0
    slot, finish = operand.slot, rule_of(operand.aggregation).finish
    match finish:
        case Finish.COUNT:
            return _PICK, slot, COUNT, 1
        case (
            Finish.DISTINCT | Finish.LAST_N | Finish.TOP_K | Finish.COUNT_BY | Finish.SUM_BY
        ):  # of a list the number of its items
            return _DISTINCT, distinct_index[result_key(operand)], 0, 1
        case Finish.QUANTILE:
            return _RESULT, distinct_index[result_key(operand)], 0, 1
        case Finish.SECONDS_SINCE_CHANGE:
            return _SECONDS_SINCE_RESULT, distinct_index[result_key(operand)], 0, 1
        case Finish.SUM:
            return _SUM, slot, 0, 1
        case Finish.MIN:
            return _PICK, slot, MIN, 1
        case Finish.MAX:
            return _PICK, slot, MAX, 1
        case Finish.FIRST:
            return _PICK, slot, FIRST, 1
        case Finish.LAST:
            return _PICK, slot, LAST, 1
        case Finish.SECONDS_SINCE_FIRST:
            return _SECONDS, slot, FIRST_TS, 1
        case Finish.SECONDS_SINCE_LAST:
            return _SECONDS, slot, LAST_TS, 1
        case Finish.MEAN:
            return _MEAN, slot, 0, int(10**operand.scale)
        case Finish.STDDEV:
            return _STDDEV, slot, 0, int(10**operand.scale)
        case Finish.QUOTIENT:
            raise ValueError(f"{operand.aggregation} is not an aggregation of one slot")
        case _:
            assert_never(finish)


def encode_features(features: Sequence[CompiledFeature], distinct_index: ResultIndex) -> Int64Array:
    """int64[F, 10]: both operands, the power of ten of a ratio, and whether the wire shows an integer."""
    rows = []
    for feature in features:
        # a power that fits no machine word: 0, and every row of the feature is undecided
        power = 10 ** (feature.scale or 0) if feature.denominator is not None else 1
        word = power if power < _ROOM else 0
        operands = (*_encode(feature.operand, distinct_index), *_encode(feature.denominator, distinct_index))
        rows.append((*operands, word, int(feature.scale is None)))
    return np.array(rows, np.int64).reshape(len(rows), _FEATURE_WIDTH)


@native()
def multiply_wide(factor: int, other: int) -> tuple[Any, Any]:
    """128-bit product of two int64 >= 0, as a pair (high, low) of int64."""
    return _unsigned_product(np.uint64(factor), np.uint64(other))


@native()
def _unsigned_product(factor: Any, other: Any) -> tuple[Any, Any]:
    """128-bit product of two uint64, as a pair (high, low) of int64."""
    factor_high = factor >> _HALF
    factor_low = factor & _LOW_HALF
    other_high = other >> _HALF
    other_low = other & _LOW_HALF
    below = factor_low * other_low
    first = factor_low * other_high
    second = factor_high * other_low
    middle = (below >> _HALF) + (first & _LOW_HALF) + (second & _LOW_HALF)
    high = factor_high * other_high + (first >> _HALF) + (second >> _HALF) + (middle >> _HALF)
    return np.int64(high), np.int64(factor * other)


@native()
def _exceeds(high: int, low: int, other_high: int, other_low: int) -> bool:
    """Whether one 128-bit number >= 0 is greater than the other."""
    if high != other_high:
        return high > other_high
    return bool(np.uint64(low) > np.uint64(other_low))


@native()
def _root(high: int, low: int) -> Any:
    """Floor of the square root of a 128-bit number >= 0 below 2^122."""
    root: Any = np.int64(sqrt(float(high) * 18446744073709551616.0 + float(np.uint64(low))))
    square_high, square_low = square_wide(root)
    while _exceeds(square_high, square_low, high, low):
        root -= 1
        square_high, square_low = square_wide(root)
    while True:
        square_high, square_low = square_wide(root + 1)
        if _exceeds(square_high, square_low, high, low):
            return root
        root += 1


@native()
def _divide(numerator: int, denominator: int) -> Any:
    """numerator / denominator, rounded half to even; both below 2^61 in size, the denominator not 0."""
    if denominator < 0:
        numerator = -numerator
        denominator = -denominator
    quotient = numerator // denominator
    twice = 2 * (numerator - quotient * denominator)
    if twice > denominator or (twice == denominator and quotient & 1):
        quotient += 1
    return quotient


@native()
def _spread(count: int, total: int, squares_high: int, squares_low: int) -> Any:
    """n * variance * n; -1 where it fits no machine word."""
    if squares_high != 0 or squares_low < 0:
        return np.int64(-1)
    high, low = multiply_wide(count, squares_low)
    square_high, square_low = square_wide(total)
    high, low = subtract_wide(high, low, square_high, square_low)
    return low if high == 0 and low >= 0 else np.int64(-1)


@native()
def _deviation(count: int, spread: int, power: int) -> tuple[Any, Any]:
    """(status, unscaled) of the population's standard deviation."""
    if spread < 0 or power >= 1_000_000_000:
        return UNDECIDED, np.int64(0)
    high, low = multiply_wide(spread, power * power)
    if high >= 1 << 57:
        return UNDECIDED, np.int64(0)
    root = _root(high, low) // count
    middle_high, middle_low = square_wide((2 * root + 1) * count)
    four_high: Any = (high << 2) | np.int64(np.uint64(low) >> np.uint64(62))
    four_low: Any = np.int64(np.uint64(low) << np.uint64(2))
    if _exceeds(four_high, four_low, middle_high, middle_low) or (
        four_high == middle_high and four_low == middle_low and root & 1
    ):
        root += 1
    return VALUE, np.int64(root)


@native()
def _operand(
    code: int, slot: int, index: int, power: int, room: int,
    accumulators: Int64Array, distinct: Int64Array, row: int, time: int,
) -> tuple[Any, Any]:  # fmt: skip
    """(status, value) of one operand of one row; `room` is _ROOM // power."""
    if code >= _DISTINCT:
        result = distinct[row, slot]
        if code == _DISTINCT:
            return VALUE, result
        if result == EARLIEST:
            return NULL, np.int64(0)
        return VALUE, (result if code == _RESULT else (time - result) // MICROS_PER_SECOND)
    count = accumulators[slot, COUNT, row]
    if code == _PICK:
        return (VALUE if count > 0 or index == 0 else NULL), accumulators[slot, index, row]
    total = accumulators[slot, SUM_LOW, row]
    if code == _SUM:
        if accumulators[slot, SUM_HIGH, row] != total >> 63:
            return UNDECIDED, np.int64(0)
        return VALUE, total
    if count == 0:
        return NULL, np.int64(0)
    if code == _SECONDS:
        return VALUE, (time - accumulators[slot, index, row]) // MICROS_PER_SECOND
    if accumulators[slot, SUM_HIGH, row] != total >> 63:
        return UNDECIDED, np.int64(0)
    if code == _STDDEV:
        spread = _spread(count, total, accumulators[slot, SQUARE_HIGH, row], accumulators[slot, SQUARE_LOW, row])
        return _deviation(count, spread, power)
    if not -_ROOM < total < _ROOM or abs(total) > room:
        return UNDECIDED, np.int64(0)
    return VALUE, _divide(total * power, count)


@native()
def _exact(
    code: int, slot: int, index: int, accumulators: Int64Array, distinct: Int64Array, row: int, time: int
) -> tuple[Any, Any, Any]:
    """(status, number, divisor) of an operand of a ratio: number / divisor, of a stddev the root of number over the divisor."""
    if code != _MEAN and code != _STDDEV:
        status, value = _operand(code, slot, index, 1, 0, accumulators, distinct, row, time)
        return status, value, np.int64(1)
    count = accumulators[slot, COUNT, row]
    total = accumulators[slot, SUM_LOW, row]
    if count == 0:
        return NULL, np.int64(0), np.int64(1)
    if accumulators[slot, SUM_HIGH, row] != total >> 63:
        return UNDECIDED, np.int64(0), np.int64(1)
    if code == _MEAN:
        return VALUE, total, count
    spread = _spread(count, total, accumulators[slot, SQUARE_HIGH, row], accumulators[slot, SQUARE_LOW, row])
    return (UNDECIDED if spread < 0 else VALUE), spread, count


@native()
def _product(factor: int, other: int) -> Any:
    """The product of two int64 >= 0 where it is below 2^61; else -1."""
    high, low = multiply_wide(factor, other)
    return low if high == 0 and 0 <= low < _ROOM else np.int64(-1)


@native()
def _times(high: int, low: int, factor: int) -> tuple[Any, Any]:
    """A 128-bit number >= 0 times an int64 >= 0 where that is below 2^120; else (-1, 0), as of such a number."""
    if high < 0:
        return np.int64(-1), np.int64(0)
    above, middle = multiply_wide(high, factor)
    carry, below = _unsigned_product(np.uint64(low), np.uint64(factor))
    if above != 0 or middle < 0 or middle >= 1 << 57 or carry >= 1 << 62:
        return np.int64(-1), np.int64(0)
    total = middle + carry
    return (total, below) if total < 1 << 56 else (np.int64(-1), np.int64(0))


@native()
def _square_times(number: int, high: int, low: int) -> tuple[Any, Any]:
    """number^2 times a 128-bit number, modulo 2^128."""
    square_high, square_low = square_wide(number)
    above, below = _unsigned_product(np.uint64(square_low), np.uint64(low))
    cross_products = np.uint64(square_high) * np.uint64(low) + np.uint64(square_low) * np.uint64(high)
    return np.int64(np.uint64(above) + cross_products), below


@native()
def _root_quotient(high: int, low: int, below_high: int, below_low: int) -> tuple[Any, Any]:
    """(status, value): the root of one 128-bit number below 2^120 over another > 0, rounded half to even.

    All squares stay below 2^128: (2 root + 1)^2 * bottom is at most (2 sqrt(top) + sqrt(bottom))^2.
    """
    top = float(high) * 18446744073709551616.0 + float(np.uint64(low))
    bottom = float(below_high) * 18446744073709551616.0 + float(np.uint64(below_low))
    estimate = sqrt(top / bottom)
    if estimate > _MOST_ROOT:
        return UNDECIDED, np.int64(0)
    root: Any = np.int64(estimate)
    while True:
        square_high, square_low = _square_times(root, below_high, below_low)
        if not _exceeds(square_high, square_low, high, low):
            break
        root -= 1
    while True:
        square_high, square_low = _square_times(root + 1, below_high, below_low)
        if _exceeds(square_high, square_low, high, low):
            break
        root += 1
    middle_high, middle_low = _square_times(2 * root + 1, below_high, below_low)
    four_high: Any = (high << 2) | np.int64(np.uint64(low) >> np.uint64(62))
    four_low: Any = np.int64(np.uint64(low) << np.uint64(2))
    if _exceeds(four_high, four_low, middle_high, middle_low) or (
        four_high == middle_high and four_low == middle_low and root & 1
    ):
        root += 1
    return VALUE, root


@native()
def _ratio(
    number: int, divisor: int, is_root: bool, below: int, below_divisor: int, below_is_root: bool, power: int
) -> tuple[Any, Any]:
    """(status, unscaled) of a quotient of operands as `_exact` gives them; both are values."""
    if below == 0:
        return NULL, np.int64(0)
    smallest = -(2**63)
    if power == 0 or number == smallest or below == smallest:
        return UNDECIDED, np.int64(0)
    negative = (number < 0) != (below < 0)
    number = abs(number)
    below = abs(below)
    if divisor == below_divisor:
        divisor = 1
        below_divisor = 1
    if not is_root and not below_is_root:
        cross_products = _product(number, below_divisor)
        top: Any = _product(cross_products, power) if cross_products >= 0 else cross_products
        bottom = _product(below, divisor)
        if top < 0 or bottom < 0:
            return UNDECIDED, np.int64(0)
        return VALUE, _divide(-top if negative else top, bottom)
    if power > 1_000_000_000:
        return UNDECIDED, np.int64(0)
    # the square of the quotient: squares of integers, and of a root its radicand
    high, low = _times(0, number, 1 if is_root else number)
    high, low = _times(high, low, below_divisor)
    high, low = _times(high, low, below_divisor)
    high, low = _times(high, low, power * power)
    below_high, below_low = _times(0, below, 1 if below_is_root else below)
    below_high, below_low = _times(below_high, below_low, divisor)
    below_high, below_low = _times(below_high, below_low, divisor)
    if high < 0 or below_high < 0:
        return UNDECIDED, np.int64(0)
    status, value = _root_quotient(high, low, below_high, below_low)
    return status, (-value if negative else value)


@native()
def _quotients(top: Int64Array, up: int, bottom: Int64Array, values: Int64Array, statuses: npt.NDArray[np.uint8]) -> bool:
    """(top * up) / bottom of each row, rounded half to even, null where bottom is 0; whether all were small enough.

    A quotient of n and d in doubles is off by at most |n/d| / 2^53. One that is not itself halfway between two integers is at
    least 1/2d from the next such half: with |n| < 2^52 it is rounded to the integer to which the exact one is.
    """
    top_room = _EXACT // up
    beyond = 0
    for row in range(values.shape[0]):
        beyond |= (top[row] > top_room) | (top[row] < -top_room) | (bottom[row] > _EXACT) | (bottom[row] < 0)
    if beyond:
        return False
    for row in range(values.shape[0]):
        some = bottom[row] != 0
        quotient = np.rint(float(top[row] * up) / float(bottom[row] if some else 1))
        values[row] = np.int64(quotient) if some else 0
        statuses[row] = VALUE if some else NULL
    return True


@native()
def _finalise_plain(feature: Int64Array, accumulators: Int64Array, values: Int64Array, statuses: npt.NDArray[np.uint8]) -> bool:
    """One feature of many rows without a look at each one's kind: a count, a mean, a ratio of counts. False: not this one."""
    size = values.shape[0]
    code, slot, index, power, other_code, other_slot, other_place, _, up, _ = feature
    count = accumulators[slot, COUNT, :size]
    if code == _PICK and index == 0:
        if other_code == _NONE:
            for row in range(size):
                values[row] = count[row]  # never as many as 2^53
                statuses[row] = VALUE
            return True
        if other_code == _PICK and other_place == 0 and up > 0:
            return _quotients(count, up, accumulators[other_slot, COUNT, :size], values, statuses)
    elif code == _MEAN and other_code == _NONE and power > 0:
        high, low = accumulators[slot, SUM_HIGH, :size], accumulators[slot, SUM_LOW, :size]
        wide = 0
        for row in range(size):
            wide |= high[row] ^ (low[row] >> 63)
        if wide == 0:
            return _quotients(low, power, count, values, statuses)
    return False


@native()
def _finalise_from(
    features: Int64Array,
    accumulators: Int64Array,
    distinct: Int64Array,
    times: Int64Array,
    first: int,
    values: Int64Array,
    statuses: npt.NDArray[np.uint8],
) -> int:
    undecided_count = 0
    for feature in range(features.shape[0]):
        own_values = values[feature, first : first + times.shape[0]]
        if _finalise_plain(features[feature], accumulators, own_values, statuses[feature, first : first + times.shape[0]]):
            continue
        code, slot, index, power, other_code, other_slot, other_place, _, ratio_power, integer = features[feature]
        is_plain = code != _MEAN and code != _STDDEV and other_code != _MEAN and other_code != _STDDEV
        # the machine divides slowly: what is the same for all rows is divided once
        room = _ROOM // power if power > 0 else 0
        ratio_room = _ROOM // ratio_power if ratio_power > 0 else -1
        for row in range(times.shape[0]):
            if other_code == _NONE:
                status, value = _operand(code, slot, index, power, room, accumulators, distinct, row, times[row])
            elif is_plain:
                status, value = _operand(code, slot, index, 1, 0, accumulators, distinct, row, times[row])
                below, divisor = _operand(other_code, other_slot, other_place, 1, 0, accumulators, distinct, row, times[row])
                if status == VALUE and below == VALUE:
                    if divisor == 0:
                        status = NULL
                    elif not -_ROOM < value < _ROOM or not -_ROOM < divisor < _ROOM or abs(value) > ratio_room:
                        status = UNDECIDED
                    else:
                        value = _divide(value * ratio_power, divisor)
                elif status == UNDECIDED or below == UNDECIDED:
                    status = UNDECIDED
                else:
                    status = NULL
            else:
                status, number, parts = _exact(code, slot, index, accumulators, distinct, row, times[row])
                below, divisor, below_parts = _exact(other_code, other_slot, other_place, accumulators, distinct, row, times[row])
                value = np.int64(0)
                if status == VALUE and below == VALUE:
                    status, value = _ratio(
                        number, parts, code == _STDDEV, divisor, below_parts, other_code == _STDDEV, ratio_power
                    )
                elif status == UNDECIDED or below == UNDECIDED:
                    status = UNDECIDED
                else:
                    status = NULL
            if integer != 0 and status == VALUE and not -MAX_INTEGER <= value <= MAX_INTEGER:
                status = UNDECIDED
            undecided_count += status == UNDECIDED
            statuses[feature, first + row] = status
            values[feature, first + row] = value if status == VALUE else 0
    return undecided_count


@native(NOTHING(IN2, IN3, IN2, IN1, OUT2, _STATUS2))
def _finalise(
    features: Int64Array,
    accumulators: Int64Array,
    distinct: Int64Array,
    times: Int64Array,
    values: Int64Array,
    statuses: npt.NDArray[np.uint8],
) -> None:
    """As `finalise_into`, of one row whose accumulators are int64[1, S, 11]."""
    columns = accumulators.reshape((accumulators.shape[1], accumulators.shape[2], 1))
    _finalise_from(features, columns, distinct, times, 0, values, statuses)


@native(INTEGER(IN2, IN3, IN2, IN1, INTEGER, OUT2, _STATUS2))
def finalise_into(
    features: Int64Array,
    accumulators: Int64Array,
    distinct: Int64Array,
    times: Int64Array,
    first: int,
    values: Int64Array,
    statuses: npt.NDArray[np.uint8],
) -> int:
    """Values (unscaled) and their status, NULL, VALUE or UNDECIDED, into columns [first, first + m) of `values` int64[F, n] and
    `statuses` uint8[F, n]. Returns how many are UNDECIDED.

    `features` from `encode_features`; `accumulators` int64[S, 11, >= m], `distinct` int64[>= m, P], as-of `times` int64[m].
    """
    return int(_finalise_from(features, accumulators, distinct, times, first, values, statuses))
