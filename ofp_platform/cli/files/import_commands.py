"""`ofp log import` and `ofp labels append`: rows of a file become events of the log, or label assertions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ofp_platform.cli.environment import Environment, resolve
from ofp_platform.cli.options import AsJson, Home, ProfileSource
from ofp_platform.cli.terminal.printed_facts import print_facts
from ofp_platform.cli.terminal.progress import bar, wheel
from ofp_platform.cli.terminal.refusals import CommandRefused

if TYPE_CHECKING:
    from ofp_platform.tables.import_rules import ImportRules
    from ofp_platform.tables.row_events import RowFault
    from ofp_platform.tables.table_file import TableFile, TablePart
    from ofp_platform.vocabulary.offline.label_assertion import LabelAssertion

RULES = "import.yaml"
PRODUCER = "log-import"
_APPENDED_AT_ONCE = 20_000
_SHOWN = 20
RowsFile = Annotated[Path, typer.Argument(metavar="FILE", help="CSV, .parquet or .jsonl.", show_default=False)]
Rules = Annotated[
    Path | None,
    typer.Option(
        "--rules", metavar="FILE", help="How rows are read; default: import.yaml in the home folder.", show_default=False
    ),
]


def import_events(
    file: RowsFile, rules: Rules = None, json: AsJson = False, home: Home = None, profile: ProfileSource = None
) -> None:
    """Append the rows of a file as events, by the rules of import.yaml. A row that is no event is printed as FILE:PLACE: column:
    reason, the others are appended; exit code 1 if there was one.

    History is appended in the order of its time; each event counts as admitted a declared while after it, by a simulated clock.
    It comes through the door of the run: what was admitted before is there already, and is not appended again.
    """
    from ofp_platform.cli.files.run_door import entrance_of
    from ofp_platform.tables.row_events import History, RowReader, read_all
    from ofp_platform.tables.table_file import TableFile
    from ofp_platform.vocabulary.admission_receipt import AdmissionOutcome

    environment = resolve(home, profile)
    event_rules = _rules(environment, rules).events
    table = TableFile(file, event_rules.absent)
    reader = RowReader(event_rules)
    appended_count = known_count = refused_count = 0
    with environment.open_plane("ingress", create_stream=True) as plane:
        entrance = entrance_of(plane)
        with wheel(Console(stderr=True), f"Reading {file.name}"):
            events = read_all(reader, _parts_of(table))
        history = History(event_rules, plane.profile.context_pins, events)
        with bar(Console(stderr=True), "Appending", len(events)) as advance:
            for places, columns, admitted_at in history.columns(_APPENDED_AT_ONCE):
                for place, fate in zip(places, entrance.send_columns(columns, admitted_at, PRODUCER), strict=True):
                    if fate.reason is not None:
                        if refused_count < _SHOWN:
                            typer.echo(f"{file}:{place}: {fate.reason}: {fate.detail}", err=True)
                        refused_count += 1
                    appended_count += fate.outcome is AdmissionOutcome.ADMIT
                    known_count += fate.outcome is AdmissionOutcome.DUPLICATE
                advance(len(places))
    _tell(file, events.faults)
    if refused_count > _SHOWN:
        typer.echo(f"and {refused_count - _SHOWN:,} more that the log refused", err=True)
    refused_count += len(events.faults)
    known = f", {known_count:,} were there" if known_count else ""
    line = f"{appended_count:,} events appended, {refused_count:,} rows refused{known}"
    print_facts({"appended": appended_count, "known": known_count, "refused": refused_count}, [line], as_json=json)
    if refused_count:
        raise typer.Exit(1)


def append_labels(
    file: RowsFile, rules: Rules = None, json: AsJson = False, home: Home = None, profile: ProfileSource = None
) -> None:
    """Append the rows of a file as label assertions, by the section `labels` of import.yaml. A row that is none is printed as
    FILE:PLACE: column: reason, the others are appended; exit code 1 if there was one. What is there already stays as it is.
    """
    from ofp_platform.offline.labels.label_store import LabelStore, as_observed
    from ofp_platform.registry.models import event_class
    from ofp_platform.tables.row_labels import LabelReader
    from ofp_platform.tables.table_file import TableFile

    environment = resolve(home, profile)
    source = rules or environment.folder / RULES
    label_rules = _rules(environment, rules).labels
    if label_rules is None:
        raise CommandRefused(f"{source}: has no section labels: say there which column names the event and which says since when")
    faults: list[RowFault] = []
    assertions: list[LabelAssertion] = []
    with environment.open_plane_without_log("offline") as plane:
        events = plane.known_registry().pack.events
        if label_rules.event_type not in events:
            raise CommandRefused(
                f"{source}: labels.event_type: the pack knows no {label_rules.event_type}; it has {', '.join(events)}"
            )
        reader = LabelReader(label_rules, event_class(events, label_rules.event_type))
        with wheel(Console(stderr=True), f"Reading {file.name}"):
            for part in _parts_of(TableFile(file, label_rules.absent)):
                good, bad = reader.read(part)
                assertions += good
                faults += bad
        store = LabelStore(plane.pool, plane.profile.context_pins)
        receipt = store.append(assertions, as_observed if label_rules.admitted == "observed" else None)
    _tell(file, faults)
    line = f"{receipt.new_count:,} assertions appended, {receipt.known_count:,} were there, {len(faults):,} rows refused"
    facts = {"appended": receipt.new_count, "known": receipt.known_count, "refused": len(faults)}
    print_facts(facts, [line], as_json=json)
    if faults:
        raise typer.Exit(1)


def _rules(environment: Environment, rules: Path | None) -> ImportRules:
    from ofp_platform.tables.import_rules import load_import_rules

    return load_import_rules(rules or environment.folder / RULES)


def _parts_of(table: TableFile) -> Iterator[TablePart]:
    """The parts of a file; what is wrong with its columns is said with its name."""
    from ofp_platform.tables.table_file import TableFault

    count = 0
    for part in table.parts():
        count += len(part)
        yield part
    if not count:
        raise TableFault(f"{table.path}: holds no row")


def _tell(file: Path, faults: list[RowFault]) -> None:
    for fault in sorted(faults)[:_SHOWN]:
        typer.echo(f"{file}:{fault.place}: {fault.column}: {fault.message}", err=True)
    if len(faults) > _SHOWN:
        typer.echo(f"and {len(faults) - _SHOWN:,} more rows that cannot be read", err=True)
