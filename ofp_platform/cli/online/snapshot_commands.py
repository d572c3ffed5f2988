"""`ofp snapshot`: what was served, by its hash."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import Home, ProfileSource
from ofp_platform.cli.terminal.readable_json import readable_json
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.vocabulary.model import is_digest

if TYPE_CHECKING:
    from ofp_platform.online.plane import Plane

app = typer.Typer(help="Show or prove a materialised snapshot.", no_args_is_help=True)
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
    import tempfile
    from pathlib import Path

    from ofp_platform.log.archive_store import Archive
    from ofp_platform.offline.parity.forensic_rebuild import RunPolicies, rebuild_recorded
    from ofp_platform.offline.sources.stream_records import StreamRecords
    from ofp_platform.online.state.projection import load_registry
    from ofp_platform.storage.objects import ObjectStore
    from ofp_platform.vocabulary.serving import SnapshotRecord

    records = 0

    def count(more: int) -> None:
        nonlocal records
        records += more

    with resolve(home, profile).open_plane() as plane, tempfile.TemporaryDirectory() as folder:
        record = SnapshotRecord.model_validate_json(_load(plane, snapshot_hash))
        declared_profile = plane.profile
        with plane.pool.connection() as connection:
            registry = load_registry(connection, record.hashed["registry_digest"])
        objects = ObjectStore(declared_profile.object_store_url, endpoint=declared_profile.object_store_endpoint_url)
        rebuilt = rebuild_recorded(
            StreamRecords(plane.log, Archive(objects, plane.log.stream_name)),
            registry,
            declared_profile.context_pins,
            RunPolicies.of(declared_profile),
            record.hashed,
            Path(folder) / "replay",
            count,
        )
    typer.echo(f"recorded {snapshot_hash}")
    typer.echo(f"rebuilt  {rebuilt.hash}  from {records:,} records of the log")
    if rebuilt.hash != snapshot_hash:
        typer.echo("MISMATCH: what was served is not what the log gives", err=True)
        raise typer.Exit(1)
    typer.echo("MATCH")
