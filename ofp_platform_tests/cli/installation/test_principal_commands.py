"""`ofp principal`, as an operator calls it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ofp_platform.api.principals import KEY, Scope, read_principals
from ofp_platform.cli.environment import Environment
from ofp_platform_tests.api.test_principals import ISSUER
from ofp_platform_tests.cli.program import Ofp, call


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home" / "principals.json"


def test_a_key_is_shown_once_and_kept_nowhere(ofp: Ofp, path: Path) -> None:
    key = ofp("principal", "add", "scorer", "--scope", "features:read", "--scope", "snapshots:read").out.strip()
    assert KEY.fullmatch(key.encode())
    assert key[-43:] not in path.read_text()
    principal = read_principals(path).named("scorer")
    pins = Environment(profile="demo").load_profile().context_pins
    assert principal.may_read(pins)
    assert not principal.may_read(pins.model_copy(update={"seed": 9}))
    shown = ofp("principal", "list").out
    assert "scorer  features:read snapshots:read  never ends" in shown
    assert f"run_id={pins.run_id}" in shown
    assert key[4:20] in shown
    assert key[-43:] not in shown


def test_a_key_goes_to_a_file(ofp: Ofp, tmp_path: Path) -> None:
    file = tmp_path / "keys" / "prometheus.key"
    said = ofp("principal", "add", "prometheus", "--scope", "metrics", "--all-runs", "--key-file", str(file))
    assert KEY.fullmatch(file.read_bytes().strip())
    assert file.stat().st_mode & 0o777 == 0o600
    assert file.read_text().strip() not in said.shown


def test_rotated_and_revoked(ofp: Ofp, path: Path) -> None:
    first = ofp("principal", "add", "scorer", "--scope", "features:read", "--run", "r1", "--run", "run_id=r2,seed=7").out.strip()
    second = ofp("principal", "rotate", "scorer", "--overlap-hours", "2").out.strip()
    keys = read_principals(path).named("scorer").keys
    assert [key.key_id for key in keys] == [first[4:20], second[4:20]]
    assert keys[0].expires_at_utc is not None
    assert keys[1].expires_at_utc is None
    assert ofp("principal", "revoke", "scorer", "--key", first[4:20]).code == 0
    assert [key.key_id for key in read_principals(path).named("scorer").keys] == [second[4:20]]
    assert "no key" in ofp("principal", "revoke", "scorer", "--key", first[4:20]).refused()
    assert ofp("principal", "revoke", "scorer").code == 0
    assert read_principals(path).principals == ()
    assert "no principal has this name" in ofp("principal", "revoke", "scorer").refused()
    assert "no principal has this name" in ofp("principal", "rotate", "scorer").refused()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["scorer", "--scope", "everything"], "scopes.0"),
        (["scorer", "--scope", "metrics", "--run", "r", "--all-runs"], "exclude each other"),
        (["scorer", "--scope", "metrics", "--run", "colour=red"], "a run is written"),
        (["scorer", "--scope", "metrics", "--expires", "tomorrow"], "expires_at_utc"),
        (["4111111111111111", "--scope", "metrics"], "name"),
    ],
)
def test_what_is_not_said_rightly_adds_nobody(ofp: Ofp, path: Path, arguments: list[str], words: str) -> None:
    assert words in ofp("principal", "add", *arguments).refused()
    assert not path.exists()


def test_nobody_is_added_twice(ofp: Ofp, path: Path) -> None:
    assert ofp("principal", "add", "scorer", "--scope", "metrics").code == 0
    before = path.read_bytes()
    assert "is there already" in ofp("principal", "add", "scorer", "--scope", "operate").refused()
    assert path.read_bytes() == before


def test_an_identity_provider_is_trusted_denied_in_part_and_distrusted(ofp: Ofp, path: Path, tmp_path: Path) -> None:
    file = tmp_path / "idp.json"
    file.write_text(json.dumps(ISSUER))
    ofp("principal", "add", "scorer", "--scope", "metrics")
    assert ofp("principal", "trust", str(file)).out.strip() == "tokens of https://idp.example/ are taken"
    assert ofp("principal", "revoke", "idp:somebody").code == 0
    assert ofp("principal", "trust", str(file)).code == 0  # whoever was revoked stays revoked
    (issuer,) = read_principals(path).issuers
    assert issuer.denied_names == ("somebody",)
    assert read_principals(path).named("scorer").keys
    shown = ofp("principal", "issuers").out
    assert "idp  ES256  for  plane" in shown
    assert "denied idp:somebody" in shown
    assert json.loads(ofp("principal", "issuers", "--json").out)[0]["key_set"]["url"] == ISSUER["key_set"]["url"]
    assert "tokens of an issuer" in ofp("principal", "add", "idp:somebody", "--scope", "metrics").refused()
    file.write_text(json.dumps({**ISSUER, "name": "another"}))
    assert "issuer stands there twice" in ofp("principal", "trust", str(file)).refused()
    assert "has no key" in ofp("principal", "revoke", "idp:somebody", "--key", "0" * 16).refused()
    assert ofp("principal", "distrust", "idp").code == 0
    assert read_principals(path).issuers == ()
    assert "no issuer has this name" in ofp("principal", "distrust", "idp").refused()
    file.write_text(json.dumps({**ISSUER, "algorithms": ["HS256"]}))
    assert "algorithms.0" in ofp("principal", "trust", str(file)).refused()
    assert "cannot be read" in ofp("principal", "trust", str(tmp_path / "none")).refused()


def test_help_names_every_scope() -> None:
    helped = " ".join(call("principal", "add", "--help").out.split())
    assert f"{', '.join(Scope)}; several times." in helped
