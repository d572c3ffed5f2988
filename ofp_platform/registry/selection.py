"""The selections of a feature, with every default filled in: the form that the digest, the compiler and the checks share."""

from __future__ import annotations

from dataclasses import dataclass

from ofp_platform.registry.aggregations import Aggregation, Reads, rule_of
from ofp_platform.registry.layout import Predicate
from ofp_platform.registry.models import DEFAULT_SCALE, Feature, Operand, Scalar
from ofp_platform.vocabulary.times import parse_duration


@dataclass(frozen=True)
class Selection:
    """One aggregation over some events.

    `window`, `delay`: microseconds; `scale` is 0 for an integer, and for a side of a ratio, which is not rounded.
    """

    aggregation: Aggregation
    predicate: Predicate
    value: str | None
    window: int
    delay: int
    scale: int

    @property
    def reach(self) -> int:
        """How far behind T the selection looks, microseconds."""
        return self.window + self.delay

    @property
    def fields(self) -> frozenset[str]:
        """The payload fields that it reads (keys aside)."""
        names = {name for name, _ in self.predicate.conditions}
        return frozenset(names if self.value is None else names | {self.value})


def predicate_of(events: tuple[str, ...], where: dict[str, tuple[Scalar, ...]]) -> Predicate:
    """The canonical predicate: types, fields and values sorted and without repetition."""
    conditions = tuple(
        (field, tuple(sorted(set(values), key=lambda value: (type(value).__name__, value))))
        for field, values in sorted(where.items())
    )
    return Predicate(event_types=tuple(sorted(set(events))), conditions=conditions)


def feature_selections(feature: Feature) -> tuple[Selection, ...]:
    """One selection, or two for a ratio (numerator, denominator). The feature must be a valid one.

    Raises:
        ValueError: something that validation asks for is missing.
    """
    if rule_of(feature.aggregation).reads is Reads.OPERANDS:
        if feature.numerator is None or feature.denominator is None:
            raise ValueError("a ratio needs a numerator and a denominator")
        return _operand(feature, feature.numerator), _operand(feature, feature.denominator)
    if feature.events is None or feature.window is None:
        raise ValueError("a feature needs events and a window")
    return (
        Selection(
            aggregation=feature.aggregation,
            predicate=predicate_of(feature.events, feature.where),
            value=feature.value,
            window=parse_duration(feature.window),
            delay=parse_duration(feature.delay),
            scale=_scale(feature.aggregation, feature.scale),
        ),
    )


def feature_scale(feature: Feature) -> int | None:
    """The scale that the wire shows; None for an integer feature."""
    return _scale(feature.aggregation, feature.scale) if rule_of(feature.aggregation).decimal else None


def _operand(feature: Feature, operand: Operand) -> Selection:
    window = operand.window or feature.window
    if window is None:
        raise ValueError("an operand needs a window")
    return Selection(
        aggregation=operand.aggregation,
        predicate=predicate_of(operand.events, operand.where),
        value=operand.value,
        window=parse_duration(window),
        delay=parse_duration(feature.delay if operand.delay is None else operand.delay),
        scale=0,
    )


def _scale(aggregation: Aggregation, scale: int | None) -> int:
    if not rule_of(aggregation).decimal:
        return 0
    return DEFAULT_SCALE if scale is None else scale
