"""A short run of the suite of two of everything."""

from pathlib import Path

import pytest

from ofp_platform_tests.torture.two_of_everything.contenders import meet
from ofp_platform_tests.torture.two_of_everything.suite import SUITE


def test_a_short_run_reaches_every_aim(embedded_server: str, tmp_path: Path) -> None:
    figures = SUITE.run(size=0.001, seed=7, dsn=embedded_server, folder=tmp_path)
    assert [row for row in figures.rows if row.reached is False] == [], f"{figures.table()}\n{figures.raw}"
    assert len([row for row in figures.rows if row.reached]) >= 12


def test_only_contenders_meet() -> None:
    with pytest.raises(RuntimeError, match="no contender"):
        meet()
