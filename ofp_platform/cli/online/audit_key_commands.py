"""`ofp audit key`: make a key for the audit log, and hand the log on to another one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.online.audit_commands import Key, demand_public_key, now, signing_key
from ofp_platform.cli.options import Actor, AsJson, Home, ProfileSource, Reason
from ofp_platform.cli.terminal.printed_facts import print_facts, short

app = typer.Typer(help="Make a key, and hand the log on to another.", no_args_is_help=True)


@app.command(short_help="Make a key, in a file of its own.")
def new(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Where it is written, with mode 0600.", show_default=False)],
    json: AsJson = False,
) -> None:
    """Write a new Ed25519 key, and print its public half: give that to whoever verifies. The key itself is never printed."""
    import secrets

    from ofp_platform.audit.signing_keys import SEED_BYTES, write_key

    key = write_key(file, secrets.token_bytes(SEED_BYTES))
    print_facts({"key_id": key.key_id, "file": str(file)}, [key.key_id], as_json=json)


@app.command(short_help="Hand the log on to another key.")
def rotate(
    next_key: Annotated[str, typer.Argument(metavar="HEX", help="The next public key.", show_default=False)],
    reason: Reason,
    key: Key = None,
    actor: Actor = "operator",
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Sign one more head with the former key (`--key`), which names the next one; from then on that one signs."""
    from ofp_platform.audit.key_rotation import rotate_key

    demand_public_key(next_key)
    with resolve(home, profile).open_plane_without_log("offline") as plane:
        head = rotate_key(plane.pool, plane.objects, signing_key(key), next_key, (actor, reason), now)
    lines = [f"head of {head.tree_size:,} leaves hands log {short(head.log_id)} on to {head.next_key_id}"]
    print_facts(head.wire(), lines, as_json=json)
