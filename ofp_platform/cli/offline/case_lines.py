"""One case as lines: where it stands, then its timeline with the evidence by reference."""

from __future__ import annotations

from collections.abc import Iterator

from ofp_platform.cli.terminal.printed_facts import item, when
from ofp_platform.vocabulary.loop.case import (
    ActionEvidence,
    ActionRequested,
    AnomalyEvidence,
    CaseContent,
    Closed,
    DecisionEvidence,
    LabelAccepted,
    LabelPending,
    LabelRejected,
    Note,
    Reopened,
    StatedEvidence,
    Triggered,
)
from ofp_platform.vocabulary.loop.case_requests import Case


def case_lines(case: Case) -> Iterator[str]:
    """Where the case stands, its entries in order, and what came again with other content."""
    standing = case.standing
    yield f"case {case.case_id}"
    yield f"event {case.event_class} {case.event_id}"
    yield f"{standing.state}, priority {standing.priority}, since {when(standing.opened_at_utc)}"
    for label in standing.labels:
        yield f"label {label.label_type} {label.word}: {label.state}"
    for entry in case.timeline:
        yield from item(when(entry.at_utc), entry.content.entry_type, entry.actor, details=_details(entry.content))
    for conflict in case.conflicts:
        yield from item(
            when(conflict.at_utc),
            "CASE_ENTRY_CONFLICT",
            conflict.actor,
            details=(
                f"{conflict.entry_type} of {conflict.source_ref} came again with other content",
                f"first {conflict.first_digest}",
                f"other {conflict.other_digest}",
            ),
        )


def _details(content: CaseContent) -> tuple[str, ...]:
    match content:
        case Triggered(evidence=DecisionEvidence() as decision):
            return (
                f"{content.trigger}: {decision.outcome.value}, score {decision.score}",
                f"decision {decision.decision_id}",
                f"snapshot {decision.snapshot_hash}",
                f"rule {decision.rule_digest}",
                f"event at {decision.position}",
            )
        case Triggered(evidence=AnomalyEvidence() as anomaly):
            return (f"{content.trigger}: {anomaly.position} has another payload than {anomaly.first_position}",)
        case Triggered(evidence=StatedEvidence(reason=reason)):
            return (f"{content.trigger}: {reason}",)
        case Triggered(evidence=ActionEvidence(outcome_digest=digest)):
            return (f"{content.trigger}: outcome {digest}",)
        case Note(text=text):
            return (text,)
        case ActionRequested():
            return (f"{content.action_type} of {content.target}: {content.reason}",)
        case LabelPending():
            return (f"{content.assertion.label_type} {content.word}", f"assertion {content.assertion_id}")
        case LabelRejected():
            return (f"assertion {content.assertion_id}", content.reason)
        case LabelAccepted(assertion_id=assertion_id):
            return (f"assertion {assertion_id}",)
        case Closed(reason=reason) | Reopened(reason=reason):
            return (reason,)
    return ()
