"""The way of an ordinary request from bytes to a question, without the full validation: what it accepts, that accepts too.

Parts that many requests share (the pins, the groups) are validated once and known by their bytes afterwards, keys by their ids.
Whatever is not plain here goes the long way, which either accepts it or words the refusal. Fields, defaults, patterns and bounds
are read out of GetFeaturesRequest and its JSON schema at import.
"""

from __future__ import annotations

import re
from types import GenericAlias
from typing import Annotated, Any

import msgspec
import orjson
from pydantic import TypeAdapter, ValidationError

from ofp_platform.online.serving.request import parse_request
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.layout import CompiledGroup
from ofp_platform.registry.question import PlainRequest, Question, check_context, check_request
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.identity import ContextPins, FeatureKey
from ofp_platform.vocabulary.json_text import read_json
from ofp_platform.vocabulary.model import Model
from ofp_platform.vocabulary.position import Position
from ofp_platform.vocabulary.profile import Limits
from ofp_platform.vocabulary.raw_identifier import holds_raw_identifier
from ofp_platform.vocabulary.serving import GetFeaturesRequest
from ofp_platform.vocabulary.times import format_time, parse_time

_KNOWN_PARTS = 1024
_KNOWN_KEYS = 16_384  # a few megabytes
_ABSENT = b"null"
_UNBOUNDED = "+$"


def _pattern(schema: dict[str, Any]) -> re.Pattern[str]:
    """The pattern of a text in a JSON schema, its length bounds made part of it; an optional text's where it may be null."""
    text = next((option for option in schema.get("anyOf", ()) if option["type"] == "string"), schema)
    pattern: str = text["pattern"]
    if "maxLength" in text:
        if not pattern.endswith(_UNBOUNDED):
            raise TypeError(f"bounds of {pattern} cannot be made part of it")
        pattern = f"{pattern.removesuffix(_UNBOUNDED)}{{{text['minLength']},{text['maxLength']}}}$"
    return _whole(pattern)


def _whole(pattern: str) -> re.Pattern[str]:
    """An anchored pattern for fullmatch, which is faster without the anchors."""
    return re.compile(pattern.removeprefix("^").removesuffix("$"), re.ASCII)


def _struct(model: type[Model], types: dict[str, Any]) -> Any:
    """A closed msgspec struct with the fields and defaults of a model. Raw is JSON that is read later.

    Raises:
        KeyError: the model has a field without a type here.
    """
    fields: list[tuple[str, Any] | tuple[str, Any, Any]] = []
    for name, field in model.model_fields.items():
        absent = msgspec.Raw(_ABSENT) if types[name] is msgspec.Raw else field.default
        fields.append((name, types[name]) if field.is_required() else (name, types[name], absent))
    return msgspec.defstruct(f"Plain{model.__name__}", fields, kw_only=True, forbid_unknown_fields=True, gc=False)


def _adapter(name: str) -> TypeAdapter[Any]:
    """The validator of one field of a request, apart from the others."""
    field = GetFeaturesRequest.model_fields[name]
    annotation: Any = Annotated[(field.annotation, *field.metadata)] if field.metadata else field.annotation
    return TypeAdapter(annotation)


_SCHEMA = GetFeaturesRequest.model_json_schema()
_FIELDS = _SCHEMA["properties"]
_KIND = _FIELDS["kind"]["const"]
_VERSION = _FIELDS["contract_version"]["const"]
_MIN_KEYS = _FIELDS["feature_keys"]["minItems"]
_KEY_ID = _pattern(_SCHEMA["$defs"]["FeatureKey"]["properties"]["key_id"])
_REQUEST_ID = _pattern(_FIELDS["request_id"])
_FIELD = _whole(*_FIELDS["request_context"]["anyOf"][0]["patternProperties"])
_REFS = _adapter("feature_groups")
_POSITIONS = _adapter("at_least_basis")
_EXTENSIONS = _adapter("extensions")
_KEY = _struct(FeatureKey, {"key_type": str, "key_id": str})
_REQUEST = _struct(
    GetFeaturesRequest,
    {
        "kind": str,
        "contract_version": str,
        "context_pins": msgspec.Raw,
        "feature_keys": GenericAlias(list, _KEY),
        "feature_groups": msgspec.Raw,
        "as_of_time_utc": str,
        "request_context": msgspec.Raw,
        "at_least_basis": msgspec.Raw,
        "request_id": str | None,
        "extensions": msgspec.Raw,
    },
)
_BODY = msgspec.json.Decoder(_REQUEST)
_Groups = tuple[tuple[CompiledGroup, ...], dict[str, tuple[CompiledGroup, ...]]]


