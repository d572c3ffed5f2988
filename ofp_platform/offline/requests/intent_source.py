"""The text of an intent, JSON or YAML, as plain data. What cannot be read is refused in words that echo no value."""

from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from ruamel.yaml import YAML
from ruamel.yaml.constructor import DuplicateKeyError, SafeConstructor
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.events import AliasEvent, CollectionEndEvent, CollectionStartEvent

from ofp_platform.vocabulary.model import is_digest
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.raw_identifier import holds_raw_identifier, redact

MAX_CHARACTERS = 8_000_000
MAX_DEPTH = 32
_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}", re.ASCII)
# positions in a log and the seed are numbers of any length by nature, and never shown to anybody as a key
_NUMBERS = {"offset", "start", "next", "seed"}
_PROSE = {"note"}

Path = tuple[str | int, ...]


class _PlainConstructor(SafeConstructor):
    """Times stay the text that was written, as in JSON."""


_PlainConstructor.add_constructor("tag:yaml.org,2002:timestamp", SafeConstructor.construct_yaml_str)


def refuse(message: str, path: Path = (), reason: BuildReason = BuildReason.INVALID_INTENT) -> NoReturn:
    """Raise the refusal of a field."""
    raise BuildRefused(reason, message, field_path(path))


def field_path(path: Path) -> str:
    """('scope', 'filters', 0, 'field') as scope.filters.0.field; a name that is no plain word is shown as '?'."""
    return ".".join(str(part) if isinstance(part, int) or _WORD.fullmatch(part) else "?" for part in path)


def read_data(text: str) -> dict[str, Any]:
    """One JSON or YAML object as plain data, free of raw identifiers and of text that cannot be stored.

    Raises:
        BuildRefused: INVALID_INTENT.
    """
    if len(text) > MAX_CHARACTERS:
        refuse(f"longer than {MAX_CHARACTERS} characters")
    try:
        data = _from_json(text) if text.lstrip()[:1] == "{" else _from_yaml(text)
        if not isinstance(data, dict):
            refuse("an intent is an object: fields and their values")
        _check(data, ())
    except RecursionError:
        refuse("nested too deeply")
    return data


def _from_json(text: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        fields: dict[str, Any] = {}
        for name, value in pairs:
            if name in fields:
                refuse("a field is written twice", (name,))
            fields[name] = value
        return fields

    def not_a_number(name: str) -> NoReturn:
        refuse(f"{name} is no number of JSON")

    try:
        return json.loads(text, object_pairs_hook=unique, parse_constant=not_a_number)
    except json.JSONDecodeError as error:
        refuse(f"not JSON: line {error.lineno}, column {error.colno}: {error.msg}")
    except ValueError:
        refuse("not JSON: a number is too long")


def _from_yaml(text: str) -> Any:
    try:
        _check_yaml_events(text)
        yaml = YAML(typ="safe", pure=True)
        yaml.Constructor = _PlainConstructor
        return yaml.load(text)
    except DuplicateKeyError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        refuse(f"line {line}: a field is written twice")
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        problem = redact(str(error.problem or error.context or "cannot be read"))
        refuse(f"not YAML: line {mark.line + 1 if mark else 1}: {problem}")
    except (YAMLError, ValueError, TypeError, AttributeError, KeyError):
        # a value that its YAML tag does not allow ends in any of these
        refuse("not YAML")


def _check_yaml_events(text: str) -> None:
    """Refuse what makes a short text long: aliases, and depths that take the parser minutes."""
    depth = 0
    for event in YAML(typ="safe", pure=True).parse(text):
        if isinstance(event, AliasEvent):
            refuse("not used in intents: YAML aliases")
        depth += isinstance(event, CollectionStartEvent) - isinstance(event, CollectionEndEvent)
        if depth > MAX_DEPTH:
            refuse("nested too deeply")


def _check(value: Any, path: Path) -> None:
    if isinstance(value, dict):
        for name, item in value.items():
            if not isinstance(name, str):
                refuse("a field name must be a text", path)
            _check_text(name, (*path, name))
            _check(item, (*path, name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            _check(item, (*path, index))
    elif isinstance(value, str):
        _check_text(value, path)
    elif isinstance(value, int) and not isinstance(value, bool):
        if path[-1] not in _NUMBERS and holds_raw_identifier(str(abs(value))):
            _refuse_raw(path)
    elif value is not None and not isinstance(value, bool | float):
        refuse("a value must be a text, a number, true, false, null, a list or an object", path)


def _check_text(text: str, path: Path) -> None:
    if "\0" in text or (not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text)):
        refuse("a character that is not allowed in text", path)
    if path[-1] in _NUMBERS or is_digest(text):
        return
    if holds_raw_identifier(text) or (path[-1] in _PROSE and holds_raw_identifier(text)):
        _refuse_raw(path)


def _refuse_raw(path: Path) -> NoReturn:
    refuse("a raw identifier (13 to 19 digits, Luhn check passed) is refused everywhere; send the entity id", path)
