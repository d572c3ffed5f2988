"""The declared rule: points, bounds at any scale, outcomes."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ofp_platform.decisions.decision_point import SHIPPED, DecisionPoint
from ofp_platform.decisions.rule import Condition, PointsRule
from ofp_platform.registry.compile import compile_pack
from ofp_platform.registry.pack import shipped_pack
from ofp_platform.vocabulary.identity import KeyType
from ofp_platform.vocabulary.loop.outcome import Outcome
from ofp_platform.vocabulary.serving import GroupValues, KeyValues


def condition(feature: str, at_least: int | str, points: int) -> Condition:
    return Condition(group_name="g", group_version="v1", feature=feature, at_least=at_least, points=points)


def values(**features: int | str | list[Any] | None) -> tuple[KeyValues, ...]:
    group = GroupValues(group_name="g", group_version="v1", features=features)
    return (KeyValues(key_type=KeyType.CARD, key_id="c", by_group=(group,)),)


RULE = PointsRule(
    rule_name="test",
    rule_version="v1",
    conditions=(condition("count", 3, 10), condition("ratio", "0.5", 20), condition("trust", 1, -5)),
    review_from=10,
    decline_from=30,
)


@pytest.mark.parametrize(
    ("count", "ratio", "trust", "score", "outcome"),
    [
        (2, "0.499999", 0, 0, Outcome.APPROVE),
        (3, "0.499999", 0, 10, Outcome.REVIEW),
        (3, "0.500000", 0, 30, Outcome.DECLINE),
        (3, "0.500000", 1, 25, Outcome.REVIEW),
        (None, None, None, 0, Outcome.APPROVE),
        (3, None, 1, 5, Outcome.APPROVE),
    ],
)
def test_outcomes(count: int | None, ratio: str | None, trust: int | None, score: int, outcome: Outcome) -> None:
    assert RULE.decide(values(count=count, ratio=ratio, trust=trust)) == (score, outcome)


def test_a_snapshot_without_a_feature_of_the_rule_is_an_error() -> None:
    with pytest.raises(KeyError):
        RULE.decide(values(count=3))


@pytest.mark.parametrize("value", [True, False, "", "web", "1.", "1e3", "\u0661", [7], []])
def test_a_value_that_is_no_number_is_refused_by_name(value: bool | str | list[Any]) -> None:
    with pytest.raises(ValueError, match="g v1 count is no number"):
        RULE.decide(values(count=value, ratio=None, trust=None))


NUMBERS = st.one_of(
    st.integers(-(2**53 - 1), 2**53 - 1), st.decimals(-1000, 1000, places=6).map(str), st.decimals(-9, 9, places=2).map(str)
).filter(lambda value: isinstance(value, int) or "E" not in value)


@given(NUMBERS, NUMBERS)
def test_bounds_are_exact(value: int | str, bound: int | str) -> None:
    assert condition("f", bound, 1).holds(value) == (Decimal(value) >= Decimal(bound))


def test_a_rule_that_says_something_else_has_another_digest() -> None:
    assert RULE.ref == PointsRule.model_validate(RULE.model_dump()).ref
    changed = RULE.model_copy(update={"decline_from": 31})
    assert (changed.ref.rule_version, changed.ref.digest != RULE.ref.digest) == ("v1", True)


def test_rules_that_mean_nothing_are_refused() -> None:
    with pytest.raises(ValidationError, match="nothing would ever be reviewed"):
        PointsRule(rule_name="x", rule_version="v1", conditions=RULE.conditions, review_from=2, decline_from=1)
    with pytest.raises(ValueError, match="not asked for"):
        DecisionPoint("payment", {"card": "card_id"}, (("other", "v1"),), (), RULE)


@pytest.mark.parametrize("pack_id", SHIPPED)
def test_shipped_points_ask_for_what_their_pack_has(pack_id: str) -> None:
    point, registry = SHIPPED[pack_id], compile_pack(shipped_pack(pack_id))
    assert sorted(point.groups) == sorted(registry.groups)
    key_types = {registry.groups[group].key_type for group in point.groups}
    routed = registry.pack.events[point.event_type].keys
    assert dict(point.key_fields) == {key_type.value: name for key_type, name in routed.items() if key_type in key_types}
    needed = {name for group in point.groups for name, _ in registry.groups[group].request_fields}
    assert set(point.context_fields) == needed
    packs = {(group.name, group.version): group for group in registry.pack.groups}
    for one in point.rule.conditions:
        group = packs[one.group_name, one.group_version]
        assert one.feature in {feature.name for feature in (*group.features, *group.on_demand)}
