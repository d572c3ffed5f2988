"""Who asks: a caller from the header of a request, by the principals of one file. Without principals nobody may ask."""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from ofp_platform.api.principals import KEY, Principal, PrincipalsError, PrincipalsFile, Scope, read_principals
from ofp_platform.vocabulary.errors import ContractError, Reason, invalid, unavailable
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.times import MICROS_PER_SECOND, parse_time

LOGGER = logging.getLogger("ofp.http")
LOOK_SECONDS = 1.0
"""Between two looks at the file."""
_NEVER = float("inf")


class Caller(NamedTuple):
    """Somebody who asks. `reads_here`: the run that is served is one of theirs."""

    principal: Principal
    reads_here: bool

    def demand(self, scope: Scope) -> None:
        """Refuse who lacks a scope.

        Raises:
            ContractError: INVALID_REQUEST / FORBIDDEN.
        """
        if scope not in self.principal.scopes:
            raise invalid(Reason.FORBIDDEN, f"the principal {self.principal.name} has no scope {scope.value}")


class _Entry(NamedTuple):
    digest: bytes
    until: float
    caller: Caller


def _unauthenticated() -> ContractError:
    return invalid(Reason.UNAUTHENTICATED, "send a key that is valid in the header 'Authorization: Bearer <key>'")


def _seconds(*times: str | None) -> float:
    return min((parse_time(time) / MICROS_PER_SECOND for time in times if time is not None), default=_NEVER)


class Authentication:
    """The principals of a file, for a service of the run with these pins. `wall_clock` gives seconds since 1970.

    The file is looked at every second, so that a key is added, rotated and revoked without a restart. One that cannot be read any
    more lets nobody in: who was revoked may stand in the one before it.
    """

    def __init__(self, path: Path, pins: ContextPins, wall_clock: Callable[[], float]) -> None:
        """Read it.

        Raises:
            PrincipalsError: it cannot be used.
        """
        self._path = path
        self._pins = pins
        self._wall_clock = wall_clock
        self._entries: dict[bytes, _Entry] = {}
        self._is_readable = True
        self._state = self._look()
        self._take(read_principals(path))

    def refresh(self) -> None:
        """Read the file again if it is another one than before."""
        state = self._look()
        if state == self._state and self._is_readable:
            return
        try:
            self._take(read_principals(self._path))
            self._is_readable = True
        except PrincipalsError as error:
            self._entries = {}
            if self._is_readable or state != self._state:
                LOGGER.error("nobody is let in: %s", error)
            self._is_readable = False
        self._state = state

    def caller(self, authorization: bytes | None) -> Caller:
        """Whoever sends that value of an Authorization header.

        Raises:
            ContractError: INVALID_REQUEST / UNAUTHENTICATED; UNAVAILABLE / STORE_DOWN: the principals cannot be read.
        """
        scheme, _, key = (authorization or b"").partition(b" ")
        parts = KEY.fullmatch(key)
        entry = None if parts is None else self._entries.get(parts[1])
        if not self._is_readable:
            raise unavailable(Reason.STORE_DOWN, "the principals cannot be read; the log of the service says why")
        if (
            entry is None
            or scheme.lower() != b"bearer"
            or not hmac.compare_digest(entry.digest, hashlib.sha256(key).digest())
            or entry.until <= self._wall_clock()
        ):
            raise _unauthenticated()
        return entry.caller

    def _look(self) -> tuple[int, int, int, int] | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino  # ctime: rights that were changed

    def _take(self, file: PrincipalsFile) -> None:
        entries: dict[bytes, _Entry] = {}
        for principal in file.principals:
            caller = Caller(principal, principal.may_read(self._pins))
            for key in principal.keys:
                until = _seconds(principal.expires_at_utc, key.expires_at_utc)
                entries[key.key_id.encode()] = _Entry(bytes.fromhex(key.sha256), until, caller)
        self._entries = entries
