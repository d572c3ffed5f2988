"""Windows that begin with a local day or month: where they begin, to the microsecond, by the zone data that this package brings.

The zone data are those of the package `tzdata`, never those of the machine: their version is part of the digest of every pack
that has such a window, and the same version gives the same values everywhere.

A local day begins at the first instant whose local date is that date or a later one. So a date that a change of clocks skips has
no day, an hour that comes twice belongs to one day, and a day whose midnight is skipped begins at the first instant behind it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache, lru_cache
from importlib import resources
from zoneinfo import ZoneInfo

import numpy as np
import numpy.typing as npt
import tzdata  # type: ignore[import-untyped]

ZONE_DATA_VERSION: str = tzdata.IANA_VERSION
"""The version of the zone data, as in `2025b`."""

_WINDOW = re.compile(r"(day|month) in (\S{1,64})", re.ASCII)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_SECOND = 1_000_000
_UTC_DAY = 86_400 * _SECOND
# as far as dates go, and a year less: a zone's clock shows another date than UTC's
_FIRST, _LAST = ((datetime(year, 1, 1, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1) for year in (2, 9999))
_LONGEST_DAY = 2 * _UTC_DAY
_LONGEST_MONTH = 32 * _UTC_DAY


class UnknownZone(ValueError):
    """A text that names no zone of the zone data."""


@dataclass(frozen=True, order=True)
class CalendarWindow:
    """From the beginning of the local `unit`, "day" or "month", at the end of the window, in an IANA zone."""

    unit: str
    zone: str

    @property
    def reach(self) -> int:
        """Microseconds that no such window is longer than: a month has 31 days, and clocks were put back by a day at most."""
        return _LONGEST_DAY if self.unit == "day" else _LONGEST_MONTH

    def start(self, time: int) -> int:
        """The first instant of the local day or month of `time`, microseconds."""
        return _start(self, time)

    def starts(self, times: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """int64[n]: `start` of each of `times` int64[n]."""
        table = set()
        for bucket in np.unique(times // _UTC_DAY).tolist():
            start = self.start((bucket + 1) * _UTC_DAY - 1)
            table.add(start)
            while start > bucket * _UTC_DAY:
                start = self.start(start - 1)
                table.add(start)
        starts = np.array(sorted(table), np.int64)
        return starts[np.searchsorted(starts, times, side="right") - 1] if len(times) else times.copy()


def calendar_window(text: str) -> CalendarWindow | None:
    """The window that a text such as `day in Europe/London` names; None: it is no calendar window.

    Raises:
        UnknownZone: the zone data have no such zone.
    """
    match = _WINDOW.fullmatch(text)
    if match is None:
        return None
    if match[2] not in _zone_names():
        raise UnknownZone(
            f"{match[2]!r} is no zone of the IANA zone data {ZONE_DATA_VERSION}; write one such as Europe/London or UTC"
        )
    return CalendarWindow(match[1], match[2])


def window_after(calendar: CalendarWindow | None, window: int, until: int) -> int:
    """The time after which the events of a window stand that ends with `until`, microseconds."""
    return until - window if calendar is None else calendar.start(until) - 1


@cache
def _zone_names() -> frozenset[str]:
    return frozenset(resources.files("tzdata").joinpath("zones").read_text(encoding="utf-8").split())


@cache
def _zone(name: str) -> ZoneInfo:
    with resources.files("tzdata").joinpath("zoneinfo", *name.split("/")).open("rb") as file:
        return ZoneInfo.from_file(file, name)


@lru_cache(maxsize=65_536)
def _first_instant(zone: str, day: date) -> int:
    """The first instant of which the local date is `day` or a later one, microseconds."""
    info = _zone(zone)
    early, late = (
        (datetime(day.year, day.month, day.day, tzinfo=info, fold=fold).astimezone(UTC) - _EPOCH) // timedelta(seconds=1)
        for fold in (0, 1)
    )
    if early <= late:  # its midnight comes once, or twice: then it is the first one
        return early * _SECOND
    low, high = late - 1, early  # the clocks are put on over its midnight, somewhere between
    while high - low > 1:
        middle = (low + high) // 2
        if _local_date(info, middle * _SECOND) >= day:
            high = middle
        else:
            low = middle
    return high * _SECOND


def _local_date(info: ZoneInfo, time: int) -> date:
    return (_EPOCH + timedelta(microseconds=time)).astimezone(info).date()


def _start(window: CalendarWindow, time: int) -> int:
    # outside of the calendar's years there are no zones, and months have no names: days are UTC's
    if not _FIRST <= time < _LAST:
        return time - time % _UTC_DAY
    day = _local_date(_zone(window.zone), time)
    if window.unit == "month":
        day = day.replace(day=1)
        following = (day + timedelta(days=32)).replace(day=1)
    else:
        following = day + timedelta(days=1)
    # an hour that comes again after midnight belongs to the day that has begun
    later = _first_instant(window.zone, following)
    return later if later <= time else _first_instant(window.zone, day)
