"""`ofp model`: the example of what trains on a published dataset."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ofp_platform.cli.dataset_commands import Dataset, find_manifest
from ofp_platform.cli.environment import resolve
from ofp_platform.cli.model_table import model_table
from ofp_platform.cli.options import Home, ProfileSource
from ofp_platform.cli.progress import wheel
from ofp_platform.cli.refusals import CommandRefused
from ofp_platform.cli.workshop import object_store

if TYPE_CHECKING:
    from ofp_platform.learning.protocol import Protocol
    from ofp_platform.learning.training import TrainingReport
    from ofp_platform.storage.objects import ObjectStore
    from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest

app = typer.Typer(help="The example of what trains on datasets.", no_args_is_help=True)
_CARD = {"card_payments": "card_id", "handbook": "account_id"}


@app.callback()
def group() -> None:
    """The example of what trains on datasets."""


@app.command("train", short_help="Train fraud models on one dataset.")
def train_models(
    dataset: Dataset,
    first_day: Annotated[
        datetime | None,
        typer.Option(
            "--first-day",
            metavar="DATE",
            formats=["%Y-%m-%d"],
            help="The first day of training; otherwise as published for the handbook, else as late as labels allow.",
            show_default=False,
        ),
    ] = None,
    trees: Annotated[int, typer.Option("--trees", min=1, max=10_000, help="Of the random forest.")] = 100,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Train on seven days, leave seven for the labels to come, test on the seven after; store models, scores and lineage."""
    from ofp_platform.learning.protocol import Protocol

    objects = object_store(resolve(home, profile).load_profile())
    manifest = find_manifest(objects, dataset)
    protocol = protocol_of(objects, manifest) if first_day is None else Protocol(first_day.date())
    with wheel(Console(stderr=True), "Training"):
        report = train_on(objects, manifest, protocol, trees=trees)
    typer.echo(f"train {days_of(protocol.first_day, protocol.training_days)}: {report.training_rows:,} rows")
    typer.echo(f"test  {days_of(protocol.first_test_day, protocol.test_days)}: {report.test_rows:,} rows")
    for line in model_table(report, protocol):
        typer.echo(line)
    typer.echo(f"lineage {report.lineage_path}")


def train_on(objects: ObjectStore, manifest: DatasetManifest, protocol: Protocol, *, trees: int) -> TrainingReport:
    """Train on a dataset that has one row per payment.

    Raises:
        CommandRefused: it has not. ProtocolUnmet | DatasetDamaged | ObjectStoreUnavailable: see there.
    """
    from ofp_platform.learning.training import Columns, train

    pack_id = manifest.feature_pack.pack_id
    names = {column.name for column in manifest.columns}
    columns = Columns(card=_CARD.get(pack_id, "card_id"), amount="payload__amount_minor", event_time="event_time_utc")
    needed = (columns.card, columns.amount, columns.event_time, columns.label)
    if missing := [name for name in needed if name not in names]:
        raise CommandRefused(f"dataset {manifest.dataset_name} has no column {', '.join(missing)}: the example needs it")
    return train(objects, manifest, columns, protocol, trees=trees)


def protocol_of(objects: ObjectStore, manifest: DatasetManifest) -> Protocol:
    """The published days where the dataset has them with labels; else the latest ones of which labels are mature.

    Raises:
        ProtocolUnmet: the dataset has no labels. DatasetDamaged | ObjectStoreUnavailable: see there.
    """
    from datetime import timedelta

    import pyarrow.compute as pc

    from ofp_platform.learning.protocol import HANDBOOK, Protocol, ProtocolUnmet
    from ofp_platform.offline.dataset_reader import read_dataset
    from ofp_platform.vocabulary.times import parse_time, to_datetime

    label = manifest.label_basis
    if label is None or "event_time_utc" not in {column.name for column in manifest.columns}:
        raise ProtocolUnmet(f"dataset {manifest.dataset_name} has no labels of events")
    oldest = pc.min(read_dataset(objects, manifest, ["event_time_utc"])["event_time_utc"]).as_py().date()
    behind = to_datetime(parse_time(label.as_of_utc) - label.maturity_seconds * 1_000_000).date()
    span = timedelta(days=HANDBOOK.training_days + HANDBOOK.delay_days + HANDBOOK.test_days)
    if manifest.feature_pack.pack_id == "handbook" and oldest <= HANDBOOK.first_day and HANDBOOK.first_day + span <= behind:
        return HANDBOOK
    return Protocol(first_day=behind - span)


def days_of(first: object, count: int) -> str:
    """Days as a person says them."""
    return f"{first} and the {count - 1} days after"
