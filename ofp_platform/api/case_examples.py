"""Worked examples of cases, for the description of the API and its tests."""

from __future__ import annotations

from typing import Any

from ofp_platform.api.examples import decision_example
from ofp_platform.vocabulary.canonical import digest_of
from ofp_platform.vocabulary.errors import ContractError, Reason, invalid, not_found
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.case import (
    CaseEntry,
    CaseTrigger,
    DecisionEvidence,
    Note,
    Triggered,
    case_id,
)
from ofp_platform.vocabulary.loop.case_requests import Case, CaseList, CaseReceipt, CaseSummary
from ofp_platform.vocabulary.loop.case_standing import CaseState, standing_of
from ofp_platform.vocabulary.loop.outcome import Outcome

_CLASS = "payment"


def case_example() -> dict[str, Any]:
    """The case of the decision of `decision_example`, with a note."""
    return _case().wire()


def _case() -> Case:
    decision = decision_example()
    at = decision["event_position"]
    evidence = DecisionEvidence(
        decision_id=decision["decision_id"],
        record_digest=digest_of(decision),
        snapshot_hash=decision["feature_snapshot_hash"],
        rule_digest=decision["rule"]["digest"],
        outcome=Outcome(decision["outcome"]),
        score=decision["score"],
        stream_name=at["stream_name"],
        position=f"{at['partition_id']}:{at['offset']}",
    )
    timeline = (
        CaseEntry(
            sequence=41,
            source_ref=f"decision/{decision['decision_id']}",
            at_utc="2026-03-31T12:00:10Z",
            actor="case-collector",
            content=Triggered(trigger=CaseTrigger.DECISION_ESCALATION, evidence=evidence),
        ),
        CaseEntry(
            sequence=44,
            source_ref="console/1",
            at_utc="2026-03-31T12:04:00Z",
            actor="ann",
            content=Note(text="the customer was called"),
        ),
    )
    pins = ContextPins.model_validate(decision["context_pins"])
    return Case(
        context_pins=pins,
        case_id=case_id(pins, _CLASS, decision["event_id"]),
        event_class=_CLASS,
        event_id=decision["event_id"],
        standing=standing_of(timeline),
        timeline=timeline,
    )


def case_list_example() -> dict[str, Any]:
    """The queue with that case alone."""
    case = _case()
    summary = CaseSummary(case_id=case.case_id, event_class=case.event_class, event_id=case.event_id, standing=case.standing)
    return CaseList(state=CaseState.OPEN, cases=(summary,), conflicts=0, next_cursor=None).model_dump(mode="json")


def case_receipt_example() -> dict[str, Any]:
    """The receipt of that note."""
    case = _case()
    return CaseReceipt(case_id=case.case_id, is_new=True, entry=case.timeline[-1], standing=case.standing).wire()


def case_trigger_ask_example() -> dict[str, Any]:
    """An issuer reports the event of that case."""
    case = _case()
    return {
        "kind": "case_trigger_ask",
        "contract_version": "v0",
        "context_pins": case.context_pins.wire(),
        "event_class": case.event_class,
        "event_id": case.event_id,
        "trigger": "EXTERNAL_SIGNAL",
        "source_ref": "issuer/report-7",
        "reason": "the card was reported lost",
    }


def case_entry_ask_example() -> dict[str, Any]:
    """A label about the event of that case."""
    return {
        "kind": "case_entry_ask",
        "contract_version": "v0",
        "context_pins": _case().context_pins.wire(),
        "source_ref": "console/2",
        "content": {"entry_type": "LABEL_PENDING", "label_type": "fraud_disposition", "word": "fraud"},
    }


def case_error_examples() -> dict[int, dict[str, Any]]:
    """HTTP status to an error that these routes have beside those of all."""
    words = "an entry of this type and source_ref is in the case with other content; the first stands, both digests are kept"
    errors: dict[int, ContractError] = {
        404: not_found(Reason.UNKNOWN_CASE, "no case of this run has this id; GET /v0/cases lists them"),
        409: invalid(Reason.CASE_ENTRY_CONFLICT, words),
    }
    return {status: error.wire() for status, error in errors.items()}
