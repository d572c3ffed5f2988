"""A training protocol in time: train on some days, wait until their labels are known, test on the days after.

It is that of the Fraud Detection Handbook: between training and test lies the delay with which frauds become known, and cards
known to be defrauded by the morning of a test day are no part of that day's test.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, timedelta

import pandas as pd


@dataclass(frozen=True)
class Protocol:
    """Days of UTC. `first_day` is the first of training."""

    first_day: date
    training_days: int = 7
    delay_days: int = 7
    test_days: int = 7

    @property
    def first_test_day(self) -> date:
        """The first day of test."""
        return self.first_day + timedelta(days=self.training_days + self.delay_days)


HANDBOOK = Protocol(first_day=date(2018, 7, 25))


class ProtocolUnmet(Exception):
    """The dataset does not hold what the protocol needs; the text says what."""


def split(rows: pd.DataFrame, protocol: Protocol) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Training and test rows. `rows` has `day` (datetime.date), `card` and `fraud` (0 or 1) beside the features.

    Raises:
        ProtocolUnmet: there is no row, or only one class, in training or in test.
    """
    by_day = dict(list(rows.groupby("day", sort=True)))
    no_rows = rows.iloc[:0]

    def days(first: date, count: int) -> list[pd.DataFrame]:
        return [by_day.get(first + timedelta(days=number), no_rows) for number in range(count)]

    training = pd.concat(days(protocol.first_day, protocol.training_days))
    known_fraud_cards = set(training.loc[training["fraud"] == 1, "card"])
    test_parts = []
    after_training = protocol.first_day + timedelta(days=protocol.training_days)
    for number, part in enumerate(days(protocol.first_test_day, protocol.test_days)):
        # what happened one delay ago and a day is known by this morning
        reported_rows = by_day.get(after_training + timedelta(days=number - 1), no_rows)
        known_fraud_cards |= set(reported_rows.loc[reported_rows["fraud"] == 1, "card"])
        test_parts.append(part[~part["card"].isin(known_fraud_cards)])
    test = pd.concat(test_parts)
    for name, part in (("training", training), ("test", test)):
        if part["fraud"].nunique() != 2:
            raise ProtocolUnmet(
                f"{name} from {protocol.first_day if name == 'training' else protocol.first_test_day} on has {len(part)} rows"
                f" with {int(part['fraud'].sum())} frauds: both classes are needed"
            )
    return training, test
