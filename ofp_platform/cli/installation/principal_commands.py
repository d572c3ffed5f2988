"""`ofp principal`: who may ask the HTTP service. A running one follows within a second."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import Home, ProfileSource
from ofp_platform.cli.terminal.refusals import CommandRefused

if TYPE_CHECKING:
    from ofp_platform.api.principals import Principal

app = typer.Typer(help="Who may ask the HTTP service: names, scopes, runs, keys.", no_args_is_help=True)
_HOUR = 3600
KeyFile = Annotated[
    Path | None, typer.Option("--key-file", help="Write the key there, for its owner alone, instead of showing it.")
]
Name = Annotated[str, typer.Argument(help="Name of the principal.")]


@app.command()
def add(
    name: Name,
    scope: Annotated[
        list[str],
        typer.Option(
            metavar="SCOPE",
            help="features:read, snapshots:read, decisions:write, events:write, builds:submit, operate, metrics; several times.",
        ),
    ],
    run: Annotated[
        list[str] | None,
        typer.Option(metavar="RUN", help="RUN_ID, or PIN=VALUE,PIN=VALUE; several times. Default: the run of the profile."),
    ] = None,
    all_runs: Annotated[bool, typer.Option("--all-runs", help="It may read every run.")] = False,
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="It ends then, as in 2027-01-31T00:00:00Z.")] = None,
    key_file: KeyFile = None,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Add a principal and show its key, once: only its hash is kept."""
    from ofp_platform.api.principals import Principal, RunPins, changed_principals, new_key, run_pins

    environment = resolve(home, profile, makes_home=True)
    if all_runs and run:
        raise CommandRefused("--all-runs and --run exclude each other")
    if run:
        runs = [pins.model_dump(exclude_none=True) for pins in run_pins(run)]
    else:
        runs = [RunPins.model_validate(environment.load_profile().context_pins.wire()).model_dump(exclude_none=True)]
    content = {"name": name, "scopes": scope, "runs": "*" if all_runs else runs, "expires_at_utc": expires}
    principal = _validated(Principal, content)
    with changed_principals(environment.principals_file) as box:
        if any(other.name == name for other in box[0].principals):
            raise CommandRefused(f"a principal {name} is there already; see `ofp principal rotate` and `ofp principal revoke`")
        key, hashed_key = new_key()
        box[0] = box[0].replacing(principal.model_copy(update={"keys": (hashed_key,)}))
    _show(key, key_file)


@app.command("list")
def list_principals(home: Home = None) -> None:
    """List principals with their scopes, runs and keys; a key itself is kept nowhere."""
    from ofp_platform.api.principals import read_principals

    for principal in read_principals(resolve(home).principals_file).principals:
        typer.echo(
            f"{principal.name}  {' '.join(scope.value for scope in principal.scopes)}  {_ending(principal.expires_at_utc)}"
        )
        for run in _runs(principal):
            typer.echo(f"    run {run}")
        for key in principal.keys:
            typer.echo(f"    key {key.key_id}  {_ending(key.expires_at_utc)}")


@app.command()
def rotate(
    name: Name,
    overlap_hours: Annotated[
        float, typer.Option(min=0, max=24 * 366, help="The old keys are valid for so long beside the new one.")
    ] = 24.0,
    key_file: KeyFile = None,
    home: Home = None,
) -> None:
    """Give a principal a new key and show it, once; the old ones end after the overlap."""
    from ofp_platform.api.principals import changed_principals, rotated

    with changed_principals(resolve(home).principals_file) as box:
        key, principal = rotated(box[0].named(name), time.time_ns() // 1000, int(overlap_hours * _HOUR))
        box[0] = box[0].replacing(principal)
    _show(key, key_file)


@app.command()
def revoke(
    name: Name,
    key_id: Annotated[
        str | None, typer.Option("--key", metavar="KEY_ID", help="Only this key; see `ofp principal list`.")
    ] = None,
    home: Home = None,
) -> None:
    """Take a principal, or one of its keys, away at once."""
    from ofp_platform.api.principals import changed_principals

    with changed_principals(resolve(home).principals_file) as box:
        principal = box[0].named(name)
        if key_id is None:
            box[0] = box[0].without(name)
            return
        left = tuple(key for key in principal.keys if key.key_id != key_id)
        if len(left) == len(principal.keys):
            raise CommandRefused(f"{name} has no key {key_id}; see `ofp principal list`")
        box[0] = box[0].replacing(principal.model_copy(update={"keys": left}))


def _validated(model: type[Principal], content: Mapping[str, object]) -> Principal:
    from pydantic import ValidationError

    try:
        return model.model_validate(content)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise CommandRefused(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None


def _show(key: str, path: Path | None) -> None:
    from ofp_platform.api.principals import write_privately

    if path is None:
        typer.echo(key)
    else:
        write_privately(path, f"{key}\n".encode())
        typer.echo(f"the key stands in {path}")


def _runs(principal: Principal) -> list[str]:
    if principal.runs == "*":
        return ["*"]
    return [",".join(f"{pin}={value}" for pin, value in run.model_dump(exclude_none=True).items()) for run in principal.runs]


def _ending(time: str | None) -> str:
    return "never ends" if time is None else f"until {time}"
