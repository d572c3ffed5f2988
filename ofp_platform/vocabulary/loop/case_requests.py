"""Cases over HTTP: the queue, one case, what is asked for, and the receipt of it."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.case import (
    ActionRequested,
    CaseEntry,
    CaseEntryConflict,
    CaseTrigger,
    Closed,
    Note,
    ReasonText,
    Reopened,
)
from ofp_platform.vocabulary.loop.case_standing import CaseStanding, CaseState
from ofp_platform.vocabulary.model import Digest, Identifier, Model, Name, SafeIdentifier, Time
from ofp_platform.vocabulary.serving import Count, Version

MOST_CASES = 200
"""Cases of a page."""


class CaseTriggerAsk(Model):
    """Somebody calls attention to an event: a person, or another system. The same `source_ref` again is the same signal."""

    kind: Literal["case_trigger_ask"] = "case_trigger_ask"
    contract_version: Version = "v0"
    context_pins: ContextPins
    event_class: Identifier
    event_id: SafeIdentifier
    trigger: Literal[CaseTrigger.EXTERNAL_SIGNAL, CaseTrigger.MANUAL_ASSERTION]
    source_ref: SafeIdentifier
    reason: ReasonText


class LabelAsk(Model):
    """A label, said in a word of the label type. Times that are not named are the time of the service."""

    entry_type: Literal["LABEL_PENDING"] = "LABEL_PENDING"
    label_type: Name
    word: Name
    effective_time_utc: Time | None = None
    observed_time_utc: Time | None = None


class CaseEntryAsk(Model):
    """An entry that an investigator adds to a case. The same `source_ref` again, with the same content, is the same entry."""

    kind: Literal["case_entry_ask"] = "case_entry_ask"
    contract_version: Version = "v0"
    context_pins: ContextPins
    source_ref: SafeIdentifier
    content: Annotated[Note | ActionRequested | LabelAsk | Closed | Reopened, Field(discriminator="entry_type")]


class CaseReceipt(Model):
    """The entry that stands, whether this request made it, and where the case stands then.

    `problem`: in words, why a label still waits for the label store.
    """

    kind: Literal["case_receipt"] = "case_receipt"
    contract_version: Version = "v0"
    case_id: Digest
    is_new: bool
    entry: CaseEntry
    standing: CaseStanding
    problem: str | None = None

    def wire(self) -> dict[str, Any]:
        """As it crosses a boundary: what is absent is left out."""
        return self.model_dump(mode="json", exclude_none=True)


class CaseSummary(Model):
    """A case in the queue."""

    case_id: Digest
    event_class: Identifier
    event_id: Identifier
    standing: CaseStanding


class CaseList(Model):
    """A page of cases of one state: the most urgent first, then those that have been open longest."""

    kind: Literal["case_list"] = "case_list"
    contract_version: Version = "v0"
    state: Annotated[CaseState, Field(strict=False)]
    cases: tuple[CaseSummary, ...] = Field(strict=False)
    conflicts: Count = Field(description="entries of the run that came again with other content (CASE_ENTRY_CONFLICT)")
    next_cursor: str | None


class Case(Model):
    """One case with all of its timeline, in order."""

    kind: Literal["case"] = "case"
    contract_version: Version = "v0"
    context_pins: ContextPins
    case_id: Digest
    event_class: Identifier
    event_id: Identifier
    standing: CaseStanding
    timeline: tuple[CaseEntry, ...] = Field(strict=False, min_length=1)
    conflicts: tuple[CaseEntryConflict, ...] = Field(default=(), strict=False)

    def wire(self) -> dict[str, Any]:
        """As it crosses a boundary: absent pins left out."""
        return self.model_dump(mode="json") | {"context_pins": self.context_pins.wire()}
