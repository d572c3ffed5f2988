"""`ofp pack`: a feature pack proposed from a file of events."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ofp_platform.cli.terminal.refusals import CommandRefused

app = typer.Typer(help="Propose a feature pack from a file of events.", no_args_is_help=True)
EventsFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="Events: CSV, .parquet or .jsonl; one event a row.", show_default=False)
]
EventType = Annotated[str | None, typer.Option("--type", help="Name of the events.  [default: payment]", show_default=False)]
IdColumn = Annotated[
    str | None, typer.Option("--id", metavar="COLUMN", help="Column with the id of each event.", show_default=False)
]
TimeColumn = Annotated[
    str | None, typer.Option("--time", metavar="COLUMN", help="Column with the time of each event.", show_default=False)
]
AmountColumn = Annotated[
    str | None, typer.Option("--amount", metavar="COLUMN", help="Column with the amount.", show_default=False)
]
LabelColumn = Annotated[
    str | None,
    typer.Option("--label", metavar="COLUMN", help="Column that says which were fraud; it is no feature.", show_default=False),
]
KeyColumns = Annotated[
    list[str] | None,
    typer.Option(
        "--key",
        metavar="KIND=COLUMN",
        help="Column with the id of an account, card, customer, device or merchant.",
        show_default=False,
    ),
]


@app.callback()
def group() -> None:
    """Propose a feature pack from a file of events."""


@app.command(short_help="Print a pack that fits a file of events.")
def infer(
    file: EventsFile,
    event_type: EventType = None,
    event_id: IdColumn = None,
    time: TimeColumn = None,
    amount: AmountColumn = None,
    key: KeyColumns = None,
    label: LabelColumn = None,
    name: Annotated[
        str | None, typer.Option("--name", help="Id of the pack; default: the name of the file.", show_default=False)
    ] = None,
) -> None:
    """Look at every row and print a pack: routing, fields, and groups of velocities and amounts for each key. What the columns
    were taken for is said on stderr. Nothing is written: `ofp init --events FILE` writes it with all that belongs to it.
    """
    from ofp_platform.cli.files.proposing import look, name_of, summary
    from ofp_platform.registry.pack import load_pack
    from ofp_platform.tables.proposal import Choices
    from ofp_platform.tables.proposal_text import pack_text

    file_study = look(file, Choices(event_type, event_id, time, amount, keys_of(key), label))
    text = pack_text(file_study.proposal, name_of(file, name))
    load_pack(text, "pack.yaml")
    for line in summary(file_study):
        typer.echo(line, err=True)
    typer.echo(text, nl=False)


@app.command("from-feast", short_help="Print a pack of the definitions of a Feast registry.")
def from_feast(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The output of `feast registry-dump`.", show_default=False)],
    key: Annotated[
        list[str] | None,
        typer.Option("--key", metavar="ENTITY=KIND", help="Key type of an entity that is called otherwise.", show_default=False),
    ] = None,
) -> None:
    """Print a pack: entities as keys, stream feature views with aggregations as groups, services as tags. What does not fit, or
    means something else here, is said on stderr with the reason. Feast itself is not needed.
    """
    from io import StringIO

    from ruamel.yaml import YAML

    from ofp_platform.registry.pack import load_pack
    from ofp_platform.tables.feast_registry import read_registry

    try:
        content = file.read_bytes()
    except OSError as error:
        raise CommandRefused(f"{file}: {error.strerror}") from None
    imported = read_registry(content, str(file), keys_of(key))
    yaml, stream = YAML(), StringIO()
    yaml.width = 120
    yaml.dump(imported.pack, stream)
    text = stream.getvalue()
    load_pack(text, "pack.yaml")
    for note in imported.notes:
        typer.echo(note, err=True)
    typer.echo(text, nl=False)


def keys_of(pairs: list[str] | None) -> dict[str, str]:
    """`KIND=COLUMN` as a mapping.

    Raises:
        CommandRefused: one is not written so, or a kind is named twice.
    """
    keys: dict[str, str] = {}
    for pair in pairs or []:
        kind, sign, column = pair.partition("=")
        if not sign or not column or kind in keys:
            raise CommandRefused(f"--key {pair}: write KIND=COLUMN, each kind once, as in --key account='Account No'")
        keys[kind] = column
    return keys
