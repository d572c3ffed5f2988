"""Why an event is not applied: a closed list. A detail names fields and types, never a value of the payload."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from ofp_platform.registry.models import FieldType
from ofp_platform.vocabulary.canonical import MAX_INTEGER
from ofp_platform.vocabulary.identity import KEY_ID_TEXT
from ofp_platform.vocabulary.raw_identifier import holds_raw_identifier

_WORDS = {FieldType.INTEGER: "an integer", FieldType.STRING: "a string", FieldType.BOOLEAN: "a boolean"}


class ApplyFailureReason(StrEnum):
    """The router's reasons, then the projector's."""

    MALFORMED_PAYLOAD = "MALFORMED_PAYLOAD"
    MISSING_KEY = "MISSING_KEY"
    INVALID_KEY = "INVALID_KEY"
    RAW_IDENTIFIER = "RAW_IDENTIFIER"
    MISSING_FIELD = "MISSING_FIELD"
    WRONG_TYPE = "WRONG_TYPE"
    INTEGER_OUT_OF_RANGE = "INTEGER_OUT_OF_RANGE"
    WRONG_PINS = "WRONG_PINS"
    INACTIVE_RUN = "INACTIVE_RUN"
    FUTURE_EVENT = "FUTURE_EVENT"


@dataclass(frozen=True)
class ApplyFailure:
    """One event that is not applied. `index` is its place in the batch."""

    index: int
    reason: ApplyFailureReason
    detail: str


def is_key_id(text: str) -> bool:
    """Whether the text may be a key id: 1 to 128 printable ASCII characters, no raw identifier."""
    return KEY_ID_TEXT.fullmatch(text) is not None and not holds_raw_identifier(text)


def explain(index: int, payload: bytes, keys: Mapping[str, str], fields: Mapping[str, FieldType]) -> ApplyFailure | None:
    """The first thing that is wrong with a payload, or None; keys come first, both in the order of their names.

    A null counts as missing.

    Args:
        index: the record's place in its batch.
        payload: JSON bytes.
        keys: payload field to the key type that it is.
        fields: payload field to the type that it must have.
    """
    try:
        value = json.loads(payload)
    except (ValueError, RecursionError):
        return ApplyFailure(index, ApplyFailureReason.MALFORMED_PAYLOAD, "the payload is not JSON")
    if not isinstance(value, dict):
        return ApplyFailure(index, ApplyFailureReason.MALFORMED_PAYLOAD, "the payload is not a JSON object")
    for name, key_type in sorted(keys.items()):
        if (failure := _key(value.get(name), name, key_type)) is not None:
            return ApplyFailure(index, *failure)
    for name, kind in sorted(fields.items()):
        if (failure := _field(value.get(name), name, kind)) is not None:
            return ApplyFailure(index, *failure)
    return None


def _key(value: Any, name: str, key_type: str) -> tuple[ApplyFailureReason, str] | None:
    if value is None or value == "":
        return ApplyFailureReason.MISSING_KEY, f"payload field {name!r}, the {key_type} key, is missing"
    if not isinstance(value, str):
        return ApplyFailureReason.WRONG_TYPE, f"payload field {name!r}, the {key_type} key, must be a string"
    if holds_raw_identifier(value):
        return ApplyFailureReason.RAW_IDENTIFIER, f"payload field {name!r}, the {key_type} key, is a raw identifier"
    if KEY_ID_TEXT.fullmatch(value) is None:
        detail = f"payload field {name!r}, the {key_type} key, must be 1 to 128 printable ASCII characters without spaces"
        return ApplyFailureReason.INVALID_KEY, detail
    return None


def _field(value: Any, name: str, kind: FieldType) -> tuple[ApplyFailureReason, str] | None:
    if value is None:
        return ApplyFailureReason.MISSING_FIELD, f"payload field {name!r} is missing"
    python_type = {FieldType.INTEGER: int, FieldType.STRING: str, FieldType.BOOLEAN: bool}[kind]
    if type(value) is not python_type:
        return ApplyFailureReason.WRONG_TYPE, f"payload field {name!r} must be {_WORDS[kind]}"
    if isinstance(value, int) and abs(value) > MAX_INTEGER:
        return ApplyFailureReason.INTEGER_OUT_OF_RANGE, f"payload field {name!r} is beyond ±(2^53-1)"
    return None
