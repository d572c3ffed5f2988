"""`ofp snapshot`: what was served, by its hash."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import Home, ProfileSource
from ofp_platform.cli.terminal.readable_json import readable_json
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.vocabulary.model import is_digest

if TYPE_CHECKING:
    from ofp_platform.offline.parity.explanation import ExplainedWindow, FeatureName
    from ofp_platform.offline.sources.stream_records import StreamRecords
    from ofp_platform.online.plane import Plane
    from ofp_platform.registry.compile import CompiledRegistry

app = typer.Typer(help="Show or prove a materialised snapshot.", no_args_is_help=True)
_MISMATCH = "MISMATCH: what was served is not what the log gives"
_PAGE = 20_000
Hash = Annotated[str, typer.Argument(metavar="HASH", help="64 hex digits, as in feature_snapshot_hash.")]


def _load(plane: Plane, snapshot_hash: str, *, rebuilt: bool = False) -> bytes:
    if not is_digest(snapshot_hash):
        raise CommandRefused("a snapshot hash is 64 hex digits, in lower case")
    from ofp_platform.online.serving.snapshot_store import SnapshotStore
    from ofp_platform.storage.objects import ObjectStore

    objects = ObjectStore(plane.profile.object_store_url, endpoint=plane.profile.object_store_endpoint_url)
    snapshots = SnapshotStore(plane.pool, objects)
    return snapshots.load_rebuilt(snapshot_hash) if rebuilt else snapshots.load(snapshot_hash)


@app.command(short_help="Show one snapshot, verified against its hash.")
def show(
    snapshot_hash: Hash,
    rebuilt: Annotated[bool, typer.Option("--rebuilt", help="Show the result of a forensic rebuild instead.")] = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """The record of a snapshot, printed only if its content still has that hash."""
    with resolve(home, profile).open_plane_without_log() as plane:
        record = _load(plane, snapshot_hash, rebuilt=rebuilt)
    typer.echo(readable_json(json.loads(record)))


@app.command(short_help="Index stored snapshots again, after a loss of the database.")
def reindex(home: Home = None, profile: ProfileSource = None) -> None:
    """Read every snapshot in the object store, hold it against its hash, and write the rows of the index that are missing.

    Exit code 1 if an object is damaged. It may run beside everything else, and again.
    """
    from rich.console import Console

    from ofp_platform.cli.offline.build_context import object_store
    from ofp_platform.cli.terminal.progress import bar
    from ofp_platform.online.serving import snapshot_reindexing

    def tell(read: int, total: int) -> None:
        advance(100 * read // total - 100 * (read - 1) // total)

    with resolve(home, profile).open_plane_without_log() as plane, bar(Console(stderr=True), "Reading objects", 100) as advance:
        outcome = snapshot_reindexing.reindex(plane.pool, object_store(plane.profile), tell)
    for problem in outcome.problems:
        typer.echo(problem, err=True)
    typer.echo(f"indexed: {outcome.indexed:,} of {outcome.records:,} snapshots in {outcome.objects:,} objects")
    if outcome.problems:
        raise typer.Exit(1)


@app.command(short_help="Compute one snapshot again from the log.")
def rebuild(snapshot_hash: Hash, home: Home = None, profile: ProfileSource = None) -> None:
    """Fold the log again up to the recorded basis, and hold the result against the hash; exit code 1 if they differ.

    Nothing that the projection stored is used, so archive and log up to that basis are read whole.
    """
    with resolve(home, profile).open_plane() as plane:
        served = Served.load(plane, snapshot_hash)
        rebuilt_hash, records = served.rebuilt()
    typer.echo(f"recorded {snapshot_hash}")
    typer.echo(f"rebuilt  {rebuilt_hash}  from {records:,} records of the log")
    if rebuilt_hash != snapshot_hash:
        typer.echo(_MISMATCH, err=True)
        raise typer.Exit(1)
    typer.echo("MATCH")


@app.command(short_help="List the events behind one served value.")
def explain(
    snapshot_hash: Hash,
    feature: Annotated[str, typer.Option("--feature", help="Name of the feature.")],
    key: Annotated[str | None, typer.Option("--key", metavar="TYPE:ID", help="Its key, where several were asked for.")] = None,
    group: Annotated[
        str | None, typer.Option("--group", metavar="NAME:VERSION", help="Its group, where several have it.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print windows and events as JSON.")] = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """The value, its window, and each event in it with the position of its record and the value that it adds.

    The snapshot is rebuilt from the log first, and nothing is listed unless it has the recorded hash; exit code 1 then.
    """
    from ofp_platform.vocabulary.times import format_time

    with resolve(home, profile).open_plane() as plane:
        served = Served.load(plane, snapshot_hash)
        name, value = served.find(feature, key, group)
        if served.rebuilt()[0] != snapshot_hash:
            typer.echo(_MISMATCH, err=True)
            raise typer.Exit(1)
        windows = served.explained(name)
    if as_json:
        typer.echo(readable_json(_explained_json(snapshot_hash, name, value, windows)))
        return
    typer.echo(f"{name.group_name} {name.group_version} {name.feature} of {name.key_type}:{name.key_id}")
    typer.echo(f"at {format_time(name.as_of)}: {json.dumps(value)}")
    for window in windows:
        selection = window.selection
        of = "" if selection.value is None else f" of {selection.value}"
        where = "".join(f", {field} one of {list(values)}" for field, values in selection.predicate.conditions)
        types = ", ".join(selection.predicate.event_types)
        typer.echo(f"{window.role}: {selection.aggregation.value}{of}, {types}{where}")
        typer.echo(f"  {format_time(window.after)} < time <= {format_time(window.until)}: {len(window.events):,} events")
        for event in window.events:
            value_text = "" if event.value is None else f"  {json.dumps(event.value)}"
            copies = f"  ({event.copies} copies)" if event.copies else ""
            typer.echo(f"  {event.partition_id}:{event.offset}  {format_time(event.ts)}  {event.event_id}{value_text}{copies}")


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
                "of": window.selection.value,
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


@dataclass(frozen=True)
class Served:
    """A served snapshot with all that its rebuild and its explanation need."""

    plane: Plane
    snapshot_hash: str
    hashed: Mapping[str, Any]
    registry: CompiledRegistry
    stream_records: StreamRecords

    @classmethod
    def load(cls, plane: Plane, snapshot_hash: str) -> Served:
        """The record of a hash, verified, and the registry that it was served under."""
        from ofp_platform.log.archive_store import Archive
        from ofp_platform.offline.sources.stream_records import StreamRecords
        from ofp_platform.online.state.projection import load_registry
        from ofp_platform.storage.objects import ObjectStore
        from ofp_platform.vocabulary.serving import SnapshotRecord

        record = SnapshotRecord.model_validate_json(_load(plane, snapshot_hash))
        with plane.pool.connection() as connection:
            registry = load_registry(connection, record.hashed["registry_digest"])
        objects = ObjectStore(plane.profile.object_store_url, endpoint=plane.profile.object_store_endpoint_url)
        return cls(
            plane, snapshot_hash, record.hashed, registry, StreamRecords(plane.log, Archive(objects, plane.log.stream_name))
        )

    def rebuilt(self) -> tuple[str, int]:
        """The hash that the log gives for the same question, and how many records were read for it."""
        import tempfile
        from pathlib import Path

        from ofp_platform.offline.parity.forensic_rebuild import RunPolicies, rebuild_recorded

        counts: list[int] = []
        profile = self.plane.profile
        with tempfile.TemporaryDirectory() as folder:
            answer = rebuild_recorded(
                self.stream_records,
                self.registry,
                profile.context_pins,
                RunPolicies.of(profile),
                self.hashed,
                Path(folder) / "replay",
                counts.append,
            )
        return answer.hash, sum(counts)

    def find(self, feature: str, key: str | None, group: str | None) -> tuple[FeatureName, int | str | bool | None]:
        """The one feature of that name, and its served value.

        Raises:
            CommandRefused: there is none, or there are several; the text lists them.
        """
        from ofp_platform.offline.parity.explanation import FeatureName
        from ofp_platform.vocabulary.times import parse_time

        as_of = parse_time(self.hashed["as_of_time_utc"])
        matches = [
            (
                FeatureName(
                    of_key["key_type"], of_key["key_id"], of_group["group_name"], of_group["group_version"], feature, as_of
                ),
                of_group["features"][feature],
            )
            for of_key in self.hashed["values"]
            for of_group in of_key["by_group"]
            if feature in of_group["features"]
        ]
        places = [(f"{name.key_type}:{name.key_id}", f"{name.group_name}:{name.group_version}") for name, _ in matches]
        fits = [
            match
            for match, (of_key, of_group) in zip(matches, places, strict=True)
            if key in (None, of_key) and group in (None, of_group)
        ]
        if len(fits) != 1:
            there = "; ".join(f"--key {of_key} --group {of_group}" for of_key, of_group in places) or "not in this snapshot"
            raise CommandRefused(f"{feature}: {'several are meant' if fits else 'none is meant'}: {there}")
        return fits[0]

    def explained(self, name: FeatureName) -> list[ExplainedWindow]:
        """The windows of a feature with their events.

        Raises:
            NotExplained: it is computed on demand.
        """
        from ofp_platform.offline.parity.explanation import explain
        from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
        from ofp_platform.vocabulary.position import Basis

        basis = Basis.model_validate(self.hashed["input_basis"])
        spans = ReplayBasis.up_to(basis).partitions if basis.partitions else ()
        batches = (batch for span in spans for batch in self.stream_records.reader.batches(span, _PAGE))
        profile = self.plane.profile
        return explain(batches, self.registry, profile.context_pins, profile.clock_skew_us, name)
