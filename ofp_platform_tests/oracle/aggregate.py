"""Every aggregation over a plain list of events, in fractions and Python integers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from math import ceil, isqrt
from typing import Any, NamedTuple


class Item(NamedTuple):
    """One event of a window, as an aggregation sees it: its time, its identity's order, its value (None: has none).

    The value of a distinct count of a pair is the pair; that of `seconds_since_change` is whether the condition holds; that of
    `top_k` and `count_by` is the category, that of `sum_by` the pair of category and value.
    """

    ts: int
    tie: bytes
    value: Any


def round_half_even(number: Fraction) -> int:
    """The nearest integer, ties to even."""
    below = number.numerator // number.denominator
    rest = number - below
    if rest > Fraction(1, 2) or (rest == Fraction(1, 2) and below % 2 == 1):
        return below + 1
    return below


def at_scale(number: Fraction, scale: int) -> Fraction:
    """The number rounded to `scale` decimal digits, half to even."""
    return Fraction(round_half_even(number * 10**scale), 10**scale)


def root_at_scale(number: Fraction, scale: int) -> Fraction:
    """The square root rounded to `scale` decimal digits, half to even: try the candidates and take the nearest."""
    step = Fraction(1, 10**scale)
    below = step * isqrt((number / step**2).__floor__())  # below <= root < below + step
    half = below + step / 2
    if number > half**2 or (number == half**2 and (below / step) % 2 == 1):
        return below + step
    return below


def in_order(value: Any) -> Any:
    """What the values of one type are compared by: texts by the bytes of their UTF-8, false before true."""
    return value.encode() if isinstance(value, str) else value


def category_bytes(category: Any) -> bytes:
    """The bytes of a category: UTF-8 of a text, and of what JSON writes for an integer or a boolean."""
    return (category if isinstance(category, str) else json.dumps(category)).encode()


def aggregate(
    aggregation: str, items: Sequence[Item], time: int, scale: int, p: Fraction = Fraction(1, 2), length: int = 20
) -> int | str | Fraction | list[Any] | None:
    """One aggregation over the events of a window at `time`; a Fraction for a decimal, None for null. `p` is a quantile's.

    `min`, `max`, `first` and `last` are one of the values as it is: an integer, a boolean or a text. `length`: the longest list.
    """
    ordered = sorted(items, key=lambda item: (item.ts, item.tie))
    values: list[Any] = [item.value for item in ordered]
    if aggregation == "count":
        return len(ordered)
    if aggregation == "sum":
        return int(sum(values))
    if aggregation == "distinct_count":
        return len({tuple((type(part), part) for part in (value if isinstance(value, tuple) else (value,))) for value in values})
    if not ordered:
        return None
    if aggregation == "min":
        return min(values, key=in_order)  # type: ignore[no-any-return]
    if aggregation == "max":
        return max(values, key=in_order)  # type: ignore[no-any-return]
    if aggregation == "first":
        return values[0]  # type: ignore[no-any-return]
    if aggregation == "last":
        return values[-1]  # type: ignore[no-any-return]
    if aggregation in ("top_k", "count_by", "sum_by"):
        totals: dict[Any, int] = {}
        for item in items:
            category, number = item.value if aggregation == "sum_by" else (item.value, 1)
            totals[category] = totals.get(category, 0) + number
        greatest = sorted(totals, key=lambda category: (-totals[category], category_bytes(category)))[:length]
        if aggregation == "top_k":
            return greatest
        return [{"category": category, "value": totals[category]} for category in greatest]
    if aggregation == "last_n":
        return values[::-1][:length]
    if aggregation == "seconds_since_first":
        return (time - ordered[0].ts) // 1_000_000
    if aggregation == "seconds_since_last":
        return (time - ordered[-1].ts) // 1_000_000
    if aggregation in ("quantile", "median"):
        p = Fraction(1, 2) if aggregation == "median" else p
        return int(sorted(values)[ceil(p * len(values)) - 1])
    if aggregation == "seconds_since_change":
        changes = [later.ts for earlier, later in pairwise(ordered) if earlier.value != later.value]
        return (time - changes[-1]) // 1_000_000 if changes else None
    mean = Fraction(sum(values), len(values))
    if aggregation == "mean":
        return at_scale(mean, scale)
    assert aggregation == "stddev", aggregation
    return root_at_scale(sum(((value - mean) ** 2 for value in values), Fraction(0)) / len(values), scale)


def signed_square(
    aggregation: str, items: Sequence[Item], time: int, p: Fraction = Fraction(1, 2)
) -> tuple[int, Fraction] | None:
    """The sign and the square of an aggregation that is not rounded, None for null: so a standard deviation is exact, too."""
    values: list[Any] = [item.value for item in items]
    if aggregation in ("mean", "stddev") and not values:
        return None
    if aggregation == "stddev":
        mean = Fraction(sum(values), len(values))
        return 1, sum(((value - mean) ** 2 for value in values), Fraction(0)) / len(values)
    number = Fraction(sum(values), len(values)) if aggregation == "mean" else aggregate(aggregation, items, time, 0, p)
    assert not isinstance(number, (str, bool, list)), "a ratio divides numbers"
    return None if number is None else ((number > 0) - (number < 0), Fraction(number) ** 2)


def divide(numerator: tuple[int, Fraction] | None, denominator: tuple[int, Fraction] | None, scale: int) -> Fraction | None:
    """A ratio of two signed squares at `scale`, rounded once; None when a side is null or the denominator is 0."""
    if numerator is None or denominator is None or denominator[1] == 0:
        return None
    return numerator[0] * denominator[0] * root_at_scale(numerator[1] / denominator[1], scale)


def decimal_text(number: Fraction, scale: int) -> str:
    """The canonical text of a number that has at most `scale` decimal digits."""
    unscaled = number * 10**scale
    assert unscaled.denominator == 1
    digits = str(abs(unscaled.numerator)).zfill(scale + 1)
    text = f"{digits[:-scale]}.{digits[-scale:]}" if scale else digits
    return f"-{text}" if unscaled < 0 else text
