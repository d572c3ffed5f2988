"""`ofp registry`: look at feature packs before and after they are published."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import AsJson, Home, ProfileSource
from ofp_platform.cli.terminal.printed_facts import WIDTH, print_facts

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
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Validate a pack; errors as file:line: field: message, exit code 1."""
    from ofp_platform.registry.pack import pack_digest

    feature_pack = read_pack(pack)
    lines = [_hold_against_store(feature_pack, resolve(home).dsn("auditor"))] if store else []
    digest = pack_digest(feature_pack)
    lines.append(f"{feature_pack.pack_id} revision {feature_pack.revision}: {len(feature_pack.groups)} groups, digest {digest}")
    facts = {
        "pack_id": feature_pack.pack_id,
        "revision": feature_pack.revision,
        "groups": len(feature_pack.groups),
        "digest": digest,
        "held_against_store": store,
    }
    print_facts(facts, lines, as_json=json)


def _hold_against_store(pack: Pack, dsn: str) -> str:
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
    return f"held against {len(stored_groups)} published group versions: {new} new, none redefined"


@app.command(short_help="Show the groups of a pack.")
def show(
    pack: Annotated[
        str | None,
        typer.Argument(
            metavar="[PACK]", help="Pack file, or name of a shipped pack; default: the profile's pack.", show_default=False
        ),
    ] = None,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Show the groups of a pack: keys, features, request_context fields."""
    from textwrap import wrap

    from ofp_platform.registry.compile import compile_pack
    from ofp_platform.registry.layout import CompiledFeature, CompiledOnDemand

    registry = compile_pack(read_pack(pack or resolve(home, profile).load_profile().pack))
    groups = []
    lines = [f"{registry.pack.pack_id} revision {registry.pack.revision}", f"digest {registry.digest}"]
    for (name, version), plan in sorted(registry.groups.items()):
        written: tuple[CompiledFeature | CompiledOnDemand, ...] = (*plan.features, *plan.on_demand)
        features = sorted(feature.name for feature in written)
        lines += ["", f"{name}:{version}  of the {plan.key_type}, stale after {plan.ttl_seconds} s"]
        lines += wrap(", ".join(features), width=WIDTH, initial_indent="  ", subsequent_indent="  ")
        lines += [f"  needs request_context: {field} ({kind})" for field, kind in plan.request_fields]
        groups.append(
            {
                "group_name": name,
                "group_version": version,
                "key_type": plan.key_type,
                "ttl_seconds": plan.ttl_seconds,
                "features": features,
                "request_context": dict(plan.request_fields),
            }
        )
    facts = {
        "pack_id": registry.pack.pack_id,
        "revision": registry.pack.revision,
        "digest": registry.digest,
        "groups": groups,
    }
    print_facts(facts, lines, as_json=json)


@app.command(short_help="Compare two packs.")
def diff(
    old: Annotated[str, typer.Argument(metavar="OLD", help="Pack file, or name of a shipped pack.")],
    new: Annotated[str, typer.Argument(metavar="NEW", help="Pack file, or name of a shipped pack.")],
    json: AsJson = False,
) -> None:
    """Compare two packs; exit code 1 when a group changed under a version that it had."""
    from ofp_platform.registry.diff import diff_packs

    difference = diff_packs(read_pack(old), read_pack(new))
    print_facts(difference, difference.lines or ("the packs mean the same",), as_json=json)
    if not difference.publishable:
        raise typer.Exit(1)
