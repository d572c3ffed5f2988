"""The agreement between the parts of a pack. Runs over whatever parts have the right shape, so that one reading
reports everything: a typo in one feature does not hide a wrong window in another."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, assert_never

from ofp_platform.registry.aggregations import RULES, Reads, ValueType, rule_of
from ofp_platform.registry.expression import ExpressionError, names_in, parse_expression
from ofp_platform.registry.key_rules import KeyRule
from ofp_platform.registry.layout import AMENDMENT_ROWS, MAX_PREDICATES, MAX_VALUE_COLUMNS, Predicate
from ofp_platform.registry.models import EventRouting, Feature, FieldType, OnDemand, Operand, Pack, Scalar
from ofp_platform.registry.pack_text import PackText, Path
from ofp_platform.registry.selection import condition_of, fed_predicate, feed_of, fields_needed, predicate_of, text_need
from ofp_platform.registry.shape import check_shape, parse_part, suggestion
from ofp_platform.registry.text_words import TEXT_WORDS
from ofp_platform.vocabulary.identity import KeyType
from ofp_platform.vocabulary.identity_link import minted_id
from ofp_platform.vocabulary.observed_keys import OBSERVED, observed_type

_TYPES: dict[type, FieldType] = {str: FieldType.STRING, bool: FieldType.BOOLEAN, int: FieldType.INTEGER}

EXTRAS = ("paired_with", "p", "condition", "n", "category", "k")
"""The fields of a feature and of a side of a ratio that only the aggregations have whose rule takes them."""


def validate(pack_text: PackText) -> Pack:
    """The pack that the text holds.

    Raises:
        PackErrors: everything that is wrong with it.
    """
    if pack_text.data is None and not pack_text.errors:
        pack_text.report((), "the file is empty")
    pack_text.raise_if_not_yaml()
    pack = check_shape(pack_text)
    if isinstance(pack_text.data, dict):
        _Check(pack_text).run(pack_text.data)
    pack_text.raise_if_wrong()
    assert pack is not None
    return pack


@dataclass
class _Check:
    pack_text: PackText
    events: dict[str, EventRouting | None] = field(default_factory=dict)
    predicates: dict[str, set[Predicate]] = field(default_factory=dict)
    widths: dict[str, dict[tuple[str, int], int]] = field(default_factory=dict)
    selected: list[tuple[Path, Predicate, frozenset[str]]] = field(default_factory=list)
    key_patterns: dict[str, str] = field(default_factory=dict)

    def run(self, data: dict[str, Any]) -> None:
        self.key_patterns = {name: text for name, text in _items(data.get("key_patterns")) if isinstance(text, str)}
        for name, routing in _items(data.get("events")):
            self.events[name] = parse_part(EventRouting, routing)
            self._routing(("events", name), self.events[name])
        self._amendments()
        first_index: dict[tuple[Any, Any], int] = {}
        for index, group in enumerate(_list(data.get("groups"))):
            if isinstance(group, dict):
                path: Path = ("groups", index)
                identity = (str(group.get("name")), str(group.get("version")))
                if identity in first_index:
                    self.pack_text.report(path, f"group {identity[0]} {identity[1]} is already groups[{first_index[identity]}]")
                first_index.setdefault(identity, index)
                self._group(path, group)

    def _routing(self, path: Path, routing: EventRouting | None) -> None:
        for key_type, payload_field in routing.keys.items() if routing else ():
            key_field_type = routing.fields.get(payload_field, FieldType.STRING) if routing else FieldType.STRING
            if key_field_type is not FieldType.STRING:
                message = f"{payload_field!r} is the {key_type} key, hence a string, not {key_field_type}"
                self.pack_text.report((*path, "fields", payload_field), message)
            if observed_type(payload_field) is not None:
                self._observed_key(path, key_type, routing)

    def _observed_key(self, path: Path, key_type: KeyType, routing: EventRouting | None) -> None:
        """Hold a key that is made of identifiers to the rule of its type, and its list to be no field."""
        if routing is not None and OBSERVED in routing.fields:
            self.pack_text.report((*path, "fields", OBSERVED), f"{OBSERVED!r} is the list of identifiers, of which keys are made")
        try:
            rule = KeyRule(key_type.value, self.key_patterns.get(key_type.value))
        except re.error:
            return  # reported with the shape
        if rule.problem(minted := minted_id(key_type, "type", "token")) is not None:
            message = (
                f"this key is made of identifiers, as {minted} is, and the pattern of {key_type} keys does not match such ids"
            )
            self.pack_text.report((*path, "keys", key_type), message)

    def _amendments(self) -> None:
        """Hold what may amend an event to the types and fields that there are."""
        amended_by: dict[tuple[str, str], str] = {}
        for name, routing in self.events.items():
            if routing is None or routing.amendments is None:
                continue
            path: Path = ("events", name, "amendments")
            for event_type in dict.fromkeys(routing.amendments.by):
                if event_type not in self.events:
                    words = f"no event type {event_type!r} in the pack{suggestion(event_type, self.events)}"
                    self.pack_text.report((*path, "by"), words)
                other = amended_by.setdefault((event_type, routing.event_class or name), name)
                if other != name:
                    message = (
                        f"{event_type} may amend events of {other} already, of the same class: which one is meant is not told"
                    )
                    self.pack_text.report((*path, "by"), message)
            for payload_field in routing.amendments.may_change:
                if payload_field in routing.keys.values():
                    self.pack_text.report(
                        (*path, "may_change"), f"{payload_field!r} is a key: an amendment has the keys of its event"
                    )
                elif payload_field not in routing.fields:
                    words = f"no field {payload_field!r} in fields{suggestion(payload_field, routing.fields)}"
                    self.pack_text.report((*path, "may_change"), words)

    def _group(self, path: Path, group: dict[str, Any]) -> None:
        key_type = str(group.get("key_type"))
        names: dict[str, str] = {}
        self.selected = []
        parsed_features: list[tuple[Path, Feature]] = []
        for index, raw in enumerate(_list(group.get("features"))):
            here: Path = (*path, "features", index)
            self._name(here, raw, names, f"features[{index}]")
            feature: Feature | None = parse_part(Feature, raw)
            if feature is not None:
                parsed_features.append((here, feature))
                self._feature(here, key_type, feature)
        self._count_predicates(key_type)
        features = set(names)
        types = {feature.name: self._value_type(feature) for _, feature in parsed_features}
        lists = {feature.name for _, feature in parsed_features if rule_of(feature.aggregation).is_list}
        request = {name for name, _ in _items(group.get("request"))}
        read: set[str] = set()
        for index, raw in enumerate(_list(group.get("on_demand"))):
            here = (*path, "on_demand", index)
            self._name(here, raw, names, f"on_demand[{index}]")
            plan: OnDemand | None = parse_part(OnDemand, raw)
            if plan is not None:
                read |= self._expression((*here, "expression"), plan, features, types, lists, request)
        for name in sorted(request - read):
            self.pack_text.report((*path, "request", name), f"no on-demand feature reads request.{name}")

    def _name(self, path: Path, raw: Any, names: dict[str, str], index: str) -> None:
        if not isinstance(raw, dict) or not isinstance(name := raw.get("name"), str):
            return
        if name in names:
            self.pack_text.report((*path, "name"), f"the group already has a feature {name!r} ({names[name]})")
        names.setdefault(name, index)

    def _value_type(self, feature: Feature) -> FieldType | None:
        """The type of the field whose value the feature has; None: it is a number."""
        if rule_of(feature.aggregation).value_type is not ValueType.FIELD or feature.value is None:
            return None
        routings = (self.events.get(name) for name in feature.events or ())
        return next((routing.fields[feature.value] for routing in routings if routing and feature.value in routing.fields), None)

    def _expression(
        self,
        path: Path,
        plan: OnDemand,
        features: set[str],
        types: Mapping[str, FieldType | None],
        lists: set[str],
        request: set[str],
    ) -> set[str]:
        try:
            feature_names, fields = names_in(parse_expression(plan.expression))
        except ExpressionError as error:
            self.pack_text.report(path, str(error))
            return set(request)  # what it would have read is unknown: no second complaint about unread fields
        for name in sorted(feature_names - features):
            self.pack_text.report(path, f"the group has no windowed feature {name!r}{suggestion(name, features)}")
        for name in sorted(feature_names):
            if name in lists:
                self.pack_text.report(path, f"feature {name!r} is a list; an expression reads numbers only")
            elif types.get(name) in (FieldType.STRING, FieldType.BOOLEAN):
                self.pack_text.report(path, f"feature {name!r} is a {types[name]}; an expression reads numbers only")
        for name in sorted(fields - request):
            self.pack_text.report(path, f"request.{name} is not declared under request{suggestion(name, request)}")
        return set(fields)

    def _feature(self, path: Path, key_type: str, feature: Feature) -> None:
        self._scale(path, feature)
        if rule_of(feature.aggregation).reads is not Reads.OPERANDS:
            for side in ("numerator", "denominator"):
                if getattr(feature, side) is not None:
                    self.pack_text.report((*path, side), f"only a ratio has it, not {feature.aggregation}")
            self._extras(path, feature)
            if feature.window is None:
                self.pack_text.report((*path, "window"), "this field is required")
            if feature.events is None:
                self.pack_text.report((*path, "events"), "this field is required")
            else:
                self._selection(path, key_type, feature, feature.events)
            return
        for name in EXTRAS:
            if getattr(feature, name) is not None:
                is_of_lists = name not in Operand.model_fields
                message = (
                    "a ratio is no list" if is_of_lists else "of a ratio it is given in the numerator and in the denominator"
                )
                self.pack_text.report((*path, name), message)
        for name, value in (("events", feature.events), ("value", feature.value), ("where", feature.where)):
            if value:
                self.pack_text.report((*path, name), "of a ratio it is given in the numerator and in the denominator")
        for side in ("numerator", "denominator"):
            operand: Operand | None = getattr(feature, side)
            here = (*path, side)
            if operand is None:
                self.pack_text.report(here, "a ratio needs it")
                continue
            if rule_of(operand.aggregation).reads is Reads.OPERANDS:
                self.pack_text.report((*here, "aggregation"), "a ratio is of two other aggregations, not of ratios")
                continue
            self._extras(here, operand)
            if operand.window is None and feature.window is None:
                self.pack_text.report((*here, "window"), "required, here or in the feature")
            self._selection(here, key_type, operand, operand.events)

    def _scale(self, path: Path, part: Feature) -> None:
        if part.scale is not None and not rule_of(part.aggregation).decimal:
            words = "a list" if rule_of(part.aggregation).is_list else "an integer"
            self.pack_text.report((*path, "scale"), f"{part.aggregation} is {words} and has no scale")

    def _extras(self, path: Path, part: Feature | Operand) -> None:
        """Check the fields that few aggregations have."""
        rule = rule_of(part.aggregation)
        for name in EXTRAS:
            is_given = getattr(part, name, None) is not None  # a side of a ratio is no list, and has nothing of one
            if is_given and name not in (*rule.takes, *rule.may_take):
                users = [str(user) for user, its in RULES.items() if name in (*its.takes, *its.may_take)]
                self.pack_text.report((*path, name), f"{part.aggregation} has no {name}; {', '.join(users)} has")
            elif not is_given and name in rule.takes:
                self.pack_text.report((*path, name), f"{part.aggregation} needs it")

    def _selection(self, path: Path, key_type: str, part: Feature | Operand, events: tuple[str, ...]) -> None:
        for index, name in enumerate(events):
            here: Path = (*path, "events", index)
            if name in events[:index]:
                self.pack_text.report(here, f"{name!r} is listed twice")
            elif name not in self.events:
                self.pack_text.report(here, f"unknown event type {name!r}{suggestion(name, self.events)}")
            elif (routing := self.events[name]) is not None and key_type not in routing.keys:
                self.pack_text.report(here, f"event {name!r} routes no {key_type} key, which is the key type of the group")
        value_needs = self._value(path, part, events)
        if isinstance(part, Feature) and part.category is not None:
            value_needs |= self._category((*path, "category"), part.category, events)
        for name, values in part.where.items():
            self._condition((*path, "where", name), name, values, events)
        for name, values in (part.condition or {}).items():
            self._condition((*path, "condition", name), name, values, events)
        self._count_columns(path, key_type, part, value_needs)
        self.selected.append((path, predicate_of(events, part.where), value_needs))
        if part.condition is not None:
            self.selected.append((path, condition_of(events, part.where, part.condition), frozenset()))

    def _count_predicates(self, key_type: str) -> None:
        """Hold the number of predicates of a key type to what a mask has room for, a group at a time."""
        predicates = self.predicates.setdefault(key_type, set())
        needs = fields_needed((predicate, value_needs) for _, predicate, value_needs in self.selected)
        selected = [(path, predicate) for path, predicate, _ in self.selected]
        if selected:
            selected.append((selected[-1][0], feed_of(predicate for _, predicate in selected)))
        for path, predicate in selected:
            fed = fed_predicate(predicate, needs)
            if fed not in predicates and len(predicates) == MAX_PREDICATES:
                message = (
                    f"more than {MAX_PREDICATES} different selections for key type {key_type}: events, where, and the fields that"
                    " their group reads; and one of each group, of all its events"
                )
                self.pack_text.report(path, message)
                continue
            predicates.add(fed)

    def _count_columns(self, path: Path, key_type: str, part: Feature | Operand, value_needs: frozenset[str]) -> None:
        """Hold what is kept of the events of a key type to what their chunks have room for."""
        if part.value is not None:
            is_token = rule_of(part.aggregation).reads is Reads.TOKEN
            width = 2 if is_token else TEXT_WORDS if text_need(part.value) in value_needs else 1
            name = part.value if part.paired_with is None else ",".join(sorted((part.value, part.paired_with)))
            self._take_columns((*path, "value"), key_type, name, width)
        if isinstance(part, Feature) and part.category is not None:
            width = TEXT_WORDS if text_need(part.category) in value_needs else 1
            self._take_columns((*path, "category"), key_type, part.category, width)

    def _take_columns(self, path: Path, key_type: str, name: str, width: int) -> None:
        widths = self.widths.setdefault(key_type, {})
        most = MAX_VALUE_COLUMNS - (AMENDMENT_ROWS if self._is_amendable(key_type) else 0)
        if (name, width) not in widths and sum(widths.values()) + width > most:
            message = (
                f"the values of key type {key_type} take more than {most} columns: a text field {TEXT_WORDS}, a"
                " field of which different values are counted 2, any other 1"
            )
            self.pack_text.report(path, message)
            return
        widths[name, width] = width

    def _is_amendable(self, key_type: str) -> bool:
        """Whether some event with such a key may be amended."""
        routings = [routing for routing in self.events.values() if routing is not None and routing.amendments is not None]
        return any(key_type in routing.keys for routing in routings)

    def _value(self, path: Path, part: Feature | Operand, events: tuple[str, ...]) -> frozenset[str]:
        """Check the value; gives its needs."""
        reads = rule_of(part.aggregation).reads
        match reads:
            case Reads.NOTHING:
                if part.value is not None:
                    self.pack_text.report((*path, "value"), f"{part.aggregation} counts events and has no value")
                return frozenset()
            case Reads.OPERANDS:  # its operands are looked at one by one
                return frozenset()
            case Reads.VALUE if isinstance(part, Operand):  # a ratio divides numbers
                field_types = {FieldType.INTEGER}
            case Reads.VALUE:
                field_types = set(FieldType)
            case Reads.INTEGER:
                field_types = {FieldType.INTEGER}
            case Reads.TOKEN:
                field_types = {FieldType.INTEGER, FieldType.STRING}
            case _:
                assert_never(reads)
        if part.value is None:
            self.pack_text.report((*path, "value"), f"{part.aggregation} needs the payload field that it is of")
            return frozenset()
        if part.paired_with is not None and Reads.TOKEN is reads:
            if part.paired_with == part.value:
                self.pack_text.report((*path, "paired_with"), "a pair is of two fields; this is the value itself")
            self._types_of((*path, "paired_with"), part, part.paired_with, field_types, events)
        fields = self._types_of((*path, "value"), part, part.value, field_types, events)
        for name, field_type in fields:
            if field_type not in field_types:
                continue
            if reads is Reads.VALUE and field_type is not fields[0][1]:
                first_name, first_type = fields[0]
                message = f"{part.value!r} of {first_name} is {first_type} and of {name} {field_type}: a feature has one type"
                self.pack_text.report((*path, "value"), message)
        if reads is Reads.VALUE and fields and fields[0][1] is FieldType.STRING:
            return frozenset((part.value, text_need(part.value)))
        return frozenset((part.value,) if part.paired_with is None else (part.value, part.paired_with))

    def _category(self, path: Path, field_name: str, events: tuple[str, ...]) -> frozenset[str]:
        """Check the field of the categories; gives its needs."""
        fields = self._field_types(path, field_name, events)
        for name, field_type in fields:
            if field_type is not fields[0][1]:
                first_name, first_type = fields[0]
                message = f"{field_name!r} of {first_name} is {first_type} and of {name} {field_type}: categories have one type"
                self.pack_text.report(path, message)
        is_string = bool(fields) and fields[0][1] is FieldType.STRING
        return frozenset((field_name, text_need(field_name)) if is_string else (field_name,))

    def _types_of(
        self, path: Path, part: Feature | Operand, field: str, field_types: set[FieldType], events: tuple[str, ...]
    ) -> list[tuple[str, FieldType]]:
        """The types of a field that the aggregation is of, event type by event type; one that it is not of is reported."""
        fields = self._field_types(path, field, events)
        for name, field_type in fields:
            if field_type not in field_types:
                words = " or ".join(sorted(field_types))
                where = " in a ratio" if rule_of(part.aggregation).reads is Reads.VALUE else ""
                self.pack_text.report(path, f"{field!r} of {name} is {field_type}; {part.aggregation}{where} needs {words}")
        return fields

    def _condition(self, path: Path, name: str, values: tuple[Scalar, ...], events: tuple[str, ...]) -> None:
        for event, field_type in self._field_types(path, name, events):
            if any(_TYPES[type(value)] is not field_type for value in values):
                self.pack_text.report(path, f"{name!r} of {event} is {field_type}; a value here is of another type")

    def _field_types(self, path: Path, name: str, events: tuple[str, ...]) -> list[tuple[str, FieldType]]:
        types = []
        for event in dict.fromkeys(events):
            routing = self.events.get(event)
            if routing is None:
                continue
            if name in routing.fields:
                types.append((event, routing.fields[name]))
            else:
                self.pack_text.report(path, f"event {event!r} declares no field {name!r}{suggestion(name, routing.fields)}")
        return types


def _items(value: Any) -> list[tuple[str, Any]]:
    return [(str(name), item) for name, item in value.items()] if isinstance(value, dict) else []


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
