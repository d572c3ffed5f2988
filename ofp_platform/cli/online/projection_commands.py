"""`ofp projection`: the projections of the profile's run, side by side: build the next one, compare, switch."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import AsJson, Home, ProfileSource, actor_or_user
from ofp_platform.cli.terminal.printed_facts import item, print_facts, short, when
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.vocabulary.times import format_time

if TYPE_CHECKING:
    from ofp_platform.online.ranges.rebuild import RebuildReceipt
    from ofp_platform.online.state.projection import ProjectionRow

app = typer.Typer(help="List projections, build the next one beside the live one, switch.", no_args_is_help=True)
_LEAST_DIGITS = 8


@app.command("list", short_help="List every projection in the database.")
def list_all(json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """List every projection in the database: stream, run, registry, status, version, watermark."""
    from ofp_platform.online.state.projection import list_projections

    with resolve(home, profile).open_plane_without_log("auditor") as plane, plane.pool.connection() as connection:
        rows = list_projections(connection)
    lines = [line for row in rows for line in _row_lines(row)]
    print_facts([_row_facts(row) for row in rows], lines or ["there is no projection yet"], as_json=json)


def _row_lines(row: ProjectionRow) -> Iterator[str]:
    shards = f"{row.shards} key shard{'s' if row.shards > 1 else ''}"
    about = f"version {row.version}, {shards}, watermark {when(row.watermark)}"
    details = (f"{row.stream_name}, run {row.pins.run_id}", about)
    yield from item(row.projection_id, row.status, f"registry {short(row.registry_digest)}", details=details)


def _row_facts(row: ProjectionRow) -> dict[str, Any]:
    watermark = None if row.watermark is None else format_time(row.watermark)
    return {
        "projection_id": row.projection_id,
        "stream_name": row.stream_name,
        "context_pins": row.pins.wire(),
        "registry_digest": row.registry_digest,
        "status": row.status,
        "version": row.version,
        "shards": row.shards,
        "watermark_utc": watermark,
    }


@app.command(short_help="Build the next projection and compare it with the live one.")
def rebuild(json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """Build the projection of the profile's pack beside the live one, and compare the two by hash; exit code 1 if they differ.

    It is folded from the first record on, out of the archive as far as the log does not go back. New groups are compared with
    another fold of the same records.
    """
    from ofp_platform.offline.parity.projection_fold import ProjectionFold
    from ofp_platform.online.ranges import rebuild as rebuilding

    with resolve(home, profile).open_plane("projector") as plane:
        receipt = rebuilding.rebuild(plane, ProjectionFold(plane.log, plane.archive, plane.profile))
    lines = list(_receipt_lines(receipt))
    if receipt.may_go_live and not receipt.unchanged:
        lines.append(f"make it live with: ofp projection switch {short(receipt.beside.registry_digest)}")
    print_facts(_receipt_facts(receipt), lines, as_json=json)
    if receipt.unchanged:
        return
    if not receipt.may_go_live:
        assert receipt.comparison is not None
        typer.echo(f"projection {receipt.beside.projection_id} {rebuilding.reason_against(receipt.comparison)}", err=True)
        raise typer.Exit(1)


@app.command(short_help="Make the next projection live.")
def switch(
    registry: Annotated[
        str, typer.Argument(metavar="DIGEST", help="Digest of the registry to make live; its first 8 digits are enough.")
    ],
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Compare once more and make the projection of the profile's pack live; the one that was live is retired."""
    from ofp_platform.offline.parity.projection_fold import ProjectionFold
    from ofp_platform.online.plane import profile_pack
    from ofp_platform.online.ranges.pack_apply import Order, apply_plan
    from ofp_platform.online.ranges.pack_plan import plan_pack
    from ofp_platform.registry.pack import pack_digest
    from ofp_platform.vocabulary.times import MICROS_PER_SECOND

    environment = resolve(home, profile)
    pack = profile_pack(environment.load_profile())
    digest = pack_digest(pack)
    if len(registry) < _LEAST_DIGITS or not digest.startswith(registry):
        raise CommandRefused(f"the profile's pack is registry {digest}; asked for was {registry}")
    now = int(time.time() * MICROS_PER_SECOND)
    with environment.open_plane("offline") as plane:  # who reads the groups is known to that role
        plan = plan_pack(plane, pack, None, planned_at=now)
    with environment.open_plane("projector") as plane:
        fold = ProjectionFold(plane.log, plane.archive, plane.profile)
        order = Order(actor_or_user(None), "ofp projection switch", now, share=1.0)
        receipt = apply_plan(plane, plan, fold, order)
    lines = list(_receipt_lines(receipt))
    if not receipt.unchanged:
        lines.append(f"projection {receipt.beside.projection_id} is live, {receipt.live.projection_id} is retired")
    print_facts(_receipt_facts(receipt), lines, as_json=json)


