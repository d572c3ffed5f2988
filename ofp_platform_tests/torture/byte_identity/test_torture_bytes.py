"""A short run of the suite of bytes."""

import random
from pathlib import Path

import pytest

from ofp_platform_tests.torture.byte_identity import environments
from ofp_platform_tests.torture.byte_identity.environments import (
    Made,
    all_at_once,
    find_python,
    plain,
    problem,
    surroundings,
    took_effect,
)
from ofp_platform_tests.torture.byte_identity.suite import SUITE


def test_a_short_run_reaches_every_aim(embedded_server: str, tmp_path: Path) -> None:
    figures = SUITE.run(size=0.002, seed=7, dsn=embedded_server, folder=tmp_path)
    assert [row for row in figures.rows if row.reached is False] == [], f"{figures.table()}\n{figures.raw}"
    assert len([row for row in figures.rows if row.reached]) >= 15


def test_another_digest_or_none_is_a_problem() -> None:
    reference = Made(plain(), {"one": "1", "two": "2"}, {"set order": "a"})
    elsewhere = all_at_once()
    assert problem(Made(elsewhere, dict(reference.digests), {"set order": "b"}), reference) == ""
    for digests in ({"one": "1", "two": "3"}, {"one": "1"}, {"one": "1", "two": "2", "three": "3"}, {}):
        assert "digests differ" in problem(Made(elsewhere, digests, {}), reference)
    assert problem(Made(elsewhere, {}, {}, "killed"), reference) == "killed"
    assert not took_effect(Made(elsewhere, {}, {"set order": "a"}), reference)


def test_a_python_that_is_not_there_is_never_a_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(environments, "PEERS", tmp_path)
    assert find_python("3.99", install=True) == ("", "no interpreter")
    assert find_python("3.99", install=False)[0] == ""


def test_every_kind_of_difference_is_tried(tmp_path: Path) -> None:
    found = surroundings(random.Random(1), tmp_path, {"3.12": "python3.12"})
    assert {one.kind for one in found} == {
        "hash seed",
        "time zone",
        "locale",
        "threads",
        "python -O",
        "database session",
        "Python version",
    }
    assert len({one.name for one in found}) == len(found)
