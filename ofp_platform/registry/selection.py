"""The selections of a feature, with every default filled in: the form that the digest, the compiler and the checks share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ofp_platform.registry.aggregations import Aggregation, Reads, rule_of
from ofp_platform.registry.layout import Predicate
from ofp_platform.registry.models import DEFAULT_SCALE, Feature, Group, Operand, Scalar
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


def group_selections(group: Group) -> list[Selection]:
    """The selections of all features of a group, each with a predicate that holds for events which feed the group only."""
    selections = [selection for feature in group.features for selection in feature_selections(feature)]
    needs = fields_needed((selection.predicate, selection.value) for selection in selections)
    return [replace(selection, predicate=fed_predicate(selection.predicate, needs)) for selection in selections]


def feed_of(predicates: Iterable[Predicate]) -> Predicate:
    """All events of the types that a group's predicates select, whatever their `where` says: what its freshness is of."""
    return Predicate(
        event_types=tuple(sorted({name for predicate in predicates for name in predicate.event_types})), conditions=()
    )


def group_feed(group: Group) -> Predicate:
    """The events that feed a group: of its types, with all that it needs."""
    selections = [selection for feature in group.features for selection in feature_selections(feature)]
    needs = fields_needed((selection.predicate, selection.value) for selection in selections)
    return fed_predicate(feed_of(selection.predicate for selection in selections), needs)


def fields_needed(parts: Iterable[tuple[Predicate, str | None]]) -> dict[str, frozenset[str]]:
    """Event type to the payload fields that a group reads of it; `parts` are its predicates with the field of each value."""
    needs: dict[str, frozenset[str]] = {}
    for predicate, value in parts:
        read = {name for name, _ in predicate.conditions} | ({value} if value is not None else set())
        for name in predicate.event_types:
            needs[name] = needs.get(name, frozenset()) | read
    return needs


def fed_predicate(predicate: Predicate, needs: Mapping[str, frozenset[str]]) -> Predicate:
    """The predicate, for events that have all that their group needs."""
    return replace(predicate, needs=tuple(tuple(sorted(needs[name])) for name in predicate.event_types))


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
