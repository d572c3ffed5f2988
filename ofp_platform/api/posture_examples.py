"""Examples of the posture, for the description of the API."""

from __future__ import annotations

from typing import Any

from ofp_platform.api.examples import request_example
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.posture import (
    Mode,
    PostureChange,
    PostureHold,
    PostureInForce,
    PostureRelease,
    PostureView,
    PostureWatched,
)
from ofp_platform.vocabulary.position import Position

_REASON = "a merchant reports wrong declines"
_AT = "2026-03-31T12:00:00Z"


def posture_hold_example() -> dict[str, Any]:
    """A hold."""
    return PostureHold(mode=Mode.HOLD, reason=_REASON).model_dump(mode="json")


def posture_release_example() -> dict[str, Any]:
    """A release."""
    return PostureRelease(reason="the rule is corrected").model_dump(mode="json")


def posture_view_example() -> dict[str, Any]:
    """The posture behind the hold."""
    pins = ContextPins.model_validate(request_example()["context_pins"])
    change = PostureChange(
        context_pins=pins,
        sequence=4,
        mode=Mode.HOLD,
        held=True,
        reasons=(_REASON,),
        signals={},
        bad_since_utc=_AT,
        at_utc=_AT,
        actor="operator",
        policy_rev="1." + "0" * 64,
    )
    position = Position(stream_name="card-payments-control", partition_id="0000", offset=5)
    in_force = PostureInForce(mode=change.mode, sequence=change.sequence, position=position)
    return PostureView(
        context_pins=pins, in_force=in_force, watched=PostureWatched(is_watched=True, last_look_ms=310), changes=(change,)
    ).wire()
