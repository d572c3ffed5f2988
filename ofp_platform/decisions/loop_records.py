"""Decisions of the plane as records, from the event, what was in force, the vector and the verdict."""

from __future__ import annotations

from dataclasses import dataclass

from ofp_platform.client import AnswerNotTrusted, ReceivedFeatures, verify
from ofp_platform.decisions.deciding import Verdict
from ofp_platform.decisions.event_reader import ReadEvent
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.bundle import BundleInForce, Slot
from ofp_platform.vocabulary.loop.decision_record import DecidedUnder, DecisionRecord, loop_decision_id
from ofp_platform.vocabulary.times import format_time


@dataclass(frozen=True)
class Circumstances:
    """The run, the policy, the slot, and what was in force; `bundle`: None where none was."""

    pins: ContextPins
    event_type: str
    policy_rev: str
    slot: Slot
    bundle: BundleInForce | None


def checked_answer(answer: ReceivedFeatures, event: ReadEvent) -> ReceivedFeatures:
    """The answer, whose hash fits it and whose basis holds the event.

    Raises:
        AnswerNotTrusted: it is not so.
    """
    verify(answer)
    if not answer.provenance.input_basis.contains(event.position):
        raise AnswerNotTrusted(f"event {event.event_id} is not in the basis of the answer to its own request")
    return answer


def loop_record(
    event: ReadEvent,
    circumstances: Circumstances,
    under: DecidedUnder,
    answer: ReceivedFeatures | None,
    verdict: Verdict,
    decided_at: int,
) -> DecisionRecord:
    """The record. `answer`: a checked one, of the vector that was decided on; None: without one. `decided_at`: microseconds."""
    vector = {}
    if answer is not None:
        provenance = answer.provenance
        vector = {
            "feature_snapshot_hash": provenance.feature_snapshot_hash,
            "feature_keys": provenance.requested.feature_keys,
            "feature_groups": provenance.requested.feature_groups,
            "request_context": provenance.requested.request_context,
            "request_id": provenance.request_id,
            "feature_definition_set": provenance.feature_definition_set,
            "run_config_digest": provenance.run_config_digest,
            "input_basis": provenance.input_basis,
            "graph_version": provenance.graph_version,
        }
    in_force = circumstances.bundle
    return DecisionRecord.model_validate(
        {
            "contract_version": "v1",
            "decision_id": loop_decision_id(event.event_id, None if in_force is None else in_force.bundle, event.position),
            "context_pins": circumstances.pins,
            "event_type": circumstances.event_type,
            "event_id": event.event_id,
            "event_position": event.position,
            "as_of_time_utc": format_time(event.ts),
            **vector,
            "policy_rev": circumstances.policy_rev,
            "score": verdict.score,
            "outcome": verdict.outcome,
            "decided_at_utc": format_time(decided_at),
            "bundle": in_force,
            "slot": circumstances.slot,
            "posture": under,
            "reason_codes": verdict.reason_codes,
        }
    )
