"""A feature pack as it is written: event routing and feature groups, version by version.

These models hold the shape only; what has to agree between its parts (does the group's key type appear in the routing
of the event that the feature selects?) is in `validation`, which reports every error with its file and line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, ConfigDict, Field, WithJsonSchema

from ofp_platform.registry.aggregations import MOST_ITEMS, P_DIGITS, Aggregation, rule_of
from ofp_platform.registry.calendar_windows import calendar_window
from ofp_platform.registry.expression import MAX_EXPRESSION_CHARACTERS
from ofp_platform.vocabulary.canonical import MAX_INTEGER
from ofp_platform.vocabulary.catalogue import Owner, Prose, Tags
from ofp_platform.vocabulary.envelope import EventType, SchemaVersion
from ofp_platform.vocabulary.identity import KeySource, KeyType
from ofp_platform.vocabulary.model import Model, Name
from ofp_platform.vocabulary.serving import GroupVersion
from ofp_platform.vocabulary.times import parse_duration

CONTRACT_VERSION = "v0"
DEFAULT_SCALE = 6
FIRST_SCHEMA_VERSIONS = ("1", "1.0", "v1", "v1.0")
"""The spellings of a first schema version: what a pack understands of an event type for which it lists none."""
MAX_SCALE = 12
MAX_DURATION = parse_duration("3660d")

Scalar = str | int | bool


class FieldType(StrEnum):
    """The types of payload field that the registry reads."""

    INTEGER = "integer"
    STRING = "string"
    BOOLEAN = "boolean"


class Identity(StrEnum):
    """Whose events feed a group: those of the key as it was sent, or of its whole entity."""

    AS_SENT = "as_sent"
    RESOLVED = "resolved"


class RequestFieldType(StrEnum):
    """The types of a request_context field: a JSON integer, or a decimal as a JSON string."""

    INTEGER = "integer"
    DECIMAL = "decimal"


def _duration(text: str) -> str:
    if text.lstrip().startswith("-"):
        raise ValueError(f"{text!r} is negative; a duration is a whole number and one of us, ms, s, m, h, d, as in '24h'")
    if parse_duration(text) > MAX_DURATION:
        raise ValueError("longer than 3660d")
    return text


def _window(text: str) -> str:
    if calendar_window(text) is not None:
        return text
    try:
        _duration(text)
    except ValueError as error:
        if text.strip().startswith(("day", "month")):
            raise ValueError(f"{text!r} is no window: write day or month, in, and a zone, as in 'day in Europe/London'") from None
        raise error from None
    if parse_duration(text) == 0:
        raise ValueError("a window of 0 holds nothing; it must be longer than 0")
    return text


def _scalars(value: Any) -> tuple[Scalar, ...]:
    items = tuple(value) if isinstance(value, (list, tuple)) else (value,)
    if not items:
        raise ValueError("an empty list selects nothing")
    for item in items:
        if not isinstance(item, (str, int)):
            raise ValueError("write a string, an integer or a boolean, or a list of them")
        if isinstance(item, int) and abs(item) > MAX_INTEGER:
            raise ValueError("an integer must be within ±(2^53-1)")
    return items


_SCALAR_SCHEMA = {
    "anyOf": [
        {"type": "string"},
        {"type": "integer", "minimum": -MAX_INTEGER, "maximum": MAX_INTEGER},
        {"type": "boolean"},
    ]
}
_DURATION_SCHEMA = WithJsonSchema(
    {"type": "string", "pattern": "^[0-9]+(us|ms|s|m|h|d)$", "description": "a whole number and a unit, as in '24h'"}
)

Duration = Annotated[str, AfterValidator(_duration), _DURATION_SCHEMA]
Window = Annotated[
    str,
    AfterValidator(_window),
    WithJsonSchema(
        {
            "type": "string",
            "pattern": "^([0-9]+(us|ms|s|m|h|d)|(day|month) in \\S+)$",
            "description": "a whole number and a unit, as in '24h'; or a day or month in an IANA zone, as in 'day in UTC'",
        }
    ),
]
_P = re.compile(r"(?:0?\.[0-9]{1,6}|1(?:\.0{1,6})?)", re.ASCII)


def _p(value: Any) -> str:
    text = repr(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else value
    if not isinstance(text, str) or _P.fullmatch(text) is None or not text.strip("0."):
        raise ValueError(f"p must be greater than 0 and at most 1, with at most {P_DIGITS} digits, as in 0.95")
    return text


def _length(value: Any) -> int:
    if type(value) is not int or not 1 <= value <= MOST_ITEMS:
        raise ValueError(f"a list has from 1 to {MOST_ITEMS} items: write an integer from 1 to {MOST_ITEMS}")
    return value


def _number(aggregation: Aggregation) -> Aggregation:
    if rule_of(aggregation).is_list:
        raise ValueError(f"a ratio divides numbers, and {aggregation} is a list")
    return aggregation


ListLength = Annotated[int, BeforeValidator(_length), WithJsonSchema({"type": "integer", "minimum": 1, "maximum": MOST_ITEMS})]
Scale = Annotated[int, Field(ge=0, le=MAX_SCALE, description="decimal digits, rounded half to even")]
PayloadField = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$")]
Scalars = Annotated[
    tuple[Scalar, ...],
    BeforeValidator(_scalars),
    WithJsonSchema({"anyOf": [*_SCALAR_SCHEMA["anyOf"], {"type": "array", "items": _SCALAR_SCHEMA, "minItems": 1}]}),
]
P = Annotated[
    str,
    BeforeValidator(_p),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "exclusiveMinimum": 0, "maximum": 1},
                {"type": "string", "pattern": "^(0?\\.[0-9]{1,6}|1(\\.0{1,6})?)$"},
            ],
            "description": "of a quantile; greater than 0, at most 1, with at most 6 digits",
        }
    ),
]
_AggregationField = Annotated[Aggregation, Field(strict=False)]
_OperandAggregation = Annotated[Aggregation, Field(strict=False), AfterValidator(_number)]
_KeyTypeField = Annotated[KeyType, Field(strict=False)]
_PATTERN_CHARACTERS = re.compile(r"[\x20-\x7e]*", re.ASCII)
_REFUSED_PATTERN = re.compile(r"\(\?(?!:)|\\[0-9]|\)[*+{]", re.ASCII)


def _key_pattern(text: str) -> str:
    if _PATTERN_CHARACTERS.fullmatch(text) is None:
        raise ValueError("a pattern is of printable ASCII characters")
    if _REFUSED_PATTERN.search(text) is not None:
        raise ValueError(
            "a pattern has no look-around, no reference to a group, and repeats no group: it must be quick for any text"
        )
    try:
        re.compile(text, re.ASCII)
    except re.error as error:
        raise ValueError(f"not a regular expression: {error}") from None
    return text


KeyPattern = Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_key_pattern)]
_Events = Annotated[tuple[EventType, ...], Field(strict=False, min_length=1)]


class Amendments(Model):
    """Which events may amend one of a type. Such an event voids it, or has a payload that stands in place of its own."""

    by: _Events = Field(description="the event types that may amend one of this type, itself among them if it may")
    may_change: tuple[PayloadField, ...] = Field(
        default=(), strict=False, description="the fields that a replacement may change; without any, an event can only be voided"
    )


class EventRouting(Model):
    """Which payload fields of an event type are canonical keys, and the types of the fields that features may read."""

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)

    event_class: EventType | None = Field(
        default=None, alias="class", description="event identity is (class, event_id, payload hash); default: the type"
    )
    keys: dict[_KeyTypeField, KeySource] = Field(min_length=1)
    fields: dict[PayloadField, Annotated[FieldType, Field(strict=False)]] = Field(default_factory=dict)
    schema_versions: tuple[SchemaVersion, ...] = Field(
        default=FIRST_SCHEMA_VERSIONS,
        strict=False,
        min_length=1,
        description="the schema versions that are understood: an event of another one is not applied; default: the first version",
    )
    amendments: Amendments | None = Field(default=None, description="how an event may be amended; default: not at all")


class Operand(Model):
    """One side of a ratio, never rounded. Its window and delay are the feature's unless given."""

    aggregation: _OperandAggregation
    events: _Events
    value: PayloadField | None = None
    paired_with: PayloadField | None = None
    p: P | None = None
    condition: dict[PayloadField, Scalars] | None = Field(default=None, min_length=1)
    where: dict[PayloadField, Scalars] = Field(default_factory=dict)
    window: Window | None = None
    delay: Duration | None = None


