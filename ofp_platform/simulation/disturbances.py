"""Faults between producers and a log, made on purpose and counted.

The first group changes no value: copies, retries (and late events and disorder, which come from the delays). The second
is events that a projection must not apply, or must report: each is a copy of a true payment under an id of its own, but
for the conflicts, which are another payload under the id of a true payment.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Disturbances:
    """How many of each.

    duplicates: the same envelope appended again. retries: the same event, sent again with a later emitted_at_utc.
    future: an event time in 2099. wrong_type: an amount as a string or with a fraction.
    missing_field: no merchant_id, or no amount_minor.
    foreign_pins: an event of a run that is not active here. conflicts: the id of another payment with another amount;
    none unless asked for, since no training set is made of a log that holds one.
    """

    duplicates: int = 40
    retries: int = 40
    future: int = 4
    wrong_type: int = 4
    missing_field: int = 4
    foreign_pins: int = 4
    conflicts: int = 0

    def __post_init__(self) -> None:
        if min(vars(self).values()) < 0:
            raise ValueError("a count of disturbances is 0 or more")

    @classmethod
    def none(cls) -> Disturbances:
        """Every event once."""
        return cls(duplicates=0, retries=0, future=0, wrong_type=0, missing_field=0, foreign_pins=0, conflicts=0)

    @property
    def total(self) -> int:
        """Records beside the true events."""
        return sum(vars(self).values())
