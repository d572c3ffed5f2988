"""The file of principals: what it may say, and how it is changed."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from ofp_platform.api.principals import (
    KEY,
    Principal,
    PrincipalsError,
    PrincipalsFile,
    RunPins,
    changed_principals,
    new_key,
    read_principals,
    run_pins,
)
from ofp_platform_tests.api.keys import EXAMPLE_PINS, principal

ONE: dict[str, Any] = {"name": "one", "scopes": ["metrics"], "runs": "*"}
ISSUER: dict[str, Any] = {
    "name": "idp",
    "issuer": "https://idp.example/",
    "audiences": ["plane"],
    "algorithms": ["ES256"],
    "key_set": {"url": "https://idp.example/keys"},
    "scopes": {"plane.metrics": ["metrics"]},
    "runs": "*",
}


def write(path: Path, *principals: dict[str, Any], **more: Any) -> Path:
    content = {"kind": "ofp_principals", "contract_version": "v0", "principals": principals, **more}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_a_file_and_a_key_are_for_their_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "principals.json"
    _, added = principal("added", ["metrics", "operate"], [{"run_id": "r"}])
    with changed_principals(path) as box:
        box[0] = box[0].replacing(added)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_principals(path) == PrincipalsFile.of(added)
    assert [child.name for child in path.parent.iterdir() if child.name.endswith("json")] == ["principals.json"]


def test_many_change_it_at_once_and_nothing_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "principals.json"

    def add(number: int) -> None:
        with changed_principals(path) as box:
            box[0] = box[0].replacing(principal(f"p{number:02d}", ["metrics"])[1])

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(add, range(24)))
    assert [one.name for one in read_principals(path).principals] == [f"p{number:02d}" for number in range(24)]


def test_a_change_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = write(tmp_path / "principals.json", ONE)
    before = path.read_bytes()

    def change_and_fail() -> None:
        with changed_principals(path) as box:
            box[0] = box[0].without("one")
            raise RuntimeError("no")

    with pytest.raises(RuntimeError):
        change_and_fail()
    assert path.read_bytes() == before


@pytest.mark.parametrize(
    "principals",
    [
        [ONE, ONE],
        [{**ONE, "runs": None}],
        [{**ONE, "runs": [{}]}],
        [{**ONE, "runs": "all"}],
        [{"name": "one", "scopes": ["metrics"]}],
        [{**ONE, "scopes": ["everything"]}],
        [{**ONE, "name": ""}],
        [{**ONE, "keys": [{"key_id": "1", "sha256": "0" * 64}]}],
        [{**ONE, "keys": [{"key_id": "0" * 16, "sha256": "0" * 64}] * 2}],
        [{**ONE, "expires_at_utc": "tomorrow"}],
        [{**ONE, "admin": True}],
    ],
)
def test_what_is_not_said_is_not_guessed(tmp_path: Path, principals: list[dict[str, Any]]) -> None:
    with pytest.raises(PrincipalsError, match="is not a file of principals"):
        read_principals(write(tmp_path / "principals.json", *principals))


@pytest.mark.parametrize(
    "issuers",
    [
        [ISSUER, ISSUER],
        [ISSUER, {**ISSUER, "name": "other"}],
        [ISSUER, {**ISSUER, "issuer": "https://other"}],
        *([{**ISSUER, name: ()}] for name in ("audiences", "algorithms")),
        *([{**ISSUER, "algorithms": [name]}] for name in ("none", "HS256", "HS512", "rs256", "")),
        *([{name: value for name, value in ISSUER.items() if name != left_out}] for left_out in ISSUER),
        [{**ISSUER, "scopes": {"plane.metrics": ["everything"]}}],
        [{**ISSUER, "runs": None}],
        [{**ISSUER, "name": "a:b"}],
        [{**ISSUER, "key_set": {"url": "http://idp.example/keys"}}],
    ],
)
def test_an_issuer_says_all_that_bounds_it(tmp_path: Path, issuers: list[dict[str, Any]]) -> None:
    read_principals(write(tmp_path / "principals.json", ONE, issuers=[ISSUER]))
    with pytest.raises(PrincipalsError, match="is not a file of principals"):
        read_principals(write(tmp_path / "principals.json", ONE, issuers=issuers))


def test_nobody_with_a_key_has_the_name_of_a_token(tmp_path: Path) -> None:
    for name, is_free in (("idp:one", False), ("other:one", True), ("idp", True)):
        path = write(tmp_path / "principals.json", {**ONE, "name": name}, issuers=[ISSUER])
        if is_free:
            assert read_principals(path).named(name)
        else:
            with pytest.raises(PrincipalsError, match="tokens of an issuer"):
                read_principals(path)


def test_issuers_stay_while_principals_change(tmp_path: Path) -> None:
    path = write(tmp_path / "principals.json", ONE, issuers=[ISSUER])
    with changed_principals(path) as box:
        box[0] = box[0].replacing(principal("added", ["metrics"])[1]).without("one")
    assert [issuer.name for issuer in read_principals(path).issuers] == ["idp"]


@pytest.mark.parametrize(
    "content", ["", "{}", "[]", "null", '{"principals": []}', '{"kind": "ofp_principals", "contract_version": "v0"}']
)
def test_an_empty_object_is_no_file_of_nobody(tmp_path: Path, content: str) -> None:
    path = tmp_path / "principals.json"
    path.write_text(content)
    with pytest.raises(PrincipalsError, match="is not a file of principals"):
        read_principals(path)


def test_files_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(PrincipalsError, match="ofp principal add"):
        read_principals(tmp_path / "none")
    with pytest.raises(PrincipalsError, match="cannot be read"):
        read_principals(tmp_path)
    path = write(tmp_path / "principals.json", ONE)
    path.chmod(0o620)
    with pytest.raises(PrincipalsError, match="chmod go-w"):
        read_principals(path)


def test_without_a_run_nothing_is_read_and_each_pin_narrows() -> None:
    def reads(runs: Any) -> bool:
        return Principal.model_validate({**ONE, "runs": runs}).may_read(EXAMPLE_PINS)

    pins = EXAMPLE_PINS.wire()
    assert reads("*")
    assert not reads(())
    assert reads([pins])
    for name, value in pins.items():
        assert reads([{name: value}])
        other = value + 1 if isinstance(value, int) else "another"
        assert not reads([{name: other}])
        assert not reads([{**pins, name: other}])
        assert reads([{**pins, name: other}, {name: value}])
    assert not reads([{**pins, "platform_run_id": "p"}])


def test_keys_are_of_one_form_and_never_the_same() -> None:
    keys = {new_key()[0] for _ in range(50)}
    assert len(keys) == 50
    assert all(KEY.fullmatch(key.encode()) for key in keys)


def test_runs_as_they_are_typed() -> None:
    assert run_pins(["r1", "run_id=r2,seed=7", "scenario_id=s"]) == (
        RunPins(run_id="r1"),
        RunPins(run_id="r2", seed=7),
        RunPins(scenario_id="s"),
    )
    for text in ("", "=", "colour=red", "run_id=", "seed=x", "run_id=4111111111111111"):
        with pytest.raises(PrincipalsError, match="a run is written"):
            run_pins([text])
