"""Local days and months: where they begin, against a minute-by-minute oracle and against known nights."""

from __future__ import annotations

import zoneinfo
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofp_platform.registry import calendar_windows, pack
from ofp_platform.registry.calendar_windows import CalendarWindow, UnknownZone, calendar_window, window_after
from ofp_platform.registry.pack import load_pack, pack_content, pack_digest
from ofp_platform.registry.pack_text import PackErrors
from ofp_platform_tests.oracle.fold import MINUTE, calendar_begin, micros, time_text

HOUR = 60 * MINUTE
NIGHTS = {
    # the clocks are put on at 1:00, and back at 2:00
    ("day in Europe/London", "2026-03-29T23:30:00Z"): "2026-03-29T23:00:00Z",
    ("day in Europe/London", "2026-03-29T22:59:59.999999Z"): "2026-03-29T00:00:00Z",
    ("day in Europe/London", "2026-10-25T23:59:59Z"): "2026-10-24T23:00:00Z",
    ("month in Europe/London", "2026-03-31T23:00:00Z"): "2026-03-31T23:00:00Z",
    ("month in Europe/London", "2026-03-31T22:59:59.999999Z"): "2026-03-01T00:00:00Z",
    # put on at midnight: the day begins at 1:00
    ("day in America/Sao_Paulo", "2018-11-04T12:00:00Z"): "2018-11-04T03:00:00Z",
    ("day in America/Sao_Paulo", "2018-11-04T02:59:59Z"): "2018-11-03T03:00:00Z",
    # put back at 1:00 to midnight: of both midnights the first one
    ("day in America/Havana", "2025-11-02T05:30:00Z"): "2025-11-02T04:00:00Z",
    # put back at 0:01 to 23:01 of the day before: the day that has begun goes on
    ("day in America/St_Johns", "2006-10-29T03:00:00Z"): "2006-10-29T02:30:00Z",
    # put on at 23:30 over midnight
    ("day in America/Toronto", "1919-03-31T12:00:00Z"): "1919-03-31T04:30:00Z",
    # the 30th was skipped
    ("day in Pacific/Apia", "2011-12-30T09:59:59Z"): "2011-12-29T10:00:00Z",
    ("day in Pacific/Apia", "2011-12-30T10:00:00Z"): "2011-12-30T10:00:00Z",
    ("month in UTC", "2024-02-29T23:59:59Z"): "2024-02-01T00:00:00Z",
    # a rule of the far future, and a mean time of the past with seconds
    ("day in Europe/London", "2090-07-01T12:00:00Z"): "2090-06-30T23:00:00Z",
    ("day in Europe/Paris", "1850-01-01T12:00:00Z"): "1849-12-31T23:50:39Z",
}


def window(text: str) -> CalendarWindow:
    found = calendar_window(text)
    assert found is not None
    return found


@pytest.mark.parametrize(("text", "time"), NIGHTS)
def test_a_day_begins_where_the_clock_first_shows_it(text: str, time: str) -> None:
    assert time_text(window(text).start(micros(time))) == NIGHTS[text, time]
    assert window_after(window(text), 0, micros(time)) == micros(NIGHTS[text, time]) - 1


