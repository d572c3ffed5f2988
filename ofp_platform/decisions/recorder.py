"""Turns an answer and an outcome into a decision record, and appends records."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ofp_platform.client import AnswerNotTrusted, ReceivedFeatures, verify
from ofp_platform.decisions.event_reader import ReadEvent
from ofp_platform.decisions.rule import PointsRule
from ofp_platform.storage.decision_records import DecisionConflict, append_decisions, recorded_ids
from ofp_platform.storage.evidence import keep_evidence
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord, decision_id
from ofp_platform.vocabulary.times import format_time


def record_of(
    answer: ReceivedFeatures,
    event: ReadEvent,
    event_type: str,
    rule: PointsRule,
    decided_at: int,
    policy_rev: str | None = None,
) -> DecisionRecord:
    """The decision on an event, from the answer to its request. `decided_at` in microseconds; `policy_rev`: the policy in force.

    Raises:
        AnswerNotTrusted: the hash does not fit the answer, or the event itself is not in its basis.
    """
    snapshot_hash = verify(answer)
    provenance = answer.provenance
    if not provenance.input_basis.contains(event.position):
        raise AnswerNotTrusted(f"event {event.event_id} is not in the basis of the answer to its own request")
    score, outcome = rule.decide(answer.snapshot.by_key)
    return DecisionRecord(
        decision_id=decision_id(provenance.context_pins, event_type, event.event_id),
        context_pins=provenance.context_pins,
        event_type=event_type,
        event_id=event.event_id,
        event_position=event.position,
        as_of_time_utc=provenance.requested.as_of_time_utc,
        feature_snapshot_hash=snapshot_hash,
        feature_keys=provenance.requested.feature_keys,
        feature_groups=provenance.requested.feature_groups,
        request_context=provenance.requested.request_context,
        request_id=provenance.request_id,
        feature_definition_set=provenance.feature_definition_set,
        run_config_digest=provenance.run_config_digest,
        policy_rev=policy_rev,
        input_basis=provenance.input_basis,
        graph_version=provenance.graph_version,
        rule=rule.ref,
        score=score,
        outcome=outcome,
        decided_at_utc=format_time(decided_at),
    )


@dataclass(frozen=True)
class DecisionRecorder:
    """Appends to the decision table. Safe for threads; the pool stays the caller's."""

    pool: Pool

    def undecided(self, decision_ids: Sequence[str]) -> set[str]:
        """Which of them nobody has recorded."""
        with self.pool.connection() as connection:
            return set(decision_ids) - recorded_ids(connection, decision_ids)

    def keep_rule(self, rule: PointsRule) -> None:
        """Keep the rule under the digest by which decisions name it, so that they can be made again."""
        with self.pool.connection() as connection:
            keep_evidence(connection, [rule.content])

    def append(self, records: Sequence[DecisionRecord]) -> tuple[int, int]:
        """All or none: how many were new, how many were there with equal content.

        Raises:
            DecisionConflict: one is recorded with other content.
        """
        with self.pool.connection() as connection:
            return append_decisions(connection, records)

    def append_first(self, records: Sequence[DecisionRecord]) -> int:
        """Append those on which nobody has decided meanwhile; the first decision stands. How many were new."""
        first: dict[str, DecisionRecord] = {}
        for record in records:
            first.setdefault(record.decision_id, record)
        while True:
            still_open = self.undecided(list(first))
            try:
                return self.append([record for name, record in first.items() if name in still_open])[0]
            except DecisionConflict:
                # another recorder was faster: what it decided is not open any more, so this ends
                if self.undecided(list(still_open)) == still_open:
                    raise
