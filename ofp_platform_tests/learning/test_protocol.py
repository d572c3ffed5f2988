"""The split in time: labels are waited for, and cards known to be defrauded are no part of the test."""

from datetime import date, timedelta

import pandas as pd
import pytest

from ofp_platform.learning.protocol import Protocol, ProtocolUnmet, split

FIRST = date(2026, 1, 1)
PROTOCOL = Protocol(FIRST, training_days=2, delay_days=3, test_days=2)


def rows(*listed: tuple[int, str, int]) -> pd.DataFrame:
    """(day after FIRST, card, fraud)."""
    return pd.DataFrame([{"day": FIRST + timedelta(days=day), "card": card, "fraud": fraud} for day, card, fraud in listed])


def kept(part: pd.DataFrame) -> list[tuple[int, str]]:
    return [((day - FIRST).days, card) for day, card in zip(part["day"], part["card"], strict=True)]


def test_days_between_training_and_test_belong_to_neither() -> None:
    listed = [(day, f"card-{number}", number % 2) for number, day in enumerate([0, 0, 1, 1, 2, 3, 4, 5, 5, 6, 6, 7])]
    training, test = split(rows(*listed), PROTOCOL)
    assert {day for day, _ in kept(training)} == {0, 1}
    assert {day for day, _ in kept(test)} == {5, 6}


def test_a_card_is_left_out_from_the_day_on_which_its_fraud_is_known() -> None:
    training_days = [(0, "a", 1), (0, "b", 0), (1, "c", 0)]
    # day 1 + delay 3 + 1: known on the morning of day 5; day 2 is known on day 6; day 3 on day 7
    waiting = [(2, "d", 1), (3, "e", 1)]
    tested = [(5, "a", 1), (5, "d", 0), (5, "e", 1), (5, "f", 0), (6, "d", 1), (6, "e", 0), (6, "f", 1)]
    _, test = split(rows(*training_days, *waiting, *tested), PROTOCOL)
    assert kept(test) == [(5, "d"), (5, "e"), (5, "f"), (6, "e"), (6, "f")]


@pytest.mark.parametrize("missing", [0, 5])
def test_one_class_alone_is_refused_in_words(missing: int) -> None:
    listed = [(day, f"card-{number}", int(number % 2 == 1 and day != missing)) for number, day in enumerate([0, 0, 5, 5])]
    with pytest.raises(ProtocolUnmet, match="both classes are needed"):
        split(rows(*listed), PROTOCOL)
