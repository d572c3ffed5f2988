"""Cells to values, exactly: integers, amounts in minor units, times, yes and no, keys. Pure.

Each function raises ValueError with words that say what is expected and never show the cell.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from urllib.parse import quote

from ofp_platform.tables.table_file import Cell
from ofp_platform.vocabulary.canonical import MAX_INTEGER
from ofp_platform.vocabulary.columns import FIRST_MOMENT, LAST_MOMENT
from ofp_platform.vocabulary.times import to_micros

YES = frozenset({"true", "t", "yes", "y", "1"})
NO = frozenset({"false", "f", "no", "n", "0"})
_NUMBER = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)", re.ASCII)
_MOMENT = re.compile(
    r"(?P<day>\d{4}-\d\d-\d\d)"
    r"(?:[T ](?P<clock>\d\d:\d\d(?::\d\d)?)(?:[.,](?P<fraction>\d{1,9}))?)?"
    r" ?(?P<zone>Z|UTC|[+-]\d\d:?(?:\d\d)?)?",
    re.ASCII,
)
_ZONE = re.compile(r"([+-])(\d\d):?(\d\d)?", re.ASCII)
_KEY_CHARACTERS = "".join(chr(code) for code in range(0x21, 0x7F) if chr(code) != "%")


class TimeFormat(StrEnum):
    """How a column writes a moment: ISO 8601, or a count since 1970."""

    ISO = "iso"
    SECONDS = "epoch_seconds"
    MILLISECONDS = "epoch_milliseconds"
    MICROSECONDS = "epoch_microseconds"


_MICROS = {TimeFormat.SECONDS: 1_000_000, TimeFormat.MILLISECONDS: 1_000, TimeFormat.MICROSECONDS: 1}


def decimal_of(cell: Cell) -> Decimal:
    """A number as it is written; a float as the shortest decimal that reads back as it."""
    if isinstance(cell, bool) or cell is None or isinstance(cell, date):
        raise ValueError("not a number")
    if isinstance(cell, str):
        if _NUMBER.fullmatch(cell.strip()) is None:
            raise ValueError("not a number: digits with at most one point; no thousands separator, no currency")
        return Decimal(cell.strip())
    if isinstance(cell, float) and not math.isfinite(cell):
        raise ValueError("not a number")
    try:
        return Decimal(repr(cell) if isinstance(cell, float) else cell)
    except InvalidOperation:
        raise ValueError("not a number") from None


def minor_units(cell: Cell, digits: int) -> int:
    """A number in units of 10^-digits: 12.34 with two digits is 1234. Nothing is rounded."""
    number = decimal_of(cell)
    units = number.scaleb(digits)
    if units != units.to_integral_value():
        kind = "a whole number" if digits == 0 else f"a number with at most {digits} digits behind the point"
        raise ValueError(f"not {kind}")
    if abs(units) > MAX_INTEGER:
        raise ValueError("beyond ±(2^53 - 1) in its units")
    return int(units)


def boolean(cell: Cell) -> bool:
    """Yes or no: true, t, yes, y, 1 and their opposites, in any case."""
    if isinstance(cell, bool):
        return cell
    text = str(cell).strip().lower()
    if text in YES or text in NO:
        return text in YES
    raise ValueError("not yes or no: true, t, yes, y, 1, or false, f, no, n, 0")


def text(cell: Cell) -> str:
    """A text; a whole number as its digits."""
    if isinstance(cell, str):
        return cell
    if isinstance(cell, int) and not isinstance(cell, bool):
        return str(cell)
    raise ValueError("not a text")


def key(cell: Cell) -> str:
    """A key id: the text, in which what a key cannot hold (blanks, other than printable ASCII, %) is percent-encoded."""
    key_id = quote(text(cell).strip(), safe=_KEY_CHARACTERS)
    if not 1 <= len(key_id) <= 128:
        raise ValueError("not a key: 1 to 128 characters, what is not printable ASCII counting as encoded")
    return key_id


def moment_reader(time_format: TimeFormat, zone: str | None) -> Callable[[Cell], int]:
    """A reader of moments, microseconds since 1970. `zone`: of times that name none, as in +02:00; None: those are refused."""
    offset = None if zone is None else _offset(zone)
    if time_format is TimeFormat.ISO:
        return lambda cell: _in_range(_iso(cell, offset))
    unit = _MICROS[time_format]

    def from_count(cell: Cell) -> int:
        micros = decimal_of(cell) * unit
        if micros != micros.to_integral_value():
            raise ValueError("finer than a microsecond")
        return _in_range(int(micros))

    return from_count


def _in_range(micros: int) -> int:
    if not FIRST_MOMENT <= micros <= LAST_MOMENT:
        raise ValueError("not a time of the years 1 to 9999")
    return micros


def _iso(cell: Cell, offset: timezone | None) -> int:
    if isinstance(cell, datetime):
        return to_micros(_with_zone(cell, offset))
    if isinstance(cell, date):
        return to_micros(_with_zone(datetime(cell.year, cell.month, cell.day), offset))  # noqa: DTZ001 (the zone follows)
    match = _MOMENT.fullmatch(cell.strip()) if isinstance(cell, str) else None
    if match is None:
        raise ValueError("not a time as in 2026-02-04T23:58:20.5Z or 2026-02-04 23:58:20+02:00")
    fraction = (match["fraction"] or "").ljust(6, "0")
    if fraction[6:].strip("0"):
        raise ValueError("finer than a microsecond")
    clock = match["clock"] or "00:00"
    try:
        moment = datetime.fromisoformat(f"{match['day']}T{clock}{':00' if len(clock) == 5 else ''}")
    except ValueError as error:
        raise ValueError(f"not a time: {error}") from None
    moment += timedelta(microseconds=int(fraction[:6]))
    return to_micros(moment.replace(tzinfo=_offset(match["zone"])) if match["zone"] else _with_zone(moment, offset))


def _with_zone(moment: datetime, offset: timezone | None) -> datetime:
    if moment.tzinfo is not None:
        return moment
    if offset is None:
        raise ValueError("a time without a zone: say in which one it is meant, as in zone: +02:00")
    return moment.replace(tzinfo=offset)


def _offset(zone: str) -> timezone:
    if zone in ("Z", "UTC"):
        return UTC
    match = _ZONE.fullmatch(zone)
    if match is None:
        raise ValueError("not a zone: Z, UTC, or an offset as in +02:00")
    span = timedelta(hours=int(match[2]), minutes=int(match[3] or 0))
    if span >= timedelta(hours=24):
        raise ValueError("not an offset of less than a day")
    return timezone(-span if match[1] == "-" else span)
