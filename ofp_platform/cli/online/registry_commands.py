"""`ofp registry`: look at feature packs before and after they are published."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import Home, ProfileSource

if TYPE_CHECKING:
    from ofp_platform.registry.models import Pack

app = typer.Typer(help="Check, show and compare feature packs.", no_args_is_help=True)
PackSourceArgument = Annotated[str, typer.Argument(metavar="PACK", help="Pack file, or name of a shipped pack.")]


def read_pack(source: str) -> Pack:
    """A shipped pack by its name, or a file.

    Raises:
        PackErrors: everything that is wrong with it.
    """
    from ofp_platform.registry.pack import SHIPPED_PACKS, load_pack_file, shipped_pack

    return shipped_pack(source) if source in SHIPPED_PACKS else load_pack_file(Path(source))


@app.command(short_help="Validate a pack, alone or against the store.")
def check(
    pack: PackSourceArgument,
    store: Annotated[
        bool, typer.Option("--store", help="Compare with every group version published in the database, too.")
    ] = False,
    home: Home = None,
) -> None:
    """Validate a pack; errors as file:line: field: message, exit code 1."""
    from ofp_platform.registry.pack import pack_digest

    feature_pack = read_pack(pack)
    if store:
        _hold_against_store(feature_pack, resolve(home).dsn())
    digest = pack_digest(feature_pack)
    typer.echo(f"{feature_pack.pack_id} revision {feature_pack.revision}: {len(feature_pack.groups)} groups, digest {digest}")


def _hold_against_store(pack: Pack, dsn: str) -> None:
    import psycopg

    from ofp_platform.online.state.projection import published_groups
    from ofp_platform.registry import history

    with psycopg.connect(dsn, autocommit=True) as connection:
        stored_groups = published_groups(connection)
    refusals = history.check(stored_groups, pack)
    for refusal in refusals:
        typer.echo(str(refusal), err=True)
    if refusals:
        raise typer.Exit(1)
    new = sum((group.name, group.version) not in stored_groups for group in pack.groups)
    typer.echo(f"held against {len(stored_groups)} published group versions: {new} new, none redefined")


@app.command(short_help="Show the groups of a pack.")
def show(
    pack: Annotated[
        str | None,
        typer.Argument(
            metavar="[PACK]", help="Pack file, or name of a shipped pack; default: the profile's pack.", show_default=False
        ),
    ] = None,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Show the groups of a pack: keys, features, request_context fields."""
    from textwrap import fill

    from ofp_platform.registry.compile import compile_pack
    from ofp_platform.registry.layout import CompiledFeature, CompiledOnDemand

    registry = compile_pack(read_pack(pack or resolve(home, profile).load_profile().pack))
    typer.echo(f"{registry.pack.pack_id} revision {registry.pack.revision}, digest {registry.digest}")
    for (name, version), plan in sorted(registry.groups.items()):
        written: tuple[CompiledFeature | CompiledOnDemand, ...] = (*plan.features, *plan.on_demand)
        features = sorted(feature.name for feature in written)
        typer.echo(f"\n{name}:{version}  of the {plan.key_type}, stale after {plan.ttl_seconds} s")
        typer.echo(fill(", ".join(features), width=100, initial_indent="  ", subsequent_indent="  "))
        for field, kind in plan.request_fields:
            typer.echo(f"  needs request_context: {field} ({kind})")


@app.command(short_help="Compare two packs.")
def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help="Pack file, or name of a shipped pack.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Pack file, or name of a shipped pack.")],
) -> None:
    """Compare two packs; exit code 1 when a group changed under a version that it had."""
    from ofp_platform.registry.diff import diff_packs

    difference = diff_packs(read_pack(old), read_pack(new))
    for line in difference.lines or ("the packs mean the same",):
        typer.echo(line)
    if not difference.publishable:
        raise typer.Exit(1)
