"""The reconciliation of the loop: columns that balance to the unit, and the names of what does not."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ofp_platform.vocabulary.canonical import canonical_bytes, sha256_hex
from ofp_platform.vocabulary.envelope import EventType
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.model import Model
from ofp_platform.vocabulary.position import Basis
from ofp_platform.vocabulary.serving import Count, Version


class LoopReconciliation(Model):
    """Traffic up to where the decider stands = decisions; intents = outcomes; decisions = audit leaves; labels asserted =
    accepted + rejected; governance facts = their messages. `differences`: what of it is not so, in words, each with the names of
    the first that differ.
    """

    kind: Literal["loop_reconciliation"] = "loop_reconciliation"
    contract_version: Version = "v0"
    context_pins: ContextPins
    event_type: EventType
    begin: Basis
    end: Basis
    traffic: Count = Field(description="events of the type between the two, each once")
    decisions: Count = Field(description="of the ACTIVE slot on them")
    shadow_decisions: Count
    intents: Count
    executed: Count
    denied: Count
    failed: Count
    open_intents: Count = Field(description="0 at the end")
    decision_leaves: Count = Field(description="of decisions of both slots")
    unproven_decisions: Count = Field(description="behind the newest head; 0 at the end")
    quarantined_decisions: Count = Field(description="of incomplete provenance")
    labels_asserted: Count
    labels_accepted: Count
    labels_rejected: Count
    labels_pending: Count = Field(description="0 at the end")
    governance_facts: Count = Field(description="of the database, since there is a stream of them")
    governance_messages: Count = Field(description="on that stream")
    differences: tuple[str, ...] = Field(strict=False)

    def stored(self) -> bytes:
        """The canonical bytes of it all."""
        return canonical_bytes(
            {**self.model_dump(mode="json", exclude={"context_pins"}), "context_pins": self.context_pins.wire()}
        )

    @property
    def digest(self) -> str:
        """SHA-256 over `stored`."""
        return sha256_hex(self.stored())