class Feature(Model):
    """One windowed feature: E = { e : where(e), T - delay - window < ts(e) <= T - delay }."""

    name: Name
    aggregation: _AggregationField
    events: _Events | None = None
    value: PayloadField | None = None
    paired_with: PayloadField | None = Field(default=None, description="distinct_count is of the pairs of both fields")
    p: P | None = None
    condition: dict[PayloadField, Scalars] | None = Field(
        default=None, min_length=1, description="of seconds_since_change; as `where`, but it selects no events"
    )
    n: ListLength | None = Field(default=None, description="of last_n: the number of values")
    category: PayloadField | None = Field(default=None, description="of top_k, count_by and sum_by: whose values are told apart")
    k: ListLength | None = Field(default=None, description="of top_k, count_by and sum_by: the number of categories")
    where: dict[PayloadField, Scalars] = Field(default_factory=dict)
    window: Window | None = None
    delay: Duration = "0s"
    scale: Scale | None = Field(default=None, description="of a mean, stddev or ratio; default 6")
    numerator: Operand | None = None
    denominator: Operand | None = None
    description: Prose = ""
    owner: Owner | None = None
    tags: Tags = ()


class OnDemand(Model):
    """One pure expression over the group's values and `request.<field>`."""

    name: Name
    expression: Annotated[str, Field(min_length=1, max_length=MAX_EXPRESSION_CHARACTERS)]
    scale: Scale = DEFAULT_SCALE
    description: Prose = ""
    owner: Owner | None = None
    tags: Tags = ()


