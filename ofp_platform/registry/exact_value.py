"""A value as the arithmetic has it, before it is written for the wire."""

from __future__ import annotations

from enum import Enum, auto
from typing import Any

from ofp_platform.vocabulary.canonical import MAX_INTEGER

DECIMAL_DIGITS = 38
"""The digits, with those behind the point, of the longest decimal that is served: what a column of a dataset holds, too."""
_DECIMAL_BOUND = 10**DECIMAL_DIGITS


class Unservable(Enum):
    """A value that exists and is not served: the wire has null, with a warning."""

    OUT_OF_RANGE = auto()


ExactValue = int | str | tuple[int, int] | list[Any] | Unservable | None
"""An integer, a boolean, a text, a decimal as (unscaled, scale), a list as in JSON, null, or a value beyond what is served."""


def in_range(value: ExactValue) -> ExactValue:
    """The value, or OUT_OF_RANGE: an integer beyond ±(2^53-1), a decimal of more than 38 digits."""
    if isinstance(value, int):
        return value if -MAX_INTEGER <= value <= MAX_INTEGER else Unservable.OUT_OF_RANGE
    if isinstance(value, tuple):
        return value if -_DECIMAL_BOUND < value[0] < _DECIMAL_BOUND else Unservable.OUT_OF_RANGE
    return value
