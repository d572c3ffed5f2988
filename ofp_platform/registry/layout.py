"""The compiled form of a pack: per key type, the columns that are kept of an event and the values computed from them.

The event matrix of a key is an int64 array of shape (layout.column_count, events), sorted by (time, tie):

    row 0          event time, microseconds
    row 1          mask: bit p is set when the event satisfies predicate p
    rows 2, 3      tie high, tie low (only when `ties`): the event's identity order, compared as unsigned
    then           one row per integer field (0 where the event's type does not carry the field)
    then           two rows (high, low) per token field: the first 128 bits of SHA-256 of the value's canonical bytes
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ofp_platform.registry.aggregations import Aggregation

TIME_ROW = 0
MASK_ROW = 1
MAX_PREDICATES = 62


@dataclass(frozen=True)
class Predicate:
    """Which events count: those of `event_types` whose fields hold one of the listed values, for every listed field.

    `needs`: for each of the event types, the payload fields that the group reads of it, sorted; an event that lacks one, or has
    it with another type, does not count. () stands for none.
    """

    event_types: tuple[str, ...]
    conditions: tuple[tuple[str, tuple[str | int | bool, ...]], ...]
    needs: tuple[tuple[str, ...], ...] = ()

    def needs_of(self, event_type: str) -> tuple[str, ...]:
        """The payload fields that an event of the type must have to count; the type is one of `event_types`."""
        return self.needs[self.event_types.index(event_type)] if self.needs else ()


@dataclass(frozen=True)
class Measure:
    """The subject of an accumulator: one predicate over one place in `integer_fields` (-1: events only, no values)."""

    predicate: int
    column: int


@dataclass(frozen=True)
class Slot:
    """One measure over one window: T - delay - window < ts <= T - delay, microseconds."""

    measure: int
    window: int
    delay: int


@dataclass(frozen=True)
class CompiledOperand:
    """One aggregation of one slot.

    `scale` is that of a mean or stddev that is a feature of its own (else 0); `token` is the place in `token_fields` of a
    distinct_count.
    """

    aggregation: Aggregation
    slot: int
    scale: int = 0
    token: int = -1


@dataclass(frozen=True)
class CompiledFeature:
    """One windowed feature: its operand, for a ratio the denominator too; `scale` is the wire's (None: integer)."""

    name: str
    operand: CompiledOperand
    denominator: CompiledOperand | None
    scale: int | None


@dataclass(frozen=True)
class CompiledOnDemand:
    """One on-demand feature: an expression over the group's values and the request context."""

    name: str
    expression: str
    scale: int


@dataclass(frozen=True)
class CompiledGroup:
    """One group version, compiled. `mask` has the bit of the predicate that all events which feed the group satisfy.

    `reach` is max(window + delay) over its features; `request_fields` are the request_context fields that its on-demand
    features read, with their types ("integer" or "decimal").
    """

    name: str
    version: str
    key_type: str
    ttl_seconds: int
    mask: int
    reach: int
    features: tuple[CompiledFeature, ...]
    on_demand: tuple[CompiledOnDemand, ...]
    request_fields: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class KeyLayout:
    """Everything that is kept and computed for one key type."""

    key_type: str
    ties: bool
    predicates: tuple[Predicate, ...]
    integer_fields: tuple[str, ...]
    token_fields: tuple[str, ...]
    measures: tuple[Measure, ...]
    slots: tuple[Slot, ...]

    @cached_property
    def first_integer_row(self) -> int:
        """Row of the first integer field."""
        return 4 if self.ties else 2

    @cached_property
    def first_token_row(self) -> int:
        """Row of the first token field's high half."""
        return self.first_integer_row + len(self.integer_fields)

    @cached_property
    def column_count(self) -> int:
        """Rows of the event matrix."""
        return self.first_token_row + 2 * len(self.token_fields)
