"""Past decisions, made otherwise: by another bundle, in another mode, on other vectors; which flip, and which change flips each.

Nothing is written or done. Without a rebuilder the vectors are those that were served.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from ofp_platform.decisions.decided_span import PastDecision
from ofp_platform.decisions.deciding import Evidence, ReadyBundle, Verdict, decide_many
from ofp_platform.decisions.flip_causes import flip_causes
from ofp_platform.decisions.rebuilt_vectors import Causes, KeyValues, ServedVector, TriedVector, VectorRebuilder
from ofp_platform.decisions.redeciding import ready_of
from ofp_platform.scoring.inputs import FeatureName, InputUnfit
from ofp_platform.storage.bundle_events import BundleDamaged
from ofp_platform.vocabulary.loop.bundle import BundleRef
from ofp_platform.vocabulary.loop.flip_cause import Cause, NotRebuilt
from ofp_platform.vocabulary.loop.outcome import Outcome
from ofp_platform.vocabulary.loop.posture import Mode

_AS_RECORDED: Causes = frozenset()


@dataclass(frozen=True)
class Alternative:
    """The bundle or mode that decides instead; None: the one that decided. `vectors`: gives others; None: as they were served."""

    bundle: ReadyBundle | None = None
    mode: Mode | None = None
    vectors: VectorRebuilder | None = None


@dataclass(frozen=True)
class Flip:
    """A decision that would have been another one, and why (see `flip_causes`)."""

    decision_id: str
    event_id: str
    as_of_time_utc: str
    before: Outcome
    after: Outcome
    score_before: str | None
    score_after: str | None
    causes: tuple[Cause, ...]


@dataclass(frozen=True)
class Untold:
    """A decision of which it cannot be told what it would have been: the reason, and words where there are more."""

    decision_id: str
    event_id: str
    reason: str
    detail: str = ""


@dataclass
class WhatIfTally:
    """The outcome of an alternative over a span: `same` outcomes, the flips, and the decisions that cannot be told."""

    same: int = 0
    flips: list[Flip] = field(default_factory=list)
    untold_decisions: list[Untold] = field(default_factory=list)

    @property
    def looked_at(self) -> int:
        """How many decisions there were."""
        return self.same + len(self.flips) + len(self.untold_decisions)

    @property
    def untold(self) -> Counter[str]:
        """How many cannot be told, by reason."""
        return Counter(untold.reason for untold in self.untold_decisions)

    @property
    def by_change(self) -> Counter[tuple[Outcome, Outcome]]:
        """How many went from which outcome to which."""
        return Counter((flip.before, flip.after) for flip in self.flips)

    @property
    def by_cause(self) -> Counter[Cause]:
        """How many flips each cause has a part in."""
        return Counter(cause for flip in self.flips for cause in flip.causes)

    @property
    def by_day(self) -> dict[str, Counter[str]]:
        """Flips by the day of the event and what does it: the cause, or `several`."""
        days: dict[str, Counter[str]] = {}
        for flip in self.flips:
            name = flip.causes[0].value if len(flip.causes) == 1 else "several"
            days.setdefault(flip.as_of_time_utc[:10], Counter())[name] += 1
        return days

    @property
    def cause_rows(self) -> list[tuple[str, int, int]]:
        """Of each cause that there is: its name, the flips that it has a part in, and those of which it is the only one."""
        by_cause, alone = self.by_cause, Counter(flip.causes[0] for flip in self.flips if len(flip.causes) == 1)
        return [(cause.value, by_cause[cause], alone[cause]) for cause in Cause if cause in by_cause]


class _Deciding(NamedTuple):
    """Rules and model of a bundle each, and the mode: all that decides."""

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


_FIELDS = {Cause.RULE: "rules", Cause.MODEL: "model", Cause.POSTURE: "mode"}


class _Trial(NamedTuple):
    """One decision, what decided on it and what does instead, and its vector."""

    decision: PastDecision
    was: _Deciding
    instead: _Deciding
    vector: TriedVector

    @property
    def changes(self) -> tuple[Cause, ...]:
        """All that is changed, in the order of the causes."""
        changed_causes = {cause for cause, name in _FIELDS.items() if getattr(self.was, name) is not getattr(self.instead, name)}
        return tuple(cause for cause in Cause if cause in changed_causes or cause in self.vector.changes)

    def deciding(self, chosen_changes: Causes) -> _Deciding:
        """Rules, model and mode with these changes alone."""
        return self.was._replace(
            **{name: getattr(self.instead, name) for cause, name in _FIELDS.items() if cause in chosen_changes}
        )


@dataclass
class WhatIf:
    """An alternative, tried on decisions; `load`: the bundle of a digest."""

    alternative: Alternative
    load: Callable[[BundleRef], ReadyBundle]
    tally: WhatIfTally = field(default_factory=WhatIfTally)
    _joined_bundles: dict[tuple[str, str], ReadyBundle] = field(default_factory=dict, init=False, repr=False)

    def look_at(self, decisions: Sequence[PastDecision]) -> None:
        """Try it on each."""
        for decision, vector in zip(decisions, self._vectors(decisions), strict=True):
            if isinstance(vector, NotRebuilt):
                self._leave_untold(decision, *vector)
                continue
            try:
                before = ready_of(decision, self.load)
            except BundleDamaged as damaged:
                self._leave_untold(decision, "BUNDLE_DAMAGED", str(damaged))
                continue
            self._compare(decision, before, vector)

    def _vectors(self, decisions: Sequence[PastDecision]) -> list[TriedVector | NotRebuilt]:
        """The vector of each decision; one that was made without any has none otherwise, either."""
        rebuilder = self.alternative.vectors
        if rebuilder is None:
            return [
                NotRebuilt("VECTOR_LOST", "") if decision.is_vector_lost else ServedVector(decision) for decision in decisions
            ]
        with_vector = [decision.stored_text for decision in decisions if "feature_snapshot_hash" in decision.content]
        rebuilt_vectors = iter(rebuilder.rebuild(with_vector))
        return [
            next(rebuilt_vectors) if "feature_snapshot_hash" in decision.content else ServedVector(decision)
            for decision in decisions
        ]

    def _leave_untold(self, decision: PastDecision, reason: str, detail: str = "") -> None:
        self.tally.untold_decisions.append(Untold(decision.decision_id, decision.event.event_id, reason, detail))

    def _compare(self, decision: PastDecision, before: ReadyBundle | None, vector: TriedVector) -> None:
        applied_mode = Mode(decision.content["posture"]["applied_mode"])
        old = before or self.alternative.bundle
        new = self.alternative.bundle or before
        if old is None or new is None:
            self._leave_untold(decision, "NO_BUNDLE")
            return
        instead = _Deciding(new, new, self.alternative.mode or applied_mode)
        trial = _Trial(decision, _Deciding(old, old, applied_mode), instead, vector)
        verdict = self._decide(trial, frozenset(trial.changes))
        if isinstance(verdict, str):
            self._leave_untold(decision, verdict)
            return
        recorded_outcome = Outcome(decision.content["outcome"])
        if verdict.outcome is recorded_outcome:
            self.tally.same += 1
            return
        if self._flips(trial, recorded_outcome, _AS_RECORDED) is not False:
            detail = "with nothing changed it is not what is recorded: `ofp decision show`"
            self._leave_untold(decision, "NOT_AS_RECORDED", detail)
            return
        self.tally.flips.append(
            Flip(
                decision_id=decision.decision_id,
                event_id=decision.event.event_id,
                as_of_time_utc=decision.content["as_of_time_utc"],
                before=recorded_outcome,
                after=verdict.outcome,
                score_before=decision.content.get("score"),
                score_after=verdict.score,
                causes=flip_causes(
                    trial.changes, lambda chosen_changes: self._flips(trial, recorded_outcome, chosen_changes) is True
                ),
            )
        )

    def _flips(self, trial: _Trial, recorded_outcome: Outcome, chosen_changes: Causes) -> bool | None:
        """Whether a decision is another one with these changes; None: it cannot be made with them."""
        verdict = self._decide(trial, chosen_changes)
        return verdict.outcome is not recorded_outcome if isinstance(verdict, Verdict) else None

    def _decide(self, trial: _Trial, chosen_changes: Causes) -> Verdict | str:
        """The verdict with these changes, or why there is none."""
        decision, deciding = trial.decision, trial.deciding(chosen_changes)
        ready = self._joined_bundle(deciding)
        features = self._features(trial, ready, deciding.mode, chosen_changes)
        if isinstance(features, str):
            return features
        evidence = Evidence(features, decision.event.payload, decision.event.ts)
        [verdict] = decide_many(ready, deciding.mode, [evidence], decision.content["posture"]["fail_closed"])
        return "INPUT_UNFIT" if isinstance(verdict, InputUnfit) else verdict

    def _joined_bundle(self, deciding: _Deciding) -> ReadyBundle:
        key = (deciding.rules.ref.digest, deciding.model.ref.digest)
        if key not in self._joined_bundles:
            self._joined_bundles[key] = deciding.rules if deciding.rules is deciding.model else deciding.join()
        return self._joined_bundles[key]

    def _features(self, trial: _Trial, ready: ReadyBundle, mode: Mode, chosen_changes: Causes) -> dict[FeatureName, object] | str:
        """The features of the vector with these changes, by the names that the bundle reads them by; or why it cannot."""
        groups = [(group.group_name, group.group_version) for group in ready.groups_under(mode)]
        if not groups:
            return {}
        values = trial.vector.values(chosen_changes & trial.vector.changes)
        if values is None:
            return "VECTOR_UNSERVABLE"
        served_groups = _by_group(values)
        other_groups = set() if Cause.FEATURE not in trial.vector.changes else _counterparts(trial)
        features: dict[FeatureName, object] = {}
        for name, version in groups:
            group_features = served_groups.get((name, version))
            if group_features is None and (name, version) in other_groups:  # the same group, as the other pack defines it
                namesakes = [group for group in served_groups if group[0] == name]
                group_features = served_groups[namesakes[0]] if len(namesakes) == 1 else None
            if group_features is None:
                return "OTHER_GROUPS"  # its vector has not what this bundle asks for
            features.update({(name, version, feature): value for feature, value in group_features.items()})
        if other_groups and any(read not in features for read in ready.reads_under(mode)):
            return "OTHER_FEATURES"
        return features


def _by_group(values: KeyValues) -> dict[tuple[str, str], dict[str, object]]:
    return {(group["group_name"], group["group_version"]): group["features"] for key in values for group in key["by_group"]}


def _counterparts(trial: _Trial) -> set[tuple[str, str]]:
    """The groups that the decision was served, and what they are in the other pack."""
    other_values = trial.vector.values(trial.vector.changes) or []
    return {(group.group_name, group.group_version) for group in trial.decision.groups} | _by_group(other_values).keys()
