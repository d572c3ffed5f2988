"""The posture of deciding: how much of what a bundle knows may decide now, why, and since when."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.model import Model, Name, PolicyRev, SafeIdentifier, Time
from ofp_platform.vocabulary.offline.build_intent import Integer
from ofp_platform.vocabulary.position import Position
from ofp_platform.vocabulary.serving import Count, Version

POSTURE_CHANGED = "posture_changed"
"""The event type on control."""


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
    """What a mode lets decide. groups: of the bundle's, all or those that are not optional; outcomes: what may come of it."""

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
    at_least: Integer
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


class PostureChange(Model):
    """A change of mode, or of the reasons for it, as control says it; the last one is in force. `held`: an operator's, who alone
    releases it; `bad_since_utc`: from when quiet counts: when something last spoke for a mode as low as this, or it began.
    """

    kind: Literal["posture_change"] = "posture_change"
    contract_version: Version = "v0"
    context_pins: ContextPins
    sequence: Count
    mode: Annotated[Mode, Field(strict=False)]
    held: bool
    reasons: tuple[str, ...] = Field(strict=False, description="signal and bound of each, or the operator's words")
    signals: dict[Name, Integer | None] = Field(description="as they were; null: absent")
    bad_since_utc: Time
    at_utc: Time
    actor: SafeIdentifier
    policy_rev: PolicyRev

    @model_validator(mode="after")
    def _reasoned(self) -> Self:
        if self.held and not self.reasons:
            raise ValueError("a mode that somebody holds has a reason")
        return self

    def wire(self) -> dict[str, Any]:
        """As stored and as control says it."""
        return {**self.model_dump(mode="json", exclude={"context_pins"}), "context_pins": self.context_pins.wire()}

    @property
    def message_id(self) -> str:
        """The id of the message on control: SHA-256 over the canonical bytes of it all."""
        return digest_of(self.wire())


class PostureMessage(PostureChange):
    """A change as it stands on control. `scenario_run_id`: by which control places its messages; of a run that is none of a
    scenario, its run_id.
    """

    scenario_run_id: SafeIdentifier


class PostureInForce(Model):
    """The mode in force, and where control says so; no position: nothing was ever said, and FAIL_CLOSED is in force."""

    mode: Annotated[Mode, Field(strict=False)]
    sequence: Count | None
    position: Position | None

    @model_validator(mode="after")
    def _said(self) -> Self:
        if (self.position is None) != (self.sequence is None) or (self.position is None and self.mode is not Mode.FAIL_CLOSED):
            raise ValueError("a mode but FAIL_CLOSED is in force only where control says so")
        return self


NOTHING_SAID = PostureInForce(mode=Mode.FAIL_CLOSED, sequence=None, position=None)
"""What is in force where nobody ever said anything."""
