"""A pack compiled to what the router, the state and the kernel work with: layouts per key type and plans per group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from types import MappingProxyType

from ofp_platform.registry.aggregations import Reads, ValueType, rule_of
from ofp_platform.registry.expression import names_in, parse_expression
from ofp_platform.registry.key_rules import KeyRule, key_rules
from ofp_platform.registry.layout import (
    CompiledFeature,
    CompiledGroup,
    CompiledOnDemand,
    CompiledOperand,
    KeyLayout,
    Measure,
    Predicate,
    Slot,
)
from ofp_platform.registry.models import EventRouting, FieldType, Group, Identity, Pack
from ofp_platform.registry.pack import group_id, pack_digest
from ofp_platform.registry.selection import (
    Selection,
    category_type,
    feature_scale,
    feature_selections,
    group_feed,
    group_selections,
    is_text,
    value_type,
)

Events = Mapping[str, EventRouting]


@dataclass(frozen=True)
class CompiledRegistry:
    """A pack, ready to run.

    `layouts` is per key type that some group has; `groups` per (group_name, group_version); `reach` is the greatest
    window + delay of all, microseconds; `key_rules` per key type, which texts are keys. `resolves`: some group
    resolves identities.
    """

    pack: Pack
    digest: str
    layouts: Mapping[str, KeyLayout]
    groups: Mapping[tuple[str, str], CompiledGroup]
    reach: int
    key_rules: Mapping[str, KeyRule]
    resolves: bool


def compile_pack(pack: Pack) -> CompiledRegistry:
    """Compile a valid pack. The same meaning gives the same layouts and plans, whatever the order in the file."""
    groups = sorted(pack.groups, key=group_id)
    events = pack.events
    layouts = {
        key_type: _layout(events, key_type, [group for group in groups if group.key_type == key_type])
        for key_type in sorted({group.key_type.value for group in groups})
    }
    plans = {group_id(group): _plan(events, group, layouts[group.key_type]) for group in groups}
    return CompiledRegistry(
        pack=pack,
        digest=pack_digest(pack),
        layouts=MappingProxyType(layouts),
        groups=MappingProxyType(plans),
        reach=max(plan.reach for plan in plans.values()),
        key_rules=key_rules(pack),
        resolves=any(plan.resolves for plan in plans.values()),
    )


def _layout(events: Events, key_type: str, groups: list[Group]) -> KeyLayout:
    selections = [selection for group in groups for selection in group_selections(group, events)]
    feeds = {group_feed(group, events) for group in groups}
    predicates = sorted({predicate for selection in selections for predicate in selection.predicates} | feeds, key=_order)
    numbers = {selection.value for selection in selections if _integer(selection, events) and selection.value is not None}
    categories = {(selection.category, category_type(selection, events)) for selection in selections if selection.category}
    integers = sorted(numbers | {name for name, kind in categories if name is not None and kind is not FieldType.STRING})
    tokens = sorted({selection.token for selection in selections if _token(selection) and selection.token is not None})
    values = {selection.value for selection in selections if is_text(selection, events) and selection.value is not None}
    texts = sorted(values | {name for name, kind in categories if name is not None and kind is FieldType.STRING})
    # every predicate has a measure of its events alone: freshness reads its last time out of the chunk summaries
    measures = {Measure(index, -1) for index in range(len(predicates))}
    measures |= {_measure(selection, events, predicates, integers) for selection in selections}
    ordered_measures = sorted(measures, key=lambda measure: (measure.predicate, measure.column))
    slots = {
        Slot(
            ordered_measures.index(_measure(selection, events, predicates, integers)),
            selection.window,
            selection.delay,
            _text_place(selection, events, texts),
            selection.calendar,
        )
        for selection in selections
    }
    amendable = any(events[name].amendments is not None for predicate in predicates for name in predicate.event_types)
    return KeyLayout(
        key_type=key_type,
        ordered=any(rule_of(selection.aggregation).ordered for selection in selections),
        predicates=tuple(predicates),
        integer_fields=tuple(integers),
        token_fields=tuple(tokens),
        measures=tuple(ordered_measures),
        slots=tuple(sorted(slots, key=_slot_order)),
        text_fields=tuple(texts),
        amendable=amendable,
    )


def _order(predicate: Predicate) -> tuple[object, ...]:
    conditions = tuple((name, tuple((type(value).__name__, value) for value in values)) for name, values in predicate.conditions)
    return predicate.event_types, conditions, predicate.needs


def _slot_order(slot: Slot) -> tuple[object, ...]:
    calendar = () if slot.calendar is None else (slot.calendar.unit, slot.calendar.zone)
    return slot.measure, slot.window, slot.delay, slot.text, calendar


def _token(selection: Selection) -> bool:
    return rule_of(selection.aggregation).reads is Reads.TOKEN


def _integer(selection: Selection, events: Events) -> bool:
    reads = rule_of(selection.aggregation).reads
    return reads is Reads.INTEGER or (reads is Reads.VALUE and not is_text(selection, events))


def _text_place(selection: Selection, events: Events, texts: list[str]) -> int:
    return texts.index(selection.value) if is_text(selection, events) and selection.value is not None else -1


def _measure(selection: Selection, events: Events, predicates: list[Predicate], integers: list[str]) -> Measure:
    column = integers.index(selection.value) if _integer(selection, events) and selection.value is not None else -1
    return Measure(predicates.index(selection.predicate), column)


def _plan(events: Events, group: Group, layout: KeyLayout) -> CompiledGroup:
    selections = group_selections(group, events)
    read = {name for feature in group.on_demand for name in names_in(parse_expression(feature.expression))[1]}
    return CompiledGroup(
        name=group.name,
        version=group.version,
        key_type=group.key_type.value,
        ttl_seconds=group.ttl_seconds,
        mask=1 << layout.predicates.index(group_feed(group, events)),
        reach=max(selection.reach for selection in selections),
        features=_features(events, group, selections, layout),
        on_demand=tuple(
            CompiledOnDemand(feature.name, feature.expression.strip(), feature.scale)
            for feature in sorted(group.on_demand, key=lambda feature: feature.name)
        ),
        request_fields=tuple((name, group.request[name].value) for name in sorted(read)),
        resolves=group.identity is Identity.RESOLVED,
    )


def _features(events: Events, group: Group, selections: list[Selection], layout: KeyLayout) -> tuple[CompiledFeature, ...]:
    """The features of a group in the order of their names; `selections` are the group's, in the order of the pack."""
    features = []
    remaining = iter(selections)
    for feature in group.features:
        own_selections = list(islice(remaining, len(feature_selections(feature))))
        operands = [_operand(selection, events, layout) for selection in own_selections]
        features.append(
            CompiledFeature(
                name=feature.name,
                operand=operands[0],
                denominator=operands[1] if len(operands) == 2 else None,
                scale=feature_scale(feature),
                value_type=_value_type(own_selections[0], events),
            )
        )
    return tuple(sorted(features, key=lambda feature: feature.name))


def _value_type(selection: Selection, events: Events) -> FieldType:
    if selection.category is not None:
        return category_type(selection, events) or FieldType.INTEGER
    is_field = rule_of(selection.aggregation).value_type in (ValueType.FIELD, ValueType.FIELDS)
    return (value_type(selection, events) if is_field else None) or FieldType.INTEGER


def _operand(selection: Selection, events: Events, layout: KeyLayout) -> CompiledOperand:
    measure = _measure(selection, events, list(layout.predicates), list(layout.integer_fields))
    text = _text_place(selection, events, list(layout.text_fields))
    slot = Slot(layout.measures.index(measure), selection.window, selection.delay, text, selection.calendar)
    has_text_category = category_type(selection, events) is FieldType.STRING
    categories = layout.text_fields if has_text_category else layout.integer_fields
    return CompiledOperand(
        aggregation=selection.aggregation,
        slot=layout.slots.index(slot),
        scale=selection.scale,
        token=layout.token_fields.index(selection.token) if _token(selection) and selection.token is not None else -1,
        parameter=selection.parameter,
        condition=-1 if selection.condition is None else layout.predicates.index(selection.condition),
        category=-1 if selection.category is None else categories.index(selection.category),
        has_text_category=has_text_category,
    )
