"""The treatment of one event type: which fields of its payload are decoded, and how they become columns of each key type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from ofp_platform.registry.amending import AmendableType
from ofp_platform.registry.apply_failure import ApplyFailure, ApplyFailureReason, GroupNeeds, explain
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.field_types import DECODED_TYPES, NOT_DECODED, ZEROS
from ofp_platform.registry.key_rules import KeyRule
from ofp_platform.registry.layout import KeyLayout
from ofp_platform.registry.models import EventRouting, FieldType, Scalar, event_class
from ofp_platform.registry.pack import group_id
from ofp_platform.registry.selection import group_needs, pair_fields, text_need
from ofp_platform.registry.text_words import TEXT_WORDS, is_long
from ofp_platform.vocabulary.identity import KeyType
from ofp_platform.vocabulary.observed_keys import OBSERVED, Identifiers, ObservedKey, observed_type

AttributeValues = Mapping[str, list[Any]]
Flags = npt.NDArray[np.bool_]
_IDENTIFIERS = "identifiers"
_decode_raw = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@dataclass(frozen=True)
class KeyPlan:
    """One key type that an event type touches.

    The mask starts as `start` (every predicate that selects the event type) and is and-ed, per condition field, with
    the bits that the value leaves standing: `conditions` has (attribute, value -> bits, bits for any other value).

    `needs`: different sets of attributes (and `EventPlan.texts`) that groups need, each with the bits of the predicates of those
    groups; an event that lacks one of them has none of the bits, and an event that lacks one of each set does not touch the key.
    """

    key_type: str
    attribute: str
    start: int
    conditions: tuple[tuple[str, Mapping[Scalar, int], int], ...]
    integer_rows: tuple[tuple[int, str], ...]
    token_rows: tuple[tuple[int, str], ...]
    pair_rows: tuple[tuple[int, str, str], ...]
    text_rows: tuple[tuple[int, str], ...]
    needs: tuple[tuple[tuple[str, ...], int], ...]

    def mask(self, columns: AttributeValues, count: int) -> npt.NDArray[np.int64]:
        """int64[count]: which predicates each event satisfies."""
        mask = np.full(count, self.start, dtype=np.int64)
        for attribute, bits, otherwise in self.conditions:
            mask &= np.array([bits.get(value, otherwise) for value in columns[attribute]], dtype=np.int64)
        return mask

    def fed_bits(self, lacks: Mapping[str, Flags], count: int) -> tuple[Flags, npt.NDArray[np.int64]]:
        """bool[count]: which events feed a group by this key, were their keys right; int64[count]: predicates of the groups fed.

        `lacks`: attribute to bool[count], for those that some event lacks.
        """
        feeds = np.zeros(count, np.bool_)
        bits = np.zeros(count, np.int64)
        for attributes, set_bits in self.needs:
            has_all = ~np.logical_or.reduce([np.zeros(count, np.bool_), *(lacks[name] for name in attributes if name in lacks)])
            feeds |= has_all
            bits[has_all] |= set_bits
        return feeds, bits


@dataclass(frozen=True)
class EventPlan:
    """One event type. `attributes` are the decoded struct's, with the zero of each type; each is a payload field that is read.

    `decode` refuses a payload that lacks any of them; `decode_partly` makes a `partial` of it, with None for what is missing;
    `decode_field` is per payload field, in the order of the arguments of a `partial`. `needs`: per group that uses the type.
    `texts`: attributes of which the texts are kept, each with the name under which an event lacks a text that is short enough.
    `amendable`: what tells its events apart where they may be amended. `observed_keys`: attribute of each key that is made of the
    identifiers of an event, which no struct has.
    """

    keys: Mapping[str, KeyRule]
    fields: Mapping[str, FieldType]
    schema_versions: frozenset[str]
    attributes: Mapping[str, Scalar]
    decode: Callable[[bytes], msgspec.Struct]
    decode_partly: Callable[[bytes], msgspec.Struct]
    partial: Callable[..., msgspec.Struct]
    decode_field: Mapping[str, Callable[[msgspec.Raw], Any]]
    key_plans: tuple[KeyPlan, ...]
    needs: tuple[GroupNeeds, ...]
    texts: Mapping[str, str]
    amendable: AmendableType | None
    observed_keys: Mapping[str, ObservedKey]

    def columns(self, rows: list[msgspec.Struct]) -> dict[str, list[Any]]:
        """Attribute to its values, in the order of the rows."""
        payload_attributes = [name for name in self.attributes if name not in self.observed_keys]
        columns = {attribute: list(map(attrgetter(attribute), rows)) for attribute in payload_attributes}
        for attribute, key in self.observed_keys.items():
            columns[attribute] = [key.of(row.identifiers) for row in rows]  # type: ignore[attr-defined]
        return columns

    def long_texts(self, columns: AttributeValues) -> dict[str, Flags]:
        """For each of `texts` that some event lacks: bool[n], which ones, their texts being too long."""
        lacks = {}
        for attribute, name in self.texts.items():
            flags = np.fromiter(map(is_long, columns[attribute]), np.bool_, len(columns[attribute]))
            if flags.any():
                lacks[name] = flags
        return lacks

    def decode_usable(self, payload: bytes) -> msgspec.Struct | None:
        """The payload with None for what is missing or of another type; None if it is no I-JSON object."""
        try:
            return self.decode_partly(payload)
        except NOT_DECODED:
            pass
        try:
            raw = _decode_raw(payload)
            return self.partial(*(_value_or_none(decode, raw.get(name)) for name, decode in self.decode_field.items()))
        except NOT_DECODED:
            return None

    def failure(self, index: int, payload: bytes) -> ApplyFailure:
        """Why the payload cannot be applied to every group that uses its type."""
        failure = explain(index, payload, self.keys, self.fields, self.needs)
        # the two readers disagree only on the edges of JSON itself (a lone surrogate, NaN, invalid UTF-8)
        return failure or ApplyFailure(index, ApplyFailureReason.MALFORMED_PAYLOAD, "the payload is not I-JSON")


def _value_or_none(decode: Callable[[msgspec.Raw], Any], raw: msgspec.Raw | None) -> Any:
    try:
        return None if raw is None else decode(raw)
    except msgspec.ValidationError:
        return None


def event_plans(registry: CompiledRegistry) -> dict[str, EventPlan]:
    """Event type to its plan, for every event type of the pack."""
    return {name: _event_plan(name, routing, registry) for name, routing in registry.pack.events.items()}


def _event_plan(name: str, routing: EventRouting, registry: CompiledRegistry) -> EventPlan:
    layouts = {
        key_type: layout
        for key_type, layout in registry.layouts.items()
        if any(name in predicate.event_types for predicate in layout.predicates)
    }
    keys = {routing.keys[KeyType(key_type)]: registry.key_rules[key_type] for key_type in layouts}
    reads = {key_type: _read(name, layout, registry) for key_type, layout in layouts.items()}
    fields = {field: routing.fields[field] for field in sorted({field for read in reads.values() for field in read.all})}
    names = sorted(keys.keys() | fields.keys())
    # attributes are f0, f1, ...: a payload field may be a word that a struct cannot have
    attributes = {field: f"f{place}" for place, field in enumerate(names)}
    kinds = {field: FieldType.STRING if field in keys else fields[field] for field in names}
    rename = {attribute: field for field, attribute in attributes.items()}
    observed_keys = {
        attributes[field]: ObservedKey(field, KeyType(rule.key_type))
        for field, rule in sorted(keys.items())
        if observed_type(field) is not None
    }
    payload_types = {field: DECODED_TYPES[kinds[field]] for field in names if attributes[field] not in observed_keys}
    types = {attributes[field]: kind for field, kind in payload_types.items()}
    if observed_keys:
        payload_types[OBSERVED] = types[_IDENTIFIERS] = Identifiers
        rename[_IDENTIFIERS] = OBSERVED
    whole = msgspec.defstruct("Payload", list(types.items()), rename=rename, gc=False)
    optional = [(attribute, kind | None, None) for attribute, kind in types.items()]
    partial = msgspec.defstruct("PartialPayload", optional, rename=rename, gc=False)
    return EventPlan(
        keys=keys,
        fields=fields,
        schema_versions=frozenset(routing.schema_versions),
        attributes={attributes[field]: ZEROS[kinds[field]] for field in names},
        decode=msgspec.json.Decoder(whole).decode,
        decode_partly=msgspec.json.Decoder(partial).decode,
        partial=partial,
        decode_field={field: msgspec.json.Decoder(kind).decode for field, kind in payload_types.items()},
        key_plans=tuple(_key_plan(name, routing, layout, reads[key_type], attributes) for key_type, layout in layouts.items()),
        needs=_needs(name, routing, registry),
        texts={attributes[field]: text_need(attributes[field]) for read in reads.values() for field in sorted(read.texts)},
        amendable=AmendableType.of(name, event_class(registry.pack.events, name), routing),
        observed_keys=observed_keys,
    )


def _needs(name: str, routing: EventRouting, registry: CompiledRegistry) -> tuple[GroupNeeds, ...]:
    needs = []
    for group in registry.pack.groups:
        read = group_needs(group, registry.pack.events)
        if name in read:
            needs.append(GroupNeeds(group_id(group), routing.keys[group.key_type], read[name]))
    return tuple(sorted(needs, key=lambda need: need.group))


@dataclass(frozen=True)
class _Read:
    """The payload fields of one event type that one layout reads; what only other types' features read is not asked."""

    conditions: frozenset[str]
    integers: frozenset[str]
    tokens: frozenset[str]
    texts: frozenset[str]

    @property
    def all(self) -> frozenset[str]:
        tokens = frozenset(field for token in self.tokens for field in pair_fields(token))
        return self.conditions | self.integers | tokens | self.texts


