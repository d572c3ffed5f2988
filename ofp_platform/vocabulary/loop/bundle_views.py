"""Bundles as people and programs ask for them: the steps of a run, and what is in force in each scope."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.bundle import BundleEvent, BundleInForce, BundleScope
from ofp_platform.vocabulary.model import Model
from ofp_platform.vocabulary.position import Position
from ofp_platform.vocabulary.serving import Version


class RecordedBundleEvent(Model):
    """A step, and where control says it."""

    event: BundleEvent
    position: Position

    def wire(self) -> dict[str, Any]:
        """As shown: what is absent is left out."""
        return {"event": self.event.wire(), "position": self.position.model_dump(mode="json", exclude_none=True)}


class BundleHistory(Model):
    """A page of the steps of a run, the newest first."""

    kind: Literal["bundle_history"] = "bundle_history"
    contract_version: Version = "v0"
    context_pins: ContextPins
    steps: tuple[RecordedBundleEvent, ...] = Field(strict=False)
    next_cursor: str | None = Field(default=None, description="of the page behind this one; absent: there is none")

    def wire(self) -> dict[str, Any]:
        """As shown: what is absent is left out."""
        return {
            **self.model_dump(mode="json", exclude_none=True, exclude={"context_pins", "steps"}),
            "context_pins": self.context_pins.wire(),
            "steps": [step.wire() for step in self.steps],
        }


class ScopeInForce(Model):
    """A scope, and what is in force in it."""

    scope: BundleScope
    in_force: BundleInForce


class BundlesInForce(Model):
    """The bundles in force of a run, scope by scope; a scope that is not named has nothing in force."""

    kind: Literal["bundles_in_force"] = "bundles_in_force"
    contract_version: Version = "v0"
    context_pins: ContextPins
    scopes: tuple[ScopeInForce, ...] = Field(strict=False)

    def wire(self) -> dict[str, Any]:
        """As shown: what is absent is left out."""
        return {
            **self.model_dump(mode="json", exclude_none=True, exclude={"context_pins"}),
            "context_pins": self.context_pins.wire(),
        }
