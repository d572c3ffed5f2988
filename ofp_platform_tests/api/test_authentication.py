"""Who a key belongs to, and a file of principals that changes under a running service."""

from __future__ import annotations

from pathlib import Path
from unittest.mock import Mock

import pytest

from ofp_platform.api.authentication import Authentication, Caller
from ofp_platform.api.principals import PrincipalsError, PrincipalsFile, Scope, changed_principals, new_key, rotated
from ofp_platform.vocabulary.errors import ContractError, Reason
from ofp_platform.vocabulary.times import parse_time
from ofp_platform_tests.api.keys import EXAMPLE_PINS, KEY, principal, write_principals

NOW = parse_time("2026-06-01T00:00:00Z")


class Asking:
    """An authentication over a file, at an instant that a test sets (microseconds)."""

    def __init__(self, path: Path) -> None:
        self.now = NOW
        self.path = path
        self.authentication = Authentication(path, EXAMPLE_PINS, lambda: self.now / 1_000_000)

    def caller(self, key: str, scheme: str = "Bearer") -> Caller:
        return self.authentication.caller(f"{scheme} {key}".encode())

    def refusal(self, key: str) -> Reason:
        with pytest.raises(ContractError) as caught:
            self.caller(key)
        assert not key or key not in str(caught.value)
        return caught.value.reason


@pytest.fixture
def asking(tmp_path: Path) -> Asking:
    return Asking(write_principals(tmp_path / "principals.json"))


def test_a_caller_has_the_name_and_the_runs_of_its_principal(tmp_path: Path) -> None:
    here_key, here = principal("here", ["metrics"], [{"run_id": EXAMPLE_PINS.run_id}])
    there_key, there = principal("there", ["features:read"], [{"run_id": EXAMPLE_PINS.run_id, "seed": 11}])
    asking = Asking(write_principals(tmp_path / "principals.json", here, there))
    assert asking.caller(KEY).principal.name == "everything"
    assert asking.caller(here_key) == Caller(here, reads_here=True, credential=f"key {here_key[4:20]}")
    assert asking.caller(there_key) == Caller(there, reads_here=False, credential=f"key {there_key[4:20]}")
    asking.caller(here_key).demand(Scope.METRICS)
    with pytest.raises(ContractError, match="no scope features:read") as caught:
        asking.caller(here_key).demand(Scope.FEATURES_READ)
    assert caught.value.reason is Reason.FORBIDDEN


def test_an_expired_key_and_an_expired_principal_end_on_time(tmp_path: Path) -> None:
    key, ending = principal("ending", ["metrics"], expires_at_utc="2026-06-01T00:00:01Z")
    asking = Asking(write_principals(tmp_path / "principals.json", ending))
    asking.now = NOW + 999_999
    assert asking.caller(key).principal == ending
    asking.now = NOW + 1_000_000
    assert asking.refusal(key) is Reason.UNAUTHENTICATED


def test_two_keys_are_valid_while_one_is_rotated_without_a_restart(tmp_path: Path) -> None:
    old_key, before = principal("rotating", ["metrics"])
    asking = Asking(write_principals(tmp_path / "principals.json", before))
    with changed_principals(asking.path) as box:
        key, after = rotated(box[0].named("rotating"), NOW, overlap_seconds=60)
        box[0] = box[0].replacing(after)
    assert asking.refusal(key) is Reason.UNAUTHENTICATED  # not looked at yet
    asking.authentication.refresh()
    assert asking.caller(key).principal.name == asking.caller(old_key).principal.name == "rotating"
    asking.now = NOW + 60_000_000
    assert asking.refusal(old_key) is Reason.UNAUTHENTICATED
    assert asking.caller(key)
    with changed_principals(asking.path) as box:
        again, third = rotated(box[0].named("rotating"), asking.now, overlap_seconds=0)
        box[0] = box[0].replacing(third)
    asking.authentication.refresh()
    assert asking.caller(again).principal == third
    assert len(third.keys) == 1  # those that have ended are gone
    assert asking.refusal(key) is Reason.UNAUTHENTICATED


def test_who_is_revoked_is_out_at_the_next_look(asking: Asking) -> None:
    assert asking.caller(KEY)
    with changed_principals(asking.path) as box:
        box[0] = box[0].without("everything")
    asking.authentication.refresh()
    assert asking.refusal(KEY) is Reason.UNAUTHENTICATED


@pytest.mark.parametrize("damage", ["gone", "open", "opened", "broken", "folder"])
def test_a_file_that_cannot_be_read_any_more_lets_nobody_in(asking: Asking, damage: str) -> None:
    content = asking.path.read_bytes()
    if damage == "open":
        asking.path.write_bytes(content + b" ")
        asking.path.chmod(0o666)
    elif damage == "opened":
        asking.path.chmod(0o620)
    elif damage == "broken":
        asking.path.write_bytes(content[:-20])
    else:
        asking.path.unlink()
        if damage == "folder":
            asking.path.mkdir()
    asking.authentication.refresh()
    assert asking.refusal(KEY) is Reason.STORE_DOWN
    if damage == "folder":
        asking.path.rmdir()
    asking.path.unlink(missing_ok=True)
    with changed_principals(asking.path) as box:
        box[0] = PrincipalsFile.model_validate_json(content)
    asking.authentication.refresh()
    assert asking.caller(KEY)


def test_a_fault_that_passes_by_itself_is_over_at_the_next_look(asking: Asking, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("ofp_platform.api.authentication.read_principals", Mock(side_effect=PrincipalsError("no")))
        asking.path.touch()
        asking.authentication.refresh()
        assert asking.refusal(KEY) is Reason.STORE_DOWN
    asking.authentication.refresh()
    assert asking.caller(KEY)


def test_keys_of_others_and_of_nobody(asking: Asking) -> None:
    stranger, _ = new_key()
    for key in (stranger, KEY[:21] + stranger[21:], stranger[:21] + KEY[21:], KEY + " ", " " + KEY, KEY[:-1], "", "\xff"):
        assert asking.refusal(key) is Reason.UNAUTHENTICATED
    with pytest.raises(ContractError):
        asking.caller(KEY, "Basic")
    for header in (None, b"", b"Bearer", KEY.encode()):
        with pytest.raises(ContractError):
            asking.authentication.caller(header)


def test_no_key_is_kept(asking: Asking) -> None:
    assert KEY not in repr(vars(asking.authentication))
    assert KEY[-43:] not in asking.path.read_text(encoding="utf-8")
