"""A challenger beside the model in force on one holdout: each threshold can fail, and what is absent does."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import pytest

from ofp_platform.learning.challenger import Challenger, NoActiveModel, NotComparable, score_part, train_challenger
from ofp_platform.learning.dataset_inputs import dataset_inputs
from ofp_platform.learning.payments import columns_of_payments, protocol_of
from ofp_platform.learning.protocol import Protocol
from ofp_platform.learning.sklearn_export import export_sklearn
from ofp_platform.learning.training import estimator
from ofp_platform.learning.training_rows import Part, read_parts
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.loop.challenger_report import rule_words
from ofp_platform.vocabulary.loop.exact_model import ExactModel, ModelInput
from ofp_platform_tests.oracle.learned_plane import HOLDOUT, LearnedPlane, policy, published

NOBODY = NoActiveModel("no bundle is in force in here/fraud/active")


@pytest.fixture(scope="module")
def learned(module_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LearnedPlane]:
    made = LearnedPlane.prepare(module_dsn, tmp_path_factory.mktemp("challenger"))
    yield made
    made.world.plane.close()


@pytest.fixture(scope="module")
def all_knowing(learned: LearnedPlane) -> ExactModel:
    """A model that has learned the holdout by heart."""
    inputs, holdout = holdout_of(learned)
    forest = estimator("random_forest", 50, 1).fit(holdout.numbers(inputs), holdout.rows["fraud"].to_numpy())
    return export_sklearn("random_forest", forest, inputs, holdout.values, holdout.present)


@pytest.fixture(scope="module")
def equal(learned: LearnedPlane) -> ExactModel:
    """The model that the policy trains."""
    protocol = protocol_of(learned.world.objects, learned.manifest)
    return model_of(learned.world.objects, learned.trained("logistic_regression", protocol).path)


def holdout_of(learned: LearnedPlane) -> tuple[tuple[ModelInput, ...], Part]:
    objects, manifest = learned.world.objects, learned.manifest
    columns = columns_of_payments(manifest)
    inputs = dataset_inputs(manifest, columns.amount)
    _, holdout = read_parts(objects, manifest, columns, inputs, protocol_of(objects, manifest))
    return inputs, holdout


def model_of(objects: ObjectStore, path: str) -> ExactModel:
    return ExactModel.model_validate_json(objects.get(path))


def failed(challenger: Challenger) -> list[str]:
    return [rule_words(rule) for rule in challenger.rules if not rule.passed]


def test_the_holdout_is_the_one_of_the_protocol(learned: LearnedPlane) -> None:
    assert protocol_of(learned.world.objects, learned.manifest).first_test_day == HOLDOUT


def test_what_meets_every_threshold_passes(learned: LearnedPlane, equal: ExactModel) -> None:
    challenger = train_challenger(
        learned.world.objects, learned.manifest, policy(behind_active_at_most={"auc_roc": "0.000000"}), equal
    )
    assert not failed(challenger)
    assert [rule.rule for rule in challenger.rules] == [
        "training_set",
        "holdout",
        "holdout",
        "at_least",
        "model_in_force",
        "behind_active_at_most",
    ]
    trained_model = challenger.trained_model
    assert trained_model is not None
    # the model in force, scored on the holdout by itself, shows what the report on the challenger, which is its twin, says
    twin = challenger.rules[-1]
    assert twin.seen == trained_model.report.metrics["auc_roc"]
    assert twin.asked == f"no more than 0.000000 below {twin.seen}"
    assert challenger.test_rows == trained_model.report.test_rows > 10


def test_what_stays_behind_the_model_in_force_fails_with_figures(learned: LearnedPlane, all_knowing: ExactModel) -> None:
    strict = policy(behind_active_at_most={"auc_roc": "0.010000", "average_precision": "0.010000"})
    challenger = train_challenger(learned.world.objects, learned.manifest, strict, all_knowing)
    assert challenger.trained_model is not None
    metrics = challenger.trained_model.report.metrics
    words = failed(challenger)
    assert [line.split(":")[0] for line in words] == [
        "behind_active_at_most, auc_roc",
        "behind_active_at_most, average_precision",
    ]
    assert words[0].endswith(f"seen {metrics['auc_roc']}")


def test_what_shows_too_little_fails_and_its_report_says_so(learned: LearnedPlane, equal: ExactModel) -> None:
    challenger = train_challenger(learned.world.objects, learned.manifest, policy(at_least={"auc_roc": "1.000000"}), equal)
    (line,) = failed(challenger)
    assert line.startswith("at_least, auc_roc: asked for 1.000000 or more, seen 0.")
    assert challenger.trained_model is not None
    assert not challenger.trained_model.report.has_passed


def test_a_holdout_that_is_too_small_fails(learned: LearnedPlane, equal: ExactModel) -> None:
    few = train_challenger(learned.world.objects, learned.manifest, policy(min_test_rows=10_000, min_test_frauds=5_000), equal)
    rows, frauds = failed(few)
    assert rows == f"holdout: asked for 10,000 rows or more, seen {few.test_rows:,} rows"
    assert frauds == f"holdout: asked for 5,000 frauds or more, seen {few.test_frauds:,} frauds"


def test_no_model_in_force_fails(learned: LearnedPlane) -> None:
    challenger = train_challenger(learned.world.objects, learned.manifest, policy(), NOBODY)
    assert failed(challenger) == [
        "model_in_force: asked for a model in force that scores the same rows, seen no bundle is in force in here/fraud/active"
    ]


def test_a_model_that_asks_what_the_dataset_has_not_fails(learned: LearnedPlane, equal: ExactModel) -> None:
    amount = equal.inputs[0].model_copy(update={"scale": 7})
    other = equal.model_copy(update={"inputs": (amount, *equal.inputs[1:])})
    (line,) = failed(train_challenger(learned.world.objects, learned.manifest, policy(), other))
    assert line.endswith("it asks payload__amount_minor with 7 digits, which the dataset has not")
    inputs, holdout = holdout_of(learned)
    with pytest.raises(NotComparable):
        score_part(other, inputs, holdout)


def test_inputs_in_another_order_score_the_same(learned: LearnedPlane, equal: ExactModel) -> None:
    inputs, holdout = holdout_of(learned)
    assert [asked.name for asked in inputs] == [asked.name for asked in equal.inputs]
    turned = type(holdout)(holdout.rows, holdout.values[:, ::-1], holdout.present[:, ::-1])
    assert score_part(equal, inputs[::-1], turned) == score_part(equal, inputs, holdout)


def test_labels_of_one_kind_fail(learned: LearnedPlane, equal: ExactModel) -> None:
    manifest, _ = published(learned.world, "quiet", lambda number: 0)
    challenger = train_challenger(learned.world.objects, manifest, policy(), equal)
    assert challenger.trained_model is None
    (line,) = failed(challenger)
    assert line.startswith("holdout: ")
    assert "with 0 frauds: both classes are needed" in line


def test_a_dataset_without_labels_fails(learned: LearnedPlane, equal: ExactModel) -> None:
    gates = learned.manifest.gates.model_copy(update={"labels": None})
    unlabelled = learned.manifest.model_copy(update={"gates": gates})
    (line,) = failed(train_challenger(learned.world.objects, unlabelled, policy(), equal))
    assert line.startswith("training_set: ")
    assert "GATE_MISSING" in line


def test_no_rows_of_the_days_fail(learned: LearnedPlane, equal: ExactModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ofp_platform.learning.challenger.protocol_of", lambda *_: Protocol(date(2020, 1, 1)))
    (line,) = failed(train_challenger(learned.world.objects, learned.manifest, policy(), equal))
    assert "has 0 rows with 0 frauds: both classes are needed" in line
