"""The treatment of one event type: which fields of its payload are decoded, and how they become columns of each key type."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Annotated, Any

import msgspec
import numpy as np
import numpy.typing as npt

from ofp_platform.registry.apply_failure import ApplyFailure, ApplyFailureReason, explain
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.layout import KeyLayout
from ofp_platform.registry.models import EventRouting, FieldType, Scalar
from ofp_platform.vocabulary.canonical import MAX_INTEGER
from ofp_platform.vocabulary.identity import KeyType

_Integer = Annotated[int, msgspec.Meta(ge=-MAX_INTEGER, le=MAX_INTEGER)]
_TYPES: dict[FieldType, Any] = {FieldType.INTEGER: _Integer, FieldType.STRING: str, FieldType.BOOLEAN: bool}

AttributeValues = Mapping[str, list[Any]]


@dataclass(frozen=True)
class KeyPlan:
    """One key type that an event type touches.

    The mask starts as `start` (every predicate that selects the event type) and is and-ed, per condition field, with
    the bits that the value leaves standing: `conditions` has (attribute, value -> bits, bits for any other value).
    """

    key_type: str
    attribute: str
    start: int
    conditions: tuple[tuple[str, Mapping[Scalar, int], int], ...]
    integer_rows: tuple[tuple[int, str], ...]
    token_rows: tuple[tuple[int, str], ...]

    def mask(self, columns: AttributeValues, count: int) -> npt.NDArray[np.int64]:
        """int64[count]: which predicates each event satisfies."""
        mask = np.full(count, self.start, dtype=np.int64)
        for attribute, bits, otherwise in self.conditions:
            mask &= np.array([bits.get(value, otherwise) for value in columns[attribute]], dtype=np.int64)
        return mask


@dataclass(frozen=True)
class EventPlan:
    """One event type. `attributes` are the decoded struct's; each stands for a payload field that is read."""

    keys: Mapping[str, str]
    fields: Mapping[str, FieldType]
    attributes: tuple[str, ...]
    decode: Callable[[bytes], msgspec.Struct]
    key_plans: tuple[KeyPlan, ...]

    def columns(self, rows: list[msgspec.Struct]) -> dict[str, list[Any]]:
        """Attribute to its values, in the order of the rows."""
        return {attribute: list(map(attrgetter(attribute), rows)) for attribute in self.attributes}

    def failure(self, index: int, payload: bytes) -> ApplyFailure:
        """Why the payload cannot be applied."""
        failure = explain(index, payload, self.keys, self.fields)
        # the two readers disagree only on the edges of JSON itself (a lone surrogate, NaN, invalid UTF-8)
        return failure or ApplyFailure(index, ApplyFailureReason.MALFORMED_PAYLOAD, "the payload is not I-JSON")


def event_plans(registry: CompiledRegistry) -> dict[str, EventPlan]:
    """Event type to its plan, for every event type of the pack."""
    return {name: _event_plan(name, routing, registry) for name, routing in registry.pack.events.items()}


def _event_plan(name: str, routing: EventRouting, registry: CompiledRegistry) -> EventPlan:
    layouts = {
        key_type: layout
        for key_type, layout in registry.layouts.items()
        if any(name in predicate.event_types for predicate in layout.predicates)
    }
    keys = {routing.keys[KeyType(key_type)]: key_type for key_type in layouts}
    reads = {key_type: _read(name, layout, registry) for key_type, layout in layouts.items()}
    fields = {field: routing.fields[field] for field in sorted({field for read in reads.values() for field in read.all})}
    names = sorted(keys.keys() | fields.keys())
    # attributes are f0, f1, ...: a payload field may be a word that a struct cannot have
    attributes = {field: f"f{place}" for place, field in enumerate(names)}
    struct = msgspec.defstruct(
        "Payload",
        [(attributes[field], str if field in keys else _TYPES[fields[field]]) for field in names],
        rename={attribute: field for field, attribute in attributes.items()},
        gc=False,
    )
    return EventPlan(
        keys=keys,
        fields=fields,
        attributes=tuple(attributes.values()),
        decode=msgspec.json.Decoder(struct).decode,
        key_plans=tuple(_key_plan(name, routing, layout, reads[key_type], attributes) for key_type, layout in layouts.items()),
    )


@dataclass(frozen=True)
class _Read:
    """The payload fields of one event type that one layout reads; what only other types' features read is not asked."""

    conditions: frozenset[str]
    integers: frozenset[str]
    tokens: frozenset[str]

    @property
    def all(self) -> frozenset[str]:
        return self.conditions | self.integers | self.tokens


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
    return _Read(
        conditions=frozenset(field for place in selecting for field, _ in layout.predicates[place].conditions),
        integers=frozenset(
            layout.integer_fields[measure.column]
            for measure in layout.measures
            if measure.column >= 0 and measure.predicate in selecting
        ),
        tokens=frozenset(
            layout.token_fields[operand.token]
            for operand in operands
            if operand.token >= 0 and layout.measures[layout.slots[operand.slot].measure].predicate in selecting
        ),
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
            if field in read.tokens
        ),
    )
