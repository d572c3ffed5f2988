"""Canonical bytes and their digests.

Two encoders. `canonical_bytes` is the fast one for what the plane itself makes (the integers-only profile: no floats,
integers within 2^53-1, ASCII keys); there, sorted keys give the bytes of RFC 8785. `jcs_bytes` is the whole of
RFC 8785, for payloads, which may hold any I-JSON. The tests hold the two against each other and the second against the
public vectors.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import orjson

MAX_INTEGER = 2**53 - 1
MAX_DEPTH = 128
_FAST = orjson.OPT_SORT_KEYS | orjson.OPT_STRICT_INTEGER | orjson.OPT_PASSTHROUGH_DATETIME


def canonical_bytes(value: Any) -> bytes:
    """RFC 8785 bytes of a value inside the integers-only profile.

    Raises:
        TypeError: an integer beyond 2^53-1 or a type that JSON does not have.
    """
    return orjson.dumps(value, option=_FAST)


def sha256_hex(data: bytes) -> str:
    """SHA-256 as 64 lower-case hex digits."""
    return hashlib.sha256(data).hexdigest()


def digest_of(value: Any) -> str:
    """SHA-256 over the canonical bytes of a value in the integers-only profile."""
    return sha256_hex(canonical_bytes(value))


def jcs_bytes(value: Any) -> bytes:
    """RFC 8785 bytes of any I-JSON value.

    Raises:
        ValueError: NaN, an infinity, an integer beyond 2^53-1, a lone surrogate, more than MAX_DEPTH levels.
        TypeError: a type that JSON does not have, or a key that is not a string.
    """
    parts: list[str] = []
    _write(value, parts, 0)
    return "".join(parts).encode("utf-8")


def _write(value: Any, parts: list[str], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"nested more than {MAX_DEPTH} levels deep")
    if value is None:
        parts.append("null")
    elif value is True:
        parts.append("true")
    elif value is False:
        parts.append("false")
    elif isinstance(value, str):
        parts.append(_string(value))
    elif isinstance(value, int):
        if abs(value) > MAX_INTEGER:
            raise ValueError(f"integer {value} is beyond 2^53-1; send it as a string")
        parts.append(str(value))
    elif isinstance(value, float):
        parts.append(_number(value))
    elif isinstance(value, (list, tuple)):
        parts.append("[")
        for index, item in enumerate(value):
            if index:
                parts.append(",")
            _write(item, parts, depth + 1)
        parts.append("]")
    elif isinstance(value, dict):
        parts.append("{")
        for index, key in enumerate(sorted(value, key=_utf16)):
            if index:
                parts.append(",")
            parts.append(_string(key))
            parts.append(":")
            _write(value[key], parts, depth + 1)
        parts.append("}")
    else:
        raise TypeError(f"{type(value).__name__} is not a JSON type")


def _utf16(key: str) -> bytes:
    if not isinstance(key, str):
        raise TypeError(f"object key {key!r} is not a string")
    return key.encode("utf-16-be", "surrogatepass")


def _string(text: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("a lone surrogate is not I-JSON") from None
    return json.dumps(text, ensure_ascii=False)


def _number(number: float) -> str:
    """ECMAScript's Number::toString, from Python's shortest round-trip digits."""
    if not math.isfinite(number):
        raise ValueError(f"{number} is not I-JSON")
    if number == 0:
        return "0"
    sign = "-" if number < 0 else ""
    mantissa, _, exponent_text = repr(abs(number)).partition("e")
    whole, _, fraction = mantissa.partition(".")
    digits = (whole + fraction).lstrip("0")
    point = int(exponent_text or 0) + len(whole) - (len(whole + fraction) - len(digits))
    digits = digits.rstrip("0")
    count = len(digits)
    if count <= point <= 21:
        return sign + digits + "0" * (point - count)
    if 0 < point <= 21:
        return f"{sign}{digits[:point]}.{digits[point:]}"
    if -6 < point <= 0:
        return f"{sign}0.{'0' * -point}{digits}"
    power = point - 1
    tail = f".{digits[1:]}" if count > 1 else ""
    return f"{sign}{digits[0]}{tail}e{'+' if power > 0 else '-'}{abs(power)}"
