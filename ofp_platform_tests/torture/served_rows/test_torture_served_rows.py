"""A short run of the suite of served rows."""

from pathlib import Path

from ofp_platform_tests.torture.served_rows.suite import SUITE


def test_a_short_run_reaches_every_aim(embedded_server: str, tmp_path: Path) -> None:
    figures = SUITE.run(size=0.005, seed=7, dsn=embedded_server, folder=tmp_path)
    assert [(row.claim, row.seen, figures.raw) for row in figures.rows if row.reached is False] == []
    assert len([row for row in figures.rows if row.reached]) >= 4