class QuestionReader:
    """Reads requests to one registry and run."""

    def __init__(self, registry: CompiledRegistry, pins: ContextPins, limits: Limits) -> None:
        self._registry = registry
        self._pins = pins
        self._limits = limits
        self._known_pins: set[bytes] = set()
        self._known_groups: dict[bytes, _Groups] = {}
        self._known_keys: set[tuple[str, str]] = set()
        self._refuses_key = {key_type: rule.refuses for key_type, rule in registry.key_rules.items()}

    def read(self, body: bytes) -> Question:
        """The question that a body asks.

        Raises:
            ContractError: every refusal that needs no state.
        """
        question = self.plain(body)
        if question is None:
            question = check_request(parse_request(body, self._limits), self._registry, self._pins, self._limits)
        return question

    def plain(self, body: bytes) -> Question | None:
        """The question, or None: the body is not plain, and may be wrong."""
        limits = self._limits
        if len(body) > limits.max_body_bytes:
            return None
        try:
            read_json(body)  # for what it refuses: msgspec keeps the last of two equal names
            asked = _BODY.decode(body)
            as_of = parse_time(asked.as_of_time_utc)
            if not self._pins_fit(bytes(asked.context_pins)):
                return None
            groups, groups_of = self._groups(bytes(asked.feature_groups))
            positions = _positions(bytes(asked.at_least_basis))
            request_context = _request_context(bytes(asked.request_context))
            extensions = _extensions(bytes(asked.extensions))
        except (msgspec.MsgspecError, ValidationError, ValueError, KeyError, RecursionError):
            return None
        if asked.kind != _KIND or asked.contract_version != _VERSION:
            return None
        request_id = asked.request_id
        if request_id is not None and (_REQUEST_ID.fullmatch(request_id) is None or holds_raw_identifier(request_id)):
            return None
        keys = []
        known_keys = self._known_keys
        for asked_key in asked.feature_keys:
            key = asked_key.key_type, asked_key.key_id
            if key not in known_keys and not self._accepts(*key):
                return None
            keys.append(key)
        keys.sort()
        if not _MIN_KEYS <= len(keys) <= limits.max_keys or len(set(keys)) != len(keys):
            return None
        if {key_type for key_type, _ in keys} != groups_of.keys():
            return None
        time_text = _canonical(asked.as_of_time_utc, as_of)
        request = PlainRequest(self._pins, time_text, request_context, positions, request_id, extensions)
        try:
            context = check_context(request_context, groups, limits, self._pins)
        except ContractError:
            return None
        return Question(request, as_of, tuple(keys), groups, groups_of, context)

    def _accepts(self, key_type: str, key_id: str) -> bool:
        refuses = self._refuses_key.get(key_type)
        if refuses is None or _KEY_ID.fullmatch(key_id) is None or refuses(key_id):
            return False
        if len(self._known_keys) >= _KNOWN_KEYS:
            self._known_keys.clear()
        self._known_keys.add((key_type, key_id))
        return True

    def _pins_fit(self, raw: bytes) -> bool:
        if raw in self._known_pins:
            return True
        if ContextPins.model_validate_json(raw) != self._pins:
            return False
        if len(self._known_pins) >= _KNOWN_PARTS:
            self._known_pins.clear()
        self._known_pins.add(raw)
        return True

    def _groups(self, raw: bytes) -> _Groups:
        known_groups = self._known_groups.get(raw)
        if known_groups is not None:
            return known_groups
        refs = sorted((ref.group_name, ref.group_version) for ref in _REFS.validate_json(raw))
        if len(set(refs)) != len(refs) or len(refs) > self._limits.max_groups:
            raise ValueError("not plain")
        plans = tuple(self._registry.groups[ref] for ref in refs)
        types = sorted({plan.key_type for plan in plans})
        known_groups = plans, {key_type: tuple(plan for plan in plans if plan.key_type == key_type) for key_type in types}
        if len(self._known_groups) >= _KNOWN_PARTS:
            self._known_groups.clear()
        self._known_groups[raw] = known_groups
        return known_groups


def _canonical(text: str, micros: int) -> str:
    """The canonical text of a time: without a fraction, or with 6 digits that are not all zero, it is the text itself."""
    if len(text) == 20 or (len(text) == 27 and not text.endswith(".000000Z")):
        return text
    return format_time(micros)


def _positions(raw: bytes) -> tuple[Position, ...] | None:
    positions: tuple[Position, ...] | None = None if raw == _ABSENT else _POSITIONS.validate_json(raw)
    return positions


def _extensions(raw: bytes) -> dict[str, Any] | None:
    extensions: dict[str, Any] | None = None if raw == _ABSENT else _EXTENSIONS.validate_json(raw)
    return extensions


def _request_context(raw: bytes) -> dict[str, int | str] | None:
    if raw == _ABSENT:
        return None
    context: Any = orjson.loads(raw)
    if type(context) is not dict:
        raise ValueError("not plain")
    for name, value in context.items():
        if type(value) not in (int, str) or _FIELD.fullmatch(name) is None:
            raise ValueError("not plain")
    return context
