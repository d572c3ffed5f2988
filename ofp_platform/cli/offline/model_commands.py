"""`ofp model`: the example of what trains on a published dataset."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

import typer
from rich.console import Console

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.offline.dataset_commands import Dataset, find_manifest
from ofp_platform.cli.offline.model_table import model_table
from ofp_platform.cli.options import AsJson, Home, ProfileSource
from ofp_platform.cli.terminal.printed_facts import print_facts
from ofp_platform.cli.terminal.progress import wheel

app = typer.Typer(help="Train the example models on datasets.", no_args_is_help=True)


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
    allow_hindsight: Annotated[
        bool,
        typer.Option("--allow-hindsight", help="Admit a dataset whose rows know later events (as_of_basis event_time)."),
    ] = False,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Train on seven days, leave seven for the labels to come, test on the seven after; store models, scores and lineage."""
    from ofp_platform.learning.payments import protocol_of, train_on
    from ofp_platform.learning.protocol import Protocol
    from ofp_platform.vocabulary.offline.dataset_admission import admit

    objects = resolve(home, profile).open_objects()
    manifest = find_manifest(objects, dataset)
    admit(manifest, allow_hindsight=allow_hindsight)
    protocol = protocol_of(objects, manifest) if first_day is None else Protocol(first_day.date())
    with wheel(Console(stderr=True), "Training"):
        report = train_on(objects, manifest, protocol, trees=trees, allow_hindsight=allow_hindsight, entity=entity, amount=amount)
    lines = [
        f"train {days_of(protocol.first_day, protocol.training_days)}: {report.training_rows:,} rows",
        f"test  {days_of(protocol.first_test_day, protocol.test_days)}: {report.test_rows:,} rows",
        *model_table(report, protocol),
        f"lineage {report.lineage_path}",
    ]
    facts = {
        "first_day": protocol.first_day,
        "training_rows": report.training_rows,
        "test_rows": report.test_rows,
        "scores": {model.name: model.scores for model in report.models},
        "lineage_path": report.lineage_path,
    }
    print_facts(facts, lines, as_json=json)


def days_of(first: object, count: int) -> str:
    """Days as a person says them."""
    return f"{first} and the {count - 1} days after"
