"""Who asks: a caller from the header of a request, by the principals of one file. Without principals nobody may ask.

The header has a key of a principal, or a token (JWT) of an issuer that the file names.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from ofp_platform.api.principals import (
    KEY,
    KEY_PREFIX,
    Issuer,
    Principal,
    PrincipalsError,
    PrincipalsFile,
    Scope,
    read_principals,
)
from ofp_platform.api.signing_keys import KeySet
from ofp_platform.api.tls import ClientCertificate
from ofp_platform.api.tokens import UnknownKey, principal_of_token, token_refusal, unverified_claims
from ofp_platform.vocabulary.background_tasks import EndedTasks
from ofp_platform.vocabulary.errors import ContractError, Reason, invalid, unavailable
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.times import MICROS_PER_SECOND, parse_time

LOGGER = logging.getLogger("ofp.http")
LOOK_SECONDS = 1.0
"""Between two looks at the file."""
_NEVER = float("inf")


_MOST_TOKENS = 4_096
_KEY_PREFIX = KEY_PREFIX.encode()
_FILE_WARNING = "principals"


class Caller(NamedTuple):
    """Somebody who asks. `reads_here`: the run that is served is one of theirs; `credential`: what showed who it is."""

    principal: Principal
    reads_here: bool
    credential: str

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


class _CertificateEntry(NamedTuple):
    until: float
    caller: Caller


class _TrustedIssuer(NamedTuple):
    issuer: Issuer
    key_set: KeySet


class _VerifiedToken(NamedTuple):
    """`version`: of the keys by which it was judged."""

    issuer_entry: _TrustedIssuer
    version: int
    until: float
    caller: Caller


class KeysWanted(ContractError):
    """A token cannot be judged before the keys of its issuer are read again; whoever does not read them refuses it."""

    def __init__(self, key_set: KeySet, refusal: ContractError) -> None:
        super().__init__(refusal.code, refusal.reason, refusal.message)
        self.key_set = key_set


def _unauthenticated() -> ContractError:
    return invalid(Reason.UNAUTHENTICATED, "send a key or token that is valid in the header 'Authorization: Bearer <key>'")


def _warning_of(issuer_name: str) -> str:
    return f"issuer {issuer_name}"


def _seconds(*times: str | None) -> float:
    return min((parse_time(time) / MICROS_PER_SECOND for time in times if time is not None), default=_NEVER)


class Authentication:
    """The principals of a file, for a service of the run with these pins. `wall_clock` gives seconds since 1970, `clock` seconds
    for ages alone. `warnings`: where health is told of what keeps people out. `by_certificate`: whoever asks is who its client
    certificate says; a key or token beside it must be of the same principal.

    The file is looked at every second, so that a key is added, rotated and revoked without a restart. One that cannot be read any
    more lets nobody in: who was revoked may stand in the one before it.
    """

    def __init__(
        self,
        path: Path,
        pins: ContextPins,
        wall_clock: Callable[[], float],
        clock: Callable[[], float] = time.monotonic,
        warnings: EndedTasks | None = None,
        *,
        by_certificate: bool = False,
    ) -> None:
        """Read it.

        Raises:
            PrincipalsError: it cannot be used.
        """
        self._path = path
        self._pins = pins
        self._wall_clock = wall_clock
        self._clock = clock
        self._warnings = warnings or EndedTasks()
        self._by_certificate = by_certificate
        self._entries: dict[bytes, _Entry] = {}
        self._certificates: dict[str, _CertificateEntry] = {}
        self._issuers: dict[str, _TrustedIssuer] = {}
        self._tokens: dict[bytes, _VerifiedToken] = {}
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
            self._warnings.withdraw(_FILE_WARNING)
        except PrincipalsError as error:
            self._entries, self._certificates = {}, {}
            self._tokens.clear()
            if self._is_readable or state != self._state:
                LOGGER.error("nobody is let in: %s", error)
                self._warnings.warn(_FILE_WARNING, "UNREADABLE", "nobody is let in")
            self._is_readable = False
        self._state = state

    def caller(self, authorization: bytes | None, certificate: ClientCertificate | None = None) -> Caller:
        """Whoever sends that value of an Authorization header, over a connection with that client certificate.

        Raises:
            ContractError: INVALID_REQUEST / UNAUTHENTICATED, FORBIDDEN; UNAVAILABLE / STORE_DOWN: the principals cannot be read,
                or the keys of the issuer of a token.
            KeysWanted: it may be another answer when the keys of an issuer were read again.
        """
        if not self._is_readable:
            raise unavailable(Reason.STORE_DOWN, "the principals cannot be read; the log of the service says why")
        if not self._by_certificate:
            return self._caller_of_header(authorization)
        caller = self._caller_of_certificate(certificate)
        if authorization is not None and self._caller_of_header(authorization).principal.name != caller.principal.name:
            raise invalid(Reason.FORBIDDEN, "the client certificate is of another principal than the key or token")
        return caller

    def _caller_of_certificate(self, certificate: ClientCertificate | None) -> Caller:
        if certificate is None:
            raise invalid(Reason.UNAUTHENTICATED, "connect with the client certificate of a principal")
        entries = [self._certificates[name] for name in certificate.names if name in self._certificates]
        if len({entry.caller.principal.name for entry in entries}) != 1:
            raise invalid(Reason.FORBIDDEN, "the client certificate names no principal, or more than one; see ofp principal list")
        if min(certificate.until, entries[0].until) <= self._wall_clock():
            raise invalid(Reason.UNAUTHENTICATED, "the client certificate, or its principal, has expired")
        return entries[0].caller

    def _caller_of_header(self, authorization: bytes | None) -> Caller:
        scheme, _, key = (authorization or b"").partition(b" ")
        if self._issuers and not key.startswith(_KEY_PREFIX) and scheme.lower() == b"bearer" and key.count(b".") == 2:
            return self._caller_of_token(key)
        parts = KEY.fullmatch(key)
        entry = None if parts is None else self._entries.get(parts[1])
        if (
            entry is None
            or scheme.lower() != b"bearer"
            or not hmac.compare_digest(entry.digest, hashlib.sha256(key).digest())
            or entry.until <= self._wall_clock()
        ):
            raise _unauthenticated()
        return entry.caller

    def _caller_of_token(self, token: bytes) -> Caller:
        digest = hashlib.sha256(token).digest()
        token_entry = self._tokens.get(digest)
        now = self._wall_clock()
        if token_entry is not None:
            key_set = token_entry.issuer_entry.key_set
            if token_entry.version == key_set.version and token_entry.until > now and key_set.is_valid:
                return token_entry.caller
            del self._tokens[digest]
        text = token.decode("latin-1")
        head, claims = unverified_claims(text)
        named_issuer = claims.get("iss")
        issuer_entry = self._issuers.get(named_issuer) if isinstance(named_issuer, str) else None
        if issuer_entry is None:
            raise token_refusal("its issuer is none whose word is taken here")
        issuer, key_set = issuer_entry
        if not key_set.is_valid:
            words = f"the keys of the issuer {issuer.name} cannot be read, and what was known is too old to go by; try again"
            raise self._wanting(key_set, unavailable(Reason.STORE_DOWN, words))
        version = key_set.version  # before the keys, which another thread may replace meanwhile
        try:
            principal, until = principal_of_token(text, head, issuer, key_set, now)
        except UnknownKey:
            raise self._wanting(key_set, token_refusal("its issuer has no such key")) from None
        caller = Caller(principal, principal.may_read(self._pins), f"issuer {issuer.name}")
        if len(self._tokens) >= _MOST_TOKENS:
            del self._tokens[next(iter(self._tokens))]  # the oldest
        self._tokens[digest] = _VerifiedToken(issuer_entry, version, until, caller)
        return caller

    def _wanting(self, key_set: KeySet, refusal: ContractError) -> ContractError:
        return KeysWanted(key_set, refusal) if key_set.may_be_asked else refusal

    def due_key_sets(self) -> Sequence[KeySet]:
        """Keys of issuers that are to be read again."""
        return [issuer_entry.key_set for issuer_entry in self._issuers.values() if issuer_entry.key_set.is_due]

    def tell_of_keys(self) -> None:
        """Tell health which issuers' keys could not be read."""
        for issuer, key_set in self._issuers.values():
            trouble = key_set.trouble
            if trouble is None:
                self._warnings.withdraw(_warning_of(issuer.name))
            else:
                self._warnings.warn(_warning_of(issuer.name), *trouble)

    def _look(self) -> tuple[int, int, int, int] | None:
        try:
            status = os.stat(self._path)
        except OSError:
            return None
        return status.st_mtime_ns, status.st_ctime_ns, status.st_size, status.st_ino  # ctime: rights that were changed

    def _take(self, file: PrincipalsFile) -> None:
        entries: dict[bytes, _Entry] = {}
        certificates: dict[str, _CertificateEntry] = {}
        for principal in file.principals:
            for name in principal.certificates:
                caller = Caller(principal, principal.may_read(self._pins), f"certificate {name}")
                certificates[name] = _CertificateEntry(_seconds(principal.expires_at_utc), caller)
            for key in principal.keys:
                until = _seconds(principal.expires_at_utc, key.expires_at_utc)
                caller = Caller(principal, principal.may_read(self._pins), f"key {key.key_id}")
                entries[key.key_id.encode()] = _Entry(bytes.fromhex(key.sha256), until, caller)
        self._entries, self._certificates = entries, certificates
        before, self._issuers = self._issuers, {issuer.issuer: self._entry_of(issuer) for issuer in file.issuers}
        self._tokens.clear()
        for name in {issuer_entry.issuer.name for issuer_entry in before.values()} - {issuer.name for issuer in file.issuers}:
            self._warnings.withdraw(_warning_of(name))

    def _entry_of(self, issuer: Issuer) -> _TrustedIssuer:
        """With the keys that are known already, where they come from the same place."""
        before = self._issuers.get(issuer.issuer)
        if before is not None and before.key_set.source.place == issuer.key_set.place:
            before.key_set.source = issuer.key_set
            return _TrustedIssuer(issuer, before.key_set)
        return _TrustedIssuer(issuer, KeySet(issuer.key_set, self._path.parent, self._clock))
