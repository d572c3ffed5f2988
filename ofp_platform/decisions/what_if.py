"""Decisions of another bundle, or in another mode, on past events: which flip, and which part of it flips each.

Nothing is written or done. The vectors are those that were served: only what decides is another one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from ofp_platform.decisions.decided_span import PastDecision
from ofp_platform.decisions.deciding import Evidence, ReadyBundle, Verdict, decide_many
from ofp_platform.decisions.redeciding import ready_of
from ofp_platform.scoring.inputs import InputUnfit
from ofp_platform.storage.bundle_events import BundleDamaged
from ofp_platform.vocabulary.loop.bundle import BundleRef
from ofp_platform.vocabulary.loop.outcome import Outcome
from ofp_platform.vocabulary.loop.posture import Mode


class Cause(StrEnum):
    """The part of an alternative that flips a decision."""

    RULE = "RULE"
    MODEL = "MODEL"
    POSTURE = "POSTURE"


@dataclass(frozen=True)
class Alternative:
    """The bundle or mode that decides instead; None: the one that decided."""

    bundle: ReadyBundle | None = None
    mode: Mode | None = None


@dataclass(frozen=True)
class Flip:
    """A decision that would have been another one, and why: every cause that flips it alone; where none does, those without which
    it does not flip."""

    decision_id: str
    event_id: str
    before: Outcome
    after: Outcome
    score_before: str | None
    score_after: str | None
    causes: tuple[Cause, ...]


@dataclass
class WhatIfTally:
    """The outcome of an alternative over a span: `same` outcomes, the flips, and what cannot be told, by reason."""

    same: int = 0
    flips: list[Flip] = field(default_factory=list)
    untold: Counter[str] = field(default_factory=Counter)

    @property
    def by_change(self) -> Counter[tuple[Outcome, Outcome]]:
        """How many went from which outcome to which."""
        return Counter((flip.before, flip.after) for flip in self.flips)

    @property
    def by_cause(self) -> Counter[Cause]:
        """How many flips each cause has a part in."""
        return Counter(cause for flip in self.flips for cause in flip.causes)


class _Parts(NamedTuple):
    """The parts that decide: rules and model of a bundle each, and the mode."""

    rules: ReadyBundle
    model: ReadyBundle
    mode: Mode

    def join(self) -> ReadyBundle:
        """A bundle of these rules and this model, with the groups of both."""
        groups = tuple(dict.fromkeys((*self.rules.bundle.groups, *self.model.bundle.groups)))
        changes = {
            "groups": groups,
            "optional_groups": tuple(
                group for group in groups if group not in self.rules.required_groups and group not in self.model.required_groups
            ),
            "model": self.model.bundle.model,
        }
        return ReadyBundle(self.rules.bundle.model_copy(update=changes), self.model.model)


_CAUSES = {"rules": Cause.RULE, "model": Cause.MODEL, "mode": Cause.POSTURE}


@dataclass
class WhatIf:
    """An alternative, tried on decisions; `load`: the bundle of a digest."""

    alternative: Alternative
    load: Callable[[BundleRef], ReadyBundle]
    tally: WhatIfTally = field(default_factory=WhatIfTally)
    _joined_bundles: dict[tuple[str, str], ReadyBundle] = field(default_factory=dict, init=False, repr=False)

    def look_at(self, decisions: Sequence[PastDecision]) -> None:
        """Try it on each."""
        for decision in decisions:
            if decision.is_vector_lost:
                self.tally.untold["VECTOR_LOST"] += 1
                continue
            try:
                before = ready_of(decision, self.load)
            except BundleDamaged:
                self.tally.untold["BUNDLE_DAMAGED"] += 1
                continue
            self._compare(decision, before)

    def _compare(self, decision: PastDecision, before: ReadyBundle | None) -> None:
        posture = decision.content["posture"]
        applied_mode = Mode(posture["applied_mode"])
        old = before or self.alternative.bundle
        new = self.alternative.bundle or before
        if old is None or new is None:
            self.tally.untold["NO_BUNDLE"] += 1
            return
        was = _Parts(old, old, applied_mode)
        instead = _Parts(new, new, self.alternative.mode or applied_mode)
        verdict = self._decide(decision, instead, posture["fail_closed"])
        if isinstance(verdict, str):
            self.tally.untold[verdict] += 1
            return
        recorded_outcome = Outcome(decision.content["outcome"])
        if verdict.outcome is recorded_outcome:
            self.tally.same += 1
            return
        self.tally.flips.append(
            Flip(
                decision_id=decision.decision_id,
                event_id=decision.event.event_id,
                before=recorded_outcome,
                after=verdict.outcome,
                score_before=decision.content.get("score"),
                score_after=verdict.score,
                causes=self._causes(decision, was, instead, recorded_outcome, posture["fail_closed"]),
            )
        )

    def _causes(
        self, decision: PastDecision, was: _Parts, instead: _Parts, recorded_outcome: Outcome, fail_closed: str
    ) -> tuple[Cause, ...]:
        """The parts that flip a decision: alone, or else those that nothing flips without."""

        def flips(parts: _Parts) -> bool:
            verdict = self._decide(decision, parts, fail_closed)
            return isinstance(verdict, Verdict) and verdict.outcome is not recorded_outcome

        changed_parts = [name for name in _Parts._fields if getattr(was, name) is not getattr(instead, name)]
        alone = [name for name in changed_parts if flips(was._replace(**{name: getattr(instead, name)}))]
        needed_parts = alone or [name for name in changed_parts if not flips(instead._replace(**{name: getattr(was, name)}))]
        return tuple(_CAUSES[name] for name in needed_parts or changed_parts)

    def _decide(self, decision: PastDecision, parts: _Parts, fail_closed: str) -> Verdict | str:
        """The verdict of these parts, or why there is none."""
        key = (parts.rules.ref.digest, parts.model.ref.digest)
        if key not in self._joined_bundles:
            self._joined_bundles[key] = parts.rules if parts.rules is parts.model else parts.join()
        ready = self._joined_bundles[key]
        groups = ready.groups_under(parts.mode)
        served_groups = set(decision.groups)
        if any(group not in served_groups for group in groups):
            return "OTHER_GROUPS"  # its vector has not what this bundle asks for
        evidence = Evidence(decision.features(groups), decision.event.payload, decision.event.ts)
        [verdict] = decide_many(ready, parts.mode, [evidence], fail_closed)
        return "INPUT_UNFIT" if isinstance(verdict, InputUnfit) else verdict
