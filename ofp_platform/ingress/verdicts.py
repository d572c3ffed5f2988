"""From the verdicts of the gate to the outcome of each record: copies in a batch, conflicts, runs that take nothing. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import cast

from ofp_platform.ingress.gate import Passed, SetAside
from ofp_platform.ingress.receipt_block import PlacedAt, RecordOutcome
from ofp_platform.vocabulary.admission_receipt import AdmissionOutcome, QuarantineReason

Verdict = Passed | SetAside | int
"""Of the gate; of a copy of another record in the batch, the place of that."""


def without_copies(verdicts: Sequence[Passed | SetAside]) -> list[Verdict]:
    """Of records of one identity in the batch, the first; for a copy of it, its place; others are in conflict with it."""
    firsts: dict[bytes, int] = {}
    outcomes: list[Verdict] = list(verdicts)
    for place, verdict in enumerate(verdicts):
        if not isinstance(verdict, Passed):
            continue
        first_place = firsts.setdefault(verdict.event_key, place)
        if first_place != place:
            first = cast(Passed, verdicts[first_place])
            is_copy = first.payload_hash == verdict.payload_hash
            outcomes[place] = first_place if is_copy else _conflict(verdict, first_place)
    return outcomes


def of_inactive_run(verdict: Verdict, detail: str) -> Verdict:
    """A verdict, where nothing of the run passes; what is wrong with a record by itself is said first."""
    if isinstance(verdict, SetAside) and verdict.first_place is not None:
        return replace(verdict, reason=QuarantineReason.RUN_NOT_ACTIVE, detail=detail, first_place=None)
    if not isinstance(verdict, Passed):
        return verdict
    names = verdict.event_class, verdict.event_type, verdict.event_id
    return SetAside(QuarantineReason.RUN_NOT_ACTIVE, detail, *names, verdict.payload_hash)


def outcomes_of(
    verdicts: Sequence[Verdict], known_events: Mapping[bytes, tuple[bytes, PlacedAt]]
) -> tuple[list[RecordOutcome], dict[int, int]]:
    """The outcome of each record, and by its place, of which other record of the batch it has the position; what is to be
    appended has none yet.
    """
    outcomes: list[RecordOutcome] = []
    firsts: dict[int, int] = {}
    facts: tuple[str | None, str | None, bytes | None]
    aside: Passed | SetAside
    for place, verdict in enumerate(verdicts):
        if isinstance(verdict, int):
            first = outcomes[verdict]
            is_aside = first.outcome is AdmissionOutcome.QUARANTINE
            outcomes.append(replace(first) if is_aside else replace(first, outcome=AdmissionOutcome.DUPLICATE))
            firsts[place] = verdict
            continue
        if isinstance(verdict, Passed):
            facts = verdict.event_class, verdict.event_id, verdict.payload_hash
            identity, aside = verdict.event_key, verdict
            if identity not in known_events:
                outcomes.append(RecordOutcome(AdmissionOutcome.ADMIT, *facts))
                continue
        else:
            facts, aside = (verdict.event_class, verdict.event_id, verdict.payload_hash), verdict
            if verdict.first_place is None:
                outcomes.append(RecordOutcome(AdmissionOutcome.QUARANTINE, *facts, None, verdict.reason, verdict.detail))
                continue
            first_sent = cast(Passed, verdicts[verdict.first_place])
            identity = first_sent.event_key
            if identity not in known_events:
                outcome = RecordOutcome(AdmissionOutcome.QUARANTINE, *facts, None, verdict.reason, verdict.detail)
                outcomes.append(replace(outcome, admitted_payload_hash=first_sent.payload_hash))
                firsts[place] = verdict.first_place
                continue
        payload_hash, position = known_events[identity]
        if payload_hash == facts[2]:
            outcomes.append(RecordOutcome(AdmissionOutcome.DUPLICATE, *facts, position))
        else:
            aside = _conflict(aside, None) if isinstance(aside, Passed) else aside
            outcome = RecordOutcome(AdmissionOutcome.QUARANTINE, *facts, position, aside.reason, aside.detail)
            outcomes.append(replace(outcome, admitted_payload_hash=payload_hash))
    return outcomes, firsts


def _conflict(verdict: Passed, first_place: int | None) -> SetAside:
    return SetAside(
        QuarantineReason.EVENT_ID_CONFLICT,
        f"event_id: was admitted with another payload, in class {verdict.event_class}",
        verdict.event_class,
        verdict.event_type,
        verdict.event_id,
        verdict.payload_hash,
        first_place,
    )
