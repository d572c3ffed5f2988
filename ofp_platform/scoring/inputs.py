"""The inputs of a model, read of one event and its vector: scaled integers, exact, or absent."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ofp_platform.scoring.compiled_model import Bools, Int64
from ofp_platform.vocabulary.loop.exact_model import MAX_INPUT, FeatureInput, ModelInput, PayloadInput, TimeInput
from ofp_platform.vocabulary.times import to_datetime

SATURDAY = 5
LAST_HOUR_OF_NIGHT = 6
_DECIMAL = re.compile(r"-?[0-9]{1,40}(?:\.[0-9]{1,18})?", re.ASCII)
FeatureName = tuple[str, str, str]
"""Group, version, feature."""


class InputUnfit(Exception):
    """A value that a model cannot take; the text names the input."""


def scaled(value: int | str | bool, scale: int) -> int:
    """The value times 10^scale, cut to the greatest that a model takes.

    Raises:
        ValueError: it is no number, or has more digits behind the point than `scale`.
    """
    own_scale = 0
    if isinstance(value, int):  # a flag is one, too
        own_integer = int(value)
    elif isinstance(value, str) and _DECIMAL.fullmatch(value) is not None:
        whole, _, fraction = value.partition(".")
        own_integer, own_scale = int(whole + fraction), len(fraction)
    else:
        raise ValueError("is no number")
    if own_scale > scale:
        raise ValueError(f"has {own_scale} digits behind the point, the model takes {scale}")
    exact: int = own_integer * 10 ** (scale - own_scale)
    return max(-MAX_INPUT, min(MAX_INPUT, exact))


def during_weekend(ts: int) -> bool:
    """Whether a time (microseconds, UTC) falls on a Saturday or Sunday."""
    return to_datetime(ts).weekday() >= SATURDAY


def during_night(ts: int) -> bool:
    """Whether a time (microseconds, UTC) falls before seven in the morning."""
    return to_datetime(ts).hour <= LAST_HOUR_OF_NIGHT


def read_inputs(
    inputs: Sequence[ModelInput], features: Mapping[FeatureName, Any], payload: Mapping[str, Any], ts: int
) -> tuple[list[int], list[bool]]:
    """The scaled inputs of one event, and which of them are there. `features`: of its vector; one that is not in it is absent, as
    is a null; `ts`: the event time, microseconds.

    Raises:
        InputUnfit: a value that the model cannot take.
    """
    values, present = [], []
    for asked_input in inputs:
        match asked_input:
            case FeatureInput():
                value = features.get((asked_input.group_name, asked_input.group_version, asked_input.feature))
            case PayloadInput():
                value = payload.get(asked_input.field)
            case TimeInput():
                value = during_weekend(ts) if asked_input.part == "during_weekend" else during_night(ts)
        try:
            values.append(0 if value is None else scaled(value, asked_input.scale))
        except ValueError as error:
            raise InputUnfit(f"{asked_input.name} {error}") from None
        present.append(value is not None)
    return values, present


def as_rows(rows: Sequence[tuple[Sequence[int], Sequence[bool]]]) -> tuple[Int64, Bools]:
    """The inputs of n events as arrays: values int64[n, m], present bool[n, m]."""
    return np.array([values for values, _ in rows], np.int64), np.array([present for _, present in rows], np.bool_)
