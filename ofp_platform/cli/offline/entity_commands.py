"""`ofp dataset from-entities`: a file of keys and times becomes the rows of a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import AsJson, Home, ProfileSource
from ofp_platform.cli.terminal.printed_facts import print_facts
from ofp_platform.cli.terminal.progress import wheel
from ofp_platform.cli.terminal.readable_json import readable_json
from ofp_platform.cli.terminal.refusals import CommandRefused

if TYPE_CHECKING:
    from ofp_platform.tables.entity_rows import EntityRows
    from ofp_platform.tables.table_file import TableFile
    from ofp_platform.vocabulary.serving import FeatureGroupRef

_TIMES = ("event_timestamp", "as_of_time_utc", "as_of")
_SHOWN = 20


def from_entities(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="CSV, .parquet or .jsonl, one row per question.", show_default=False)
    ],
    name: Annotated[str, typer.Option("--name", help="Name of the dataset.", show_default=False)],
    key: Annotated[
        list[str] | None,
        typer.Option(
            "--key",
            metavar="TYPE=COLUMN",
            help="Column with the keys of a type; again for more. Default: columns called account_id, card_id, ...",
            show_default=False,
        ),
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(
            "--time", metavar="COLUMN", help="Column with the as-of of each row; default: event_timestamp.", show_default=False
        ),
    ] = None,
    zone: Annotated[str, typer.Option("--zone", help="Zone of times that name none, as in +02:00.")] = "UTC",
    label: Annotated[
        list[str] | None,
        typer.Option("--label", metavar="COLUMN", help="Column that is learned; again for more.", show_default=False),
    ] = None,
    group: Annotated[
        list[str] | None,
        typer.Option("--group", metavar="NAME:VERSION", help="Feature group; default: all of the keys.", show_default=False),
    ] = None,
    basis: Annotated[
        str, typer.Option("--basis", help="What a row knows: ingest_time, or event_time (hindsight).")
    ] = "ingest_time",
    build: Annotated[bool, typer.Option("--build/--intent", help="Build it here and now, or print the intent.")] = True,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Build and publish a dataset with a row for each row of the file, in its order and with its other columns as they are;
    features as of each row's own time. The table is stored under its digest, which is part of the dataset's identity.

    A row that cannot be read is printed as FILE:PLACE: column: reason, and then nothing is built; exit code 1.
    """
    from ofp_platform.cli.offline.build_commands import build_run
    from ofp_platform.cli.offline.build_context import open_build_context
    from ofp_platform.cli.offline.facts_commands import reference_of
    from ofp_platform.cli.offline.run_line import line_of
    from ofp_platform.offline.runs.entity_dataset import EntityRequest, entity_intent
    from ofp_platform.tables.entity_rows import EntityColumns, read_entity_rows
    from ofp_platform.tables.table_file import TableFault, TableFile
    from ofp_platform.vocabulary.offline.build_intent import AsOfBasis, intent_wire

    if basis not in (AsOfBasis.INGEST_TIME, AsOfBasis.EVENT_TIME):
        raise CommandRefused("--basis: ingest_time or event_time; a decision is about an event, and has rows of kind per_event")
    table_file = TableFile(file)
    columns = EntityColumns(_keys(key or [], table_file), time or _time(table_file), zone, tuple(label or ()))
    groups = None if group is None else [_group(text) for text in group]
    try:
        with wheel(Console(stderr=True), f"Reading {file.name}"):
            rows = read_entity_rows(columns, table_file.parts())
    except TableFault as fault:
        raise CommandRefused(str(fault) if str(fault).startswith(str(file)) else f"{file}: {fault}") from None
    except ValueError as error:
        raise CommandRefused(f"--zone: {error}") from None
    _refuse_faults(file, rows)
    with open_build_context(resolve(home, profile)) as (plane, build_context):
        request = EntityRequest(
            name=name,
            registry=plane.known_registry(),
            pins=plane.profile.context_pins,
            run_facts_ref=reference_of(plane.profile),
            as_of_basis=AsOfBasis(basis),
            groups=groups,
            label_columns=columns.labels,
            submitted_by="ofp-cli",
        )
        intent = entity_intent(build_context, request, rows.table)
        if not build:
            typer.echo(readable_json(intent_wire(intent)))
            return
        run = build_run(build_context, build_context.ledger.submit(intent).run_key, Console(stderr=True))
    lines, outcome = [line_of(run)], run.outcome if run.state.value == "DONE" else None
    if outcome is not None:
        lines.append(f"{outcome['dataset_name']}:{outcome['dataset_identity']}  {outcome['rows']:,} rows")
    print_facts(run, lines, as_json=json)
    if outcome is None:
        raise typer.Exit(1)


def _first_columns(file: TableFile) -> list[str]:
    part = next(iter(file.parts(1)), None)
    if part is None:
        raise CommandRefused(f"{file.path}: holds no row")
    return list(part.cells)


def _keys(texts: list[str], file: TableFile) -> dict[str, str]:
    from ofp_platform.vocabulary.identity import KeyType

    types = [key_type.value for key_type in KeyType]
    keys: dict[str, str] = {}
    for text in texts:
        key_type, separator, column = text.partition("=")
        if key_type not in types or not separator or not column:
            raise CommandRefused(f"--key: TYPE=COLUMN with a type of {', '.join(types)}, as in --key account=client")
        if key_type in keys:
            raise CommandRefused(f"--key: {key_type} is there twice; a row has one key of each type")
        keys[key_type] = column
    if not keys:
        names = _first_columns(file)
        keys = {key_type: f"{key_type}_id" for key_type in types if f"{key_type}_id" in names}
        if not keys:
            raise CommandRefused(
                f"{file.path}: no column is called account_id, card_id, customer_id, device_id or merchant_id:"
                f" say which one has keys, as in --key account={names[0]!r}"
            )
    return keys


def _time(file: TableFile) -> str:
    names = _first_columns(file)
    for name in _TIMES:
        if name in names:
            return name
    raise CommandRefused(
        f"{file.path}: no column is called {' or '.join(_TIMES)}: say which one has the times, with --time COLUMN;"
        f" there are {', '.join(map(repr, names))}"
    )


def _group(text: str) -> FeatureGroupRef:
    from pydantic import ValidationError

    from ofp_platform.vocabulary.serving import FeatureGroupRef

    name, _, version = text.partition(":")
    try:
        return FeatureGroupRef(group_name=name, group_version=version)
    except ValidationError:
        raise CommandRefused("--group: NAME:VERSION, as in account_activity:v1; `ofp registry show` lists them") from None


def _refuse_faults(file: Path, rows: EntityRows) -> None:
    for fault in rows.faults[:_SHOWN]:
        typer.echo(f"{file}:{fault.place}: {fault.column}: {fault.message}", err=True)
    if len(rows.faults) > _SHOWN:
        typer.echo(f"and {len(rows.faults) - _SHOWN:,} more rows that cannot be read", err=True)
    if rows.faults:
        raise CommandRefused(f"{len(rows.faults):,} rows cannot be read: mend them or leave them out; nothing was built")
