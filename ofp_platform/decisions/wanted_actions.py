"""The actions that decisions want, by the policy of the deployment."""

from __future__ import annotations

from collections.abc import Sequence

from ofp_platform.vocabulary.loop.action import ActionIntent, ActionOrigin, ActionTarget, OriginKind, WebhookTarget
from ofp_platform.vocabulary.loop.bundle import Slot
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord
from ofp_platform.vocabulary.loop.posture import MASKS
from ofp_platform.vocabulary.profile import DecidedAction

DECIDER = "decider"
"""The actor of what decisions want."""


def wanted_actions(records: Sequence[DecisionRecord], actions: Sequence[DecidedAction]) -> list[ActionIntent]:
    """The intents of some decisions. A shadow wants nothing, nor does a mode that decides without looking (HOLD, FAIL_CLOSED)."""
    intents = []
    for record in records:
        if record.slot is not Slot.ACTIVE or record.posture is None or MASKS[record.posture.applied_mode].outcomes != "decided":
            continue
        for action in actions:
            if action.outcome != record.outcome.value:
                continue
            intents += [_intent(record, action, target) for target in _targets(record, action)]
    return intents


def _targets(record: DecisionRecord, action: DecidedAction) -> list[ActionTarget]:
    if action.webhook is not None:
        return [WebhookTarget(webhook=action.webhook)]
    return [key for key in record.feature_keys or () if key.key_type is action.key_type]


def _intent(record: DecisionRecord, action: DecidedAction, target: ActionTarget) -> ActionIntent:
    assert record.policy_rev is not None  # of v1
    return ActionIntent.create(
        origin=ActionOrigin(origin_kind=OriginKind.DECISION, reference=record.decision_id),
        action_type=action.action_type,
        target=target,
        context_pins=record.context_pins,
        actor=DECIDER,
        parameters={
            "outcome": record.outcome.value,
            "event_id": record.event_id,
            "reason_codes": list(record.reason_codes or ()),
        },
        policy_rev=record.policy_rev,
        at_utc=record.decided_at_utc,
    )
