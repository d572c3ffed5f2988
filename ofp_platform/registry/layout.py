"""The compiled form of a pack: per key type, the columns that are kept of an event and the values computed from them.

The event matrix of a key is an int64 array of shape (layout.column_count, events), sorted by (time, tie):

    row 0          event time, microseconds
    row 1          mask: bit p is set when the event satisfies predicate p
    rows 2, 3      tie high, tie low (only when `ties`): the event's identity order, compared as unsigned; of an event 0 where
                   only amendments have an order
    then           seven rows (only when `amendable`): two of the target (the event that is amended, or the event itself), two of
                   the fields that no replacement may change, then of an amendment its own event time, kind and mask
    then           one row per integer field (0 where the event's type does not carry the field)
    then           two rows (high, low) per token field: the first 128 bits of SHA-256 of the canonical bytes of the value, or of
                   the array of the two values of a pair of fields (named by both)
    then           eight rows per text field: the words of the text (`text_words`)

A boolean is an integer field of 0 and 1.

An amendment stands at the time of the event that it amends: where its target is, and in no window by itself, for its mask in
row 1 is 0. The mask and the values that a replacement puts in place of the event's are in its rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ofp_platform.registry.aggregations import Aggregation, ValueType, rule_of
from ofp_platform.registry.calendar_windows import CalendarWindow
from ofp_platform.registry.models import FieldType
from ofp_platform.registry.text_words import TEXT_WORDS

TIME_ROW = 0
MASK_ROW = 1
TIE_ROW = 2
MAX_PREDICATES = 62
MAX_VALUE_COLUMNS = 251
"""The rows behind those of time, mask and tie; a stored chunk has room for 255."""
AMENDMENT_ROWS = 7
"""The rows of an amendable layout that other layouts do not have."""
FIRST_AMENDMENT_ROW = 4
TARGET_ROW, FIXED_ROW, AMENDS_TIME_ROW, AMENDS_KIND_ROW, AMENDS_MASK_ROW = (FIRST_AMENDMENT_ROW + row for row in (0, 2, 4, 5, 6))
EVENT, VOID, REPLACE = range(3)
"""The kinds of row AMENDS_KIND_ROW."""


@dataclass(frozen=True)
class Predicate:
    """Which events count: those of `event_types` whose fields hold one of the listed values, for every listed field.

    `needs`: for each of the event types, the payload fields that the group reads of it, sorted; an event that lacks one, or has
    it with another type, does not count. A need of a text that is kept is a need of its own (`selection.text_need`). () stands
    for none.
    """

    event_types: tuple[str, ...]
    conditions: tuple[tuple[str, tuple[str | int | bool, ...]], ...]
    needs: tuple[tuple[str, ...], ...] = ()

    def needs_of(self, event_type: str) -> tuple[str, ...]:
        """The needs that an event of the type must satisfy to count; the type is one of `event_types`."""
        return self.needs[self.event_types.index(event_type)] if self.needs else ()


@dataclass(frozen=True)
class Measure:
    """The subject of an accumulator: one predicate over one place in `integer_fields` (-1: events only, no values)."""

    predicate: int
    column: int


@dataclass(frozen=True)
class Slot:
    """One measure over one window: T - delay - window < ts <= T - delay, microseconds.

    `text`: the place in `text_fields` of the texts that are its values, the measure being of events only; -1: none.
    `calendar`: where the window begins, if that is a local day or month; then `window` is no shorter than any such one.
    """

    measure: int
    window: int
    delay: int
    text: int = -1
    calendar: CalendarWindow | None = None


@dataclass(frozen=True)
class CompiledOperand:
    """One aggregation of one slot.

    `scale` is that of a mean or stddev that is a feature of its own (else 0); `token` is the place in `token_fields` of a
    distinct_count. `parameter`: of a quantile p in millionths, of a list its most items. `condition`: the place in `predicates`
    of the events of which the condition holds; -1: there is none. `category`: the place in
    `integer_fields` of the field of the categories, or in `text_fields`, if they are texts; -1: there are none.
    """

    aggregation: Aggregation
    slot: int
    scale: int = 0
    token: int = -1
    parameter: int = 0
    condition: int = -1
    category: int = -1
    has_text_category: bool = False


@dataclass(frozen=True)
class CompiledFeature:
    """One windowed feature: its operand, for a ratio the denominator too; `scale` is the wire's (None: no decimal).

    `value_type`: the type of the value where that is no decimal, of a list that of its items or of their categories.
    """

    name: str
    operand: CompiledOperand
    denominator: CompiledOperand | None
    scale: int | None
    value_type: FieldType = FieldType.INTEGER

    @property
    def is_list(self) -> bool:
        """Whether the value is a list."""
        return rule_of(self.operand.aggregation).is_list

    @property
    def has_numbers(self) -> bool:
        """Whether each item of a list is a category with an integer."""
        return rule_of(self.operand.aggregation).value_type is ValueType.PAIRS


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
    features read, with their types ("integer" or "decimal"). `resolves`: the events of the whole entity count.
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
    resolves: bool = False


@dataclass(frozen=True)
class KeyLayout:
    """Everything that is kept and computed for one key type.

    `ordered`: some value depends on the order of events of one time. `amendable`: some of the events may be amended.
    """

    key_type: str
    ordered: bool
    predicates: tuple[Predicate, ...]
    integer_fields: tuple[str, ...]
    token_fields: tuple[str, ...]
    measures: tuple[Measure, ...]
    slots: tuple[Slot, ...]
    text_fields: tuple[str, ...] = ()
    amendable: bool = False

    @cached_property
    def ties(self) -> bool:
        """Whether the matrix has the rows of the tie; they are 0 of the events of a layout that is not `ordered`."""
        return self.ordered or self.amendable

    @cached_property
    def first_integer_row(self) -> int:
        """Row of the first integer field."""
        if self.amendable:
            return FIRST_AMENDMENT_ROW + AMENDMENT_ROWS
        return 4 if self.ties else 2

    @cached_property
    def first_token_row(self) -> int:
        """Row of the first token field's high half."""
        return self.first_integer_row + len(self.integer_fields)

    @cached_property
    def first_text_row(self) -> int:
        """Row of the first text field's first word."""
        return self.first_token_row + 2 * len(self.token_fields)

    @cached_property
    def column_count(self) -> int:
        """Rows of the event matrix."""
        return self.first_text_row + TEXT_WORDS * len(self.text_fields)
