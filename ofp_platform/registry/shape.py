"""The shape of a pack file: pydantic's errors, in words, at their lines."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from ofp_platform.registry.aggregations import Aggregation
from ofp_platform.registry.models import (
    EventRouting,
    Feature,
    FieldType,
    Group,
    OnDemand,
    Operand,
    Pack,
    RequestFieldType,
)
from ofp_platform.registry.pack_text import PackText, Path
from ofp_platform.vocabulary.identity import KeyType
from ofp_platform.vocabulary.raw_identifier import redact

_PREFIX = re.compile(r"^(Value error, |String (?=should)|Input (?=should))")
_WORDS = {
    "missing": "this field is required",
    "string_type": "must be a string",
    "int_type": "must be an integer",
    "bool_type": "must be true or false",
    "dict_type": "must be a mapping (name: value)",
    "model_type": "must be a mapping (name: value)",
    "tuple_type": "must be a list",
    "is_instance_of": "must be a list",
}


def check_shape(pack_text: PackText) -> Pack | None:
    """The pack as a model, or None when its shape is wrong (reported to the pack text)."""
    try:
        return Pack.model_validate(pack_text.data)
    except ValidationError as errors:
        for error in errors.errors(include_url=False, include_context=True):
            _report(pack_text, error)
    return None


def suggestion(word: object, names: Iterable[str]) -> str:
    """ "; did you mean 'x'?" or, with nothing near, the list of what is known."""
    choices = sorted(names)
    near = difflib.get_close_matches(str(word), choices, n=1, cutoff=0.6)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f"; known: {', '.join(choices)}" if choices else ""


def _report(pack_text: PackText, error: ErrorDetails) -> None:
    path: Path = tuple(error["loc"])
    kind, value = error["type"], error["input"]
    if path and path[-1] == "[key]":
        path = path[:-1]
    if kind == "extra_forbidden" and _model_at(path[:-1]) is Operand and path[-1] == "scale":
        pack_text.report(path, "a side of a ratio is not rounded; the scale is the ratio's")
    elif kind == "extra_forbidden":
        model = _model_at(path[:-1])
        pack_text.report(path, f"unknown field {str(path[-1])!r}{suggestion(path[-1], _field_names(model))}")
    elif kind == "enum":
        pack_text.report(path, f"{redact(str(value))[:40]!r} is not one of these{suggestion(value, _choices(path))}")
    elif kind == "missing" and path[-1] in ("numerator", "denominator"):
        pack_text.report(path, "a ratio needs it")
    elif kind == "too_short":
        if not value:  # else its entries are wrong, and are reported one by one
            pack_text.report(path, "must have at least one entry")
    elif kind in _WORDS:
        pack_text.report(path, _WORDS[kind] + _hint(path, kind))
    else:
        pack_text.report(path, _PREFIX.sub("", error["msg"]).replace("should", "must", 1))


def _hint(path: Path, kind: str) -> str:
    if kind == "string_type" and path[-1] in ("window", "delay"):
        return " such as '24h'"
    if kind == "string_type" and path[-1] == "version":
        return " such as 'v1' or '1.0', with its quotes"
    return ""


def _model_at(path: Path) -> type[BaseModel]:
    match path:
        case ("events", _, *_):
            return EventRouting
        case ("groups", _, "features", _, "numerator" | "denominator"):
            return Operand
        case ("groups", _, "features", _, *_):
            return Feature
        case ("groups", _, "on_demand", _, *_):
            return OnDemand
        case ("groups", _, *_):
            return Group
    return Pack


def _field_names(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _choices(path: Path) -> list[str]:
    choices: type[StrEnum]
    if "keys" in path or "key_patterns" in path or path[-1] == "key_type":
        choices = KeyType
    elif "fields" in path:
        choices = FieldType
    elif "request" in path:
        choices = RequestFieldType
    else:
        choices = Aggregation
    return [choice.value for choice in choices]


def parse_part(model: type[BaseModel], data: Any) -> Any:
    """The part as its model, or None where its shape is wrong (`check_shape` has reported that)."""
    try:
        return model.model_validate(data)
    except ValidationError:
        return None
