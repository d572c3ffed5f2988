"""The principals of one machine: a key of least scope for each kind of program that asks its service."""

from __future__ import annotations

import hashlib
import ipaddress
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ofp_platform.cli.environment import Environment

if TYPE_CHECKING:
    from ofp_platform.api.principals import Principal
    from ofp_platform.vocabulary.identity import ContextPins

DECISIONS, BUILDS, METRICS, CONSOLE = "decisions", "builds", "metrics", "console"
_SCOPES = {
    DECISIONS: ("features:read", "snapshots:read", "decisions:write"),
    BUILDS: ("builds:submit", "snapshots:read"),
    METRICS: ("metrics",),
    CONSOLE: ("features:read", "snapshots:read", "investigate", "operate"),
}


def key_file(environment: Environment, name: str) -> Path:
    """Where the key of a principal of this machine stands."""
    return environment.keys_folder / f"{name}.key"


def ensure_local_principals(environment: Environment, pins: ContextPins) -> list[str]:
    """See that the principals of this machine may read the run; the names of those that got a new key.

    Keys stand in files that their owner alone may read. A file of principals that is named by OFP_PRINCIPALS is its
    operator's, and stays as it is.

    Raises:
        PrincipalsError: the file of principals cannot be used.
    """
    from ofp_platform.api.principals import changed_principals, new_key, write_privately

    if environment.principals is not None:
        return []
    made = []
    with changed_principals(environment.principals_file) as box:
        for name in _SCOPES:
            principal, path = _principal(box[0].principals, name, pins), key_file(environment, name)
            if not _holds(path, principal):
                key, hashed_key = new_key()
                write_privately(path, f"{key}\n".encode())
                principal = principal.model_copy(update={"keys": (hashed_key,)})
                made.append(name)
            box[0] = box[0].replacing(principal)
    return made


def _principal(principals: tuple[Principal, ...], name: str, pins: ContextPins) -> Principal:
    """The principal of that name, reading that run beside those that it reads."""
    from ofp_platform.api.principals import Principal, RunPins

    run = RunPins.model_validate(pins.wire())
    for principal in principals:
        if principal.name == name:
            if principal.may_read(pins) or name == METRICS or principal.runs == "*":
                return principal
            return principal.model_copy(update={"runs": (*principal.runs, run)})
    return Principal.model_validate({"name": name, "scopes": _SCOPES[name], "runs": () if name == METRICS else (run,)})


def _holds(path: Path, principal: Principal) -> bool:
    """Whether the file has a key of the principal that is valid now."""
    from ofp_platform.vocabulary.times import MICROS_PER_SECOND, parse_time

    try:
        digest = hashlib.sha256(path.read_bytes().strip()).hexdigest()
    except FileNotFoundError:
        return False
    now = time.time() * MICROS_PER_SECOND
    return any(
        key.sha256 == digest and (key.expires_at_utc is None or parse_time(key.expires_at_utc) > now) for key in principal.keys
    )


def local_token(environment: Environment, name: str, url: str | None = None) -> str | None:
    """The key of a principal of this machine, where it has one; never for the address of another machine."""
    if url is not None and not _is_here(url):
        return None
    try:
        return key_file(environment, name).read_text(encoding="ascii").strip()
    except FileNotFoundError:
        return None


def _is_here(url: str) -> bool:
    host = urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
