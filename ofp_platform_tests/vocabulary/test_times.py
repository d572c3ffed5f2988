from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.vocabulary.times import (
    MAX_DURATION,
    format_duration,
    format_time,
    is_canonical,
    parse_duration,
    parse_time,
    to_datetime,
    to_micros,
)

FIRST = to_micros(datetime(1, 1, 1, tzinfo=UTC))
LAST = to_micros(datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC))
micros = st.integers(FIRST, LAST)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:00.000001Z", 1),
        ("1970-01-01T00:00:00.1Z", 100_000),
        ("1970-01-01T00:00:00.10Z", 100_000),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("2000-02-29T00:00:00Z", 951_782_400_000_000),
        ("2026-01-02T03:04:05.678901Z", 1_767_323_045_678_901),
        ("0001-01-01T00:00:00Z", FIRST),
        ("9999-12-31T23:59:59.999999Z", LAST),
    ],
)
def test_parse(text: str, expected: int) -> None:
    assert parse_time(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "2026-01-02",
        "2026-01-02T03:04:05",  # no zone
        "2026-01-02T03:04:05+00:00",
        "2026-01-02T03:04:05.Z",
        "2026-01-02T03:04:05.1234567Z",  # seven digits
        "2026-01-02T03:04:05.123456789Z",
        "2026-01-02t03:04:05z",
        "2026-01-02 03:04:05Z",
        " 2026-01-02T03:04:05Z",
        "2026-01-02T03:04:05Z\n",
        "2016-12-31T23:59:60Z",  # a leap second
        "2026-02-29T00:00:00Z",
        "2026-13-01T00:00:00Z",
        "2026-01-02T24:00:00Z",
        "0000-01-01T00:00:00Z",
        "10000-01-01T00:00:00Z",
        "٢٠٢٦-01-02T03:04:05Z",  # digits, but not ASCII ones
    ],
)
def test_refused_and_never_rounded(text: str) -> None:
    with pytest.raises(ValueError):
        parse_time(text)


@pytest.mark.parametrize("second", ["60", "60.5"])
def test_a_leap_second_is_called_one(second: str) -> None:
    with pytest.raises(ValueError, match="is a leap second"):
        parse_time(f"2016-12-31T23:59:{second}Z")
    with pytest.raises(ValueError, match="is not a time"):
        parse_time("2016-12-31T23:59:61Z")


@given(micros)
def test_round_trip(value: int) -> None:
    assert parse_time(format_time(value)) == value
    assert to_micros(to_datetime(value)) == value


@given(micros)
def test_one_text_per_moment(value: int) -> None:
    text = format_time(value)
    assert ("." in text) == (value % 1_000_000 != 0)
    assert len(text) in (20, 27)


@given(micros, micros)
def test_seconds_sort_as_their_texts(left: int, right: int) -> None:
    left, right = left // 1_000_000 * 1_000_000, right // 1_000_000 * 1_000_000
    assert (left < right) == (format_time(left) < format_time(right))


def test_datetimes_need_a_zone_and_may_have_any() -> None:
    with pytest.raises(ValueError, match="zone"):
        to_micros(datetime(2026, 1, 1))  # noqa: DTZ001
    assert to_micros(datetime(1970, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))) == 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0s", 0),
        ("1us", 1),
        ("1ms", 1_000),
        ("5m", 300_000_000),
        ("24h", 86_400_000_000),
        ("30d", 2_592_000_000_000),
        ("0000000000000000000000005s", 5_000_000),
        (f"{MAX_DURATION}us", MAX_DURATION),
    ],
)
def test_durations(text: str, expected: int) -> None:
    assert parse_duration(text) == expected


@pytest.mark.parametrize(
    "text", ["", "5", "m", "-1s", "1.5h", "1 h", "1w", "1H", "٥s", "1s\n", f"{MAX_DURATION + 1}us", "9" * 5000 + "d"]
)
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError):
        parse_duration(text)


def test_durations_end_where_json_integers_do() -> None:
    assert MAX_DURATION == 9_007_199_254_740_991


@given(st.integers(0, 2**53 - 1))
def test_a_duration_comes_back_from_its_text(micros: int) -> None:
    assert parse_duration(format_duration(micros)) == micros


@given(st.one_of(micros, micros.map(lambda value: value // 1_000_000 * 1_000_000)), st.integers(0, 6))
def test_one_text_of_a_time_is_canonical(value: int, digits: int) -> None:
    text = format_time(value)
    assert is_canonical(text)
    whole, _, fraction = text.removesuffix("Z").partition(".")
    cut = f"{whole}.{fraction.ljust(6, '0')[:digits]}Z" if digits else f"{whole}Z"
    assert is_canonical(cut) is (format_time(parse_time(cut)) == cut)
