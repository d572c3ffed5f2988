"""Tokens of an identity provider against a real server: what gets in, and every way of forging one, which does not."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from ofp_platform.api.principals import PrincipalsFile, changed_principals
from ofp_platform_tests.api.fake_port import BODY
from ofp_platform_tests.api.identity_provider import AUDIENCE, IdentityProvider, SigningKey, publishing, rsa_key
from ofp_platform_tests.api.keys import EVERYBODY, EXAMPLE_PINS, KEY
from ofp_platform_tests.api.test_app import REQUEST
from ofp_platform_tests.api.test_server import running


@dataclass
class House:
    """A server, the file by which it lets in, and two identity providers whose word it takes."""

    path: Path
    address: str
    idp: IdentityProvider
    other: IdentityProvider

    def ask(self, token: str, path: str = "/v0/get_features") -> httpx.Response:
        headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
        method, content = ("POST", REQUEST) if path == "/v0/get_features" else ("GET", None)
        return httpx.request(method, self.address + path, headers=headers, content=content, trust_env=False, timeout=20)

    def takes(self, token: str) -> bool:
        answer = self.ask(token)
        assert answer.status_code in (200, 401), answer.text
        if answer.status_code == 200:
            assert answer.content == BODY
            return True
        assert answer.json()["reason"] == "UNAUTHENTICATED"
        assert token not in answer.text
        return False

    def declare(self, *issuers: Any) -> None:
        """Other issuers from now on."""
        with changed_principals(self.path) as box:
            box[0] = PrincipalsFile.of(EVERYBODY, issuers=issuers)

    def until(self, is_so: Callable[[], bool]) -> None:
        """Ask again until it is."""
        deadline = time.monotonic() + 30
        while not is_so():
            assert time.monotonic() < deadline

    def reasons(self) -> list[str]:
        """Why the health of the server is what it is."""
        return list(httpx.get(f"{self.address}/health", trust_env=False).json()["reasons"])


@pytest.fixture(scope="module")
def providers() -> Iterator[tuple[IdentityProvider, IdentityProvider]]:
    rs = SigningKey("of-rsa", "RS256", rsa_key())
    with publishing(IdentityProvider("idp", rs)) as idp, publishing(IdentityProvider("other")) as other:
        yield idp, other


@pytest.fixture(scope="module")
def running_house(
    providers: tuple[IdentityProvider, IdentityProvider], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    idp, other = providers
    path = tmp_path_factory.mktemp("house") / "principals.json"
    house = House(path, "", idp, other)
    house.declare(idp.declared(), other.declared(run_claim="runs"))
    with ExitStack() as stack:
        _, house.address = stack.enter_context(running("reporting", OFP_PRINCIPALS=str(path)))
        yield house


@pytest.fixture
def house(running_house: House) -> Iterator[House]:
    """The same with everything as at first when a test ends."""
    house, first = running_house, (running_house.idp.published, running_house.other.published)
    yield house
    house.idp.answering.set()
    house.idp.published, house.other.published = first
    house.idp.status = 200
    house.declare(house.idp.declared(), house.other.declared(run_claim="runs"))
    tokens = house.idp.token(), house.other.token(runs=EXAMPLE_PINS.run_id)
    house.until(lambda: all(house.ask(token).status_code == 200 for token in tokens) and house.reasons() == [])


def test_a_token_is_a_principal_with_the_scopes_and_runs_that_it_claims_within_those_of_its_issuer(house: House) -> None:
    assert house.takes(house.idp.token())
    assert house.takes(house.idp.token(scope=["features.read", "unheard-of"]))
    assert house.takes(house.idp.token(aud=["https://elsewhere", AUDIENCE]))
    assert house.takes(house.other.token(runs=EXAMPLE_PINS.run_id))
    for scope in (None, "", "metrics", "features:read", []):
        assert house.ask(house.idp.token(scope=scope)).json()["reason"] == "FORBIDDEN"
    assert house.ask(house.idp.token(), "/metrics").json()["reason"] == "FORBIDDEN"
    assert house.ask(house.idp.token(scope="plane.admin"), "/metrics").status_code == 200
    for runs in (None, [], "another-run", ["another-run", "*"][:1]):
        assert house.ask(house.other.token(runs=runs)).json()["reason"] == "UNKNOWN_RUN"


def _unsigned(claims: dict[str, Any], algorithm: str, **head: Any) -> str:
    parts = [{"alg": algorithm, "typ": "JWT", **head}, claims]
    texts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=").decode() for part in parts]
    return ".".join([*texts, ""])


def _signed_with_the_public_key(idp: IdentityProvider) -> list[str]:
    """HS256, with what everybody knows as the secret."""
    public = idp.key.private.public_key()
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    secrets = [public.public_bytes(encoding, form) for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER)]
    secrets.append(json.dumps(idp.key.public()).encode())
    tokens = []
    for secret in secrets:
        content = _unsigned(idp.claims(), "HS256", kid=idp.key.key_id).rstrip(".")
        signature = hmac.new(secret, content.encode(), hashlib.sha256).digest()
        tokens.append(f"{content}.{base64.urlsafe_b64encode(signature).rstrip(b'=').decode()}")
    return tokens


def test_forged_tokens(house: House) -> None:
    idp, other = house.idp, house.other
    stranger = SigningKey(idp.key.key_id, "RS256", rsa_key())
    now = int(time.time())
    good = idp.token()
    head, claims, signature = good.split(".")
    richer = base64.urlsafe_b64encode(json.dumps(idp.claims(scope="plane.admin")).encode()).rstrip(b"=").decode()
    forged = {
        "alg none": _unsigned(idp.claims(), "none", kid=idp.key.key_id),
        "alg None": _unsigned(idp.claims(), "None", kid=idp.key.key_id),
        "no alg": _unsigned(idp.claims(), "", kid=idp.key.key_id),
        **{f"HS256 {number}": token for number, token in enumerate(_signed_with_the_public_key(idp))},
        "another key under its id": idp.token(stranger),
        "its own key in its head": idp.token(stranger, {"jwk": stranger.public()}),
        "keys elsewhere": idp.token(stranger, {"jku": other.url, "x5u": other.url, "x5c": ["MIIB"]}),
        "another algorithm of the same key": jwt.encode(idp.claims(), idp.key.private, "PS256", {"kid": idp.key.key_id}),
        "claims exchanged": f"{head}.{richer}.{signature}",
        "no signature": f"{head}.{claims}.",
        "signature of another": f"{head}.{claims}.{idp.token(sub='b').split('.')[2]}",
        "key of another issuer": idp.token(other.key),
        "issuer of another key": other.token(idp.key, iss=other.issuer, runs=EXAMPLE_PINS.run_id),
        "no kid": jwt.encode(idp.claims(), idp.key.private, "RS256"),
        "something critical": idp.token(head={"crit": ["exp"], "exp": 0}),
        "b64": idp.token(head={"b64": False}),
        "another audience": idp.token(aud="https://elsewhere"),
        "no audience": idp.token(aud=None),
        "another issuer": idp.token(iss="https://idp.bank.example"),
        "no issuer": idp.token(iss=None),
        "expired": idp.token(exp=now - 60),
        "no end": idp.token(exp=None),
        "no time": idp.token(exp=True),
        "a text": idp.token(exp="9999999999"),
        "endless": idp.token(exp=now + 10 * 86_400),
        "without bound": idp.token(exp=10**300),
        "infinite": idp.token(exp=float("inf")),
        "not yet": idp.token(nbf=now + 600),
        "of the future": idp.token(iat=now + 600),
        "nobody": idp.token(sub=None),
        "no name": idp.token(sub="a b"),
        "a card number": idp.token(sub="4111111111111111"),
        "huge": idp.token(padding="x" * 9_000),
        "deep": _unsigned({}, "RS256")[:-1] + "W1tb" * 1_900 + ".AA",
        "no object": f"{head}.{base64.urlsafe_b64encode(b'[]').decode().rstrip('=')}.{signature}",
        "garbage": "a.b.c",
        "dots": "..",
    }
    assert [why for why, token in forged.items() if house.takes(token)] == []
    assert house.takes(good)
    # what is larger than a head may be is no token either
    assert house.ask(idp.token(padding="x" * 100_000)).status_code == 431
    asked = other.asked
    assert not house.takes(forged["keys elsewhere"])
    assert other.asked == asked


def test_times_are_taken_with_the_declared_skew(house: House) -> None:
    now = int(time.time())
    assert house.takes(house.idp.token(exp=now - 5))
    assert house.takes(house.idp.token(nbf=now + 10, iat=now + 10))
    house.declare(house.idp.declared(clock_skew_seconds=0))
    house.until(lambda: not house.takes(house.idp.token(exp=now - 5)))
    assert not house.takes(house.idp.token(nbf=now + 100))


def test_keys_are_rotated_without_a_restart_and_a_removed_one_ends(house: House) -> None:
    old = house.idp.token()
    assert house.takes(old)
    eddsa = SigningKey("next", "EdDSA", ed25519.Ed25519PrivateKey.generate())
    house.idp.publish(house.idp.key, eddsa)
    house.until(lambda: house.takes(house.idp.token(eddsa)))  # at once, or when keys were asked for a second ago
    assert house.takes(old)
    house.idp.publish(eddsa)
    house.declare(house.idp.declared(key_set={"url": house.idp.url, "refresh_seconds": 1}))
    house.until(lambda: not house.takes(old))
    assert house.takes(house.idp.token(eddsa))


def test_unknown_keys_do_not_make_it_ask_again_and_again(house: House) -> None:
    house.declare(house.idp.declared(key_set={"url": house.idp.url, "unknown_key_seconds": 600}))
    house.until(lambda: house.takes(house.idp.token()))
    asked, begin = house.idp.asked, time.monotonic()
    while time.monotonic() < begin + 4:
        assert not house.takes(house.idp.token(SigningKey("unknown")))
    assert house.idp.asked <= asked + 2  # as it was declared before, and newly


@pytest.mark.parametrize("fault", ["status", "redirect", "no set", "large", "silent"])
def test_keys_that_cannot_be_read_stay_as_they_are_and_are_told(house: House, fault: str) -> None:
    token = house.idp.token()
    house.declare(house.idp.declared(key_set={"url": house.idp.url, "refresh_seconds": 1, "unknown_key_seconds": 1}))
    house.until(lambda: house.takes(token))
    if fault == "silent":
        house.idp.answering.clear()
    house.idp.status = {"status": 500, "redirect": 302}.get(fault, 200)
    if fault in ("no set", "large"):
        house.idp.published = b"<html>" if fault == "no set" else house.idp.published + b" " * 300_000
    why = {
        "status": "status_500",
        "redirect": "status_302",
        "no set": "no_key_set",
        "large": "too_large",
        "silent": "ReadTimeout",
    }
    house.until(lambda: house.reasons() == [f"ISSUER_IDP_KEYS_UNCONFIRMED:{why[fault]}"])
    assert house.takes(token)


def test_keys_that_nobody_confirms_are_refused_after_the_declared_time(house: House) -> None:
    token = house.idp.token()
    key_set = {"url": house.idp.url, "refresh_seconds": 1, "unknown_key_seconds": 1, "valid_seconds": 3}
    house.declare(house.idp.declared(key_set=key_set))
    house.until(lambda: house.takes(token))
    house.idp.status = 500
    house.until(lambda: house.ask(token).status_code == 503)
    answer = house.ask(token).json()
    assert answer["reason"] == "STORE_DOWN"
    assert "keys of the issuer idp" in answer["message"]
    house.until(lambda: house.reasons() == ["ISSUER_IDP_KEYS_EXPIRED:status_500"])
    assert house.ask(KEY).content == BODY  # keys of principals go on


def test_a_set_without_a_key_lets_nobody_in_and_is_told(house: House) -> None:
    house.idp.published = b'{"keys": []}'
    house.declare(house.idp.declared(key_set={"url": house.idp.url, "refresh_seconds": 1}))
    house.until(lambda: not house.takes(house.idp.token()))
    house.until(lambda: house.reasons() == ["ISSUER_IDP_NO_KEYS:none_that_can_be_used"])


def test_whom_an_operator_denies_is_out_within_a_second(house: House) -> None:
    token = house.idp.token()
    assert house.takes(token)
    house.declare(house.idp.declared(denied_names=["scorer"]))
    house.until(lambda: not house.takes(token))
    assert house.takes(house.idp.token(sub="another"))
    house.declare()
    house.until(lambda: not house.takes(house.idp.token(sub="another")))


def test_keys_in_a_file_are_followed(house: House) -> None:
    file = house.path.parent / "keys.json"
    key = SigningKey("of-the-file")
    file.write_text(json.dumps({"keys": [key.public()]}))
    file.chmod(0o600)
    house.declare(house.idp.declared(key_set={"file": "keys.json", "unknown_key_seconds": 1}))
    house.until(lambda: house.takes(house.idp.token(key)))
    file.chmod(0o666)
    house.until(lambda: house.reasons() == ["ISSUER_IDP_KEYS_UNCONFIRMED:others_may_write_to_the_file"])
    file.chmod(0o600)
    file.write_text(json.dumps({"keys": []}))
    house.until(lambda: not house.takes(house.idp.token(key)))
