"""Principals: who may ask the service, by which keys, for which scopes and runs. One file, read again when it changes.

Beside those with keys it names issuers of tokens (JWT): identity providers whose word is taken, within bounds that stand here.

A key is `ofp_<key id>_<secret>`: the id names the entry, the secret has 256 random bits. The file has the SHA-256 of the whole
key, so that whoever reads it can ask for nothing; a slow hash would protect guessable secrets, which these are not.
"""

from __future__ import annotations

import fcntl
import hashlib
import ipaddress
import os
import re
import secrets
import stat
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

import orjson
from pydantic import AfterValidator, Field, ValidationError, model_validator

from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.model import Digest, Model, SafeIdentifier, Time
from ofp_platform.vocabulary.raw_identifier import without_raw_identifier
from ofp_platform.vocabulary.times import MICROS_PER_SECOND, format_time, parse_time
from ofp_platform.vocabulary.yaml_file import fault_words

KEY_PREFIX = "ofp_"
KEY = re.compile(rb"ofp_([0-9a-f]{16})_[A-Za-z0-9_-]{43}")
_ID_BYTES = 8
_SECRET_BYTES = 32
OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH


class Scope(StrEnum):
    """What a principal may do."""

    FEATURES_READ = "features:read"
    SNAPSHOTS_READ = "snapshots:read"
    DECISIONS_WRITE = "decisions:write"
    EVENTS_WRITE = "events:write"
    BUILDS_SUBMIT = "builds:submit"
    INVESTIGATE = "investigate"
    OPERATE = "operate"
    METRICS = "metrics"


class PrincipalsError(Exception):
    """The principals cannot be used; the text says what to do. No key is ever shown."""


class RunPins(Model):
    """Runs by some of their pins: those that have each pin that is named here. At least one is."""

    scenario_id: SafeIdentifier | None = None
    run_id: SafeIdentifier | None = None
    manifest_fingerprint: SafeIdentifier | None = None
    parameter_hash: SafeIdentifier | None = None
    seed: int | None = Field(default=None, ge=0, le=2**53 - 1)
    platform_run_id: SafeIdentifier | None = None
    scenario_run_id: SafeIdentifier | None = None

    @model_validator(mode="after")
    def _names_a_pin(self) -> Self:
        if not self.model_dump(exclude_none=True):
            raise ValueError("names no pin; all runs are written '*'")
        return self

    def match(self, pins: ContextPins) -> bool:
        """Whether these are the pins of such a run."""
        return all(getattr(pins, name) == value for name, value in self.model_dump(exclude_none=True).items())


class HashedKey(Model):
    """A key without the key itself."""

    key_id: Annotated[str, Field(pattern="^[0-9a-f]{16}$")]
    sha256: Digest
    expires_at_utc: Time | None = None


CertificateName = Annotated[str, Field(pattern="^(CN|DNS|URI):[!-~]{1,255}$"), AfterValidator(without_raw_identifier)]


