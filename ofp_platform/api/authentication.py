"""Who may ask: bearer tokens, kept as digests only, and the rule that an open service stays on the loopback."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from ofp_platform.vocabulary.errors import Reason, invalid
from ofp_platform.vocabulary.text_file import read_text

TOKENS_VARIABLE = "OFP_API_TOKENS"
TOKENS_FILE_VARIABLE = "OFP_API_TOKENS_FILE"
MIN_TOKEN_LENGTH = 16
_TOKEN = re.compile(r"[A-Za-z0-9._~+/-]+=*", re.ASCII)


class ExposureError(Exception):
    """The service would be unsafe as configured; the text says what to do."""


class Tokens:
    """The accepted bearer tokens. An empty set means that authentication is off."""

    def __init__(self, tokens: Iterable[str] = ()) -> None:
        accepted_tokens = tuple(tokens)
        for token in accepted_tokens:
            if len(token) < MIN_TOKEN_LENGTH or _TOKEN.fullmatch(token) is None:
                raise ExposureError(
                    f"an API token must be at least {MIN_TOKEN_LENGTH} characters of A-Z a-z 0-9 . _ ~ + / - (then =);"
                    " one of those given is not"
                )
        self._digests = tuple(hashlib.sha256(token.encode()).digest() for token in accepted_tokens)

    def __bool__(self) -> bool:
        return bool(self._digests)

    def check(self, authorization: bytes | None) -> None:
        """Accept the value of an Authorization header.

        Raises:
            ContractError: INVALID_REQUEST / UNAUTHENTICATED.
        """
        if not self._digests:
            return
        scheme, _, token = (authorization or b"").partition(b" ")
        token_digest = hashlib.sha256(token.strip()).digest()
        # every token is compared, so that the time says nothing about which one was close
        is_accepted = False
        for digest in self._digests:
            is_accepted |= hmac.compare_digest(digest, token_digest)
        if scheme.lower() != b"bearer" or not is_accepted:
            raise invalid(Reason.UNAUTHENTICATED, "send a known token in the header 'Authorization: Bearer <token>'")


def load_tokens(environ: Mapping[str, str]) -> Tokens:
    """The tokens of OFP_API_TOKENS (separated by commas or blanks) and of the file named by OFP_API_TOKENS_FILE (one a line).

    Raises:
        ExposureError: the file cannot be read or is empty, or a token is too weak. No token is ever shown.
    """
    tokens = [token for token in re.split(r"[,\s]+", environ.get(TOKENS_VARIABLE, "")) if token]
    if name := environ.get(TOKENS_FILE_VARIABLE):
        try:
            lines = read_text(Path(name)).split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise ExposureError(f"{TOKENS_FILE_VARIABLE}: {name} cannot be read: {type(error).__name__}") from None
        file_tokens = [line.strip() for line in lines if line.strip() and not line.lstrip().startswith("#")]
        if not file_tokens:
            raise ExposureError(f"{TOKENS_FILE_VARIABLE}: {name} holds no token; write one a line")
        tokens += file_tokens
    return Tokens(tokens)


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach an address to bind."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_exposure(host: str, tokens: Tokens) -> None:
    """Refuse to open the service to a network without authentication.

    Raises:
        ExposureError: the address is not of the loopback and no token is configured.
    """
    if not tokens and not is_loopback(host):
        raise ExposureError(
            f"{host} can be reached from other machines and no API token is configured. Set {TOKENS_VARIABLE} or"
            f" {TOKENS_FILE_VARIABLE}, or bind 127.0.0.1"
        )
