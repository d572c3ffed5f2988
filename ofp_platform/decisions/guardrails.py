"""Guardrails: comparisons of features and payload fields with declared values, exact whatever the scales of the two."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

from ofp_platform.scoring.inputs import FeatureName, InputUnfit
from ofp_platform.vocabulary.loop.bundle import Comparison, Guardrail

_NUMBER = re.compile(r"-?[0-9]{1,40}(?:\.[0-9]{1,18})?", re.ASCII)


def fired(guardrails: Sequence[Guardrail], features: Mapping[FeatureName, Any], payload: Mapping[str, Any]) -> list[Guardrail]:
    """The guardrails of which all comparisons hold, in their order.

    Raises:
        InputUnfit: a value that is compared as a number is none.
    """
    return [rule for rule in guardrails if all(_holds(comparison, features, payload) for comparison in rule.all_of)]


def _holds(comparison: Comparison, features: Mapping[FeatureName, Any], payload: Mapping[str, Any]) -> bool:
    operand = comparison.feature
    if operand is not None:
        value = features.get((operand.group_name, operand.group_version, operand.feature))
    else:
        value = payload.get(comparison.field or "")
    if comparison.operator == "is_absent":
        return value is None
    if value is None:
        return False
    bound = comparison.value
    if comparison.operator == "equals" and not (_is_number(value) and _is_number(bound)):
        return type(value) is type(bound) and bool(value == bound)
    exact, exact_bound = _exact(comparison, value), _exact(comparison, bound)
    match comparison.operator:
        case "at_least":
            return exact >= exact_bound
        case "above":
            return exact > exact_bound
        case "at_most":
            return exact <= exact_bound
        case "below":
            return exact < exact_bound
        case "equals":
            return exact == exact_bound


def _is_number(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (
        isinstance(value, str) and _NUMBER.fullmatch(value) is not None
    )


def _exact(comparison: Comparison, value: Any) -> int | Fraction:
    if not _is_number(value):
        operand = comparison.feature
        name = (
            f"payload.{comparison.field}"
            if operand is None
            else f"{operand.group_name}_{operand.group_version}__{operand.feature}"
        )
        raise InputUnfit(f"{name} is no number, and a rule compares it as one")
    return value if isinstance(value, int) else Fraction(value)
