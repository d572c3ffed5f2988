"""The posture of deciding: how much of what a bundle knows may decide now, why, and since when."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.model import Model, Name, PolicyRev, SafeIdentifier, Time
from ofp_platform.vocabulary.position import Position
from ofp_platform.vocabulary.posture_policy import MASKS, Mask, Mode, PosturePolicy, SignalValue, Threshold
from ofp_platform.vocabulary.serving import Count, Version

__all__ = [
    "MASKS",
    "MOST_REASON",
    "NOTHING_SAID",
    "POSTURE_CHANGED",
    "Mask",
    "Mode",
    "PostureChange",
    "PostureHold",
    "PostureInForce",
    "PostureMessage",
    "PosturePolicy",
    "PostureRelease",
    "PostureView",
    "PostureWatched",
    "Threshold",
]
POSTURE_CHANGED = "posture_changed"
"""The event type on control."""
MOST_REASON = 400
"""Characters of an operator's reason."""


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
    signals: dict[Name, SignalValue | None] = Field(description="as they were; null: absent")
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


class PostureHold(Model):
    """A mode that somebody wants to be in force now, whatever signals say, and why."""

    kind: Literal["posture_hold"] = "posture_hold"
    contract_version: Version = "v0"
    mode: Annotated[Mode, Field(strict=False)]
    reason: str = Field(min_length=1, max_length=MOST_REASON)


class PostureRelease(Model):
    """The mode that is held is to be changed by signals again, and why."""

    kind: Literal["posture_release"] = "posture_release"
    contract_version: Version = "v0"
    reason: str = Field(min_length=1, max_length=MOST_REASON)


class PostureWatched(Model):
    """Whether somebody looks at the signals of a run. `last_look_ms`: milliseconds since that was last done; null: never."""

    is_watched: bool
    last_look_ms: Count | None

    @property
    def words(self) -> str:
        """As an operator reads it."""
        if self.last_look_ms is None:
            return "nobody ever looked at the signals: `ofp posture watch`"
        last = f"the last look at the signals was {self.last_look_ms / 1_000:,.1f} s ago"
        return f"watched: {last}" if self.is_watched else f"nobody watches, {last}: `ofp posture watch`"


class PostureView(Model):
    """The mode in force of a run, and the newest changes, the newest first; none: nobody ever said anything. `watched`: by
    signals; null where the policy has no thresholds, so that there is nothing to look at.
    """

    kind: Literal["posture_view"] = "posture_view"
    contract_version: Version = "v0"
    context_pins: ContextPins
    in_force: PostureInForce
    watched: PostureWatched | None
    changes: tuple[PostureChange, ...] = Field(strict=False)

    def wire(self) -> dict[str, Any]:
        """As shown."""
        changes = [change.wire() for change in self.changes]
        return {**self.model_dump(mode="json"), "context_pins": self.context_pins.wire(), "changes": changes}


NOTHING_SAID = PostureInForce(mode=Mode.FAIL_CLOSED, sequence=None, position=None)
"""What is in force where nobody ever said anything."""
