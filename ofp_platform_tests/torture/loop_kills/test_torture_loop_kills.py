"""The kill loop of the loop, short."""

from __future__ import annotations

import pytest

from ofp_platform_tests.torture.loop_kills.suite import SUITE


@pytest.mark.timeout(580)  # a service is started, and some dozens of children are killed, one after the other
def test_loop_kills(embedded_server: str) -> None:
    figures = SUITE.run(size=0.001, seed=11, dsn=embedded_server)
    assert all(row.reached for row in figures.rows), figures.table()
    assert len(figures.rows) == 16
