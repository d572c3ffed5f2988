"""Guardrails compare exactly, and an absent value satisfies nothing but its absence."""

from __future__ import annotations

from fractions import Fraction
from operator import eq, ge, gt, le, lt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ofp_platform.decisions.guardrails import fired
from ofp_platform.scoring.inputs import InputUnfit
from ofp_platform.vocabulary.decimals import format_decimal
from ofp_platform.vocabulary.loop.bundle import Comparison, FeatureOperand, Guardrail
from ofp_platform.vocabulary.loop.outcome import Outcome

RATIO = FeatureOperand(group_name="g", group_version="v1", feature="ratio")
OPERATORS = {"at_least": ge, "above": gt, "at_most": le, "below": lt, "equals": eq}


def rule(*comparisons: Comparison) -> Guardrail:
    return Guardrail(reason_code="R", outcome=Outcome.REVIEW, all_of=comparisons)


def fires(comparison: Comparison, value: Any) -> bool:
    features, payload = ({("g", "v1", "ratio"): value}, {}) if comparison.feature else ({}, {"amount": value})
    return bool(fired([rule(comparison)], features, payload))


def text(unscaled: int, scale: int) -> int | str:
    return format_decimal(unscaled, scale) if scale else unscaled


@given(
    value=st.tuples(st.integers(-200, 200), st.integers(0, 3)),
    bound=st.tuples(st.integers(-200, 200), st.integers(0, 3)),
    operator=st.sampled_from(list(OPERATORS)),
)
def test_numbers_of_any_scale_are_compared_as_what_they_are(
    value: tuple[int, int], bound: tuple[int, int], operator: Any
) -> None:
    comparison = Comparison(feature=RATIO, operator=operator, value=text(*bound))
    exact, exact_bound = (Fraction(unscaled, 10**scale) for unscaled, scale in (value, bound))
    assert fires(comparison, text(*value)) == OPERATORS[operator](exact, exact_bound)


@pytest.mark.parametrize("operator", OPERATORS)
def test_what_is_absent_satisfies_its_absence_alone(operator: Any) -> None:
    assert not fires(Comparison(field="amount", operator=operator, value=0), None)
    absent = Comparison(field="amount", operator="is_absent")
    assert fires(absent, None)
    assert fired([rule(absent)], {}, {})
    assert not fires(absent, 0)


def test_texts_and_flags_are_equal_or_not() -> None:
    assert fires(Comparison(field="amount", operator="equals", value="EUR"), "EUR")
    assert not fires(Comparison(field="amount", operator="equals", value="EUR"), "USD")
    assert not fires(Comparison(field="amount", operator="equals", value=True), 1)
    assert fires(Comparison(field="amount", operator="equals", value=True), True)


def test_a_rule_holds_where_all_of_it_holds_and_rules_keep_their_order() -> None:
    big = Comparison(field="amount", operator="at_least", value=10)
    small = Comparison(field="amount", operator="below", value=20)
    first = Guardrail(reason_code="ONE", outcome=Outcome.REVIEW, all_of=(big, small))
    second = Guardrail(reason_code="TWO", outcome=Outcome.DECLINE, all_of=(big,))
    assert [one.reason_code for one in fired([first, second], {}, {"amount": 15})] == ["ONE", "TWO"]
    assert [one.reason_code for one in fired([first, second], {}, {"amount": 25})] == ["TWO"]


@pytest.mark.parametrize("value", ["many", True, [1], {"a": 1}])
def test_what_is_no_number_and_compared_as_one_is_told_by_name(value: Any) -> None:
    with pytest.raises(InputUnfit, match=r"payload\.amount is no number"):
        fires(Comparison(field="amount", operator="at_least", value=1), value)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"operator": "at_least", "value": 1}, "is of a feature or of a payload field"),
        ({"field": "a", "feature": RATIO, "operator": "at_least", "value": 1}, "is of a feature or of a payload field"),
        ({"field": "a", "operator": "is_absent", "value": 1}, "is_absent has no value"),
        ({"field": "a", "operator": "above"}, "is_absent has no value"),
    ],
)
def test_half_a_comparison_is_refused(content: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        Comparison(**content)
