"""Restarts are bounded, and each waits longer than the one before."""

from __future__ import annotations

from ofp_platform.cli.up.restarts import MOST, WITHIN_SECONDS, Restarts


def test_pauses_double_until_it_is_too_often_and_others_do_not_count() -> None:
    restarts = Restarts()
    assert [restarts.pause("projector", 10.0 * number) for number in range(MOST)] == [1.0, 2.0, 4.0, 8.0, 16.0]
    assert restarts.pause("projector", 60.0) is None
    assert restarts.pause("HTTP service", 60.0) == 1.0
    assert restarts.pause("projector", 10.0 * (MOST - 1) + WITHIN_SECONDS) == 1.0
