"""Signatures of Standard Webhooks: HMAC-SHA256 over id, timestamp and body, under a secret that both sides have."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Mapping

ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER = "webhook-id", "webhook-timestamp", "webhook-signature"
SECRET_PREFIX = "whsec_"
TOLERANCE_SECONDS = 300
"""How far the timestamp of a message may be from the clock of who receives it."""
_VERSION = "v1"
_LEAST_SECRET, _MOST_SECRET = 24, 64


class SecretFault(Exception):
    """A secret cannot be used; the text says why, without it."""


class SignatureRefused(Exception):
    """A message is not what the holder of the secret sent just now; the text says why."""


def parse_secret(text: str) -> bytes:
    """The key in `whsec_<base64>`, of 24 to 64 bytes.

    Raises:
        SecretFault: it is none.
    """
    try:
        key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not text.startswith(SECRET_PREFIX) or not _LEAST_SECRET <= len(key) <= _MOST_SECRET:
        raise SecretFault(f"a secret is {SECRET_PREFIX} and {_LEAST_SECRET} to {_MOST_SECRET} bytes in base64")
    return key


def signed_headers(secret: bytes, message_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The headers of a message. `timestamp`: seconds since the epoch."""
    return {
        ID_HEADER: message_id,
        TIMESTAMP_HEADER: str(timestamp),
        SIGNATURE_HEADER: f"{_VERSION},{_signature(secret, message_id, str(timestamp), body)}",
    }


def verify(secret: bytes, headers: Mapping[str, str], body: bytes, now: int) -> str:
    """The id of a message that was signed with the secret. `headers`: names in lower case; `now`: seconds since the epoch.

    Raises:
        SignatureRefused: a header is missing, the time is too far off, or no signature is right.
    """
    message_id, timestamp, signatures = (headers.get(name, "") for name in (ID_HEADER, TIMESTAMP_HEADER, SIGNATURE_HEADER))
    if not message_id or not signatures or not (timestamp.isascii() and timestamp.isdecimal() and len(timestamp) <= 12):
        raise SignatureRefused(f"{ID_HEADER}, {TIMESTAMP_HEADER} and {SIGNATURE_HEADER} are needed")
    if abs(int(timestamp) - now) > TOLERANCE_SECONDS:
        raise SignatureRefused(f"{TIMESTAMP_HEADER} is more than {TOLERANCE_SECONDS} s off")
    right_text = _signature(secret, message_id, timestamp, body).encode()
    # several, while a secret is being changed
    for signature in signatures.split(" "):
        version, _, text = signature.partition(",")
        if version == _VERSION and hmac.compare_digest(text.encode("utf-8", "replace"), right_text):
            return message_id
    raise SignatureRefused(f"no signature in {SIGNATURE_HEADER} is right")


def _signature(secret: bytes, message_id: str, timestamp: str, body: bytes) -> str:
    signed_content = b".".join((message_id.encode(), timestamp.encode(), body))
    return base64.b64encode(hmac.digest(secret, signed_content, hashlib.sha256)).decode()
