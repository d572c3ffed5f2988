"""Which keys of a set verify what, and for how long those count that cannot be read again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from ofp_platform.api.principals import KeySetSource
from ofp_platform.api.signing_keys import KeySet, KeySetUnreadable, public_keys
from ofp_platform_tests.api.identity_provider import SigningKey, rsa_key

RSA, SHORT = rsa_key(), rsa_key(1_024)
EC = SigningKey("ec")


def names(*members: Any) -> set[tuple[str, str]]:
    return set(public_keys(json.dumps({"keys": members}).encode()))


def test_a_key_is_for_the_algorithms_of_its_kind_alone() -> None:
    rs = SigningKey("rsa", "RS256", RSA).public()
    assert names(rs) == {("rsa", "RS256")}
    assert {algorithm for _, algorithm in names({**rs, "alg": "PS512"})} == {"PS512"}
    del rs["alg"]
    assert {algorithm for _, algorithm in names(rs)} == {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512"}
    assert names(EC.public()) == {("ec", "ES256")}
    assert names(SigningKey("ec", "ES384", ec.generate_private_key(ec.SECP384R1())).public()) == {("ec", "ES384")}
    assert names(SigningKey("ed", "EdDSA", ed25519.Ed25519PrivateKey.generate()).public()) == {("ed", "EdDSA")}


@pytest.mark.parametrize(
    "member",
    [
        {"kty": "oct", "k": "c2VjcmV0", "kid": "a", "alg": "HS256"},
        {"kty": "oct", "k": "c2VjcmV0", "kid": "a"},
        EC.public(alg="HS256"),
        EC.public(alg="ES384"),
        EC.public(use="enc"),
        EC.public(key_ops=["sign"]),
        EC.public(key_ops="verify"),
        EC.public(kid=""),
        EC.public(kid=7),
        EC.public(crv="P-384"),
        EC.public(crv="secp256k1"),
        EC.public(x="AA"),
        EC.public(kty="OKP"),
        SigningKey("short", "RS256", SHORT).public(),
        {**json.loads(ECAlgorithm.to_jwk(EC.private)), "kid": "private"},
        {**json.loads(RSAAlgorithm.to_jwk(RSA)), "kid": "private"},
        {"kty": "RSA", "kid": "empty"},
        "text",
        None,
    ],
)
def test_what_verifies_nothing_is_left_out(member: Any) -> None:
    assert names(member, EC.public()) == {("ec", "ES256")}


def test_the_first_of_two_keys_of_one_name_counts() -> None:
    other = SigningKey("ec")
    keys = public_keys(json.dumps({"keys": [EC.public(), other.public()]}).encode())
    assert keys["ec", "ES256"].public_numbers() == EC.private.public_key().public_numbers()


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b'{"keys": {}}', b'{"keys": null}', b"<html>"])
def test_what_is_no_set(content: bytes) -> None:
    with pytest.raises(KeySetUnreadable):
        public_keys(content)


def test_ages_of_a_set(tmp_path: Path) -> None:
    now = 100.0
    file = tmp_path / "keys.json"
    source = KeySetSource(file="keys.json", refresh_seconds=60, unknown_key_seconds=5, valid_seconds=600)
    key_set = KeySet(source, tmp_path, lambda: now)
    assert (key_set.is_due, key_set.may_be_asked, key_set.is_valid, key_set.trouble) == (True, True, False, None)
    key_set.fetch()
    assert key_set.trouble == ("KEYS_EXPIRED", "FileNotFoundError")
    assert (key_set.is_due, key_set.may_be_asked, key_set.is_valid) == (False, False, False)
    file.write_text(json.dumps({"keys": [EC.public()]}))
    file.chmod(0o600)
    now += 5
    assert key_set.is_due
    key_set.fetch()
    assert (key_set.trouble, key_set.is_valid, key_set.version) == (None, True, 1)
    key_set.fetch()
    assert key_set.version == 1  # the same content
    file.unlink()
    now += 599
    key_set.fetch()
    assert key_set.trouble == ("KEYS_UNCONFIRMED", "FileNotFoundError")
    assert ("ec", "ES256") in key_set.keys
    now += 1
    assert not key_set.is_valid
    assert key_set.trouble == ("KEYS_EXPIRED", "FileNotFoundError")


@pytest.mark.parametrize(
    ("url", "is_safe"),
    [
        ("https://idp.example/keys", True),
        ("http://127.0.0.1:8/keys", True),
        ("http://localhost/keys", True),
        ("http://[::1]/keys", True),
        ("http://idp.example/keys", False),
        ("http://127.0.0.1.idp.example/keys", False),
        ("http://10.0.0.1/keys", False),
        ("https://user:secret@idp.example/keys", False),
        ("file:///etc/passwd", False),
        ("ftp://127.0.0.1/keys", False),
        ("https:///keys", False),
        ("https://idp.example:port/keys", False),
        ("", False),
    ],
)
def test_keys_come_by_tls_or_from_this_machine(url: str, is_safe: bool) -> None:
    if is_safe:
        assert KeySetSource(url=url).url == url
    else:
        with pytest.raises(ValueError, match="url"):
            KeySetSource(url=url)


@pytest.mark.parametrize("fields", [{}, {"file": "a", "url": "https://a/b"}, {"file": ""}, {"file": "a", "valid_seconds": 1}])
def test_a_source_is_one_place(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="file"):
        KeySetSource.model_validate(fields)
