"""Actions over HTTP: a page of them, and an operator's word about one that nobody else knows of."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.action import ActionRecord, ActionState
from ofp_platform.vocabulary.loop.case import ReasonText
from ofp_platform.vocabulary.model import Model
from ofp_platform.vocabulary.serving import Count, Version

MOST_ACTIONS = 200
"""Actions of a page."""


class ActionList(Model):
    """A page of intents of the run, the newest first. `counts`: of all, by where they stand; states of none are left out."""

    kind: Literal["action_list"] = "action_list"
    contract_version: Version = "v0"
    counts: dict[ActionState, Count]
    actions: tuple[ActionRecord, ...] = Field(strict=False)
    next_cursor: str | None

    def wire(self) -> dict[str, Any]:
        """As it crosses a boundary: what is absent in an action is left out."""
        return self.model_dump(mode="json", exclude={"actions"}) | {"actions": [action.wire() for action in self.actions]}


class ActionSettlementAsk(Model):
    """The word of an operator about an attempt that is UNKNOWN: it was done, or it was not and is tried again; and how that was
    found out.
    """

    kind: Literal["action_settlement_ask"] = "action_settlement_ask"
    contract_version: Version = "v0"
    context_pins: ContextPins
    is_done: bool
    reason: ReasonText
