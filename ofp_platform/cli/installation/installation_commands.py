"""`ofp init` and `ofp migrate`: a profile to start from, and the schema."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from ofp_platform.cli.environment import SHIPPED_PROFILES, Environment, resolve
from ofp_platform.cli.files.pack_commands import (
    AmountColumn,
    EventType,
    IdColumn,
    KeyColumns,
    LabelColumn,
    TimeColumn,
    keys_of,
)
from ofp_platform.cli.options import AsJson, Home
from ofp_platform.cli.terminal.printed_facts import print_facts
from ofp_platform.cli.terminal.refusals import CommandRefused


def init(
    home: Home = None,
    start_from: Annotated[str, typer.Option("--from", help="The shipped profile to start from.")] = "demo",
    events: Annotated[
        Path | None,
        typer.Option("--events", metavar="FILE", help="Start from events of your own instead: CSV, .parquet or .jsonl."),
    ] = None,
    labels: Annotated[
        Path | None, typer.Option("--labels", metavar="FILE", help="With --events: the file that says which of them were fraud.")
    ] = None,
    label_delay: Annotated[
        str, typer.Option("--label-delay", help="With a label in the file of events: how long until a fraud is known.")
    ] = "7d",
    event_type: EventType = None,
    event_id: IdColumn = None,
    time: TimeColumn = None,
    amount: AmountColumn = None,
    key: KeyColumns = None,
    label: LabelColumn = None,
    name: Annotated[
        str | None, typer.Option("--name", help="With --events: name of stream and pack; default: the name of the file.")
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace the files that are there.")] = False,
) -> None:
    """Write profile.yaml into the home folder; every command then uses it when no other is named.

    With --events, every row of the file is looked at, and pack.yaml, import.yaml and decision.yaml are written beside it: what
    the columns were taken for, as files to change. docs/own-events.md goes on from there.
    """
    environment = resolve(home, makes_home=True)
    if events is not None:
        _init_from(
            environment, events, labels, label_delay, (event_type, event_id, time, amount, keys_of(key), label), name, force
        )
        return
    if labels is not None or key:
        raise CommandRefused("--labels and --key belong to --events FILE")
    if start_from not in SHIPPED_PROFILES:
        raise CommandRefused(f"there is no shipped profile {start_from!r}; there are {', '.join(SHIPPED_PROFILES)}")
    text = resources.files("ofp_platform.cli").joinpath("profiles", f"{start_from}.yaml").read_text(encoding="utf-8")
    _write(environment, {environment.own_profile.name: text}, force)


def _init_from(
    environment: Environment,
    events: Path,
    labels: Path | None,
    label_delay: str,
    choices: tuple[str | None, str | None, str | None, str | None, dict[str, str], str | None],
    name: str | None,
    force: bool,
) -> None:
    from ofp_platform.cli.files.proposing import files_of, look, look_at_labels, name_of, summary
    from ofp_platform.tables.proposal import Choices
    from ofp_platform.vocabulary.times import parse_duration

    try:
        parse_duration(label_delay)
    except ValueError as error:
        raise CommandRefused(f"--label-delay: {error}") from None
    file_study = look(events, Choices(*choices))
    label_file = None if labels is None else look_at_labels(labels, file_study)
    for line in summary(file_study):
        typer.echo(line)
    _write(environment, files_of(file_study, label_file, name_of(events, name), label_delay), force)


def _write(environment: Environment, files: dict[str, str], force: bool) -> None:
    if not force:
        for file_name in files:
            if (target := environment.folder / file_name).exists():
                raise CommandRefused(f"{target} exists; edit it, or replace it with --force")
    environment.folder.mkdir(parents=True, exist_ok=True)
    for file_name, text in files.items():
        (environment.folder / file_name).write_text(text, encoding="utf-8")
        typer.echo(f"wrote {environment.folder / file_name}")


def migrate(json: AsJson = False, home: Home = None) -> None:
    """Bring the schema of the database to the newest revision. Nothing happens when it is there already."""
    from ofp_platform.storage import schema

    dsn = resolve(home).dsn("owner")
    is_current = schema.schema_is_current(dsn)
    if not is_current:
        schema.migrate(dsn)
    line = "the schema is at the newest revision" if is_current else "the schema was brought to the newest revision"
    print_facts({"migrated": not is_current}, [line], as_json=json)
