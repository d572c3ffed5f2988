"""The modes of deciding, what each lets decide, and the policy of a profile that says when they change."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from ofp_platform.vocabulary.canonical import MAX_INTEGER
from ofp_platform.vocabulary.model import Model, Name
from ofp_platform.vocabulary.serving import Count

SignalValue = Annotated[int, Field(ge=-MAX_INTEGER, le=MAX_INTEGER)]


class Mode(StrEnum):
    """From all that a bundle knows down to nothing of it."""

    NORMAL = "NORMAL"
    REDUCED = "REDUCED"
    RULES_ONLY = "RULES_ONLY"
    HOLD = "HOLD"
    FAIL_CLOSED = "FAIL_CLOSED"

    @property
    def depth(self) -> int:
        """Steps below NORMAL."""
        return list(Mode).index(self)

    def below(self) -> Mode:
        """The next lower mode; FAIL_CLOSED has none and stays."""
        return list(Mode)[min(self.depth + 1, len(Mode) - 1)]

    def above(self) -> Mode:
        """The next higher mode; NORMAL has none and stays."""
        return list(Mode)[max(self.depth - 1, 0)]


class Mask(Model):
    """The part of a bundle that a mode lets decide. groups: of the bundle's, all or those that are not optional; outcomes: what
    may come of it.
    """

    groups: Literal["all", "required", "none"]
    model: bool
    identity: bool
    outcomes: Literal["decided", "review", "fail_closed"]


MASKS = {
    Mode.NORMAL: Mask(groups="all", model=True, identity=True, outcomes="decided"),
    Mode.REDUCED: Mask(groups="required", model=True, identity=True, outcomes="decided"),
    Mode.RULES_ONLY: Mask(groups="required", model=False, identity=False, outcomes="decided"),
    Mode.HOLD: Mask(groups="none", model=False, identity=False, outcomes="review"),
    Mode.FAIL_CLOSED: Mask(groups="none", model=False, identity=False, outcomes="fail_closed"),
}
"""Of each mode."""


class Threshold(Model):
    """A signal that reaches `at_least` asks for a mode no higher than `mode`."""

    signal: Name
    at_least: SignalValue
    mode: Annotated[Mode, Field(strict=False)]


class PosturePolicy(Model):
    """When modes change. A signal that is absent counts as bad: as `absent` says. `quiet_seconds`: without a reason to be as low,
    before one step up.
    """

    thresholds: tuple[Threshold, ...] = Field(default=(), strict=False)
    absent: Annotated[Mode, Field(strict=False)] = Mode.RULES_ONLY
    quiet_seconds: Count = 60
    fail_closed: Literal["decline", "review"] = "review"

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals that it asks for, sorted."""
        return tuple(sorted({threshold.signal for threshold in self.thresholds}))
