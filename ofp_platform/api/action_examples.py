"""Worked examples of actions, for the description of the API and its tests."""

from __future__ import annotations

from typing import Any

from ofp_platform.api.examples import decision_example
from ofp_platform.vocabulary.errors import ContractError, Reason, invalid, not_found
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.action import (
    ActionAttempt,
    ActionIntent,
    ActionOrigin,
    ActionRecord,
    ActionState,
    OriginKind,
    WebhookTarget,
)
from ofp_platform.vocabulary.loop.action_requests import ActionList, ActionSettlementAsk

UNKNOWN_ACTION = "no action of this run has this key; GET /v0/actions lists them"


def _action() -> ActionRecord:
    decision = decision_example()
    intent = ActionIntent.create(
        origin=ActionOrigin(origin_kind=OriginKind.DECISION, reference=decision["decision_id"]),
        action_type="notify_decision",
        target=WebhookTarget(webhook="cases"),
        context_pins=ContextPins.model_validate(decision["context_pins"]),
        actor="decider",
        policy_rev=f"1.{'0' * 64}",
        at_utc="2026-03-31T12:00:10Z",
    )
    attempt = ActionAttempt(attempt=1, executor="cases", started_at_utc="2026-03-31T12:00:11Z")
    waiting = "no answer, and it cannot be asked by key: `ofp action settle`"
    return ActionRecord(intent=intent, state=ActionState.UNKNOWN, attempts=(attempt,), waiting=waiting)


def action_example() -> dict[str, Any]:
    """A webhook that was sent because of the decision of `decision_example`, and did not answer."""
    return _action().wire()


def action_list_example() -> dict[str, Any]:
    """The page with that action alone."""
    return ActionList(counts={ActionState.UNKNOWN: 1}, actions=(_action(),), next_cursor=None).wire()


def action_settlement_ask_example() -> dict[str, Any]:
    """An operator found out that it was done."""
    pins = _action().intent.context_pins
    ask = ActionSettlementAsk(context_pins=pins, is_done=True, reason="the receiver has it in its books")
    return ask.model_dump(mode="json") | {"context_pins": pins.wire()}


def action_error_examples() -> dict[int, dict[str, Any]]:
    """HTTP status to an error that these routes have beside those of all."""
    errors: dict[int, ContractError] = {
        404: not_found(Reason.UNKNOWN_ACTION, UNKNOWN_ACTION),
        409: invalid(Reason.ACTION_NOT_NOW, "the action is over; GET /v0/actions/{idempotency_key} shows how it ended"),
    }
    return {status: error.wire() for status, error in errors.items()}