@app.command(short_help="Retire a projection that is not needed beside the live one.")
def retire(
    projection: Annotated[int, typer.Argument(metavar="ID", help="Id of the projection, as `ofp projection list` shows it.")],
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Retire a projection that was built beside the live one. The log is no longer kept for it, and retention removes its state.

    The live one is refused, and one that somebody is building now. `ofp projection rebuild` goes on with a retired one.
    """
    from ofp_platform.online.projecting.continuous import CATCH_UP, holds_projection
    from ofp_platform.online.state import projection as projections

    with resolve(home, profile).open_plane_without_log("projector") as plane:
        if any(holds_projection(plane.pool, projection, *holder) for holder in ((), (CATCH_UP,))):
            raise CommandRefused(f"somebody applies records to projection {projection} now: stop that first")
        with plane.pool.connection() as connection:
            is_new = projections.retire(connection, projection)
    line = f"projection {projection} is retired" if is_new else f"projection {projection} was retired already"
    print_facts({"projection_id": projection, "retired_now": is_new}, [line], as_json=json)


@app.command(short_help="Divide the keys of a projection among another number of shards.")
def reshard(
    projection: Annotated[int, typer.Argument(metavar="PROJECTION", help="Number of the projection (`ofp projection list`).")],
    shards: Annotated[int, typer.Argument(metavar="SHARDS", help="How many key shards it is to have; 1: none.")],
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Divide the keys of a projection among another number of shards, from its next version on. No state moves.

    Shards finish what they have begun; processes of the old number end by themselves and say so. Then start one for each shard:
    `ofp projector run --shard I/S`.
    """
    from ofp_platform.online.state.key_shards import reshard_in_time

    with resolve(home, profile).open_plane_without_log("projector") as plane:
        before = plane.row(projection)
        row = reshard_in_time(plane.pool, projection, shards)
    if row.version == before.version and before.shards == shards:
        lines = [f"projection {projection} has {shards} key shard{'s' if shards > 1 else ''} already"]
    else:
        shards_text = f"{row.shards} key shard{'s' if row.shards > 1 else ''}"
        lines = [
            f"projection {projection} has {shards_text} from version {row.version} on",
            "start a process for each: " + "; ".join(_process(number, shards) for number in range(shards)),
        ]
    print_facts(_row_facts(row), lines, as_json=json)


def _process(number: int, shards: int) -> str:
    return f"ofp projector run --shard {number}/{shards}" if shards > 1 else "ofp projector run"


def _receipt_facts(receipt: RebuildReceipt) -> dict[str, Any]:
    comparison = receipt.comparison
    differences = () if comparison is None else comparison.differences
    return {
        "live": _row_facts(receipt.live),
        "beside": _row_facts(receipt.beside),
        "records": receipt.records,
        "unchanged": receipt.unchanged,
        "may_go_live": receipt.may_go_live,
        "compared_keys": {} if comparison is None else comparison.compared_keys,
        "live_hash": None if comparison is None else comparison.live_hash,
        "beside_hash": None if comparison is None else comparison.beside_hash,
        "differences": list(differences),
    }


def _receipt_lines(receipt: RebuildReceipt) -> Iterator[str]:
    comparison = receipt.comparison
    if receipt.unchanged or comparison is None:
        yield f"projection {receipt.live.projection_id} of the profile's pack is the live one: nothing to build"
        return
    beside = receipt.beside
    yield f"projection {beside.projection_id}, registry {beside.registry_digest}: {receipt.records} records read"
    yield f"compared {len(comparison.compared_keys)} groups of {comparison.keys} keys at {len(comparison.moments)} times"
    for name in comparison.common:
        yield f"both: {name}, {comparison.compared_keys[name]} keys"
    for name in comparison.only_live:
        yield f"only in the live one: {name}"
    for name in comparison.only_beside:
        yield f"new: {name}, {comparison.compared_keys[name]} keys compared with another fold of the records"
    for name in comparison.without_keys:
        yield f"no {name} has a key in either of them: nothing of it was compared"
    yield f"live   {comparison.live_hash}"
    yield f"beside {comparison.beside_hash}"
    for difference in comparison.differences:
        where = f"{difference.key_type} {difference.key_id}, {difference.group}, {difference.feature}"
        typer.echo(f"differs: {where}: live {difference.live}, beside {difference.beside}", err=True)