def _read(name: str, layout: KeyLayout, registry: CompiledRegistry) -> _Read:
    selecting = {place for place, predicate in enumerate(layout.predicates) if name in predicate.event_types}
    operands = [
        operand
        for group in registry.groups.values()
        if group.key_type == layout.key_type
        for feature in group.features
        for operand in (feature.operand, feature.denominator)
        if operand is not None
    ]
    selecting_operands = [
        operand for operand in operands if layout.measures[layout.slots[operand.slot].measure].predicate in selecting
    ]
    return _Read(
        conditions=frozenset(field for place in selecting for field, _ in layout.predicates[place].conditions),
        integers=frozenset(
            layout.integer_fields[measure.column]
            for measure in layout.measures
            if measure.column >= 0 and measure.predicate in selecting
        ).union(
            layout.integer_fields[operand.category]
            for operand in selecting_operands
            if operand.category >= 0 and not operand.has_text_category
        ),
        tokens=frozenset(layout.token_fields[operand.token] for operand in selecting_operands if operand.token >= 0),
        texts=frozenset(
            layout.text_fields[slot.text]
            for slot in layout.slots
            if slot.text >= 0 and layout.measures[slot.measure].predicate in selecting
        ).union(layout.text_fields[operand.category] for operand in selecting_operands if operand.has_text_category),
    )


