"""A challenger: a model trained again on a dataset, and what it shows on the holdout beside the model in force, rule by rule."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

from ofp_platform.learning.dataset_inputs import dataset_inputs
from ofp_platform.learning.payments import columns_of_payments, protocol_of, train_on
from ofp_platform.learning.protocol import ProtocolUnmet
from ofp_platform.learning.scores import Scores, score
from ofp_platform.learning.training import TrainedModel
from ofp_platform.learning.training_rows import Part, read_parts
from ofp_platform.scoring.compiled_model import CompiledModel
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.loop.challenger_report import GateRule
from ofp_platform.vocabulary.loop.exact_model import ExactModel, ModelInput
from ofp_platform.vocabulary.offline.dataset_admission import DatasetNotAdmitted, admit
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest
from ofp_platform.vocabulary.retraining_policy import Metric, RetrainingPolicy


@dataclass(frozen=True)
class NoActiveModel:
    """There is no model in force to be held against, in words."""

    reason: str


class NotComparable(Exception):
    """A model cannot score the rows of a dataset; the text says which input is missing."""


@dataclass(frozen=True)
class Challenger:
    """The trained model (None: nothing could be trained), rows and frauds of the holdout, and the rules as far as they went."""

    trained_model: TrainedModel | None
    test_rows: int
    test_frauds: int
    rules: tuple[GateRule, ...]


def train_challenger(
    objects: ObjectStore, manifest: DatasetManifest, policy: RetrainingPolicy, active: ExactModel | NoActiveModel
) -> Challenger:
    """Train on a dataset as the policy says, and hold the model and the one in force against the same rows of the holdout.

    Raises:
        DatasetDamaged | ObjectStoreUnavailable: see there.
    """
    try:
        admit(manifest, allow_hindsight=policy.allow_hindsight)
        protocol = protocol_of(objects, manifest)
        training_report = train_on(
            objects,
            manifest,
            protocol,
            trees=policy.trees,
            allow_hindsight=policy.allow_hindsight,
            estimators=(policy.estimator,),
            gates=policy.at_least,
        )
        columns = columns_of_payments(manifest)
        inputs = dataset_inputs(manifest, columns.amount)
        _, holdout = read_parts(objects, manifest, columns, inputs, protocol)
    except DatasetNotAdmitted as refused:
        return _untrained("training_set", "a dataset that is admitted to training", str(refused))
    except ProtocolUnmet as unmet:
        return _untrained("holdout", "days of training and of test, each with frauds and others", str(unmet))
    (trained_model,) = training_report.models
    report = trained_model.report
    rules = [
        GateRule(rule="training_set", asked="a dataset that is admitted to training", seen="admitted", passed=True),
        *_size_rules(policy, report.test_rows, report.test_frauds),
        *(
            GateRule(
                rule="at_least", metric=gate.metric, asked=f"{gate.at_least} or more", seen=gate.seen_value, passed=gate.passed
            )
            for gate in report.gates
        ),
        *_active_rules(policy, report.metrics, active, inputs, holdout),
    ]
    return Challenger(trained_model, report.test_rows, report.test_frauds, tuple(rules))


def score_part(model: ExactModel, inputs: tuple[ModelInput, ...], part: Part) -> Scores:
    """The scores of a model on rows whose columns are `inputs`.

    Raises:
        NotComparable: it asks what is none of them, or with another number of digits.
    """
    places = {(known_input.name, known_input.scale): place for place, known_input in enumerate(inputs)}
    chosen_places = []
    for asked_input in model.inputs:
        place = places.get((asked_input.name, asked_input.scale))
        if place is None:
            raise NotComparable(f"it asks {asked_input.name} with {asked_input.scale} digits, which the dataset has not")
        chosen_places.append(place)
    scores = CompiledModel(model).scores(part.values[:, chosen_places], part.present[:, chosen_places])
    return score(part.rows, scores)


def _untrained(rule: str, asked: str, seen: str) -> Challenger:
    failed_rule = GateRule.model_validate({"rule": rule, "asked": asked, "seen": seen, "passed": False})
    return Challenger(None, 0, 0, (failed_rule,))


def _size_rules(policy: RetrainingPolicy, rows: int, frauds: int) -> Iterator[GateRule]:
    for unit, count, least in (("rows", rows, policy.min_test_rows), ("frauds", frauds, policy.min_test_frauds)):
        yield GateRule(rule="holdout", asked=f"{least:,} {unit} or more", seen=f"{count:,} {unit}", passed=count >= least)


def _active_rules(
    policy: RetrainingPolicy,
    metrics: Mapping[Metric, str],
    active: ExactModel | NoActiveModel,
    inputs: tuple[ModelInput, ...],
    holdout: Part,
) -> Iterator[GateRule]:
    asked = "a model in force that scores the same rows"
    if isinstance(active, NoActiveModel):
        yield GateRule(rule="model_in_force", asked=asked, seen=active.reason, passed=False)
        return
    try:
        active_scores = score_part(active, inputs, holdout)
    except NotComparable as error:
        yield GateRule(rule="model_in_force", asked=asked, seen=str(error), passed=False)
        return
    yield GateRule(rule="model_in_force", asked=asked, seen=f"{active.model_name} {active.digest[:12]}", passed=True)
    for metric, margin in sorted(policy.behind_active_at_most.items()):
        shown = f"{getattr(active_scores, metric):.6f}"
        yield GateRule(
            rule="behind_active_at_most",
            metric=metric,
            asked=f"no more than {margin} below {shown}",
            seen=metrics[metric],
            passed=Decimal(metrics[metric]) >= Decimal(shown) - Decimal(margin),
        )
