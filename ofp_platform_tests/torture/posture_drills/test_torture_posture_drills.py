"""The drills of the kill switch, short."""

from __future__ import annotations

from ofp_platform_tests.torture.posture_drills.suite import SUITE, p99


def test_posture_drills(embedded_server: str) -> None:
    figures = SUITE.run(size=0.006, seed=11, dsn=embedded_server)
    missed = [row for row in figures.rows if not row.reached and not row.claim.startswith("p99")]  # time is no test's
    assert not missed, figures.table()
    assert len(figures.rows) == 9


def test_a_share_of_times() -> None:
    assert p99([1.0]) == 1.0
    assert p99([float(number) for number in range(1, 101)]) == 99.0
    assert p99([0.0] * 98 + [5.0, 5.0]) == 5.0
