"""`ofp init` and `ofp migrate`: a profile to start from, and the schema."""

from __future__ import annotations

from importlib import resources
from typing import Annotated

import typer

from ofp_platform.cli.environment import SHIPPED_PROFILES, resolve
from ofp_platform.cli.options import Home
from ofp_platform.cli.terminal.refusals import CommandRefused


def init(
    home: Home = None,
    start_from: Annotated[str, typer.Option("--from", help="The shipped profile to start from.")] = "demo",
    force: Annotated[bool, typer.Option("--force", help="Replace the profile that is there.")] = False,
) -> None:
    """Write profile.yaml into the home folder; every command then uses it when no other is named."""
    if start_from not in SHIPPED_PROFILES:
        raise CommandRefused(f"there is no shipped profile {start_from!r}; there are {', '.join(SHIPPED_PROFILES)}")
    target = resolve(home, makes_home=True).own_profile
    if target.exists() and not force:
        raise CommandRefused(f"{target} exists; edit it, or replace it with --force")
    text = resources.files("ofp_platform.cli").joinpath("profiles", f"{start_from}.yaml").read_text(encoding="utf-8")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")
    typer.echo(f"wrote {target}")


def migrate(home: Home = None) -> None:
    """Bring the schema of the database to the newest revision. Nothing happens when it is there already."""
    from ofp_platform.storage import schema

    dsn = resolve(home).dsn()
    if schema.schema_is_current(dsn):
        typer.echo("the schema is at the newest revision")
        return
    schema.migrate(dsn)
    typer.echo("the schema was brought to the newest revision")
