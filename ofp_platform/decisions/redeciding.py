"""Decisions of the plane made again from their records: the same bytes, or the record is not what was decided."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

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


class RecordedAs(NamedTuple):
    """A decision as its record has it, for counts. `lowering`: why a lower mode was applied; None: that in force was."""

    slot: str
    bundle_name: str
    bundle_digest: str
    outcome: str
    lowering: str | None


@dataclass
class ReplayTally:
    """How many decisions were made again, as what they are recorded, how many were equal to the last byte, and the others."""

    decisions: int = 0
    equal: int = 0
    differences: list[Difference] = field(default_factory=list)
    recorded: Counter[RecordedAs] = field(default_factory=Counter)

    def add(self, other: ReplayTally) -> None:
        """Count what another one counted, behind what this one did."""
        self.decisions += other.decisions
        self.equal += other.equal
        self.differences += other.differences
        self.recorded.update(other.recorded)


def redecide(decisions: Sequence[PastDecision], load: Callable[[BundleRef], ReadyBundle], tally: ReplayTally) -> None:
    """Make decisions again and count them. `load`: the bundle of a digest."""
    tally.decisions += len(decisions)
    by_circumstance: dict[tuple[str, str, str, str], list[PastDecision]] = defaultdict(list)
    for decision in decisions:
        content = decision.content
        posture, bundle = content["posture"], content.get("bundle")
        name, digest = ("", "") if bundle is None else (bundle["bundle"]["bundle_name"], bundle["bundle"]["digest"])
        tally.recorded[RecordedAs(content["slot"], name, digest, content["outcome"], posture.get("lowering"))] += 1
        if decision.is_vector_lost:
            words = f"snapshot {content['feature_snapshot_hash']} is not stored here, or its bytes are damaged"
            tally.differences.append(Difference(decision.decision_id, words))
            continue
        by_circumstance[name, digest, posture["applied_mode"], posture["fail_closed"]].append(decision)
    for (_, _, mode, fail_closed), members in by_circumstance.items():
        try:
            ready = ready_of(members[0], load)
        except BundleDamaged as damaged:
            tally.differences += [Difference(member.decision_id, str(damaged)) for member in members]
            continue
        ref = None if ready is None else ready.ref
        read_names = {} if ready is None else ready.names_under(Mode(mode))
        evidence = [Evidence(member.own_features(read_names), member.event.payload, member.event.ts) for member in members]
        verdicts = decide_many(ready, Mode(mode), evidence, fail_closed)
        for member, verdict in zip(members, verdicts, strict=True):
            difference = _difference(member, ref, verdict)
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


def _difference(decision: PastDecision, bundle: BundleRef | None, verdict: Verdict | InputUnfit) -> str | None:
    """Where the record is another one than comes of it now; None: nowhere. `bundle`: that made it."""
    if isinstance(verdict, InputUnfit):
        return f"the bundle cannot read its event now: {verdict}"
    content, event = decision.content, decision.event
    made_again = {
        "decision_id": loop_decision_id(event.event_id, bundle, event.position),
        "event_id": event.event_id,
        "outcome": verdict.outcome.value,
        "reason_codes": list(verdict.reason_codes),
        "score": verdict.score,
    }
    differing = [name for name, again in made_again.items() if content.get(name) != again]
    if differing:
        return "; ".join(f"{name}: recorded {content.get(name)}, made again {made_again[name]}" for name in differing)
    # a score that is null is left out of a record
    is_whole = "score" not in content or content["score"] is not None
    return None if is_whole and canonical_bytes(content) == decision.stored_text.encode() else "its bytes are not canonical"
