"""Keys come from a private file or the environment, are never shown, and sign as RFC 8032 says."""

from __future__ import annotations

import base64
from pathlib import Path

import pytest

from ofp_platform.audit.signing_keys import KeyRefused, SigningKey, is_signed, read_key, write_key

SEED = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
PUBLIC = "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
SIGNATURE = (
    "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
    "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
)
TEXT = base64.b64encode(SEED).decode()


def test_a_key_signs_as_the_vectors_of_the_standard_do() -> None:
    key = SigningKey.of_seed(SEED)
    assert (key.key_id, key.sign(b"\x72")) == (PUBLIC, SIGNATURE)
    assert is_signed(PUBLIC, SIGNATURE, b"\x72")
    for key_id, signature, message in (
        (PUBLIC, SIGNATURE, b"\x73"),
        (PUBLIC, "00" + SIGNATURE[2:], b"\x72"),
        (PUBLIC, "x", b"\x72"),
        ("0" * 64, SIGNATURE, b"\x72"),
        ("x", SIGNATURE, b"\x72"),
    ):
        assert not is_signed(key_id, signature, message)
    assert TEXT not in repr(key)
    assert SEED.hex() not in repr(key)


def test_a_key_is_written_once_into_a_private_file(tmp_path: Path) -> None:
    path = tmp_path / "audit.key"
    key = write_key(path, SEED)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_key(path, None) == read_key(None, TEXT) or key.key_id == read_key(path, None).key_id
    assert read_key(None, TEXT + "\n").key_id == PUBLIC
    with pytest.raises(KeyRefused, match="never written over"):
        write_key(path, SEED)
    with pytest.raises(KeyRefused, match="No such file"):
        write_key(tmp_path / "none" / "audit.key", SEED)


def test_a_key_that_others_may_read_or_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "audit.key"
    write_key(path, SEED)
    for mode in (0o640, 0o604, 0o700):
        path.chmod(mode)
        with pytest.raises(KeyRefused, match=f"has mode {mode:04o}.*chmod 600"):
            read_key(path, None)
    path.chmod(0o600)
    link = tmp_path / "link"
    link.symlink_to(path)
    for place, words in (
        (link, "it is a symbolic link"),
        (tmp_path / "none", "cannot be read: No such file"),
        (tmp_path, "is no file"),
    ):
        with pytest.raises(KeyRefused, match=words):
            read_key(place, None)
    for text in ("short", base64.b64encode(SEED[:31]).decode(), TEXT[:-2] + "*="):
        path.write_text(text)
        with pytest.raises(KeyRefused, match="holds no key") as refused:
            read_key(path, None)
        assert text not in str(refused.value)
    with pytest.raises(KeyRefused, match="OFP_AUDIT_KEY holds no key"):
        read_key(None, "nonsense")
    with pytest.raises(KeyRefused, match="no key to sign with"):
        read_key(None, "")
