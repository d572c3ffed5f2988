"""The keys of one machine: made once, of least scope, sent nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from ofp_platform.api.authentication import Authentication
from ofp_platform.api.principals import changed_principals, read_principals
from ofp_platform.cli.environment import Environment
from ofp_platform.cli.installation.local_principals import ensure_local_principals, key_file, local_token
from ofp_platform.vocabulary.identity import ContextPins


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    return Environment(home=tmp_path / "home")


@pytest.fixture
def pins(environment: Environment) -> ContextPins:
    return environment.load_profile().context_pins


def test_each_has_its_own_key_and_no_more_than_it_needs(environment: Environment, pins: ContextPins) -> None:
    assert ensure_local_principals(environment, pins) == ["decisions", "builds", "metrics", "console"]
    authentication = Authentication(environment.principals_file, pins, lambda: 0.0)
    for name, scopes in [
        ("decisions", {"features:read", "snapshots:read", "decisions:write"}),
        ("builds", {"builds:submit", "snapshots:read"}),
        ("metrics", {"metrics"}),
        ("console", {"features:read", "snapshots:read", "operate", "investigate"}),
    ]:
        path = key_file(environment, name)
        assert path.stat().st_mode & 0o777 == 0o600
        caller = authentication.caller(f"Bearer {local_token(environment, name)}".encode())
        assert (caller.principal.name, set(caller.principal.scopes)) == (name, scopes)
        assert caller.reads_here is (name != "metrics")
        other_pins = pins.model_copy(update={"run_id": "another"})
        assert not caller.principal.may_read(other_pins)
    assert environment.keys_folder.stat().st_mode & 0o777 == 0o700


def test_it_is_done_once_and_what_was_lost_or_revoked_is_made_again(environment: Environment, pins: ContextPins) -> None:
    ensure_local_principals(environment, pins)
    file, key = environment.principals_file.read_bytes(), local_token(environment, "builds")
    assert ensure_local_principals(environment, pins) == []
    assert environment.principals_file.read_bytes() == file
    key_file(environment, "decisions").unlink()
    with changed_principals(environment.principals_file) as box:
        box[0] = box[0].without("metrics")
    assert ensure_local_principals(environment, pins) == ["decisions", "metrics"]
    assert local_token(environment, "builds") == key


def test_another_run_of_the_home_is_added(environment: Environment, pins: ContextPins) -> None:
    ensure_local_principals(environment, pins)
    other_pins = pins.model_copy(update={"run_id": "another"})
    assert ensure_local_principals(environment, other_pins) == []
    principal = read_principals(environment.principals_file).named("decisions")
    assert principal.may_read(pins)
    assert principal.may_read(other_pins)


def test_a_file_of_the_operator_stays_as_it_is(environment: Environment, pins: ContextPins, tmp_path: Path) -> None:
    own = environment.model_copy(update={"principals": tmp_path / "principals.json"})
    assert ensure_local_principals(own, pins) == []
    assert not own.principals_file.exists()


def test_a_key_is_not_sent_to_another_machine(environment: Environment, pins: ContextPins) -> None:
    assert local_token(environment, "decisions") is None
    ensure_local_principals(environment, pins)
    for url in ("http://127.0.0.1:8000", "http://localhost:1", "http://[::1]:8000"):
        assert local_token(environment, "decisions", url)
    for url in ("http://example.test", "http://127.0.0.1.example.test", "http://10.0.0.1", "http://localhost@example.test", ""):
        assert local_token(environment, "decisions", url) is None
