"""`ofp profile`: which policy is in force, where things are, and what another tier changes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofp_platform.cli.environment import Environment, resolve, split_source, unsafe_wiring, with_tier
from ofp_platform.cli.options import AsJson, Home, ProfileSource
from ofp_platform.cli.terminal.readable_json import readable_json

if TYPE_CHECKING:
    from ofp_platform.vocabulary.profile import Profile

app = typer.Typer(help="Show and compare profiles.", no_args_is_help=True)


@app.command("show", short_help="Show policy and wiring.")
def show(json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """Show the profile in its tier: policy_rev, policy, wiring, and what the tier production would refuse.

    It connects to nothing, and shows no credentials.
    """
    environment = resolve(home, profile)
    declared_profile = environment.read_profile(environment.profile_source)
    content = _content(environment, declared_profile)
    if json:
        typer.echo(readable_json(content))
        return
    for name, value in _lines(content):
        typer.echo(f"{name:<44}{value}")


@app.command("diff", short_help="Compare two tiers, or two profiles.")
def diff(
    source: Annotated[str, typer.Argument(help="A tier of the profile in use, or a profile: demo, profile.yaml@production.")],
    other_source: Annotated[str, typer.Argument(help="The same.")],
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Show what differs between two tiers of the profile in use, or two profiles, with the wiring of this environment."""
    environment = resolve(home, profile)
    before, after = (
        dict(_lines(_content(environment, environment.read_profile(_source(environment, name)))))
        for name in (source, other_source)
    )
    changes = {
        name: [before.get(name), after.get(name)]
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    }
    if json:
        typer.echo(readable_json(changes))
        return
    for name, (old, new) in changes.items():
        typer.echo(f"{name:<44}{'-' if old is None else old} -> {'-' if new is None else new}")
    if not changes:
        typer.echo("nothing differs")


def _source(environment: Environment, name: str) -> str:
    from ofp_platform.vocabulary.profile import Tier

    if name not in list(Tier):
        return name
    source, _ = split_source(environment.profile_source)
    return with_tier(source, Tier(name))


def _content(environment: Environment, profile: Profile) -> dict[str, Any]:
    from ofp_platform.vocabulary.profile import WIRING

    database = "embedded" if environment.database_url is None else _place(environment.database_url)
    return {
        "profile_name": profile.profile_name,
        "policy_rev": profile.policy_rev,
        "run_config_digest": profile.run_config_digest,
        "run": {"stream_name": profile.stream_name, **profile.context_pins.wire()},
        "policy": profile.policy,
        "wiring": {
            "log_kind": profile.log_kind,
            "database": database,
            **{name: value for name in sorted(WIRING) if (value := getattr(profile, name)) is not None},
        },
        "unsafe_in_production": unsafe_wiring(environment, profile),
    }


def _place(dsn: str) -> str:
    """Where a DSN leads, without who and how."""
    import psycopg

    parts = psycopg.conninfo.conninfo_to_dict(dsn)
    return f"{parts.get('host', 'local socket')}:{parts.get('port', 5432)}/{parts.get('dbname', '')}, {_tls(parts)}"


def _tls(parts: dict[str, Any]) -> str:
    return f"sslmode {parts['sslmode']}" if "sslmode" in parts else "no sslmode said"


def _lines(content: dict[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    """Each value with its full name."""
    for name, value in content.items():
        if isinstance(value, dict):
            yield from _lines(value, f"{above}{name}.")
        elif isinstance(value, list):
            yield from ((f"{above}{name}", item) for item in value)
        else:
            yield f"{above}{name}", str(value)
