"""`ofp snapshot`: what was served, by its hash."""

from __future__ import annotations

import json as json_text
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import AlwaysJson, AsJson, Home, ProfileSource
from ofp_platform.cli.terminal.printed_facts import print_facts
from ofp_platform.cli.terminal.readable_json import readable_json
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.vocabulary.model import is_digest

if TYPE_CHECKING:
    from ofp_platform.offline.parity.explanation import ExplainedWindow, FeatureName
    from ofp_platform.online.plane import Plane

app = typer.Typer(help="Show or prove a materialised snapshot.", no_args_is_help=True)
_MISMATCH = "MISMATCH: what was served is not what the log gives"
Hash = Annotated[str, typer.Argument(metavar="HASH", help="64 hex digits, as in feature_snapshot_hash.")]


def _demand_hash(snapshot_hash: str) -> None:
    if not is_digest(snapshot_hash):
        raise CommandRefused("a snapshot hash is 64 hex digits, in lower case")


def _load(plane: Plane, snapshot_hash: str, *, rebuilt: bool = False) -> bytes:
    _demand_hash(snapshot_hash)
    from ofp_platform.online.serving.snapshot_store import SnapshotStore

    snapshots = SnapshotStore(plane.pool, plane.objects)
    return snapshots.load_rebuilt(snapshot_hash, plane.is_own) if rebuilt else snapshots.load(snapshot_hash, plane.is_own)


@app.command(short_help="Show one snapshot, verified against its hash.")
def show(
    snapshot_hash: Hash,
    rebuilt: Annotated[bool, typer.Option("--rebuilt", help="Show the result of a forensic rebuild instead.")] = False,
    json: AlwaysJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """The record of a snapshot, printed only if its content still has that hash."""
    with resolve(home, profile).open_plane_without_log("auditor") as plane:
        record = _load(plane, snapshot_hash, rebuilt=rebuilt)
    typer.echo(readable_json(json_text.loads(record)))


@app.command(short_help="Index stored snapshots again, after a loss of the database.")
def reindex(json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """Read every snapshot in the object store, hold it against its hash, and write the rows of the index that are missing.

    Exit code 1 if an object is damaged. It may run beside everything else, and again.
    """
    from rich.console import Console

    from ofp_platform.cli.terminal.progress import bar
    from ofp_platform.online.serving import snapshot_reindexing

    def tell(read: int, total: int) -> None:
        advance(100 * read // total - 100 * (read - 1) // total)

    with (
        resolve(home, profile).open_plane_without_log("offline") as plane,
        bar(Console(stderr=True), "Reading objects", 100) as advance,
    ):
        outcome = snapshot_reindexing.reindex(plane.pool, plane.objects, tell)
    for problem in outcome.problems:
        typer.echo(problem, err=True)
    line = f"indexed: {outcome.indexed:,} of {outcome.records:,} snapshots in {outcome.objects:,} objects"
    print_facts(outcome, [line], as_json=json)
    if outcome.problems:
        raise typer.Exit(1)


@app.command(short_help="Compute one snapshot again from the log.")
def rebuild(snapshot_hash: Hash, json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """Fold the log again up to the recorded basis, and hold the result against the hash; exit code 1 if they differ.

    Nothing that the projection stored is used, so archive and log up to that basis are read whole.
    """
    from ofp_platform.api.served_snapshot import ServedSnapshot

    _demand_hash(snapshot_hash)
    with resolve(home, profile).open_plane("auditor") as plane:
        served = ServedSnapshot.load(plane, snapshot_hash)
        rebuilt_hash, records = served.rebuilt()
    equal = rebuilt_hash == snapshot_hash
    lines = [f"recorded {snapshot_hash}", f"rebuilt  {rebuilt_hash}  from {records:,} records of the log"]
    facts = {"recorded": snapshot_hash, "rebuilt": rebuilt_hash, "records": records, "equal": equal}
    print_facts(facts, [*lines, "MATCH"] if equal else lines, as_json=json)
    if not equal:
        typer.echo(_MISMATCH, err=True)
        raise typer.Exit(1)


@app.command(short_help="List the events behind one served value.")
def explain(
    snapshot_hash: Hash,
    feature: Annotated[str, typer.Option("--feature", help="Name of the feature.")],
    key: Annotated[str | None, typer.Option("--key", metavar="TYPE:ID", help="Its key, where several were asked for.")] = None,
    group: Annotated[
        str | None, typer.Option("--group", metavar="NAME:VERSION", help="Its group, where several have it.")
    ] = None,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """The value, its window, and each event in it with the position of its record and the value that it adds.

    The snapshot is rebuilt from the log first, and nothing is listed unless it has the recorded hash; exit code 1 then.
    """
    from ofp_platform.api.served_snapshot import ServedSnapshot

    _demand_hash(snapshot_hash)
    with resolve(home, profile).open_plane("auditor") as plane:
        served = ServedSnapshot.load(plane, snapshot_hash)
        name, value = served.find(feature, key, group)
        if served.rebuilt()[0] != snapshot_hash:
            typer.echo(_MISMATCH, err=True)
            raise typer.Exit(1)
        windows = served.explained(name)
    facts = _explained_json(snapshot_hash, name, value, windows)
    print_facts(facts, _explained_lines(name, value, windows), as_json=json)


def _explained_lines(name: FeatureName, value: int | str | bool | None, windows: list[ExplainedWindow]) -> Iterator[str]:
    from ofp_platform.vocabulary.times import format_time

    yield f"{name.group_name} {name.group_version} {name.feature} of {name.key_type}:{name.key_id}"
    yield f"at {format_time(name.as_of)}: {json_text.dumps(value)}"
    for window in windows:
        selection = window.selection
        of = "" if selection.shown_field is None else f" of {selection.shown_field}"
        where = "".join(f", {field} one of {list(values)}" for field, values in selection.predicate.conditions)
        types = ", ".join(selection.predicate.event_types)
        yield f"{window.role}: {selection.aggregation.value}{of}, {types}{where}"
        yield f"  {format_time(window.after)} < time <= {format_time(window.until)}: {len(window.events):,} events"
        for event in window.events:
            value_text = "" if event.value is None else f"  {json_text.dumps(event.value)}"
            copies = f"  ({event.copies} copies)" if event.copies else ""
            yield f"  {event.partition_id}:{event.offset}  {format_time(event.ts)}  {event.event_id}{value_text}{copies}"


def _explained_json(
    snapshot_hash: str, name: FeatureName, value: int | str | bool | None, windows: list[ExplainedWindow]
) -> dict[str, Any]:
    from dataclasses import asdict

    from ofp_platform.vocabulary.times import format_time

    return {
        "feature_snapshot_hash": snapshot_hash,
        **asdict(name),
        "as_of": format_time(name.as_of),
        "value": value,
        "windows": [
            {
                "role": window.role,
                "aggregation": window.selection.aggregation.value,
                "of": window.selection.shown_field,
                "event_types": list(window.selection.predicate.event_types),
                "where": {field: list(values) for field, values in window.selection.predicate.conditions},
                "after": format_time(window.after),
                "until": format_time(window.until),
                "events": [
                    {**asdict(event), "ts": format_time(event.ts), "admitted_at": format_time(event.admitted_at)}
                    for event in window.events
                ],
            }
            for window in windows
        ],
    }
