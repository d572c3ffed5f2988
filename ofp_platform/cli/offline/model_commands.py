"""`ofp model`: the example of what trains on a published dataset."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.offline.dataset_commands import Dataset, find_manifest
from ofp_platform.cli.offline.model_table import model_table
from ofp_platform.cli.options import Actor, AsJson, Home, ProfileSource
from ofp_platform.cli.terminal.printed_facts import print_facts
from ofp_platform.cli.terminal.progress import wheel
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.vocabulary.retraining_policy import EstimatorName

if TYPE_CHECKING:
    from ofp_platform.learning.training import BoostedFile

app = typer.Typer(help="Train the example models on datasets.", no_args_is_help=True)


class Estimator(Enum):
    """The models that can be trained here."""

    LOGISTIC_REGRESSION = "logistic_regression"
    DECISION_TREE_DEPTH_2 = "decision_tree_depth_2"
    RANDOM_FOREST = "random_forest"
    GRADIENT_BOOSTING = "gradient_boosting"


@app.callback()
def group() -> None:
    """Train the example models on datasets."""


@app.command("train", short_help="Train fraud models on one dataset.")
def train_models(
    dataset: Dataset,
    first_day: Annotated[
        datetime | None,
        typer.Option(
            "--first-day",
            metavar="DATE",
            formats=["%Y-%m-%d"],
            help="First day of training; default: as published for the handbook, else as late as labels allow.",
            show_default=False,
        ),
    ] = None,
    trees: Annotated[int, typer.Option("--trees", min=1, max=10_000, help="Trees of the random forest.")] = 100,
    entity: Annotated[
        str | None,
        typer.Option("--entity", metavar="COLUMN", help="Id whose known frauds leave the test; default: card, else account."),
    ] = None,
    amount: Annotated[
        str | None,
        typer.Option("--amount", metavar="COLUMN", help="Payload column that the model sees too; default: the amount."),
    ] = None,
    estimator: Annotated[
        list[Estimator] | None,
        typer.Option("--estimator", help="What is trained; default: the three of the handbook's baseline.", show_default=False),
    ] = None,
    file: Annotated[
        list[Path] | None,
        typer.Option(
            "--file",
            metavar="FILE",
            help="A model that LightGBM (.txt) or XGBoost (.json) saved: taken over, nothing else is trained unless asked for.",
            show_default=False,
        ),
    ] = None,
    allow_hindsight: Annotated[
        bool,
        typer.Option("--allow-hindsight", help="Admit a dataset whose rows know later events (as_of_basis event_time)."),
    ] = False,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Train on seven days, leave seven for the labels to come, test on the seven after; store models in exact form, a report on
    each, and the lineage.
    """
    from ofp_platform.learning.payments import protocol_of, train_on
    from ofp_platform.learning.protocol import Protocol
    from ofp_platform.vocabulary.offline.dataset_admission import admit

    objects = resolve(home, profile).open_objects()
    manifest = find_manifest(objects, dataset)
    admit(manifest, allow_hindsight=allow_hindsight)
    protocol = protocol_of(objects, manifest) if first_day is None else Protocol(first_day.date())
    with wheel(Console(stderr=True), "Training"):
        report = train_on(
            objects,
            manifest,
            protocol,
            trees=trees,
            allow_hindsight=allow_hindsight,
            entity=entity,
            amount=amount,
            estimators=_sources(estimator or [], file or []),
        )
    lines = [
        f"train {days_of(protocol.first_day, protocol.training_days)}: {report.training_rows:,} rows",
        f"test  {days_of(protocol.first_test_day, protocol.test_days)}: {report.test_rows:,} rows",
        *model_table(report, protocol),
        *(f"{model.name}: {model.path}" for model in report.models),
        f"lineage {report.lineage_path}",
    ]
    facts = {
        "first_day": protocol.first_day,
        "training_rows": report.training_rows,
        "test_rows": report.test_rows,
        "scores": {model.name: model.scores for model in report.models},
        "models": {model.name: {"path": model.path, "report_path": model.report_path} for model in report.models},
        "lineage_path": report.lineage_path,
    }
    print_facts(facts, lines, as_json=json)


@app.command("retrain", short_help="Train a challenger, and publish it if the gate passes.")
def retrain_model(
    dataset: Dataset,
    actor: Actor,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Train as the profile's `retraining` says, and hold the model against the one in force on the same holdout. Where every
    threshold is met, its bundle is published; nothing is approved or put in force. Exit code 1 if the gate did not pass.
    """
    from ofp_platform.cli.offline.retraining import retrain
    from ofp_platform.storage.bundle_events import bundle_path
    from ofp_platform.vocabulary.loop.challenger_report import rule_words

    with resolve(home, profile).open_plane_without_log("owner") as plane:
        manifest = find_manifest(plane.objects, dataset)
        with wheel(Console(stderr=True), "Training"):
            retrained = retrain(plane, manifest, actor, lambda: time.time_ns() // 1_000)
    report = retrained.report
    lines = [f"{'passed' if rule.passed else 'FAILED'}  {rule_words(rule)}" for rule in report.rules]
    if report.has_passed and report.challenger is not None:
        lines.append(f"published as a challenger: {bundle_path(report.challenger)}")
    else:
        lines.append("the gate did not pass: nothing was published")
    lines.append(f"report {retrained.report_path}")
    facts = {**report.model_dump(mode="json"), "passed": report.has_passed, "report_path": retrained.report_path}
    print_facts({**facts, "is_new": retrained.is_new}, lines, as_json=json)
    if not report.has_passed:
        raise typer.Exit(1)


def _sources(estimators: list[Estimator], files: list[Path]) -> Sequence[EstimatorName | BoostedFile]:
    """The models to train, and the files to take over.

    Raises:
        CommandRefused: a file cannot be read, or its name does not end as that of a model.
    """
    from ofp_platform.learning.training import BASELINE, BoostedFile

    boosted = []
    for path in files:
        if path.suffix not in (".txt", ".json"):
            raise CommandRefused(f"{path}: a model of LightGBM ends in .txt, one of XGBoost in .json")
        try:
            content = path.read_bytes()
        except OSError as error:
            raise CommandRefused(f"{path}: {error.strerror}") from None
        boosted.append(BoostedFile("lightgbm_file" if path.suffix == ".txt" else "xgboost_file", content))
    asked: list[EstimatorName] = [name.value for name in estimators]
    return [*(asked or ([] if boosted else BASELINE)), *boosted]


def days_of(first: object, count: int) -> str:
    """Days as a person says them."""
    return f"{first} and the {count - 1} days after"
