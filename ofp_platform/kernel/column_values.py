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
from ofp_platform.registry.aggregations import Finish, rule_of
from ofp_platform.registry.layout import CompiledFeature, CompiledOperand
from ofp_platform.vocabulary.canonical import MAX_INTEGER
from ofp_platform.vocabulary.times import MICROS_PER_SECOND

NULL, VALUE, UNDECIDED = 0, 1, 2
_NONE, _PICK, _DISTINCT, _SUM, _SECONDS, _MEAN, _STDDEV = range(7)
_EXACT = 2**51  # doubles divide numbers up to it so that the quotient can be rounded
_ROOM = 2**61  # no product that is kept below it overflows when it is doubled
_FEATURE_WIDTH = 11
_HALF = np.uint64(32)
_LOW_HALF = np.uint64(0xFFFFFFFF)
_STATUS2 = types.Array(types.uint8, 2, "C")


def _encode(operand: CompiledOperand | None, distinct_index: dict[tuple[int, int], int]) -> tuple[int, int, int, int]:
    """(code, slot or index of the distinct count, place in the accumulator row, power of ten of a decimal)."""
    if operand is None:
        return _NONE, 0, 0, 0
    slot, finish = operand.slot, rule_of(operand.aggregation).finish
    match finish:
        case Finish.COUNT:
            return _PICK, slot, COUNT, 1
        case Finish.DISTINCT:
            return _DISTINCT, distinct_index[slot, operand.token], 0, 1
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


def encode_features(features: Sequence[CompiledFeature], distinct_index: dict[tuple[int, int], int]) -> Int64Array:
    """int64[F, 11]: both operands, the factors of a ratio, and whether the wire shows an integer."""
    rows = []
    for feature in features:
        top, bottom = feature.operand, feature.denominator
        factors = (1, 1)
        if bottom is not None:
            factors = (10 ** (bottom.scale + (feature.scale or 0)), 10**top.scale)
        # a factor that fits no machine word: 0, and every row of the feature is undecided
        words = [factor if factor < _ROOM else 0 for factor in factors]
        integer = int(feature.scale is None)
        rows.append((*_encode(top, distinct_index), *_encode(bottom, distinct_index), *words, integer))
    return np.array(rows, np.int64).reshape(len(rows), _FEATURE_WIDTH)


@native()
def multiply_wide(factor: int, other: int) -> tuple[Any, Any]:
    """128-bit product of two int64 >= 0, as a pair (high, low) of int64."""
    factor_high = np.uint64(factor) >> _HALF
    factor_low = np.uint64(factor) & _LOW_HALF
    other_high = np.uint64(other) >> _HALF
    other_low = np.uint64(other) & _LOW_HALF
    below = factor_low * other_low
    first = factor_low * other_high
    second = factor_high * other_low
    middle = (below >> _HALF) + (first & _LOW_HALF) + (second & _LOW_HALF)
    high = factor_high * other_high + (first >> _HALF) + (second >> _HALF) + (middle >> _HALF)
    return np.int64(high), np.int64(np.uint64(factor) * np.uint64(other))


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
def _deviation(count: int, total: int, squares_high: int, squares_low: int, power: int) -> tuple[Any, Any]:
    """(status, unscaled) of the population's standard deviation."""
    if squares_high != 0 or squares_low < 0 or power >= 1_000_000_000:
        return UNDECIDED, np.int64(0)
    high, low = multiply_wide(count, squares_low)
    square_high, square_low = square_wide(total)
    high, low = subtract_wide(high, low, square_high, square_low)
    if high != 0 or low < 0:
        return UNDECIDED, np.int64(0)
    high, low = multiply_wide(low, power * power)
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
    if code == _DISTINCT:
        return VALUE, distinct[row, slot]
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
        return _deviation(count, total, accumulators[slot, SQUARE_HIGH, row], accumulators[slot, SQUARE_LOW, row], power)
    if not -_ROOM < total < _ROOM or abs(total) > room:
        return UNDECIDED, np.int64(0)
    return VALUE, _divide(total * power, count)


@native()
def _quotients(
    top: Int64Array, up: int, bottom: Int64Array, down: int, values: Int64Array, statuses: npt.NDArray[np.uint8]
) -> bool:
    """(top * up) / (bottom * down) of each row, rounded half to even, null where bottom is 0; whether all were small enough.

    A quotient of n and d in doubles is off by at most |n/d| / 2^53. One that is not itself halfway between two integers is at
    least 1/2d from the next such half: with |n| < 2^52 it is rounded to the integer to which the exact one is.
    """
    top_room = _EXACT // up
    bottom_room = _EXACT // down
    beyond = 0
    for row in range(values.shape[0]):
        beyond |= (top[row] > top_room) | (top[row] < -top_room) | (bottom[row] > bottom_room) | (bottom[row] < 0)
    if beyond:
        return False
    for row in range(values.shape[0]):
        some = bottom[row] != 0
        quotient = np.rint(float(top[row] * up) / float(bottom[row] * down if some else 1))
        values[row] = np.int64(quotient) if some else 0
        statuses[row] = VALUE if some else NULL
    return True


@native()
def _finalise_plain(feature: Int64Array, accumulators: Int64Array, values: Int64Array, statuses: npt.NDArray[np.uint8]) -> bool:
    """One feature of many rows without a look at each one's kind: a count, a mean, a ratio of counts. False: not this one."""
    size = values.shape[0]
    code, slot, index, power, other_code, other_slot, other_place, _, up, down, _ = feature
    count = accumulators[slot, COUNT, :size]
    if code == _PICK and index == 0:
        if other_code == _NONE:
            for row in range(size):
                values[row] = count[row]  # never as many as 2^53
                statuses[row] = VALUE
            return True
        if other_code == _PICK and other_place == 0 and up > 0 and down > 0:
            return _quotients(count, up, accumulators[other_slot, COUNT, :size], down, values, statuses)
    elif code == _MEAN and other_code == _NONE and power > 0:
        high, low = accumulators[slot, SUM_HIGH, :size], accumulators[slot, SUM_LOW, :size]
        wide = 0
        for row in range(size):
            wide |= high[row] ^ (low[row] >> 63)
        if wide == 0:
            return _quotients(low, power, count, 1, values, statuses)
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
        code, slot, index, power, other_code, other_slot, other_place, other_power, up, down, integer = features[feature]
        # the machine divides slowly: what is the same for all rows is divided once
        room = _ROOM // power if power > 0 else 0
        other_room = _ROOM // other_power if other_power > 0 else 0
        up_room = _ROOM // up if up > 0 else -1
        down_room = _ROOM // down if down > 0 else -1
        for row in range(times.shape[0]):
            status, value = _operand(code, slot, index, power, room, accumulators, distinct, row, times[row])
            if other_code != _NONE:
                below, divisor = _operand(
                    other_code, other_slot, other_place, other_power, other_room, accumulators, distinct, row, times[row]
                )
                if status == VALUE and below == VALUE:
                    if divisor == 0:
                        status = NULL
                    elif (
                        not -_ROOM < value < _ROOM
                        or not -_ROOM < divisor < _ROOM
                        or abs(value) > up_room
                        or abs(divisor) > down_room
                    ):
                        status = UNDECIDED
                    else:
                        value = _divide(value * up, divisor * down)
                elif status == UNDECIDED or below == UNDECIDED:
                    status = UNDECIDED
                else:
                    status = NULL
            elif integer != 0 and status == VALUE and not -MAX_INTEGER <= value <= MAX_INTEGER:
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
