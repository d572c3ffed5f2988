"""A challenge is answered by each live decider, or names who did not; nobody who answers proves nothing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from threading import Event, Thread

import psycopg
import pytest

from ofp_platform.posture.challenge import ChallengeOutcome, challenge_deciders
from ofp_platform.storage.postgres import connect
from ofp_platform.storage.posture_challenges import (
    SEAT_SECONDS,
    add_challenge,
    answer_challenges,
    challenge_answers,
    live_deciders,
)
from ofp_platform.storage.posture_changes import hold_posture_shared, posture_in_force, tell_of_posture
from ofp_platform.vocabulary.loop.posture import NOTHING_SAID, Mode, PostureInForce
from ofp_platform_tests.posture.conftest import Run

_nonces = (f"{number:032x}" for number in count(1))


def challenge(run: Run, wait_seconds: float) -> ChallengeOutcome:
    with connect(run.plane.dsn, autocommit=True) as connection:
        return challenge_deciders(connection, run.pins, nonce=next(_nonces), actor="test", wait_seconds=wait_seconds)


def sit(run: Run, name: str) -> None:
    with run.plane.pool.connection() as connection, connection.transaction():
        answer_challenges(connection, run.pins, name, hold_posture_shared(connection, run.pins))


@contextmanager
def decider(run: Run, name: str, always: PostureInForce | None = None) -> Iterator[None]:
    """A decider at work; `always`: it thinks that this is in force, whatever is."""
    stop, sitting = Event(), Event()

    def work() -> None:
        with connect(run.plane.dsn, autocommit=True) as connection:
            while not stop.is_set():
                with connection.transaction():
                    in_force = hold_posture_shared(connection, run.pins)
                    answered = answer_challenges(connection, run.pins, name, always or in_force)
                sitting.set()
                if answered:
                    tell_of_posture(connection, run.pins)
                stop.wait(0.01)

    thread = Thread(target=work)
    thread.start()
    try:
        assert sitting.wait(30)
        yield
    finally:
        stop.set()
        thread.join()


def test_nobody_proves_nothing(run: Run) -> None:
    outcome = challenge(run, 0.0)
    assert (outcome.answered, outcome.silent, outcome.is_proved) == ((), (), False)


def test_each_decider_answers_with_what_is_in_force(run: Run) -> None:
    keeper = run.keeper()
    with decider(run, "a"), decider(run, "b"):
        outcome = challenge(run, 60)
        assert [(answer.answered_by, answer.mode, answer.sequence) for answer in outcome.answered] == [
            ("a", Mode.FAIL_CLOSED, None),
            ("b", Mode.FAIL_CLOSED, None),
        ]
        assert (outcome.is_proved, outcome.in_force) == (True, NOTHING_SAID)
        change = keeper.hold(Mode.HOLD, "stop").change
        outcome = challenge(run, 60)
        assert {(answer.answered_by, answer.mode, answer.sequence) for answer in outcome.answered} == {
            ("a", Mode.HOLD, change.sequence),
            ("b", Mode.HOLD, change.sequence),
        }
        assert (outcome.is_proved, outcome.in_force.mode) == (True, Mode.HOLD)


def test_who_does_not_answer_is_named(run: Run) -> None:
    sit(run, "gone")
    with decider(run, "here"):
        outcome = challenge(run, 0.5)
    assert ([answer.answered_by for answer in outcome.answered], outcome.silent) == (["here"], ("gone",))
    assert not outcome.is_proved


def test_who_answers_under_a_former_mode_is_told(run: Run) -> None:
    keeper = run.keeper()
    keeper.hold(Mode.NORMAL, "begin")
    with run.plane.pool.connection() as connection:
        former = posture_in_force(connection, run.pins)
    keeper.hold(Mode.HOLD, "stop")
    wrong_mode = PostureInForce(mode=Mode.NORMAL, sequence=1, position=former.position)
    unknown = PostureInForce(mode=Mode.HOLD, sequence=7, position=former.position)
    with decider(run, "a", former), decider(run, "b", wrong_mode), decider(run, "c", NOTHING_SAID), decider(run, "d", unknown):
        outcome = challenge(run, 60)
    assert [answer.answered_by for answer in outcome.otherwise] == ["a", "b", "c", "d"]
    assert (outcome.answered, outcome.silent, outcome.is_proved) == ((), (), False)


def test_a_later_change_is_an_answer_too(run: Run) -> None:
    keeper = run.keeper()
    keeper.hold(Mode.HOLD, "stop")
    nonce = next(_nonces)
    with run.plane.pool.connection() as connection:
        add_challenge(connection, run.pins, nonce, "test")
    keeper.hold(Mode.NORMAL, "go")
    sit(run, "a")
    with run.plane.pool.connection() as connection:
        assert [(answer.mode, answer.sequence) for answer in challenge_answers(connection, nonce)] == [(Mode.NORMAL, 1)]
        assert live_deciders(connection, run.pins) == ["a"]


def test_each_challenge_is_answered_once_and_an_old_one_by_nobody(run: Run) -> None:
    with run.plane.pool.connection() as connection:
        add_challenge(connection, run.pins, next(_nonces), "test")
        connection.execute(
            "INSERT INTO ofp.posture_challenge SELECT %s, pins_digest, asked_at - 600000000, actor FROM ofp.posture_challenge"
            " WHERE actor = 'test' ORDER BY asked_at DESC LIMIT 1",
            (next(_nonces),),
        )
        assert answer_challenges(connection, run.pins, "a", NOTHING_SAID) == 1
        assert answer_challenges(connection, run.pins, "a", NOTHING_SAID) == 0
        assert answer_challenges(connection, run.pins, "b", NOTHING_SAID) == 1
        another = run.pins.model_copy(update={"run_id": "another"})
        assert answer_challenges(connection, another, "a", NOTHING_SAID) == 0


def test_who_was_not_seen_for_long_is_not_live(run: Run) -> None:
    sit(run, "a")
    with run.plane.pool.connection() as connection:
        connection.execute(
            "UPDATE ofp.decider_seat SET seen_at = seen_at - %s WHERE decider_name = 'a'", (SEAT_SECONDS * 1_000_000,)
        )
        assert live_deciders(connection, run.pins) == []


@pytest.mark.parametrize("nonce", ["", "x" * 32, "0" * 31])
def test_a_nonce_is_32_digits(run: Run, nonce: str) -> None:
    with run.plane.pool.connection() as connection, pytest.raises(psycopg.errors.CheckViolation):
        add_challenge(connection, run.pins, nonce, "test")
