"""decide(event, vector, bundle, posture): a pure function, so that whoever has its arguments gets the same decision."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ofp_platform.decisions.guardrails import fired
from ofp_platform.scoring.compiled_model import CompiledModel
from ofp_platform.scoring.inputs import FeatureName, InputUnfit, as_rows, read_inputs
from ofp_platform.vocabulary.decimals import format_decimal
from ofp_platform.vocabulary.loop.bundle import Bundle, BundleRef, FeatureOperand, Guardrail
from ofp_platform.vocabulary.loop.decision_record import MOST_REASON_CODES
from ofp_platform.vocabulary.loop.exact_model import ExactModel, FeatureInput
from ofp_platform.vocabulary.loop.outcome import Outcome
from ofp_platform.vocabulary.loop.posture import MASKS, Mode
from ofp_platform.vocabulary.serving import FeatureGroupRef, KeyValues

Features = Mapping[FeatureName, Any]
POSTURE_CODES = {Mode.HOLD: "POSTURE_HOLD", Mode.FAIL_CLOSED: "POSTURE_FAIL_CLOSED"}
"""The one reason of a decision that the posture makes alone."""


@dataclass(frozen=True)
class Verdict:
    """A decision, bare. `score`: as the model says it, a decimal; None where none scored. The weightiest reason first."""

    outcome: Outcome
    score: str | None
    reason_codes: tuple[str, ...]


_SCORED_LATER = Verdict(Outcome.REVIEW, None, ())
"""Stands in the place of a verdict until all rows are scored at once."""


@dataclass(frozen=True)
class ReadyBundle:
    """A bundle with its model, compiled; `model`: None where it has none."""

    bundle: Bundle
    model: ExactModel | None

    @cached_property
    def ref(self) -> BundleRef:
        """How decisions name it."""
        return self.bundle.ref

    @cached_property
    def compiled_model(self) -> CompiledModel | None:
        """The model, ready to score."""
        return None if self.model is None else CompiledModel(self.model)

    @cached_property
    def required_groups(self) -> tuple[FeatureGroupRef, ...]:
        """Its groups without the optional ones."""
        return tuple(group for group in self.bundle.groups if group not in self.bundle.optional_groups)

    def groups_under(self, mode: Mode) -> tuple[FeatureGroupRef, ...]:
        """The groups that a mode lets it ask for."""
        match MASKS[mode].groups:
            case "all":
                return self.bundle.groups
            case "required":
                return self.required_groups
            case "none":
                return ()

    def reads_under(self, mode: Mode) -> set[FeatureName]:
        """The features that its rules and model read under a mode, of the groups that this lets it ask for."""
        groups = {(group.group_name, group.group_version) for group in self.groups_under(mode)}
        operands = [comparison.feature for rule in self.bundle.guardrails for comparison in rule.all_of]
        reads: list[FeatureOperand | FeatureInput] = [operand for operand in operands if operand is not None]
        if self.model is not None and MASKS[mode].model:
            reads += [one for one in self.model.inputs if isinstance(one, FeatureInput)]
        return {
            (read.group_name, read.group_version, read.feature)
            for read in reads
            if (read.group_name, read.group_version) in groups
        }

    def names_under(self, mode: Mode) -> dict[tuple[str, str], list[str]]:
        """The same features, by group and version."""
        names: dict[tuple[str, str], list[str]] = {}
        for group_name, group_version, feature in sorted(self.reads_under(mode)):
            names.setdefault((group_name, group_version), []).append(feature)
        return names


def features_of(by_key: Iterable[KeyValues], groups: Iterable[FeatureGroupRef]) -> dict[FeatureName, Any]:
    """The values of a vector by group, version and name; of these groups alone."""
    asked_input = {(group.group_name, group.group_version) for group in groups}
    return {
        (group.group_name, group.group_version, name): value
        for key in by_key
        for group in key.by_group
        if (group.group_name, group.group_version) in asked_input
        for name, value in group.features.items()
    }


@dataclass(frozen=True)
class Evidence:
    """All that is known of one event: the features of its vector, as far as the mode lets them decide, its payload, its time
    (microseconds).
    """

    features: Features
    payload: Mapping[str, Any]
    ts: int


def decide(ready: ReadyBundle | None, mode: Mode, evidence: Evidence, fail_closed: str) -> Verdict:
    """Decide on one event, as `decide_many` does.

    Raises:
        InputUnfit: a value that the bundle cannot read. A mode below decides without it.
    """
    [verdict] = decide_many(ready, mode, [evidence], fail_closed)
    if isinstance(verdict, InputUnfit):
        raise verdict
    return verdict


def decide_many(
    ready: ReadyBundle | None, mode: Mode, events: Sequence[Evidence], fail_closed: str
) -> list[Verdict | InputUnfit]:
    """Decide on each event. `ready`: None where no bundle is in force, which no mode above HOLD survives; `fail_closed`: the
    outcome of FAIL_CLOSED. In place of a verdict, why the bundle cannot read the event.
    """
    mask = MASKS[mode]
    if mask.outcomes != "decided":
        outcome = Outcome.REVIEW if mask.outcomes == "review" else Outcome(fail_closed)
        return [Verdict(outcome, None, (POSTURE_CODES[mode],))] * len(events)
    assert ready is not None
    compiled_model = ready.compiled_model if mask.model else None
    verdicts: list[Verdict | InputUnfit] = []
    readable: list[tuple[int, list[Guardrail]]] = []
    rows: list[tuple[list[int], list[bool]]] = []
    for place, evidence in enumerate(events):
        try:
            rules = fired(ready.bundle.guardrails, evidence.features, evidence.payload)
            if compiled_model is not None:
                rows.append(read_inputs(compiled_model.model.inputs, evidence.features, evidence.payload, evidence.ts))
        except InputUnfit as unfit:
            verdicts.append(unfit)
            continue
        verdicts.append(_verdict(rules, None, None) if compiled_model is None else _SCORED_LATER)
        readable.append((place, rules))
    if compiled_model is not None and rows:
        scored_rows = _score_rows(compiled_model, ready, rows)
        for (place, rules), scored_row in zip(readable, scored_rows, strict=True):
            verdicts[place] = _verdict(rules, scored_row, compiled_model)
    return verdicts


@dataclass(frozen=True)
class _Scored:
    """A scaled score, what the thresholds say of it (None: nothing), and the share of each input where they say something."""

    score: int
    outcome: Outcome | None
    shares: list[int]


def _score_rows(compiled_model: CompiledModel, ready: ReadyBundle, rows: Sequence[tuple[list[int], list[bool]]]) -> list[_Scored]:
    assert ready.bundle.model is not None
    thresholds = ready.bundle.model.thresholds
    values, present = as_rows(rows)
    scores = compiled_model.scores(values, present)
    is_alerted = scores >= thresholds.review_from
    shares = iter(compiled_model.shares(values[is_alerted], present[is_alerted]).tolist())
    scored_rows = []
    for score, has_shares in zip(scores.tolist(), is_alerted.tolist(), strict=True):
        outcome = Outcome.DECLINE if score >= thresholds.decline_from else Outcome.REVIEW
        scored_rows.append(_Scored(score, outcome, next(shares)) if has_shares else _Scored(score, None, []))
    return scored_rows


def _verdict(rules: Sequence[Guardrail], scored_row: _Scored | None, compiled_model: CompiledModel | None) -> Verdict:
    outcomes: list[Outcome] = [rule.outcome for rule in rules]
    codes = [rule.reason_code for rule in sorted(rules, key=lambda rule: -rule.outcome.severity)]
    score: str | None = None
    if scored_row is not None and compiled_model is not None:
        score = format_decimal(scored_row.score, compiled_model.model.score_scale)
        if scored_row.outcome is not None:
            outcomes.append(scored_row.outcome)
        # the greatest share first; of equal ones, in the order of the inputs
        ranked_places = sorted(range(len(scored_row.shares)), key=lambda place: (-scored_row.shares[place], place))
        codes += [reason_code(compiled_model.model.inputs[place].name) for place in ranked_places if scored_row.shares[place] > 0]
    outcome = max(outcomes, key=lambda one: one.severity, default=Outcome.APPROVE)
    return Verdict(outcome, score, tuple(dict.fromkeys(codes))[:MOST_REASON_CODES])


def reason_code(input_name: str) -> str:
    """The code of an input that spoke for the outcome."""
    return input_name.upper()
