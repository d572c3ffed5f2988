"""The selections of a feature, with every default filled in: the form that the digest, the compiler and the checks share."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

from ofp_platform.registry.aggregations import MEDIAN_P, P_UNITS, Aggregation, Finish, Reads, rule_of
from ofp_platform.registry.calendar_windows import CalendarWindow, calendar_window, window_after
from ofp_platform.registry.layout import Predicate
from ofp_platform.registry.models import DEFAULT_SCALE, EventRouting, Feature, FieldType, Group, Operand, Scalar
from ofp_platform.vocabulary.times import parse_duration


@dataclass(frozen=True)
class Selection:
    """One aggregation over some events.

    `window`, `delay`: microseconds; `scale` is 0 for an integer, and for a side of a ratio, which is not rounded.
    `parameter`: of a quantile p in millionths, of a list its most items. `condition`: the events of the predicate of which the
    condition holds.
    `calendar`: where the window begins, if that is a local day or month; then `window` is no shorter than any such one.
    `category`: the field whose values are told apart, each of which has a total.
    """

    aggregation: Aggregation
    predicate: Predicate
    value: str | None
    window: int
    delay: int
    scale: int
    paired_with: str | None = None
    parameter: int = 0
    condition: Predicate | None = None
    calendar: CalendarWindow | None = None
    category: str | None = None

    @property
    def shown_field(self) -> str | None:
        """The field whose values explain the aggregation: its own, else that of the categories; None: it is of no field."""
        return self.value or self.category

    @property
    def fields(self) -> tuple[str, ...]:
        """The payload fields that the aggregation is of: a category first, a pair by its names."""
        names = () if self.token is None else tuple(pair_fields(self.token))
        return names if self.category is None else (self.category, *names)

    @property
    def token(self) -> str | None:
        """The name of the values that are told apart: the field, or both fields of a pair, sorted."""
        if self.value is None or self.paired_with is None:
            return self.value
        return ",".join(sorted((self.value, self.paired_with)))

    @property
    def predicates(self) -> tuple[Predicate, ...]:
        """The predicate, and that of the condition where there is one."""
        return (self.predicate,) if self.condition is None else (self.predicate, self.condition)

    @property
    def reach(self) -> int:
        """How far behind T the selection looks at most, microseconds."""
        return self.window + self.delay

    def bounds(self, as_of: int) -> tuple[int, int]:
        """The window of an as-of: events with after < time <= until, microseconds."""
        until = as_of - self.delay
        return window_after(self.calendar, self.window, until), until


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
            **_window(feature.window),
            delay=parse_duration(feature.delay),
            scale=_scale(feature.aggregation, feature.scale),
            **_extras(feature, feature.events),
        ),
    )


def _extras(part: Feature | Operand, events: tuple[str, ...]) -> dict[str, Any]:
    """The arguments of a selection that few aggregations have."""
    extras: dict[str, Any] = {"paired_with": part.paired_with}
    if rule_of(part.aggregation).finish is Finish.QUANTILE:
        extras["parameter"] = int(Decimal(part.p or MEDIAN_P) * P_UNITS)
    if isinstance(part, Feature) and rule_of(part.aggregation).is_list:
        extras |= {"parameter": part.n or part.k, "category": part.category}
    if part.condition is not None:
        extras["condition"] = condition_of(events, part.where, part.condition)
    return extras


def condition_of(
    events: tuple[str, ...], where: dict[str, tuple[Scalar, ...]], condition: dict[str, tuple[Scalar, ...]]
) -> Predicate:
    """The predicate of the events that satisfy both `where` and a condition; of a field in both, the values in both."""
    both = {
        name: tuple(
            value for value in values if any((type(value), value) == (type(other), other) for other in where.get(name, values))
        )
        for name, values in condition.items()
    }
    return predicate_of(events, {**where, **both})


def pair_fields(token: str) -> list[str]:
    """The fields of a token's name: one, or the two of a pair."""
    return token.split(",")


def value_type(selection: Selection, events: Mapping[str, EventRouting]) -> FieldType | None:
    """The type of the field that the aggregation is of, as the pack declares it; None: it is of no field."""
    return None if selection.value is None else events[selection.predicate.event_types[0]].fields[selection.value]


def is_text(selection: Selection, events: Mapping[str, EventRouting]) -> bool:
    """Whether the value is one of the texts in the window."""
    return rule_of(selection.aggregation).reads is Reads.VALUE and value_type(selection, events) is FieldType.STRING


def category_type(selection: Selection, events: Mapping[str, EventRouting]) -> FieldType | None:
    """The type of the field of the categories, as the pack declares it; None: there are none."""
    return None if selection.category is None else events[selection.predicate.event_types[0]].fields[selection.category]


def text_need(field: str) -> str:
    """The need of a group whose value is a text of the field: that it is not longer than what is kept. No field is named so."""
    return f"{field}:text"


def value_needs(selection: Selection, events: Mapping[str, EventRouting]) -> frozenset[str]:
    """The needs of the selection's value and category."""
    texts = [selection.value] if is_text(selection, events) else []
    texts += [selection.category] if category_type(selection, events) is FieldType.STRING else []
    return frozenset((*selection.fields, *(text_need(name) for name in texts if name is not None)))


def group_needs(group: Group, events: Mapping[str, EventRouting]) -> dict[str, frozenset[str]]:
    """Event type to what a group needs of it: payload fields, and that texts are not too long."""
    selections = [selection for feature in group.features for selection in feature_selections(feature)]
    return fields_needed((read, value_needs(selection, events)) for selection in selections for read in selection.predicates)


def group_selections(group: Group, events: Mapping[str, EventRouting]) -> list[Selection]:
    """The selections of all features of a group, each with a predicate that holds for events which feed the group only."""
    selections = [selection for feature in group.features for selection in feature_selections(feature)]
    needs = group_needs(group, events)
    return [
        replace(
            selection,
            predicate=fed_predicate(selection.predicate, needs),
            condition=None if selection.condition is None else fed_predicate(selection.condition, needs),
        )
        for selection in selections
    ]


def feed_of(predicates: Iterable[Predicate]) -> Predicate:
    """All events of the types that a group's predicates select, whatever their `where` says: what its freshness is of."""
    return Predicate(
        event_types=tuple(sorted({name for predicate in predicates for name in predicate.event_types})), conditions=()
    )


def group_feed(group: Group, events: Mapping[str, EventRouting]) -> Predicate:
    """The events that feed a group: of its types, with all that it needs."""
    selections = [selection for feature in group.features for selection in feature_selections(feature)]
    return fed_predicate(feed_of(selection.predicate for selection in selections), group_needs(group, events))


def fields_needed(parts: Iterable[tuple[Predicate, frozenset[str]]]) -> dict[str, frozenset[str]]:
    """Event type to what a group needs of it; `parts` are its predicates, each with what its value needs."""
    needs: dict[str, frozenset[str]] = {}
    for predicate, value_parts in parts:
        read = {name for name, _ in predicate.conditions} | value_parts
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
        **_window(window),
        delay=parse_duration(feature.delay if operand.delay is None else operand.delay),
        scale=0,
        **_extras(operand, operand.events),
    )


def _window(text: str) -> dict[str, Any]:
    calendar = calendar_window(text)
    return {"window": parse_duration(text) if calendar is None else calendar.reach, "calendar": calendar}


def _scale(aggregation: Aggregation, scale: int | None) -> int:
    if not rule_of(aggregation).decimal:
        return 0
    return DEFAULT_SCALE if scale is None else scale
