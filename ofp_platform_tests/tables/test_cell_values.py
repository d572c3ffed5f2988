"""Cells to values: exact, or refused without being shown."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from urllib.parse import unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.tables import cell_values
from ofp_platform.tables.cell_values import TimeFormat, boolean, key, minor_units, moment_reader
from ofp_platform.tables.table_file import Cell
from ofp_platform.vocabulary.canonical import MAX_INTEGER
from ofp_platform.vocabulary.times import to_micros


@given(number=st.integers(-MAX_INTEGER, MAX_INTEGER), digits=st.integers(0, 12))
def test_an_amount_is_its_minor_units(number: int, digits: int) -> None:
    text = f"{Decimal(number).scaleb(-digits):f}"
    assert minor_units(text, digits) == number
    assert minor_units(Decimal(text), digits) == number


@pytest.mark.parametrize(
    ("cell", "digits", "value"), [("12.5", 2, 1250), ("+.5", 1, 5), ("7.", 0, 7), (12.34, 2, 1234), (3, 2, 300)]
)
def test_numbers_as_people_write_them(cell: Cell, digits: int, value: int) -> None:
    assert minor_units(cell, digits) == value


@pytest.mark.parametrize("cell", ["1,234.50", "12 EUR", "1e3", "", "٣", True, float("nan"), date(2026, 1, 1), None, "."])
def test_what_is_no_number_is_refused_and_not_shown(cell: Cell) -> None:
    with pytest.raises(ValueError, match="not a number") as caught:
        minor_units(cell, 2)
    assert not isinstance(cell, str) or cell in ("", ".") or cell not in str(caught.value)


def test_nothing_is_rounded_and_nothing_wraps() -> None:
    with pytest.raises(ValueError, match="at most 2 digits"):
        minor_units("1.234", 2)
    with pytest.raises(ValueError, match="whole number"):
        minor_units("1.5", 0)
    with pytest.raises(ValueError, match="beyond"):
        minor_units(str(MAX_INTEGER), 1)


@pytest.mark.parametrize(
    ("cell", "value"), [("Y", True), (" no ", False), ("TRUE", True), (1, True), (False, False), ("f", False)]
)
def test_yes_and_no(cell: Cell, value: bool) -> None:
    assert boolean(cell) is value


@pytest.mark.parametrize("cell", ["2", "maybe", None, 1.5])
def test_neither_yes_nor_no(cell: Cell) -> None:
    with pytest.raises(ValueError, match="not yes or no"):
        boolean(cell)


@given(text=st.text(min_size=1, max_size=12).filter(lambda text: text.strip()))
def test_a_key_can_be_turned_back(text: str) -> None:
    key_id = key(text)
    assert key_id.isascii()
    assert key_id.isprintable()
    assert " " not in key_id
    assert unquote(key_id) == text.strip()


def test_keys_that_are_none() -> None:
    for cell in ("", "   ", "x" * 129, "ä" * 40):
        with pytest.raises(ValueError, match="not a key"):
            key(cell)
    with pytest.raises(ValueError, match="not a text"):
        key(1.5)


@given(
    moment=st.datetimes(datetime(2, 1, 1), datetime(9998, 1, 1)),  # noqa: DTZ001 (the zone is drawn)
    minutes=st.integers(-14 * 60, 14 * 60),
    separator=st.sampled_from("T "),
    colon=st.booleans(),
)
def test_iso_times_of_any_zone(moment: datetime, minutes: int, separator: str, colon: bool) -> None:
    zoned = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    text = zoned.isoformat(separator)
    if not colon:
        text = text[:-3] + text[-2:]
    read = moment_reader(TimeFormat.ISO, None)
    assert read(text) == read(zoned) == to_micros(zoned)
    naive = moment_reader(TimeFormat.ISO, "+02:00")
    assert naive(moment.isoformat()) == to_micros(moment.replace(tzinfo=timezone(timedelta(hours=2))))
    assert naive(text) == to_micros(zoned), "a time that names its zone keeps it"


def test_days_and_short_times() -> None:
    read = moment_reader(TimeFormat.ISO, "UTC")
    midnight = to_micros(datetime(2026, 3, 1, tzinfo=UTC))
    assert read("2026-03-01") == read(date(2026, 3, 1)) == read("2026-03-01 00:00Z") == midnight
    assert read("2026-03-01T00:00:00,5+00") == midnight + 500_000


@pytest.mark.parametrize(
    ("cell", "words"),
    [
        ("2026-03-01 00:00:00", "without a zone"),
        (datetime(2026, 3, 1), "without a zone"),  # noqa: DTZ001 (that is the point)
        ("01.03.2026", "not a time as in"),
        ("2026-02-30T00:00:00Z", "not a time"),
        ("2026-03-01T00:00:00.1234567Z", "finer than a microsecond"),
        ("2026-03-01T00:00:00+25:00", "less than a day"),
        (17, "not a time as in"),
    ],
)
def test_times_that_are_refused(cell: Cell, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        moment_reader(TimeFormat.ISO, None)(cell)


@given(micros=st.integers(0, 4_000_000_000_000_000))
def test_counts_since_1970(micros: int) -> None:
    assert moment_reader(TimeFormat.MICROSECONDS, None)(micros) == micros
    assert moment_reader(TimeFormat.SECONDS, None)(f"{Decimal(micros).scaleb(-6):f}") == micros
    assert moment_reader(TimeFormat.MILLISECONDS, None)(Decimal(micros).scaleb(-3)) == micros


def test_counts_that_are_refused() -> None:
    with pytest.raises(ValueError, match="finer"):
        moment_reader(TimeFormat.MICROSECONDS, None)("1.5")
    with pytest.raises(ValueError, match="years 1 to 9999"):
        moment_reader(TimeFormat.SECONDS, None)(10**12)
    with pytest.raises(ValueError, match="not a zone"):
        cell_values.moment_reader(TimeFormat.ISO, "Europe/Berlin")
