"""A declared rule: points for features that reach a bound, an outcome by the sum. Integer arithmetic only."""

from __future__ import annotations

import re
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from ofp_platform.vocabulary.canonical import MAX_INTEGER, canonical_bytes, sha256_hex
from ofp_platform.vocabulary.loop.decision_record import RuleRef
from ofp_platform.vocabulary.loop.outcome import Outcome
from ofp_platform.vocabulary.model import Model, Name
from ofp_platform.vocabulary.serving import GroupVersion, KeyValues

Bound = Annotated[int, Field(ge=-MAX_INTEGER, le=MAX_INTEGER)] | Annotated[str, Field(pattern=r"^-?[0-9]{1,30}\.[0-9]{1,18}$")]
_NUMBER = re.compile(r"-?[0-9]+(\.[0-9]+)?", re.ASCII)
Points = Annotated[int, Field(ge=-1_000_000, le=1_000_000)]


class Condition(Model):
    """`points` if the feature is there and at least `at_least` (an integer, or a decimal as a string)."""

    group_name: Name
    group_version: GroupVersion
    feature: Name
    at_least: Bound
    points: Points

    def holds(self, value: int | str | list[Any]) -> bool:
        """Whether a served value reaches the bound; exact, whatever the scales of the two.

        Raises:
            ValueError: the value is no number.
        """
        if isinstance(value, (bool, list)) or (isinstance(value, str) and _NUMBER.fullmatch(value) is None):
            raise ValueError(
                f"{self.group_name} {self.group_version} {self.feature} is no number: a rule of points cannot read it"
            )
        (own_integer, own_scale), (other_integer, other_scale) = _integer_and_scale(value), _integer_and_scale(self.at_least)
        return bool(own_integer * 10**other_scale >= other_integer * 10**own_scale)


class PointsRule(Model):
    """Sums the points of its conditions; from `review_from` on a person looks at it, from `decline_from` on it is declined."""

    rule_name: Name
    rule_version: GroupVersion
    conditions: tuple[Condition, ...] = Field(strict=False, min_length=1)
    review_from: Points
    decline_from: Points

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.review_from > self.decline_from:
            raise ValueError("review_from lies above decline_from: nothing would ever be reviewed")
        return self

    @property
    def content(self) -> bytes:
        """The canonical bytes of which a decision has the digest."""
        return canonical_bytes(self.model_dump(mode="json"))

    @property
    def ref(self) -> RuleRef:
        """How a decision names the rule."""
        return RuleRef(rule_name=self.rule_name, rule_version=self.rule_version, digest=sha256_hex(self.content))

    @property
    def groups(self) -> set[tuple[str, str]]:
        """The groups that it reads: (name, version)."""
        return {(condition.group_name, condition.group_version) for condition in self.conditions}

    def decide(self, by_key: tuple[KeyValues, ...]) -> tuple[int, Outcome]:
        """Score and outcome for the values of one snapshot. A feature without a value gives no points.

        Raises:
            KeyError: the snapshot lacks a feature that the rule reads.
            ValueError: a feature that the rule reads is no number.
        """
        served_values = {
            (group.group_name, group.group_version, name): value
            for key in by_key
            for group in key.by_group
            for name, value in group.features.items()
        }
        score = 0
        for condition in self.conditions:
            value = served_values[condition.group_name, condition.group_version, condition.feature]
            if value is not None and condition.holds(value):
                score += condition.points
        if score >= self.decline_from:
            return score, Outcome.DECLINE
        return score, Outcome.REVIEW if score >= self.review_from else Outcome.APPROVE


def _integer_and_scale(value: int | str) -> tuple[int, int]:
    """The value times 10^scale, and the scale."""
    if isinstance(value, int):
        return value, 0
    whole, _, fraction = value.partition(".")
    return int(whole + fraction), len(fraction)
