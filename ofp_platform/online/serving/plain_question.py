"""The way of an ordinary request from bytes to a question, without the full validation: what it accepts, that accepts too.

Parts that many requests share (the pins, the groups) are validated once and known by their bytes afterwards. Whatever is not
plain here goes the long way, which either accepts it or words the refusal.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Annotated, Any

import msgspec
import orjson
from pydantic import Field, TypeAdapter, ValidationError

from ofp_platform.online.serving.request import parse_request
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.layout import CompiledGroup
from ofp_platform.registry.question import PlainRequest, Question, check_context, check_request
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.identity import ContextPins, is_raw_identifier
from ofp_platform.vocabulary.position import Position
from ofp_platform.vocabulary.profile import Limits
from ofp_platform.vocabulary.serving import GroupRef
from ofp_platform.vocabulary.times import to_micros

_KNOWN_PARTS = 1024
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.([0-9]{1,6}))?Z", re.ASCII)
_KEY_ID = re.compile(r"[\x21-\x7e]{1,128}", re.ASCII)
_REQUEST_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,127}", re.ASCII)
_FIELD = re.compile(r"[a-z][a-z0-9_]{0,62}", re.ASCII)
_REFS = TypeAdapter(Annotated[tuple[GroupRef, ...], Field(strict=False, min_length=1)])
_POSITIONS = TypeAdapter(Annotated[tuple[Position, ...], Field(strict=False)])
_ABSENT = b"null"


class _Key(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    key_type: str
    key_id: str


class _Body(msgspec.Struct, forbid_unknown_fields=True):
    context_pins: msgspec.Raw
    feature_keys: list[_Key]
    feature_groups: msgspec.Raw
    as_of_time_utc: str
    kind: str = "get_features_request"
    contract_version: str = "v0"
    request_context: msgspec.Raw = msgspec.Raw(_ABSENT)
    at_least_basis: msgspec.Raw = msgspec.Raw(_ABSENT)
    request_id: str | None = None


_BODY = msgspec.json.Decoder(_Body)
_Groups = tuple[tuple[CompiledGroup, ...], dict[str, tuple[CompiledGroup, ...]]]


class QuestionReader:
    """Reads requests to one registry and run."""

    def __init__(self, registry: CompiledRegistry, pins: ContextPins, limits: Limits) -> None:
        self._registry = registry
        self._pins = pins
        self._limits = limits
        self._known_pins: set[bytes] = set()
        self._known_groups: dict[bytes, _Groups] = {}

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
            asked = _BODY.decode(body)
            moment = _moment(asked.as_of_time_utc)
            if moment is None or not self._pins_fit(bytes(asked.context_pins)):
                return None
            groups, groups_of = self._groups(bytes(asked.feature_groups))
            positions = _positions(bytes(asked.at_least_basis))
            request_context = _given(bytes(asked.request_context))
        except (msgspec.MsgspecError, ValidationError, ValueError, KeyError, RecursionError):
            return None
        if asked.kind != "get_features_request" or asked.contract_version != "v0":
            return None
        request_id = asked.request_id
        if request_id is not None and (_REQUEST_ID.fullmatch(request_id) is None or is_raw_identifier(request_id)):
            return None
        keys = []
        for key in asked.feature_keys:
            key_id = key.key_id
            if _KEY_ID.fullmatch(key_id) is None or is_raw_identifier(key_id):
                return None
            keys.append((key.key_type, key_id))
        keys.sort()
        if not 1 <= len(keys) <= limits.max_keys or len(set(keys)) != len(keys):
            return None
        if {key_type for key_type, _ in keys} != groups_of.keys():
            return None
        as_of, text = moment
        request = PlainRequest(self._pins, text, request_context, positions, request_id)
        try:
            context = check_context(request_context, groups, limits, self._pins)
        except ContractError:
            return None
        return Question(request, as_of, tuple(keys), groups, groups_of, context)

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
        known = self._known_groups.get(raw)
        if known is not None:
            return known
        refs = sorted((ref.group_name, ref.group_version) for ref in _REFS.validate_json(raw))
        if len(set(refs)) != len(refs) or len(refs) > self._limits.max_groups:
            raise ValueError("not plain")
        plans = tuple(self._registry.groups[ref] for ref in refs)
        types = sorted({plan.key_type for plan in plans})
        known = plans, {key_type: tuple(plan for plan in plans if plan.key_type == key_type) for key_type in types}
        if len(self._known_groups) >= _KNOWN_PARTS:
            self._known_groups.clear()
        self._known_groups[raw] = known
        return known


def _moment(text: str) -> tuple[int, str] | None:
    """An as-of in microseconds and in its canonical text."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    moment = datetime.fromisoformat(f"{text[:19]}+00:00")
    micros = to_micros(moment)
    fraction = match.group(1)
    if fraction is None:
        return micros, text
    part = int(fraction.ljust(6, "0"))
    return micros + part, f"{text[:19]}.{part:06d}Z" if part else f"{text[:19]}Z"


def _positions(raw: bytes) -> tuple[Position, ...] | None:
    return None if raw == _ABSENT else _POSITIONS.validate_json(raw)


def _given(raw: bytes) -> dict[str, int | str] | None:
    if raw == _ABSENT:
        return None
    found: Any = orjson.loads(raw)
    if type(found) is not dict:
        raise ValueError("not plain")
    for name, value in found.items():
        if type(value) not in (int, str) or _FIELD.fullmatch(name) is None:
            raise ValueError("not plain")
    return found