class Principal(Model):
    """Somebody who may ask: a person, a program. Without a run it reads nothing.

    `certificates`: names of client certificates that are it, as in `DNS:scorer.bank`, `URI:spiffe://bank/scorer`, `CN:scorer`.
    """

    name: SafeIdentifier
    scopes: tuple[Annotated[Scope, Field(strict=False)], ...] = Field(strict=False)
    runs: Literal["*"] | Annotated[tuple[RunPins, ...], Field(strict=False)]
    keys: tuple[HashedKey, ...] = Field(default=(), strict=False)
    certificates: tuple[CertificateName, ...] = Field(default=(), strict=False)
    expires_at_utc: Time | None = None

    def may_read(self, pins: ContextPins) -> bool:
        """Whether a run is one of its own."""
        return self.runs == "*" or any(run.match(pins) for run in self.runs)


Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Of signatures by a private key alone: what verifies a token must not be able to make one."""


class KeySetSource(Model):
    """Where the public keys of an issuer stand, as a JSON Web Key Set: in a file, or under a URL. Seconds.

    They are read again every `refresh_seconds`, and for a token of a key that is not among them, at most every
    `unknown_key_seconds`. Where they cannot be read, those that were read last count for `valid_seconds`.
    """

    file: str | None = Field(default=None, min_length=1)
    url: str | None = None
    ca_file: str | None = Field(default=None, min_length=1)
    refresh_seconds: int = Field(default=300, ge=1)
    unknown_key_seconds: int = Field(default=10, ge=1)
    valid_seconds: int = Field(default=86_400, ge=1)

    @property
    def place(self) -> tuple[str | None, ...]:
        """What makes it another source; all else is how often it is read."""
        return self.file, self.url, self.ca_file

    @model_validator(mode="after")
    def _is_one_place(self) -> Self:
        if (self.file is None) == (self.url is None):
            raise ValueError("needs either file or url")
        if self.url is not None and not _is_safe_url(self.url):
            raise ValueError("url: is https://HOST/..., or http:// on the loopback, without a user")
        if self.valid_seconds < self.refresh_seconds:
            raise ValueError("valid_seconds: is shorter than refresh_seconds")
        return self


def _is_safe_url(url: str) -> bool:
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
        if parts.username is not None or not host:
            return False
        if parts.scheme == "http":
            return host == "localhost" or ipaddress.ip_address(host).is_loopback
        return parts.scheme == "https"
    except ValueError:
        return False


class Issuer(Model):
    """An identity provider. A token of it is a principal named `NAME:<value of name_claim>`.

    `scopes`: what each value of `scope_claim` (a text with spaces, or a list) gives; other values give nothing. `runs`: the most
    that its tokens may read; with a `run_claim`, only those of its run ids. `denied_names`: values of `name_claim` kept out.
    """

    name: Annotated[str, Field(pattern="^[a-z][a-z0-9_-]{0,31}$")]
    issuer: str = Field(min_length=1, max_length=1_024)
    audiences: tuple[str, ...] = Field(strict=False, min_length=1)
    algorithms: tuple[Algorithm, ...] = Field(strict=False, min_length=1)
    key_set: KeySetSource
    scopes: dict[str, Annotated[tuple[Annotated[Scope, Field(strict=False)], ...], Field(strict=False)]]
    runs: Literal["*"] | Annotated[tuple[RunPins, ...], Field(strict=False)]
    name_claim: str = Field(default="sub", min_length=1)
    scope_claim: str = Field(default="scope", min_length=1)
    run_claim: str | None = Field(default=None, min_length=1)
    clock_skew_seconds: int = Field(default=30, ge=0, le=300)
    longest_token_seconds: int = Field(default=86_400, ge=1)
    denied_names: tuple[str, ...] = Field(default=(), strict=False)


class PrincipalsFile(Model):
    """Everybody who may ask."""

    kind: Literal["ofp_principals"]
    contract_version: Literal["v0"]
    principals: tuple[Principal, ...] = Field(strict=False)
    issuers: tuple[Issuer, ...] = Field(default=(), strict=False)

    @classmethod
    def of(cls, *principals: Principal, issuers: tuple[Issuer, ...] = ()) -> PrincipalsFile:
        """A file of these.

        Raises:
            PrincipalsError: they do not go together.
        """
        try:
            return cls(kind="ofp_principals", contract_version="v0", principals=principals, issuers=issuers)
        except ValidationError as error:
            raise PrincipalsError(f"that is no file of principals: {_problem(error)}") from None

    @model_validator(mode="after")
    def _names_are_distinct(self) -> Self:
        names = [principal.name for principal in self.principals]
        key_ids = [key.key_id for principal in self.principals for key in principal.keys]
        issuer_names = [issuer.name for issuer in self.issuers]
        issuers = [issuer.issuer for issuer in self.issuers]
        certificates = [name for principal in self.principals for name in principal.certificates]
        kinds = {"principal": names, "key id": key_ids, "certificate": certificates}
        kinds |= {"name of an issuer": issuer_names, "issuer": issuers}
        for kind, texts in kinds.items():
            if len(set(texts)) < len(texts):
                raise ValueError(f"one {kind} stands there twice")
        for name in names:
            if name.partition(":")[0] in issuer_names and ":" in name:
                raise ValueError(f"the principal {name} has a name that the tokens of an issuer have")
        return self

    def named(self, name: str) -> Principal:
        """The principal of a name.

        Raises:
            PrincipalsError: there is none.
        """
        for principal in self.principals:
            if principal.name == name:
                return principal
        raise PrincipalsError(f"no principal has this name; see `ofp principal list`: {name}")

    def replacing(self, principal: Principal) -> PrincipalsFile:
        """The same with that principal in the place of the one of its name, or behind all others."""
        others = [other for other in self.principals if other.name != principal.name]
        return PrincipalsFile.of(*sorted([*others, principal], key=lambda other: other.name), issuers=self.issuers)

    def without(self, name: str) -> PrincipalsFile:
        """The same without a principal."""
        return PrincipalsFile.of(*[other for other in self.principals if other.name != name], issuers=self.issuers)

    def issuer_named(self, name: str) -> Issuer:
        """The issuer of a name.

        Raises:
            PrincipalsError: there is none.
        """
        for issuer in self.issuers:
            if issuer.name == name:
                return issuer
        raise PrincipalsError(f"no issuer has this name; see `ofp principal issuers`: {name}")

    def trusting(self, issuer: Issuer) -> PrincipalsFile:
        """The same with that issuer in the place of the one of its name, or behind all others."""
        others = [other for other in self.issuers if other.name != issuer.name]
        return PrincipalsFile.of(*self.principals, issuers=(*others, issuer))

    def distrusting(self, name: str) -> PrincipalsFile:
        """The same without an issuer."""
        return PrincipalsFile.of(*self.principals, issuers=tuple(issuer for issuer in self.issuers if issuer.name != name))


def new_key(expires_at_utc: str | None = None) -> tuple[str, HashedKey]:
    """A key, to be shown once, and what is kept of it."""
    key_id = secrets.token_hex(_ID_BYTES)
    key = f"{KEY_PREFIX}{key_id}_{secrets.token_urlsafe(_SECRET_BYTES)}"
    return key, HashedKey(key_id=key_id, sha256=hashlib.sha256(key.encode()).hexdigest(), expires_at_utc=expires_at_utc)


def rotated(principal: Principal, now: int, overlap_seconds: int) -> tuple[str, Principal]:
    """A new key beside the old ones, which end `overlap_seconds` after `now` (microseconds) at the latest."""
    key, hashed_key = new_key()
    end = now + overlap_seconds * MICROS_PER_SECOND
    old_keys = [
        old.model_copy(update={"expires_at_utc": format_time(min(end, _micros(old.expires_at_utc, end)))})
        for old in principal.keys
        if _micros(old.expires_at_utc, end) > now
    ]
    return key, principal.model_copy(update={"keys": (*old_keys, hashed_key)})


def _micros(time: str | None, otherwise: int) -> int:
    return otherwise if time is None else parse_time(time)


def read_principals(path: Path) -> PrincipalsFile:
    """The file.

    Raises:
        PrincipalsError: there is none, others may write to it, or it is not of this form.
    """
    try:
        with path.open("rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read()
    except FileNotFoundError:
        raise PrincipalsError(
            f"no principal is declared: there is no file {path}, and nobody may ask. Add one: ofp principal add NAME --scope"
            " features:read"
        ) from None
    except OSError as error:
        raise PrincipalsError(f"{path} cannot be read: {error.strerror or type(error).__name__}") from None
    if mode & OTHERS_WRITE:
        raise PrincipalsError(f"others than its owner may write to {path}, and so name themselves: chmod go-w {path}")
    try:
        return PrincipalsFile.model_validate_json(content)
    except ValidationError as error:
        raise PrincipalsError(f"{path} is not a file of principals: {_problem(error)}") from None


def read_issuer(path: Path) -> Issuer:
    """An issuer in a file of its own, in JSON, as `ofp principal trust` takes it.

    Raises:
        PrincipalsError: there is none, or it is not of this form.
    """
    try:
        return Issuer.model_validate_json(path.read_bytes())
    except OSError as error:
        raise PrincipalsError(f"{path} cannot be read: {error.strerror or type(error).__name__}") from None
    except ValidationError as error:
        raise PrincipalsError(f"{path} is not an issuer of tokens: {_problem(error)}") from None


def _problem(error: ValidationError) -> str:
    return fault_words(error, "the whole")[0]


@contextmanager
def changed_principals(path: Path) -> Iterator[list[PrincipalsFile]]:
    """The file to be changed by one process at a time: the one item of the list is written when the context ends well.

    Where there is no file, an empty one is given. It is replaced as a whole, and its owner alone may read it.

    Raises:
        PrincipalsError: as `read_principals`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = read_principals(path) if path.exists() else PrincipalsFile.of()
        box = [before]
        yield box
        if box[0] != before:
            write_privately(path, orjson.dumps(box[0].model_dump(mode="json", exclude_none=True), option=orjson.OPT_INDENT_2))


def write_privately(path: Path, content: bytes) -> None:
    """Put a file there as a whole, readable by its owner alone."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # with mode 0600
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def run_pins(texts: Sequence[str]) -> tuple[RunPins, ...]:
    """Runs as they are written on a command line: `RUN_ID`, or `PIN=VALUE,PIN=VALUE`.

    Raises:
        PrincipalsError: one is not written so.
    """
    return tuple(_run_pins(text) for text in texts)


def _run_pins(text: str) -> RunPins:
    pins: dict[str, str | int] = {}
    for part in text.split(",") if "=" in text else [f"run_id={text}"]:
        name, _, value = part.partition("=")
        pins[name.strip()] = int(value) if name.strip() == "seed" and value.isdigit() else value.strip()
    try:
        return RunPins.model_validate(pins)
    except ValidationError as error:
        raise PrincipalsError(f"a run is written RUN_ID or PIN=VALUE,PIN=VALUE: {_problem(error)}") from None
