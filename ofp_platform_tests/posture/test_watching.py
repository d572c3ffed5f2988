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
from ofp_platform.storage.posture_looks import WATCHED_SECONDS, posture_watched
from ofp_platform.vocabulary.identity import pins_digest
from ofp_platform.vocabulary.loop.posture import Mode, PosturePolicy, PostureWatched
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


def test_a_look_is_noted_and_a_watch_that_stopped_is_told(run: Run) -> None:
    def seen() -> PostureWatched | None:
        with run.plane.pool.connection() as connection:
            return posture_watched(connection, run.pins, POLICY)

    assert seen() == PostureWatched(is_watched=False, last_look_ms=None)
    released(run, Mode.NORMAL)
    assert seen() == PostureWatched(is_watched=False, last_look_ms=None)  # an operator is no watch
    PostureWatch(run.keeper(), POLICY, lambda: GOOD).look()
    watched = seen()
    assert watched is not None
    assert watched.is_watched, watched
    assert "watched: the last look" in watched.words
    with run.plane.pool.connection() as connection:
        connection.execute(
            "UPDATE ofp.posture_look SET looked_at = looked_at - %s WHERE pins_digest = %s",
            (WATCHED_SECONDS * 1_000_000, pins_digest(run.pins)),
        )
    silent = seen()
    assert silent is not None
    assert not silent.is_watched, silent
    assert silent.last_look_ms is not None
    assert silent.last_look_ms >= WATCHED_SECONDS * 1_000
    seconds = f"{silent.last_look_ms / 1_000:,.1f}"
    assert silent.words == f"nobody watches, the last look at the signals was {seconds} s ago: `ofp posture watch`"
    with run.plane.pool.connection() as connection:  # without thresholds there is nothing to look at
        assert posture_watched(connection, run.pins, PosturePolicy()) is None
        assert posture_watched(connection, run.pins, None) is None


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
