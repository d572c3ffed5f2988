"""`ofp principal`: who may ask the HTTP service. A running one follows within a second."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import AsJson, Home, ProfileSource
from ofp_platform.cli.terminal.printed_facts import item, print_facts, when
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.vocabulary.model import is_digest

if TYPE_CHECKING:
    from ofp_platform.api.principals import HashedKey, Principal

app = typer.Typer(help="Manage who may ask the HTTP service.", no_args_is_help=True)
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
            help="features:read, snapshots:read, decisions:write, events:write, builds:submit, investigate, operate, metrics;"
            " several times.",
        ),
    ],
    run: Annotated[
        list[str] | None,
        typer.Option(metavar="RUN", help="RUN_ID, or PIN=VALUE,PIN=VALUE; several times. Default: the run of the profile."),
    ] = None,
    all_runs: Annotated[bool, typer.Option("--all-runs", help="Let it read every run.")] = False,
    certificate: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME", help="Its client certificate, instead of a key: DNS:NAME, URI:NAME, CN:NAME; several times."
        ),
    ] = None,
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="When it ends, as in 2027-01-31T00:00:00Z.")] = None,
    key_file: KeyFile = None,
    json: AsJson = False,
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
    if certificate and key_file is not None:
        raise CommandRefused("--certificate and --key-file exclude each other")
    content: dict[str, object] = {"name": name, "scopes": scope, "runs": "*" if all_runs else runs, "expires_at_utc": expires}
    content["certificates"] = certificate or ()
    principal = _validated(Principal, content)
    with changed_principals(environment.principals_file) as box:
        if any(other.name == name for other in box[0].principals):
            raise CommandRefused(f"a principal {name} is there already; see `ofp principal rotate` and `ofp principal revoke`")
        key, hashed_key = new_key()
        keys = () if certificate else (hashed_key,)
        box[0] = box[0].replacing(principal.model_copy(update={"keys": keys}))
    if certificate:
        print_facts(_principal_facts(principal), [f"{name} is who shows {' or '.join(certificate)}"], as_json=json)
    else:
        _show(principal, key, key_file, json)


@app.command("list")
def list_principals(json: AsJson = False, home: Home = None) -> None:
    """List principals with their scopes, runs and keys; a key itself is kept nowhere."""
    from ofp_platform.api.principals import read_principals

    principals = read_principals(_principals_file(home)).principals
    lines: list[str] = []
    for principal in principals:
        details = _run_details(principal)
        details += [f"key {key.key_id}  {_ending(key.expires_at_utc)}" for key in principal.keys]
        details += [f"certificate {certificate}" for certificate in principal.certificates]
        scopes = " ".join(scope.value for scope in principal.scopes)
        lines += item(principal.name, scopes, _ending(principal.expires_at_utc), details=details)
    print_facts([_principal_facts(principal) for principal in principals], lines, as_json=json)


def _principal_facts(principal: Principal) -> dict[str, Any]:
    """Without the hashes of the keys, which nobody needs who lists."""
    facts = principal.model_dump(mode="json", exclude_none=True, exclude={"keys"})
    return {**facts, "keys": [_key_facts(key) for key in principal.keys]}


def _key_facts(key: HashedKey) -> dict[str, Any]:
    return {"key_id": key.key_id, "expires_at_utc": key.expires_at_utc}


@app.command()
def rotate(
    name: Name,
    overlap_hours: Annotated[float, typer.Option(min=0, max=24 * 366, help="Hours for which the old keys stay valid.")] = 24.0,
    key_file: KeyFile = None,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Give a principal a new key and show it, once; the old ones end after the overlap."""
    from ofp_platform.api.principals import changed_principals, rotated

    with changed_principals(_principals_file(home)) as box:
        key, principal = rotated(box[0].named(name), time.time_ns() // 1000, int(overlap_hours * _HOUR))
        box[0] = box[0].replacing(principal)
    _show(principal, key, key_file, json)


@app.command()
def revoke(
    name: Name,
    key_id: Annotated[
        str | None, typer.Option("--key", metavar="KEY_ID", help="Only this key; see `ofp principal list`.")
    ] = None,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Take a principal, or one of its keys, away at once; NAME of an issuer with what its token says, ISSUER:SUBJECT, too."""
    from ofp_platform.api.principals import changed_principals

    with changed_principals(_principals_file(home)) as box:
        issuer_name, _, subject = name.partition(":")
        if subject and issuer_name in [issuer.name for issuer in box[0].issuers]:
            if key_id is not None:
                raise CommandRefused(f"{name} is known by tokens of the issuer {issuer_name}, and has no key")
            issuer = box[0].issuer_named(issuer_name)
            denied_names = tuple(sorted({*issuer.denied_names, subject}))
            box[0] = box[0].trusting(issuer.model_copy(update={"denied_names": denied_names}))
            print_facts({"name": name, "revoked": True}, [], as_json=json)
            return
        principal = box[0].named(name)
        if key_id is None:
            box[0] = box[0].without(name)
            print_facts({"name": name, "revoked": True}, [], as_json=json)
            return
        left = tuple(key for key in principal.keys if key.key_id != key_id)
        if len(left) == len(principal.keys):
            raise CommandRefused(f"{name} has no key {key_id}; see `ofp principal list`")
        box[0] = box[0].replacing(principal.model_copy(update={"keys": left}))
    print_facts({"name": name, "revoked": False, "keys": [_key_facts(key) for key in left]}, [], as_json=json)


def _principals_file(home: Path | None) -> Path:
    """The file of the principals, in a home that is there or where OFP_PRINCIPALS names it."""
    environment = resolve(home)
    return environment.principals_file if environment.principals else resolve(home, needs_home=True).principals_file


@app.command()
def trust(
    file: Annotated[Path, typer.Argument(help="An issuer in JSON, as docs/security.md shows one; it replaces that of its name.")],
    json: AsJson = False,
    home: Home = None,
) -> None:
    """Take the word of an identity provider: its tokens (JWT) are principals, within the bounds of the file."""
    from ofp_platform.api.principals import changed_principals, read_issuer

    issuer = read_issuer(file)
    with changed_principals(resolve(home, makes_home=True).principals_file) as box:
        denied_names = {subject for other in box[0].issuers if other.name == issuer.name for subject in other.denied_names}
        # whoever was revoked stays revoked
        issuer = issuer.model_copy(update={"denied_names": tuple(sorted({*issuer.denied_names, *denied_names}))})
        box[0] = box[0].trusting(issuer)
    print_facts(issuer.model_dump(mode="json", exclude_none=True), [f"tokens of {issuer.issuer} are taken"], as_json=json)


@app.command()
def distrust(name: Annotated[str, typer.Argument(help="Name of the issuer.")], json: AsJson = False, home: Home = None) -> None:
    """Take the word of an identity provider no more: its tokens end at once."""
    from ofp_platform.api.principals import changed_principals

    with changed_principals(_principals_file(home)) as box:
        issuer = box[0].issuer_named(name)
        box[0] = box[0].distrusting(name)
    print_facts({"name": name, "issuer": issuer.issuer}, [f"tokens of {issuer.issuer} are refused"], as_json=json)


@app.command()
def issuers(json: AsJson = False, home: Home = None) -> None:
    """List the identity providers whose tokens are taken."""
    from ofp_platform.api.principals import read_principals

    declared_issuers = read_principals(_principals_file(home)).issuers
    lines: list[str] = []
    for issuer in declared_issuers:
        details = [issuer.issuer, f"keys from {issuer.key_set.file or issuer.key_set.url}"]
        details += [f"denied {issuer.name}:{subject}" for subject in issuer.denied_names]
        lines += item(issuer.name, *issuer.algorithms, "for", *issuer.audiences, details=details)
    print_facts([issuer.model_dump(mode="json", exclude_none=True) for issuer in declared_issuers], lines, as_json=json)


def _validated(model: type[Principal], content: Mapping[str, object]) -> Principal:
    from pydantic import ValidationError

    try:
        return model.model_validate(content)
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False, include_context=False)[0]
        raise CommandRefused(f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}") from None


def _show(principal: Principal, key: str, path: Path | None, as_json: bool) -> None:
    from ofp_platform.api.principals import write_privately

    if path is not None:
        write_privately(path, f"{key}\n".encode())
    secret = {"key": key} if path is None else {"key_file": path}
    lines = [key if path is None else f"the key stands in {path}"]
    print_facts({**_principal_facts(principal), **secret}, lines, as_json=as_json)


def _run_details(principal: Principal) -> list[str]:
    """The runs that it may read, pin by pin; a pin that fits no line has its value on the next one."""
    if principal.runs == "*":
        return ["every run"]
    details = []
    for run in principal.runs:
        pins = run.model_dump(exclude_none=True)
        details.append("run " + " ".join(f"{pin}={value}" for pin, value in pins.items() if not is_digest(str(value))))
        details += [f"{pin} {value}" for pin, value in pins.items() if is_digest(str(value))]
    return details


def _ending(time: str | None) -> str:
    return "never ends" if time is None else f"until {when(time)}"
