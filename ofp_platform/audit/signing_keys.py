"""Ed25519 keys: 32 bytes of a seed, base64, in a file that only its owner reads, or in the environment. Never anywhere else."""

from __future__ import annotations

import base64
import binascii
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ofp_platform.storage.private_files import PRIVATE_FILE

SEED_BYTES = 32
VARIABLE = "OFP_AUDIT_KEY"
"""The environment variable that holds a key, where no file does."""
_MOST_BYTES = 256


class KeyRefused(Exception):
    """There is no key, or one that may not be used; the text says why, and never shows it."""


@dataclass(frozen=True)
class SigningKey:
    """A key that signs. `key_id`: its public half, 64 hex digits."""

    key_id: str
    _private: Ed25519PrivateKey = field(repr=False)

    @classmethod
    def of_seed(cls, seed: bytes) -> SigningKey:
        """From its 32 bytes."""
        private = Ed25519PrivateKey.from_private_bytes(seed)
        return cls(private.public_key().public_bytes_raw().hex(), private)

    def sign(self, message: bytes) -> str:
        """The signature, 128 hex digits."""
        return self._private.sign(message).hex()


def is_signed(key_id: str, signature: str, message: bytes) -> bool:
    """Whether the signature over the message is of that key (hex both)."""
    try:
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(key_id)).verify(bytes.fromhex(signature), message)
    except (InvalidSignature, ValueError):
        return False
    return True


def write_key(path: Path, seed: bytes) -> SigningKey:
    """Write a new key into a file of mode 0600 that is not there yet.

    Raises:
        KeyRefused: something of that name is there, or it cannot be written.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
    except FileExistsError:
        raise KeyRefused(f"{path} is there already: a key is never written over; name another file") from None
    except OSError as error:
        raise KeyRefused(f"no key can be written to {path}: {error.strerror}") from None
    with os.fdopen(descriptor, "wb") as file:
        file.write(base64.b64encode(seed) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    return SigningKey.of_seed(seed)


def read_key(path: Path | None, variable: str | None) -> SigningKey:
    """The key of a file, or else that of the environment (`variable`: its value).

    Raises:
        KeyRefused: neither is there, it is no key, or others may read the file.
    """
    if path is not None:
        return _of_text(_private_text(path), str(path))
    if variable:
        return _of_text(variable.encode(), VARIABLE)
    raise KeyRefused(f"no key to sign with: name a file (--key FILE; `ofp audit key new FILE` makes one) or set {VARIABLE}")


def _private_text(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        words = "it is a symbolic link" if path.is_symlink() else error.strerror
        raise KeyRefused(f"the key file {path} cannot be read: {words}") from None
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode):
        os.close(descriptor)
        raise KeyRefused(f"{path} is no file")
    with os.fdopen(descriptor, "rb") as file:
        if status.st_mode & 0o777 & ~PRIVATE_FILE:
            raise KeyRefused(
                f"{path} has mode {status.st_mode & 0o7777:04o}: others may reach it. If nobody can have read it:"
                f" chmod 600 {path}; else make a new key and rotate"
            )
        return file.read(_MOST_BYTES)


def _of_text(text: bytes, where: str) -> SigningKey:
    try:
        seed = base64.b64decode(text.strip(), validate=True)
    except binascii.Error:
        seed = b""
    if len(seed) != SEED_BYTES:
        raise KeyRefused(f"{where} holds no key: {SEED_BYTES} bytes in base64, as `ofp audit key new FILE` writes them")
    return SigningKey.of_seed(seed)
