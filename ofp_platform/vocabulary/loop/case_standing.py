"""Where a case stands: state, priority and labels, as a pure function of its timeline."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated

from pydantic import Field

from ofp_platform.vocabulary.loop.case import (
    CaseContent,
    CaseEntry,
    CaseTrigger,
    Closed,
    DecisionEvidence,
    LabelAccepted,
    LabelPending,
    LabelRejected,
    Reopened,
    Triggered,
)
from ofp_platform.vocabulary.loop.outcome import Outcome
from ofp_platform.vocabulary.model import Digest, Model, Name, Time

Priority = Annotated[int, Field(ge=1, le=4, description="1 is looked at first")]
_PRIORITY = {
    CaseTrigger.EXTERNAL_SIGNAL: 2,
    CaseTrigger.ACTION_FAILURE: 2,
    CaseTrigger.DECISION_ESCALATION: 3,
    CaseTrigger.MANUAL_ASSERTION: 3,
    CaseTrigger.ANOMALY: 4,
}
_PRIORITY_OF_REVIEW = 2
"""Of a payment that waits for a person; one that was declined waits for nobody."""


class CaseState(StrEnum):
    """Whether somebody has to look at the case."""

    OPEN = "OPEN"
    CLOSED = "CLOSED"


class LabelState(StrEnum):
    """Whether the label store has a label."""

    PENDING = "PENDING"
    ACCEPTED = "ACCEPTED"
    REJECTED = "REJECTED"


class CaseLabel(Model):
    """A label that was asserted in a case, and what became of it."""

    assertion_id: Digest
    label_type: Name
    word: Name
    state: Annotated[LabelState, Field(strict=False)]


class CaseStanding(Model):
    """Where a case stands. `opened_at_utc`: since when it has been open, or had been; `triggers`: each kind once."""

    state: Annotated[CaseState, Field(strict=False)]
    priority: Priority
    opened_at_utc: Time
    last_at_utc: Time
    triggers: tuple[Annotated[CaseTrigger, Field(strict=False)], ...] = Field(strict=False)
    labels: tuple[CaseLabel, ...] = Field(default=(), strict=False)


def standing_of(timeline: Sequence[CaseEntry]) -> CaseStanding:
    """Where a case with these entries, in the order of their numbers, stands.

    Closed is what was closed after its last trigger and reopening. Two kinds of triggers are one step more urgent than the more
    urgent of them. A label's last word counts: an answer of the label store is of one assertion, however often it was made.

    Raises:
        ValueError: the first entry is no trigger.
    """
    if not timeline or not isinstance(timeline[0].content, Triggered):
        raise ValueError("a timeline begins with a trigger")
    state, opened_at = CaseState.CLOSED, timeline[0].at_utc
    urgencies: dict[CaseTrigger, int] = {}
    labels: dict[str, CaseLabel] = {}
    for entry in timeline:
        content = entry.content
        match content:
            case Triggered() | Reopened():
                if state is CaseState.CLOSED:
                    state, opened_at = CaseState.OPEN, entry.at_utc
                if isinstance(content, Triggered):
                    urgency = trigger_priority(content)
                    urgencies[content.trigger] = min(urgency, urgencies.get(content.trigger, urgency))
            case Closed():
                state = CaseState.CLOSED
            case LabelPending(word=word, assertion=assertion, assertion_id=assertion_id):
                pending = CaseLabel(
                    assertion_id=assertion_id, label_type=assertion.label_type, word=word, state=LabelState.PENDING
                )
                labels.setdefault(assertion_id, pending)
            case LabelAccepted(assertion_id=assertion_id) | LabelRejected(assertion_id=assertion_id):
                answer = LabelState.ACCEPTED if isinstance(content, LabelAccepted) else LabelState.REJECTED
                if assertion_id in labels and labels[assertion_id].state is LabelState.PENDING:
                    labels[assertion_id] = labels[assertion_id].model_copy(update={"state": answer})
    priority = max(1, min(urgencies.values()) - (len(urgencies) > 1))
    return CaseStanding(
        state=state,
        priority=priority,
        opened_at_utc=opened_at,
        last_at_utc=timeline[-1].at_utc,
        triggers=tuple(sorted(urgencies)),
        labels=tuple(labels.values()),
    )


def trigger_priority(content: Triggered) -> int:
    """How urgent one trigger is, from 1 to 4."""
    evidence = content.evidence
    if isinstance(evidence, DecisionEvidence) and evidence.outcome is Outcome.REVIEW:
        return _PRIORITY_OF_REVIEW
    return _PRIORITY[content.trigger]


def not_now(standing: CaseStanding, content: CaseContent) -> str | None:
    """Why an entry cannot follow where a case stands, in words; None: it can."""
    match content:
        case Closed() if standing.state is CaseState.CLOSED:
            return "the case is closed already; `ofp case reopen` opens it again"
        case Reopened() if standing.state is CaseState.OPEN:
            return "the case is open: there is nothing to reopen"
        case LabelAccepted(assertion_id=assertion_id) | LabelRejected(assertion_id=assertion_id):
            if not any(label.assertion_id == assertion_id for label in standing.labels):
                return "no label of this case waits under that assertion id"
    return None
