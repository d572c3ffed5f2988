"""The outages of services at their shortest: each service once, two seconds or until health has named it."""

from __future__ import annotations

from pathlib import Path

from ofp_platform_tests.torture.service_outages.suite import SUITE


def test_service_outages(tmp_path: Path) -> None:
    figures = SUITE.run(size=0.01, seed=11, dsn="", folder=tmp_path)
    assert [row for row in figures.rows if row.reached is False] == [], (figures.table(), figures.raw)
    assert sum(row.reached is True for row in figures.rows) == 11, figures.table()
