"""On-demand features: an expression over a snapshot's own values and the request, in exact rational arithmetic."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from ofp_platform.registry.exact_value import ExactValue, in_range
from ofp_platform.registry.expression import (
    Constant,
    Expression,
    FeatureValue,
    Negation,
    Operation,
    RequestValue,
    parse_expression,
)
from ofp_platform.registry.layout import CompiledOnDemand
from ofp_platform.vocabulary.canonical import MAX_INTEGER
from ofp_platform.vocabulary.decimals import divide_half_even
from ofp_platform.vocabulary.errors import Reason, invalid

_DECIMAL = re.compile(r"-?[0-9]{1,18}(?:\.[0-9]{1,12})?", re.ASCII)


def evaluate(plan: CompiledOnDemand, values: Mapping[str, ExactValue], request_context: Mapping[str, Any]) -> ExactValue:
    """The value at `plan.scale`, rounded half to even once, at the end.

    Args:
        plan: the expression and its scale.
        values: the group's windowed values as they are served: those beyond the bound are null here, too.
        request_context: as in the request: JSON integers and decimal strings.

    Returns:
        None when any value read is None or a division by zero happens anywhere.

    Raises:
        ContractError: a field of the request context is missing or is neither an integer nor a decimal string.
        KeyError: a feature that the group does not have (a validated pack never asks for one).
    """
    result = _fraction(parse_expression(plan.expression), values, request_context)
    if result is None:
        return None
    return in_range((divide_half_even(result.numerator * 10**plan.scale, result.denominator), plan.scale))


def _request_value(name: str, request_context: Mapping[str, Any]) -> Fraction:
    if name not in request_context:
        raise invalid(Reason.REQUEST_CONTEXT_MISSING, f"request_context.{name} is needed by a feature of the request")
    value = request_context[name]
    if type(value) is int:
        if abs(value) > MAX_INTEGER:
            raise invalid(Reason.REQUEST_CONTEXT_INVALID, f"request_context.{name} is beyond ±(2^53-1)")
        return Fraction(value)
    if isinstance(value, str) and _DECIMAL.fullmatch(value):
        return Fraction(value)
    raise invalid(
        Reason.REQUEST_CONTEXT_INVALID,
        f"request_context.{name} must be a JSON integer or a decimal string (at most 18 digits, then 12)",
    )


def _fraction(node: Expression, values: Mapping[str, ExactValue], request_context: Mapping[str, Any]) -> Fraction | None:
    match node:
        case Constant(value):
            return value
        case FeatureValue(name):
            exact = values[name]
            if isinstance(exact, tuple):
                return Fraction(exact[0], 10 ** exact[1])
            return Fraction(exact) if isinstance(exact, int) else None
        case RequestValue(name):
            return _request_value(name, request_context)
        case Negation(operand):
            inner = _fraction(operand, values, request_context)
            return None if inner is None else -inner
        case Operation(operator, left_node, right_node):
            # both sides are always evaluated, so that a bad request is refused whatever the values are
            left = _fraction(left_node, values, request_context)
            right = _fraction(right_node, values, request_context)
            if left is None or right is None:
                return None
            if operator == "+":
                return left + right
            if operator == "-":
                return left - right
            if operator == "*":
                return left * right
            return None if right == 0 else left / right
