"""The faults suite at its smallest: one period per workload in which every kind of fault is done to every way."""

from pathlib import Path

from ofp_platform_tests.torture.faults.suite import SUITE


def test_faults(embedded_server: str, tmp_path: Path) -> None:
    figures = SUITE.run(size=0.001, seed=7, dsn=embedded_server, folder=tmp_path)
    assert [row for row in figures.rows if row.reached is False] == [], figures.table()
    assert sum(row.reached is True for row in figures.rows) == 23, figures.table()
