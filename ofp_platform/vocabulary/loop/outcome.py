"""Outcomes of decisions."""

from __future__ import annotations

from enum import StrEnum


class Outcome(StrEnum):
    """What the caller is told to do with the payment."""

    APPROVE = "approve"
    REVIEW = "review"
    DECLINE = "decline"

    @property
    def severity(self) -> int:
        """From 0, for the mildest."""
        return list(Outcome).index(self)
