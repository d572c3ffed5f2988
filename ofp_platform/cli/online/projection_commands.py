"""`ofp projection`: the projections of the profile's run, side by side: build the next one, compare, switch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import Home, ProfileSource
from ofp_platform.cli.terminal.refusals import CommandRefused

if TYPE_CHECKING:
    from ofp_platform.online.ranges.rebuild import RebuildReceipt

app = typer.Typer(help="List projections, build the next one beside the live one, switch.", no_args_is_help=True)
_LEAST_DIGITS = 8


@app.command("list", short_help="List every projection in the database.")
def list_all(home: Home = None, profile: ProfileSource = None) -> None:
    """List every projection in the database: stream, run, registry, status, version, watermark."""
    from rich.console import Console
    from rich.table import Table

    from ofp_platform.online.state.projection import list_projections
    from ofp_platform.vocabulary.times import format_time

    with resolve(home, profile).open_plane_without_log() as plane, plane.pool.connection() as connection:
        rows = list_projections(connection)
    table = Table("id", "stream", "run", "registry", "status", "version", "shards", "watermark", box=None, pad_edge=False)
    for row in rows:
        watermark = "none" if row.watermark is None else format_time(row.watermark)
        identity = (str(row.projection_id), row.stream_name, row.pins.run_id, row.registry_digest[:12])
        table.add_row(*identity, row.status, str(row.version), str(row.shards), watermark)
    Console(width=160).print(table)


@app.command(short_help="Build the next projection and compare it with the live one.")
def rebuild(home: Home = None, profile: ProfileSource = None) -> None:
    """Build the projection of the profile's pack beside the live one, and compare the two by hash; exit code 1 if they differ.

    It is folded from the first record on, out of the archive as far as the log does not go back. New groups are compared with
    another fold of the same records.
    """
    from ofp_platform.offline.parity.projection_fold import ProjectionFold
    from ofp_platform.online.ranges import rebuild as rebuilding

    with resolve(home, profile).open_plane() as plane:
        receipt = rebuilding.rebuild(plane, ProjectionFold(plane.log, plane.archive, plane.profile))
    _tell(receipt)
    if receipt.unchanged:
        return
    if not receipt.may_go_live:
        assert receipt.comparison is not None
        typer.echo(f"projection {receipt.beside.projection_id} {rebuilding.reason_against(receipt.comparison)}", err=True)
        raise typer.Exit(1)
    typer.echo(f"make it live with: ofp projection switch {receipt.beside.registry_digest[:12]}")


@app.command(short_help="Make the next projection live.")
def switch(
    registry: Annotated[
        str, typer.Argument(metavar="DIGEST", help="Digest of the registry to make live; its first 8 digits are enough.")
    ],
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Compare once more and make the projection of the profile's pack live; the one that was live is retired."""
    from ofp_platform.offline.parity.projection_fold import ProjectionFold
    from ofp_platform.online.plane import profile_pack
    from ofp_platform.online.ranges import rebuild as rebuilding
    from ofp_platform.registry.pack import pack_digest

    environment = resolve(home, profile)
    digest = pack_digest(profile_pack(environment.load_profile()))
    if len(registry) < _LEAST_DIGITS or not digest.startswith(registry):
        raise CommandRefused(f"the profile's pack is registry {digest}; asked for was {registry}")
    with environment.open_plane() as plane:
        receipt = rebuilding.switch_live(plane, digest, ProjectionFold(plane.log, plane.archive, plane.profile))
    _tell(receipt)
    if not receipt.unchanged:
        typer.echo(f"projection {receipt.beside.projection_id} is live, {receipt.live.projection_id} is retired")


@app.command(short_help="Retire a projection that is not needed beside the live one.")
def retire(
    projection: Annotated[int, typer.Argument(metavar="ID", help="Id of the projection, as `ofp projection list` shows it.")],
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Retire a projection that was built beside the live one. The log is no longer kept for it, and retention removes its state.

    The live one is refused, and one that somebody is building now. `ofp projection rebuild` goes on with a retired one.
    """
    from ofp_platform.online.projecting.continuous import CATCH_UP, holds_projection
    from ofp_platform.online.state import projection as projections

    with resolve(home, profile).open_plane_without_log() as plane:
        if any(holds_projection(plane.pool, projection, *holder) for holder in ((), (CATCH_UP,))):
            raise CommandRefused(f"somebody applies records to projection {projection} now: stop that first")
        with plane.pool.connection() as connection:
            is_new = projections.retire(connection, projection)
    typer.echo(f"projection {projection} is retired" if is_new else f"projection {projection} was retired already")


@app.command(short_help="Divide the keys of a projection among another number of shards.")
def reshard(
    projection: Annotated[int, typer.Argument(metavar="PROJECTION", help="Number of the projection (`ofp projection list`).")],
    shards: Annotated[int, typer.Argument(metavar="SHARDS", help="How many key shards it is to have; 1: none.")],
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Divide the keys of a projection among another number of shards, from its next version on. No state moves.

    Shards finish what they have begun; processes of the old number end by themselves and say so. Then start one for each shard:
    `ofp projector run --shard I/S`.
    """
    from ofp_platform.online.state.key_shards import reshard_in_time

    with resolve(home, profile).open_plane_without_log() as plane:
        before = plane.row(projection)
        row = reshard_in_time(plane.pool, projection, shards)
    if row.version == before.version and before.shards == shards:
        typer.echo(f"projection {projection} has {shards} key shard{'s' if shards > 1 else ''} already")
        return
    typer.echo(f"projection {projection} has {row.shards} key shard{'s' if row.shards > 1 else ''} from version {row.version} on")
    typer.echo("start a process for each: " + "; ".join(_process(number, shards) for number in range(shards)))


def _process(number: int, shards: int) -> str:
    return f"ofp projector run --shard {number}/{shards}" if shards > 1 else "ofp projector run"


def _tell(receipt: RebuildReceipt) -> None:
    comparison = receipt.comparison
    if receipt.unchanged or comparison is None:
        typer.echo(f"projection {receipt.live.projection_id} of the profile's pack is the live one: nothing to build")
        return
    beside = receipt.beside
    typer.echo(f"projection {beside.projection_id}, registry {beside.registry_digest}: {receipt.records} records read")
    typer.echo(f"compared {len(comparison.compared_keys)} groups of {comparison.keys} keys at {len(comparison.moments)} times")
    for name in comparison.common:
        typer.echo(f"both: {name}, {comparison.compared_keys[name]} keys")
    for name in comparison.only_live:
        typer.echo(f"only in the live one: {name}")
    for name in comparison.only_beside:
        typer.echo(f"new: {name}, {comparison.compared_keys[name]} keys compared with another fold of the records")
    for name in comparison.without_keys:
        typer.echo(f"no {name} has a key in either of them: nothing of it was compared")
    typer.echo(f"live   {comparison.live_hash}")
    typer.echo(f"beside {comparison.beside_hash}")
    for difference in comparison.differences:
        where = f"{difference.key_type} {difference.key_id}, {difference.group}, {difference.feature}"
        typer.echo(f"differs: {where}: live {difference.live}, beside {difference.beside}", err=True)
