"""`ofp snapshot`: what was served, by its hash."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import Home, ProfileSource

app = typer.Typer(help="Materialised snapshots.", no_args_is_help=True)


@app.command(short_help="One snapshot, verified against its hash.")
def show(
    snapshot_hash: Annotated[str, typer.Argument(metavar="HASH", help="64 hex digits, as in feature_snapshot_hash.")],
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """The record of a snapshot, printed only if its content still has that hash."""
    from ofp_platform.online.snapshots import SnapshotStore
    from ofp_platform.storage.objects import ObjectStore

    with resolve(home, profile).open_plane() as plane:
        objects = ObjectStore(plane.profile.object_store_url, endpoint=plane.profile.object_store_endpoint_url)
        record = SnapshotStore(plane.pool, objects).load(snapshot_hash)
    typer.echo(json.dumps(json.loads(record), indent=2))
