"""JSON texts from outside, read so that a parser hides nothing of them.

A parser keeps the last of two equal names, rounds an integer that is too long for it, takes `NaN`: what it made of the text
is then fine, and what was sent was not. A text is parsed fast, and read again, slowly, where something may have been hidden.
"""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn

import orjson

from ofp_platform.vocabulary.canonical import MAX_INTEGER

_SHOWN_NAME = re.compile(r"[A-Za-z_]{1,64}", re.ASCII)
_MOST_DIGITS = 400  # of an integer; longer ones take Python long to read, and no double is as great


class NotJson(ValueError):
    """The text is not JSON; the message shows nothing of it. `what` it is, in short, and `where` the parser stopped."""

    def __init__(self, problem: str, where: str = "") -> None:
        self.what = problem
        super().__init__(f"{problem}: {where}" if where else problem)


class NotIJson(ValueError):
    """The text is JSON of which parsers make different things (RFC 7493); the message says why, and shows no value of it."""


def read_json(text: bytes) -> Any:
    """The value of a JSON text in which nothing is doubled, unreadable or rounded away. Integers are exact, of any length.

    Raises:
        NotJson | NotIJson: see there.
    """
    try:
        value = orjson.loads(text)
    except orjson.JSONDecodeError:
        return _read_slowly(text)
    if _is_its_own_text(value, text) or (b"\\" not in text and text.count(b":") == _colons(value)):
        return value
    return _read_slowly(text)


def holds_nul(value: Any) -> bool:
    """Whether a text or a name in the value holds U+0000, which PostgreSQL keeps in no text. Aliases of a value count again."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str):
            if "\0" in item:
                return True
        elif isinstance(item, dict):
            pending.extend(item)
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
    return False


def _is_its_own_text(value: Any, text: bytes) -> bool:
    """Whether the value is written so: then the text has nothing that the value has not."""
    try:
        return orjson.dumps(value) == text
    except TypeError:  # nested deeper than the encoder goes
        return False


def _colons(value: Any) -> int:
    """How many colons stand in a text of the value: one per member, and those in names and texts.

    A text without escapes that has as many holds nothing else, whatever its blanks: no name was doubled. -1 where a number in the
    value may have been an integer in the text.
    """
    count = 0
    pending = [value]
    for item in pending:
        kind = type(item)
        if kind is str:
            count += item.count(":")
        elif kind is dict:
            count += len(item) + "".join(item).count(":")
            pending.extend(item.values())
        elif kind is list:
            pending.extend(item)
        elif kind is float and not -MAX_INTEGER <= item <= MAX_INTEGER:
            return -1
    return count


def _read_slowly(text: bytes) -> Any:
    try:
        characters = text.decode("utf-8")
    except UnicodeDecodeError:
        raise NotJson("not UTF-8 text") from None
    if characters.startswith("\ufeff"):
        raise NotJson("begins with a byte order mark")
    try:
        value = json.loads(
            characters, object_pairs_hook=_object, parse_constant=_constant, parse_float=_float, parse_int=_integer
        )
        json.dumps(value, ensure_ascii=False).encode("utf-8")
    except json.JSONDecodeError as error:
        raise NotJson("not JSON", f"{error.msg}: line {error.lineno}, column {error.colno}") from None
    except UnicodeEncodeError:
        raise NotIJson("a lone surrogate, which no text may hold") from None
    except RecursionError:
        raise NotIJson("nested too deeply") from None
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) == len(pairs):
        return members
    names = set()
    for name, _ in pairs:
        if name in names:
            shown_name = f"the name {name}" if _SHOWN_NAME.fullmatch(name) else "a name that is not shown"
            raise NotIJson(f"{shown_name} stands twice in one object")
        names.add(name)
    raise AssertionError("fewer members than pairs, and none doubled")


def _constant(name: str) -> NoReturn:
    raise NotIJson(f"{name} is no number of JSON")


def _float(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise NotIJson("a number that is greater than the greatest double")
    return number


def _integer(text: str) -> int:
    if len(text) > _MOST_DIGITS:
        raise NotIJson("an integer beyond 2^53-1; send it as a text")
    return int(text)
