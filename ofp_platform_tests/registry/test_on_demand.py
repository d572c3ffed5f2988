"""On-demand arithmetic against an independent evaluation: Python's own operators on fractions."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.registry.exact_value import ExactValue, Unservable, in_range
from ofp_platform.registry.expression import canonical_expression
from ofp_platform.registry.layout import CompiledGroup, CompiledOnDemand
from ofp_platform.registry.on_demand import evaluate
from ofp_platform.registry.question import check_context
from ofp_platform.vocabulary.errors import ContractError, Reason
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.profile import Limits
from ofp_platform_tests.oracle.strategies import PINS

integers = st.integers(-(2**53) + 1, 2**53 - 1)
values: st.SearchStrategy[ExactValue] = st.one_of(
    st.none(), integers, st.tuples(st.integers(-(10**30), 10**30), st.integers(0, 12))
)
literals = st.from_regex(r"(0|[1-9][0-9]{0,5})(\.[0-9]{1,4})?", fullmatch=True)
expressions = st.recursive(
    st.one_of(st.sampled_from(["a", "b", "c", "request.n", "request.d"]), literals),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/"), inner).map(lambda parts: f"({parts[0]} {parts[1]} {parts[2]})"),
        inner.map(lambda one: f"-({one})"),
    ),
    max_leaves=8,
).filter(lambda text: len(text) <= 500)


class Null:
    """What every operation with a null or a division by zero gives."""

    def _null(self, *_: object) -> Null:
        return self

    __add__ = __radd__ = __sub__ = __rsub__ = __mul__ = __rmul__ = __truediv__ = __rtruediv__ = __neg__ = _null


def _naive(text: str, names: dict[str, ExactValue], context: dict[str, Any], scale: int) -> ExactValue:
    def exact(value: ExactValue | str) -> Fraction | Null:
        if value is None:
            return Null()
        if isinstance(value, tuple):
            return Fraction(value[0]) / 10 ** value[1]
        return Fraction(value)

    scope: dict[str, Any] = {name: exact(value) for name, value in names.items()}
    scope["request"] = type("Request", (), {name: exact(value) for name, value in context.items()})
    scope["F"] = Fraction
    source = re.sub(r"(?<![A-Za-z_0-9.])[0-9]+(?:\.[0-9]+)?", lambda match: f"F('{match.group()}')", text)
    try:
        result = eval(source, {}, scope)
    except ZeroDivisionError:
        return None
    return None if isinstance(result, Null) else in_range((round(result * 10**scale), scale))


@given(
    text=expressions,
    a=values,
    b=values,
    c=values,
    n=integers,
    d=st.from_regex(r"-?[0-9]{1,18}(\.[0-9]{1,12})?", fullmatch=True).filter(str.isascii),
    scale=st.integers(0, 12),
)
def test_equal_to_fractions_rounded_half_even_once(
    text: str, a: ExactValue, b: ExactValue, c: ExactValue, n: int, d: str, scale: int
) -> None:
    names, context = {"a": a, "b": b, "c": c}, {"n": n, "d": d}
    expected = _naive(text, names, context, scale)
    assert evaluate(CompiledOnDemand("x", text, scale), names, context) == expected
    canonical = canonical_expression(text)
    assert canonical_expression(canonical) == canonical
    assert evaluate(CompiledOnDemand("x", canonical, scale), names, context) == expected


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("-(a) * (a - a)", "(a - a) * a"),
        ("-((a - a) * b - c) * d", "-(((a - a) * b - c) * d)"),
        ("b - (a - a) * c", "b + (a - a) * c"),
        ("-a / (b - b)", "a / (b - b)"),
    ],
)
def test_a_sum_that_is_its_own_negative_takes_the_sign_away(one: str, other: str) -> None:
    assert canonical_expression(one) == canonical_expression(other) == canonical_expression(canonical_expression(one))


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("request.amount / mean", 2_500_000),
        ("missing * 0", None),
        ("request.amount / (mean - mean)", None),
        ("0 * (1 / zero)", None),
        ("1 / 3", 333_333),
        ("2 / 3", 666_667),
        ("0.0000005", 0),
        ("0.0000015", 2),
        ("-0.0000015", -2),
        ("big * big", 9007199254740991**2 * 10**6),
        ("big * big * big", Unservable.OUT_OF_RANGE),
        ("0 - big * big * big", Unservable.OUT_OF_RANGE),
        ("beyond * 0", None),
    ],
)
def test_examples(expression: str, expected: int | Unservable | None) -> None:
    names: dict[str, ExactValue] = {"mean": (40_00, 2), "missing": None, "zero": 0, "big": 2**53 - 1}
    names["beyond"] = Unservable.OUT_OF_RANGE
    value = (expected, 6) if isinstance(expected, int) else expected
    assert evaluate(CompiledOnDemand("x", expression, 6), names, {"amount": 100}) == value


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        ({}, Reason.REQUEST_CONTEXT_MISSING),
        ({"n": None}, Reason.REQUEST_CONTEXT_INVALID),
        ({"n": True}, Reason.REQUEST_CONTEXT_INVALID),
        ({"n": 1.0}, Reason.REQUEST_CONTEXT_INVALID),
        ({"n": 2**53}, Reason.REQUEST_CONTEXT_INVALID),
        ({"n": "1e5"}, Reason.REQUEST_CONTEXT_INVALID),
        ({"n": "1/3"}, Reason.REQUEST_CONTEXT_INVALID),
        ({"n": "٣"}, Reason.REQUEST_CONTEXT_INVALID),
        ({"n": ""}, Reason.REQUEST_CONTEXT_INVALID),
    ],
)
def test_a_request_context_that_does_not_fit(context: dict[str, Any], reason: Reason) -> None:
    with pytest.raises(ContractError) as caught:
        evaluate(CompiledOnDemand("x", "request.n", 6), {}, context)
    assert caught.value.reason is reason


GROUP = CompiledGroup("g", "v1", "account", 60, 1, 60, (), (), (("d", "decimal"), ("n", "integer")))


@pytest.mark.parametrize(
    ("context", "reason"),
    [
        ({}, Reason.REQUEST_CONTEXT_MISSING),
        ({"d": "1.5", "n": "1"}, Reason.REQUEST_CONTEXT_INVALID),
        ({"d": "1.5", "n": 2**53}, Reason.REQUEST_CONTEXT_INVALID),
        ({"d": "1e5", "n": 1}, Reason.REQUEST_CONTEXT_INVALID),
        ({"d": "1/3", "n": 1}, Reason.REQUEST_CONTEXT_INVALID),
        ({"d": "٣", "n": 1}, Reason.REQUEST_CONTEXT_INVALID),
        ({"d": "", "n": 1}, Reason.REQUEST_CONTEXT_INVALID),
    ],
)
def test_a_request_context_that_a_group_cannot_use_is_refused_with_the_request(
    context: dict[str, int | str], reason: Reason
) -> None:
    with pytest.raises(ContractError) as caught:
        check_context(context, [GROUP], Limits(), ContextPins(**PINS))
    assert caught.value.reason is reason


def test_a_request_context_that_fits() -> None:
    context: dict[str, int | str] = {"n": -5, "d": "-12.50", "unused": 1}
    assert check_context(context, [GROUP], Limits(), ContextPins(**PINS)) == {"n": -5, "d": "-12.50"}
    assert evaluate(CompiledOnDemand("x", "request.n * request.d", 1), {}, {"n": -5, "d": "-12.50"}) == (625, 1)


def test_a_bad_request_is_refused_even_if_the_value_would_be_null() -> None:
    with pytest.raises(ContractError):
        evaluate(CompiledOnDemand("x", "a / request.n", 6), {"a": None}, {})
