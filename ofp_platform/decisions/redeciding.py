"""Decisions of the plane made again from their records: the same bytes, or the record is not what was decided."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from ofp_platform.decisions.decided_span import PastDecision
from ofp_platform.decisions.deciding import Evidence, ReadyBundle, Verdict, decide_many
from ofp_platform.scoring.inputs import InputUnfit
from ofp_platform.storage.bundle_events import BundleDamaged
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.loop.bundle import BundleInForce, BundleRef
from ofp_platform.vocabulary.loop.decision_record import loop_decision_id
from ofp_platform.vocabulary.loop.posture import Mode


@dataclass(frozen=True)
class Difference:
    """A decision that is not what its record says, or that cannot be made again; `words` say which, and why."""

    decision_id: str
    words: str


@dataclass
class ReplayTally:
    """How many decisions were made again, how many were equal to the last byte, and the others."""

    decisions: int = 0
    equal: int = 0
    differences: list[Difference] = field(default_factory=list)


def redecide(decisions: Sequence[PastDecision], load: Callable[[BundleRef], ReadyBundle], tally: ReplayTally) -> None:
    """Make decisions again and count them. `load`: the bundle of a digest."""
    tally.decisions += len(decisions)
    by_circumstance: dict[tuple[str, str, str], list[PastDecision]] = defaultdict(list)
    for decision in decisions:
        if decision.is_vector_lost:
            words = f"snapshot {decision.content['feature_snapshot_hash']} is not stored here, or its bytes are damaged"
            tally.differences.append(Difference(decision.decision_id, words))
            continue
        posture, bundle = decision.content["posture"], decision.content.get("bundle")
        digest = "" if bundle is None else bundle["bundle"]["digest"]
        by_circumstance[digest, posture["applied_mode"], posture["fail_closed"]].append(decision)
    for (_, mode, fail_closed), members in by_circumstance.items():
        try:
            ready = ready_of(members[0], load)
        except BundleDamaged as damaged:
            tally.differences += [Difference(member.decision_id, str(damaged)) for member in members]
            continue
        evidence = [Evidence(member.features(member.groups), member.event.payload, member.event.ts) for member in members]
        verdicts = decide_many(ready, Mode(mode), evidence, fail_closed)
        for member, verdict in zip(members, verdicts, strict=True):
            difference = _difference(member, verdict)
            if difference is None:
                tally.equal += 1
            else:
                tally.differences.append(Difference(member.decision_id, difference))


def ready_of(decision: PastDecision, load: Callable[[BundleRef], ReadyBundle]) -> ReadyBundle | None:
    """The bundle that made a decision; None: none was in force.

    Raises:
        BundleDamaged: see there.
    """
    bundle = decision.content.get("bundle")
    return None if bundle is None else load(BundleInForce.model_validate(bundle).bundle)


def _difference(decision: PastDecision, verdict: Verdict | InputUnfit) -> str | None:
    """Where the record is another one than comes of it now; None: nowhere."""
    if isinstance(verdict, InputUnfit):
        return f"the bundle cannot read its event now: {verdict}"
    content = {name: value for name, value in decision.content.items() if name != "score"}
    bundle = decision.content.get("bundle")
    made_again = {
        **content,
        "decision_id": loop_decision_id(
            decision.event.event_id,
            None if bundle is None else BundleInForce.model_validate(bundle).bundle,
            decision.event.position,
        ),
        "event_id": decision.event.event_id,
        "outcome": verdict.outcome.value,
        "reason_codes": list(verdict.reason_codes),
        **({} if verdict.score is None else {"score": verdict.score}),
    }
    if canonical_bytes(made_again) == decision.stored_text.encode():
        return None
    names = sorted({*made_again, *decision.content})
    differing = [name for name in names if made_again.get(name) != decision.content.get(name)]
    return (
        "; ".join(f"{name}: recorded {decision.content.get(name)}, made again {made_again.get(name)}" for name in differing)
        or "its bytes are not canonical"
    )
