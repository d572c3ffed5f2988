"""`ofp retention`: what each store keeps, and what goes."""

from __future__ import annotations

from typing import Annotated

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import AsJson, Home, ProfileSource
from ofp_platform.cli.terminal.printed_facts import item, print_facts


def retention(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go; change nothing.")] = False,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Remove from each store what the retention policy of the profile no longer keeps, and show the policy. Nothing that is
    published needs what goes.

    The schedule `retention_daily` of Dagster does the same. If it is stopped, the next call continues.
    """
    from ofp_platform.cli.installation.retention import apply_retention

    environment = resolve(home, profile)
    with environment.open_plane_without_log("owner") as plane:
        stores = list(apply_retention(environment, plane, dry_run=dry_run))
    doing = "would go" if dry_run else "went"
    lines: list[str] = []
    for store in stores:
        count = "" if store.policy == "for good" else f"; {store.going:,} {store.unit} {doing}"
        lines += item(f"{store.store}: kept {store.policy}{count}", details=[store.detail] if store.detail else [])
    print_facts({"dry_run": dry_run, "stores": stores}, lines, as_json=json)
