"""The boundaries at a small length."""

from __future__ import annotations

from pathlib import Path

import pytest

from ofp_platform_tests.torture.boundaries import suite as boundaries
from ofp_platform_tests.torture.boundaries.cases import make_case
from ofp_platform_tests.torture.boundaries.paths import Planted
from ofp_platform_tests.torture.boundaries.suite import SUITE, Held, hold_case


def test_every_path_says_what_the_oracle_says(tmp_path: Path) -> None:
    figures = SUITE.run(size=0.002, seed=1, dsn="", folder=tmp_path)
    assert [row for row in figures.rows if row.reached is False] == [], f"{figures.table()}\n{figures.raw}"
    assert figures.raw["counts"]["queries"] >= 2_000


def test_a_seed_is_a_case() -> None:
    one, other = make_case(5), make_case(5)
    assert (one.events, one.levels, one.moments) == (other.events, other.levels, other.moments)
    assert one.matrix.tolist() == other.matrix.tolist()


def test_one_case_is_repeated_by_its_seed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["boundaries", "3"])
    boundaries.main()
    assert capsys.readouterr().out.endswith("16 questions: all agree\n")


def test_a_case_that_differs_names_its_seed_and_the_path() -> None:
    held, seed = Held(), 0
    while not held.differing:
        seed += 1
        hold_case(make_case(seed), {}, Planted(left=1), held)
    assert {found for found, _ in held.differing} == {seed}
    assert any(what.startswith("served from chunks: ") for _, what in held.differing)