def _key_plan(name: str, routing: EventRouting, layout: KeyLayout, read: _Read, attributes: Mapping[str, str]) -> KeyPlan:
    selecting = {
        index: dict(predicate.conditions) for index, predicate in enumerate(layout.predicates) if name in predicate.event_types
    }
    start = sum(1 << index for index in selecting)
    conditions = []
    for field in sorted({field for where in selecting.values() for field in where}):
        otherwise = start
        bits: dict[Scalar, int] = {}
        for index, where in selecting.items():
            if field in where:
                otherwise &= ~(1 << index)
        for index, where in selecting.items():
            for value in where.get(field, ()):
                bits[value] = bits.get(value, otherwise) | (1 << index)
        conditions.append((attributes[field], bits, otherwise))
    needs: dict[tuple[str, ...], int] = {}
    lacks = {**attributes, **{text_need(field): text_need(attribute) for field, attribute in attributes.items()}}
    for index in selecting:
        needed = tuple(lacks[need] for need in layout.predicates[index].needs_of(name))
        needs[needed] = needs.get(needed, 0) | 1 << index
    return KeyPlan(
        key_type=layout.key_type,
        attribute=attributes[routing.keys[KeyType(layout.key_type)]],
        start=start,
        conditions=tuple(conditions),
        integer_rows=tuple(
            (layout.first_integer_row + place, attributes[field])
            for place, field in enumerate(layout.integer_fields)
            if field in read.integers
        ),
        token_rows=tuple(
            (layout.first_token_row + 2 * place, attributes[field])
            for place, field in enumerate(layout.token_fields)
            if field in read.tokens and len(pair_fields(field)) == 1
        ),
        pair_rows=tuple(
            (layout.first_token_row + 2 * place, attributes[fields[0]], attributes[fields[1]])
            for place, token in enumerate(layout.token_fields)
            if token in read.tokens and len(fields := pair_fields(token)) == 2
        ),
        text_rows=tuple(
            (layout.first_text_row + TEXT_WORDS * place, attributes[field])
            for place, field in enumerate(layout.text_fields)
            if field in read.texts
        ),
        needs=tuple(needs.items()),
    )
