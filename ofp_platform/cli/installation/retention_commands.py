"""`ofp retention`: what each store keeps, and what goes."""

from __future__ import annotations

from dataclasses import asdict
from textwrap import fill
from typing import Annotated

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import AsJson, Home, ProfileSource
from ofp_platform.cli.terminal.readable_json import readable_json

_WIDTH = 80


def retention(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go; change nothing.")] = False,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Remove what the policy of the profile lets go of each store, and show the policy. Nothing that is published needs it.

    The schedule `retention_daily` of Dagster does the same. Stopped anywhere, the next time goes on.
    """
    from ofp_platform.cli.installation.retention import apply_retention

    environment = resolve(home, profile)
    with environment.open_plane_without_log() as plane:
        stores = list(apply_retention(environment, plane, dry_run=dry_run))
    if json:
        typer.echo(readable_json({"dry_run": dry_run, "stores": [asdict(store) for store in stores]}))
        return
    doing = "would go" if dry_run else "went"
    for store in stores:
        count = "" if store.policy == "for good" else f"; {store.going:,} {store.unit} {doing}"
        typer.echo(fill(f"{store.store}: kept {store.policy}{count}", _WIDTH, subsequent_indent="  "))
        if store.detail:
            typer.echo(fill(store.detail, _WIDTH, initial_indent="  ", subsequent_indent="  "))
