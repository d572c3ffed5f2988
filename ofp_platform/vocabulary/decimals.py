"""Decimals of a declared scale, by integer arithmetic, rounded half to even. No float anywhere.

Inside the plane a decimal is its *unscaled* integer (12.345600 at scale 6 is 12345600); on the wire it is a string.
"""

from __future__ import annotations

import re
from math import isqrt

_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.([0-9]+))?")


def divide_half_even(numerator: int, denominator: int) -> int:
    """numerator / denominator, rounded half to even.

    Raises:
        ZeroDivisionError: the denominator is 0.
    """
    if denominator < 0:
        numerator, denominator = -numerator, -denominator
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    if twice > denominator or (twice == denominator and quotient & 1):
        quotient += 1
    return quotient


def sqrt_ratio_half_even(numerator: int, denominator: int, scale: int) -> int:
    """sqrt(numerator) / denominator at `scale`, unscaled, rounded half to even; exact for integers of any size.

    Raises:
        ValueError: numerator < 0 or denominator <= 0.
    """
    if numerator < 0 or denominator <= 0:
        raise ValueError("the numerator must be >= 0 and the denominator > 0")
    radicand = numerator * 10 ** (2 * scale)
    root = isqrt(radicand) // denominator  # floor of the true value
    # the true value lies above the midpoint root + 1/2 iff radicand * 4 > ((2 root + 1) * denominator)^2
    midpoint = ((2 * root + 1) * denominator) ** 2
    if 4 * radicand > midpoint or (4 * radicand == midpoint and root & 1):
        root += 1
    return root


def format_decimal(unscaled: int, scale: int) -> str:
    """The canonical text: always `scale` digits behind the point, no point at scale 0."""
    if scale == 0:
        return str(unscaled)
    sign = "-" if unscaled < 0 else ""
    digits = str(abs(unscaled)).rjust(scale + 1, "0")
    return f"{sign}{digits[:-scale]}.{digits[-scale:]}"


def parse_decimal(text: str, scale: int) -> int:
    """The inverse of `format_decimal`: one text per value, so no leading zeros and no negative zero.

    Raises:
        ValueError: the text is not the canonical decimal of exactly that scale.
    """
    match = _DECIMAL.fullmatch(text)
    if match is None or len(match.group(1) or "") != scale:
        raise ValueError(f"{text[:40]!r} is not a decimal of scale {scale}")
    unscaled = int(text.replace(".", ""))
    if unscaled == 0 and text.startswith("-"):
        raise ValueError(f"{text[:40]!r} is a negative zero; send it without the sign")
    return unscaled
