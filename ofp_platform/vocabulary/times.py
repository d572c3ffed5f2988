"""Time: int64 microseconds since the epoch, UTC; RFC 3339 with ``Z`` on the wire.

Seven or more fractional digits, a missing or other zone and a leap second are refused, never rounded.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

MICROS_PER_SECOND = 1_000_000
MAX_DURATION = 2**53 - 1
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_PATTERN = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z", re.ASCII)
_SECOND = slice(17, 19)
_WHOLE_SECONDS, _WITH_MICROS = len("2026-01-01T00:00:00Z"), len("2026-01-01T00:00:00.000001Z")
_DURATION = re.compile(r"(\d+)(us|ms|s|m|h|d)", re.ASCII)
_UNITS = {"us": 1, "ms": 1_000, "s": 1_000_000, "m": 60_000_000, "h": 3_600_000_000, "d": 86_400_000_000}
TIME_PATTERN = r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,6})?Z$"


def parse_time(text: str) -> int:
    """RFC 3339 text to microseconds since the epoch.

    Raises:
        ValueError: the text is not a time with ``Z`` and at most 6 fractional digits.
    """
    if _PATTERN.fullmatch(text) is None:
        raise ValueError(f"{text[:40]!r} is not an RFC 3339 UTC time with 'Z' and at most 6 fractional digits")
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        if text[_SECOND] == "60":
            raise ValueError(f"{text!r} is a leap second; send the second before or after it") from None
        raise ValueError(f"{text!r} is not a time: {error}") from None
    return to_micros(moment)


def to_micros(moment: datetime) -> int:
    """An aware datetime to microseconds since the epoch (exact: no float on the way)."""
    if moment.tzinfo is None:
        raise ValueError(f"{moment!r} has no zone")
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * MICROS_PER_SECOND + delta.microseconds


def to_datetime(micros: int) -> datetime:
    """Microseconds since the epoch to an aware UTC datetime."""
    return _EPOCH + timedelta(microseconds=micros)


def format_time(micros: int) -> str:
    """Microseconds to the one canonical text: no fraction when it is zero, else exactly 6 digits."""
    return to_datetime(micros).isoformat().removesuffix("+00:00") + "Z"


def is_canonical(text: str) -> bool:
    """Whether a text that `parse_time` reads is the one that `format_time` gives: no fraction, or 6 digits, not all zero."""
    return len(text) == _WHOLE_SECONDS or (len(text) == _WITH_MICROS and not text.endswith(".000000Z"))


def parse_duration(text: str) -> int:
    """``"5m"``, ``"24h"``, ``"30d"`` to microseconds.

    Raises:
        ValueError: not a whole, non-negative number followed by one of us, ms, s, m, h, d, or above 2^53-1 us.
    """
    match = _DURATION.fullmatch(text)
    if match is None:
        raise ValueError(f"{text!r} is not a duration: write a whole number and one of us, ms, s, m, h, d, as in '24h'")
    micros = int(match.group(1)) * _UNITS[match.group(2)]
    if micros > MAX_DURATION:
        raise ValueError(f"{text[:40]!r} is longer than 285 years")
    return micros


def format_duration(micros: int) -> str:
    """Microseconds to the text that `parse_duration` reads, in the largest unit that divides them."""
    for unit, size in (("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000)):
        if micros % size == 0 and (micros or unit == "s"):
            return f"{micros // size}{unit}"
    return f"{micros}us"
