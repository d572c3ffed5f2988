"""The public keys of an issuer of tokens: a JSON Web Key Set from a file or a URL, read again and again, within bounds.

Whatever cannot be read leaves the keys that are there, for as long as the issuer is declared to be taken at its last word.
"""

from __future__ import annotations

import logging
import os
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import jwt
import orjson

from ofp_platform.api.principals import OTHERS_WRITE, KeySetSource

LOGGER = logging.getLogger("ofp.http")
_MOST_BYTES = 262_144
_CONNECT_SECONDS, _WHOLE_SECONDS = 2.0, 5.0
_HEADERS = {"accept": "application/json", "accept-encoding": "identity"}
_RSA_BITS = range(2_048, 8_193)
_OF_CURVE: dict[str, tuple[str, ...]] = {"P-256": ("ES256",), "P-384": ("ES384",), "P-521": ("ES512",), "Ed25519": ("EdDSA",)}
_OF_RSA: tuple[str, ...] = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")

PublicKeys = Mapping[tuple[str, str], Any]
"""By key id and algorithm: a key is used for what it is made for, and for nothing else."""


class KeySetUnreadable(Exception):
    """The keys could not be read; the text says why, without anything that was read."""


def public_keys(content: bytes) -> PublicKeys:
    """The keys of a JSON Web Key Set that verify signatures; without those that are secret, private, short or nameless.

    Raises:
        KeySetUnreadable: it is no such set.
    """
    try:
        members = orjson.loads(content)["keys"]
    except (orjson.JSONDecodeError, KeyError, TypeError):
        members = None
    if not isinstance(members, list):
        raise KeySetUnreadable("no key set")
    keys: dict[tuple[str, str], Any] = {}
    for member in members:
        for algorithm in _algorithms_of(member):
            if (key := _public_key(member, algorithm)) is not None:
                keys.setdefault((member["kid"], algorithm), key)
    return keys


def _algorithms_of(member: Any) -> tuple[str, ...]:
    if not isinstance(member, dict) or not isinstance(member.get("kid"), str) or not member["kid"] or "d" in member:
        return ()
    operations = member.get("key_ops", ["verify"])
    if member.get("use", "sig") != "sig" or not isinstance(operations, list) or "verify" not in operations:
        return ()
    kind = member.get("kty")
    curve = member.get("crv")
    if kind == "RSA":
        algorithms = _OF_RSA
    elif (kind == "OKP") == (curve == "Ed25519") and kind in ("EC", "OKP") and isinstance(curve, str):
        algorithms = _OF_CURVE.get(curve, ())
    else:
        algorithms = ()
    return tuple(algorithm for algorithm in algorithms if member.get("alg", algorithm) == algorithm)


def _public_key(member: dict[str, Any], algorithm: str) -> Any:
    try:
        key = jwt.PyJWK(member, algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError):
        return None
    return None if algorithm in _OF_RSA and key.key_size not in _RSA_BITS else key


class KeySet:
    """The keys of one source. `clock` gives seconds, for ages only. One thread at a time fetches; all others read."""

    def __init__(self, source: KeySetSource, folder: Path, clock: Callable[[], float]) -> None:
        self.source = source
        self.keys: PublicKeys = {}
        self.version = 0
        self.fault: str | None = None
        self._path = None if source.file is None else folder / source.file
        self._ca_file = None if source.ca_file is None else folder / source.ca_file
        self._clock = clock
        self._content: bytes | None = None
        self._is_fetching = False
        self._tried_at: float | None = None
        self._confirmed_at: float | None = None

    @property
    def is_due(self) -> bool:
        """Whether they are to be read again."""
        pause = self.source.refresh_seconds
        if self.fault is not None or self._path is not None:
            pause = min(pause, self.source.unknown_key_seconds)
        return self._is_older(self._tried_at, pause)

    @property
    def may_be_asked(self) -> bool:
        """Whether they may be read again because somebody shows a token of an unknown key."""
        return self._is_fetching or self._is_older(self._tried_at, self.source.unknown_key_seconds)

    @property
    def is_valid(self) -> bool:
        """Whether what was read last still counts."""
        return not self._is_older(self._confirmed_at, self.source.valid_seconds)

    @property
    def trouble(self) -> tuple[str, str] | None:
        """A state and why, for health; None where all is well, or nothing was tried yet."""
        if self.fault is not None:
            return ("KEYS_UNCONFIRMED" if self.is_valid else "KEYS_EXPIRED"), self.fault
        return ("NO_KEYS", "none that can be used") if self._confirmed_at is not None and not self.keys else None

    def _is_older(self, moment: float | None, seconds: int) -> bool:
        return moment is None or self._clock() - moment >= seconds

    def fetch(self) -> None:
        """Read them now; takes some seconds at most, and raises nothing."""
        self._is_fetching = True
        self._tried_at = self._clock()
        try:
            self._fetch()
        finally:
            self._is_fetching = False

    def _fetch(self) -> None:
        try:
            content = self._read()
            if content != self._content:
                self.keys = public_keys(content)
                self._content = content
                self.version += 1
        except (KeySetUnreadable, httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            # the text of an error may quote a URL
            fault = str(error) if isinstance(error, KeySetUnreadable) else type(error).__name__
            if fault != self.fault:
                LOGGER.error("the keys of an issuer cannot be read from %s: %s", self.source.file or self.source.url, fault)
            self.fault = fault
            return
        self.fault = None
        self._confirmed_at = self._clock()

    def _read(self) -> bytes:
        if self._path is not None:
            with self._path.open("rb") as file:
                if os.fstat(file.fileno()).st_mode & OTHERS_WRITE:
                    raise KeySetUnreadable("others may write to the file")
                return self._within_bounds(file.read(_MOST_BYTES + 1))
        assert self.source.url is not None
        context = ssl.create_default_context(cafile=self._ca_file)
        timeout = httpx.Timeout(_CONNECT_SECONDS)
        deadline = self._clock() + _WHOLE_SECONDS
        # neither a proxy of the environment nor a redirection decides who is taken at its word
        with (
            httpx.Client(verify=context, timeout=timeout, trust_env=False, follow_redirects=False) as client,
            client.stream("GET", self.source.url, headers=_HEADERS) as response,
        ):
            if response.status_code != 200:
                raise KeySetUnreadable(f"status {response.status_code}")
            content = b""
            for part in response.iter_raw(8_192):
                content = self._within_bounds(content + part)
                if self._clock() > deadline:
                    raise KeySetUnreadable("too slow")
            return content

    def _within_bounds(self, content: bytes) -> bytes:
        if len(content) > _MOST_BYTES:
            raise KeySetUnreadable("too large")
        return content
