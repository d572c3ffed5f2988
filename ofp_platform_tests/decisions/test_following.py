"""A decider that follows the log: it decides on what comes, answers challenges, outlives an outage, and stops."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest

from ofp_platform.decisions.decider import Decider, DeciderPolicy, DeciderTally
from ofp_platform.decisions.following import Follower
from ofp_platform.decisions.in_force import InForceReader
from ofp_platform.decisions.plane_questions import PlaneQuestions
from ofp_platform.decisions.ready_bundles import ReadyBundles
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.posture.challenge import challenge_deciders
from ofp_platform.posture.keeper import PostureKeeper
from ofp_platform.vocabulary.loop.outcome import Outcome
from ofp_platform.vocabulary.loop.posture import Mode
from ofp_platform.vocabulary.offline.run_facts import TrafficMode
from ofp_platform_tests.api.keys import KEY
from ofp_platform_tests.decisions.conftest import DECIDED_AT, Served
from ofp_platform_tests.oracle.simulated_log import append, deliveries


@dataclass
class Failing:
    """Questions go to the client, but the first in-force read finds no database."""

    reader: InForceReader
    failures: int = 1

    def read(self, connection: Any) -> Any:
        if self.failures:
            self.failures -= 1
            raise psycopg.errors.AdminShutdown("terminating connection due to administrator command")
        return self.reader.read(connection)

    def hold(self, connection: Any) -> Any:
        return self.reader.hold(connection)


def test_it_decides_on_what_comes_answers_and_stops(served: Served, tmp_path: Path) -> None:
    pool, pins = served.plane.pool, served.profile.context_pins
    control = PostgresLog.create(pool, "control", 1, "payload.scenario_run_id")
    decisions_log = PostgresLog.create(pool, "decisions", 1, "event_id")
    keeper = PostureKeeper(pool, control, pins, served.profile.policy_rev, lambda: DECIDED_AT, "operator")
    keeper.hold(Mode.HOLD, "nobody is there")
    in_force = Failing(InForceReader(pins, served.profile.profile_name, TrafficMode.FRAUD))
    policy = DeciderPolicy(served.profile.policy_rev, "decline", 20.0)
    ticks = count(DECIDED_AT)
    steps: list[DeciderTally] = []
    troubles: list[str] = []
    told, stop = threading.Event(), threading.Event()

    def on_step(tally: DeciderTally) -> None:
        steps.append(tally)
        told.set()

    with PlaneQuestions(served.address, KEY) as questions:
        load = ReadyBundles(served.plane.objects).load
        decider = Decider(pool, decisions_log, served.reader(), questions.ask, in_force, load, policy, lambda: next(ticks))
        follower = Follower(decider, "one", on_step, troubles.append, questions.run)
        thread = threading.Thread(target=follower.run, args=(stop,))
        thread.start()
        try:
            assert told.wait(60)
            assert troubles == ["terminating connection due to administrator command"]
            told.clear()
            part = deliveries().part(0, 5)
            append(served.plane.log, replace(part, event_ids=[f"new-{number}" for number in range(5)]))
            assert told.wait(60)
            with psycopg.connect(served.plane.dsn, autocommit=True) as connection:
                outcome = challenge_deciders(connection, pins, nonce="a" * 32, actor="ann", wait_seconds=60)
            # with vectors that may take long a step is of few events
            while decider.place() != served.plane.log.ends():
                assert told.wait(60)
                told.clear()
            assert outcome.is_proved
            assert [answer.answered_by for answer in outcome.answered] == ["one"]
        finally:
            stop.set()
            thread.join(60)
    assert not thread.is_alive()
    outcomes = {outcome for step in steps for outcome in step.outcomes}
    # no bundle is in force, and that is worse than HOLD
    assert outcomes == {Outcome.DECLINE}
    assert sum(step.lowering["NO_BUNDLE"] for step in steps) == sum(step.outcomes.total() for step in steps) > 5
    assert decider.place() == served.plane.log.ends()


def test_a_posture_that_is_killed_behind_a_read_is_what_the_step_is_decided_under(served: Served) -> None:
    pool, pins = served.plane.pool, served.profile.context_pins
    control = PostgresLog.create(pool, "control", 1, "payload.scenario_run_id")
    keeper = PostureKeeper(pool, control, pins, served.profile.policy_rev, lambda: DECIDED_AT, "operator")
    reader = InForceReader(pins, served.profile.profile_name, TrafficMode.FRAUD)
    with pool.connection() as connection:
        assert reader.read(connection).posture.mode is Mode.FAIL_CLOSED
    keeper.hold(Mode.NORMAL, "begin")
    with pool.connection() as connection:
        before = reader.read(connection)
    keeper.hold(Mode.HOLD, "stop")
    with pool.connection() as connection, connection.transaction():
        held = reader.hold(connection)
    assert (before.posture.mode, held.posture.mode) == (Mode.NORMAL, Mode.HOLD)
    with pool.connection() as connection:
        connection.autocommit = True
        with pytest.raises(RuntimeError, match="held to the end of a transaction"):
            reader.hold(connection)
        connection.autocommit = False