@settings(max_examples=30)
@given(
    st.sampled_from(
        ("UTC", "Europe/London", "America/St_Johns", "America/Havana", "Pacific/Apia", "America/Sao_Paulo", "Africa/Cairo")
    ),
    st.sampled_from(("day", "month")),
    st.lists(st.integers(micros("2005-01-01T00:00:00Z"), micros("2028-01-01T00:00:00Z")), min_size=1, max_size=2),
)
def test_the_beginning_is_the_oracle_s(zone: str, unit: str, times: list[int]) -> None:
    calendar = CalendarWindow(unit, zone)
    for time in times:
        start = calendar.start(time)
        assert start == calendar_begin(unit, zone, time // MINUTE)
        assert start <= time < start + calendar.reach
    assert calendar.starts(np.array(times, np.int64)).tolist() == [calendar.start(time) for time in times]


def test_the_oracle_has_the_zone_data_of_the_package() -> None:
    for zone in ("America/Havana", "Africa/Cairo", "Pacific/Apia"):
        for time in range(micros("2026-10-20T00:00:00Z"), micros("2026-11-10T00:00:00Z"), 3_600_000_000):
            assert CalendarWindow("day", zone).start(time) == calendar_begin("day", zone, time // MINUTE)


@given(st.data())
def test_many_times_begin_as_each_alone(data: st.DataObject) -> None:
    calendar = CalendarWindow(data.draw(st.sampled_from(("day", "month"))), data.draw(st.sampled_from(sorted(TURNS))))
    turn = micros(TURNS[calendar.zone])
    times = data.draw(st.lists(st.integers(turn - 60 * HOUR, turn + 60 * HOUR), max_size=30))
    assert calendar.starts(np.array(times, np.int64)).tolist() == [calendar.start(time) for time in times]


TURNS = {
    "Europe/London": "2026-03-29T01:00:00Z",
    "America/St_Johns": "2006-10-29T02:31:00Z",
    "Pacific/Apia": "2011-12-30T10:00:00Z",
    "America/Toronto": "1919-03-31T04:30:00Z",
}


def test_times_without_a_calendar_have_days_of_utc() -> None:
    for time in (micros("0001-01-01T05:00:00Z"), micros("9999-12-31T05:00:00Z"), -(2**62), 2**62):
        start = window("month in Europe/Paris").start(time)
        assert (start % (24 * HOUR), 0 <= time - start < 24 * HOUR) == (0, True)


def test_a_zone_is_one_of_the_zone_data_of_the_package_and_of_no_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for zone in ("Mars/Olympus", "europe/london", "../UTC", "/etc/localtime", "localtime", "+01:00"):
        with pytest.raises(UnknownZone, match="is no zone of the IANA zone data"):
            calendar_window(f"day in {zone}")
    for text in ("1d", "day", "day in", "week in UTC", "day  in UTC", "Day in UTC"):
        assert calendar_window(text) is None
    monkeypatch.setattr(zoneinfo, "TZPATH", ())
    calendar_windows._zone.cache_clear()
    calendar_windows._first_instant.cache_clear()
    assert window("day in Asia/Tokyo").start(micros("2026-01-01T15:00:00Z")) == micros("2026-01-01T15:00:00Z")


PACK = """
pack_id: days
revision: 1
events:
  p: {keys: {account: account_id}}
groups:
  - {name: g, version: v1, key_type: account, ttl_seconds: 60, features: [{name: f, aggregation: count, events: [p], window: %s}]}
"""


def test_the_version_of_the_zone_data_is_part_of_the_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    days, hours = load_pack(PACK % "day in Europe/London"), load_pack(PACK % "24h")
    feature = pack_content(days)["groups"][0]["features"][0]
    assert feature["calendar"] == {"unit": "day", "zone": "Europe/London", "zone_data": calendar_windows.ZONE_DATA_VERSION}
    assert feature["window"] == 48 * HOUR
    digests = pack_digest(days), pack_digest(hours)
    monkeypatch.setattr(pack, "ZONE_DATA_VERSION", "another")
    assert pack_digest(days) != digests[0]
    assert pack_digest(hours) == digests[1]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("day in Mars/Olympus", "'Mars/Olympus' is no zone of the IANA zone data"),
        ("day", "'day' is no window: write day or month, in, and a zone, as in 'day in Europe/London'"),
        ("months in UTC", "is no window: write day or month"),
        ("week in UTC", "is not a duration"),
        ("0s", "a window of 0 holds nothing"),
    ],
)
def test_a_window_that_is_none_is_refused_at_its_line(text: str, words: str) -> None:
    with pytest.raises(PackErrors, match=r"<pack>:7: groups\[0\].features\[0\].window: ") as caught:
        load_pack(PACK % text)
    assert words in str(caught.value)


def test_a_delay_has_no_calendar() -> None:
    with pytest.raises(PackErrors, match="delay"):
        load_pack(PACK % "1d, delay: day in UTC")


def test_the_oracle_of_days_is_right_about_a_night() -> None:
    start = datetime(2026, 3, 29, 12, tzinfo=UTC) - timedelta(hours=12)
    assert calendar_begin("day", "Europe/London", micros("2026-03-29T12:00:00Z") // MINUTE) == int(start.timestamp()) * 1_000_000
