"""The kill loop, short."""

from __future__ import annotations

from ofp_platform_tests.torture.kills.suite import SUITE


def test_kill_loop(embedded_server: str) -> None:
    figures = SUITE.run(size=0.001, seed=20, dsn=embedded_server)
    assert all(row.reached or not row.aim for row in figures.rows), figures.table()
    assert len(figures.rows) > 20
