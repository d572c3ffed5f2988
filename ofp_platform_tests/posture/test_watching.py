"""The loop: it looks until it is stopped, goes on after an outage, and a gap between looks begins quiet anew."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from threading import Event

import pytest

from ofp_platform.log.port import LogUnavailable
from ofp_platform.posture import watching
from ofp_platform.posture.keeper import KeeperOutcome
from ofp_platform.posture.watching import GAP_SECONDS, PostureWatch
from ofp_platform.vocabulary.loop.posture import Mode
from ofp_platform_tests.posture.conftest import Run
from ofp_platform_tests.posture.test_evaluator import BAD, GOOD, POLICY
from ofp_platform_tests.posture.test_keeper import history


def released(run: Run, mode: Mode) -> None:
    run.keeper().hold(mode, "begin")
    run.keeper().release("by signals")


def test_a_gap_begins_quiet_anew(run: Run) -> None:
    released(run, Mode.REDUCED)
    signals: list[Mapping[str, int]] = [GOOD]
    watch = PostureWatch(run.keeper(), POLICY, lambda: signals[-1])
    noted = watch.look()
    assert noted is not None
    assert noted.change.mode is Mode.REDUCED  # no reason any more
    run.clock.pass_seconds(GAP_SECONDS + 1)
    assert watch.look() is None
    run.clock.pass_seconds(POLICY.quiet_seconds)
    raised = watch.look()
    assert raised is not None
    assert raised.change.mode is Mode.NORMAL
    signals.append(BAD)
    run.clock.pass_seconds(-5)
    lowered = watch.look()
    assert lowered is not None
    assert lowered.change.mode is Mode.REDUCED


def test_another_watch_begins_quiet_anew(run: Run) -> None:
    released(run, Mode.REDUCED)
    assert PostureWatch(run.keeper(), POLICY, lambda: GOOD).look() is not None
    run.clock.pass_seconds(3600)
    assert PostureWatch(run.keeper(), POLICY, lambda: GOOD).look() is None


def test_it_goes_on_after_an_outage_until_it_is_stopped(
    run: Run, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watching, "LOOK_SECONDS", 0.0)
    released(run, Mode.NORMAL)
    stop, looks = Event(), iter(["down", "bad", "bad", "end"])
    told: list[KeeperOutcome] = []

    def read() -> Mapping[str, int]:
        match next(looks):
            case "down":
                raise LogUnavailable("gone")
            case "end":
                stop.set()
        return BAD

    with caplog.at_level(logging.WARNING):
        PostureWatch(run.keeper(), POLICY, read).run(stop, told.append)
    assert "was not kept: gone" in caplog.text
    assert [outcome.change.mode for outcome in told] == [Mode.REDUCED]
    assert len(history(run)) == 3
    PostureWatch(run.keeper(), POLICY, read).run(stop, told.append)  # already stopped: it does not look