class Group(Model):
    """One version of a feature group."""

    name: Name
    version: GroupVersion
    key_type: _KeyTypeField
    identity: Annotated[Identity, Field(strict=False)] = Field(
        default=Identity.AS_SENT, description="resolved: the events of all members of the entity count, not of the key alone"
    )
    ttl_seconds: Annotated[int, Field(ge=1, le=MAX_INTEGER)]
    features: tuple[Feature, ...] = Field(strict=False, min_length=1)
    request: dict[Name, Annotated[RequestFieldType, Field(strict=False)]] = Field(default_factory=dict)
    on_demand: tuple[OnDemand, ...] = Field(default=(), strict=False)
    description: Prose = ""
    owner: Owner | None = None
    tags: Tags = ()


class Pack(Model):
    """A feature pack: what `registry.pack.load_pack` returns, already validated as a whole."""

    pack_id: Name
    revision: Annotated[int, Field(ge=1, le=MAX_INTEGER)]
    description: str = ""
    key_patterns: dict[_KeyTypeField, KeyPattern] = Field(
        default_factory=dict,
        description="key type to the regular expression that the whole key matches; of a type without one, any text that is no"
        " raw identifier",
    )
    events: dict[EventType, EventRouting] = Field(min_length=1)
    groups: tuple[Group, ...] = Field(strict=False, min_length=1)


def event_class(events: Mapping[str, EventRouting], event_type: str) -> str:
    """The event class of a type: what the pack says, else the type itself (so too for a type that it does not know)."""
    routing = events.get(event_type)
    return event_type if routing is None or routing.event_class is None else routing.event_class


def amended_type(events: Mapping[str, EventRouting], event_type: str, amended_class: str) -> str | None:
    """The type of the events of a class that one of `event_type` may amend; None: none may be."""
    for name, routing in events.items():
        if routing.amendments is not None and event_type in routing.amendments.by and event_class(events, name) == amended_class:
            return name
    return None


def pack_schema() -> dict[str, Any]:
    """The JSON Schema (2020-12) of a pack file."""
    schema = Pack.model_json_schema(by_alias=True, mode="validation")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$id": f"feature_pack_{CONTRACT_VERSION}.schema.json",
        **schema,
    }
