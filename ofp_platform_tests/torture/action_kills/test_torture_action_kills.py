"""The kill loop of actions, short."""

from __future__ import annotations

from ofp_platform_tests.torture.action_kills.suite import SUITE


def test_action_kills(embedded_server: str) -> None:
    figures = SUITE.run(size=0.0003, seed=11, dsn=embedded_server)
    assert all(row.reached for row in figures.rows), figures.table()
    assert len(figures.rows) == 11
