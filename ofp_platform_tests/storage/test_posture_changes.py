"""Who commits decisions holds the posture: a change waits for it, and who is not heard of is ended."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import psycopg
import pytest

from ofp_platform.storage.posture_changes import (
    append_posture_change,
    hold_posture_shared,
    last_posture_change,
    lock_posture,
    posture_history,
    posture_in_force,
)
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.posture import NOTHING_SAID, Mode
from ofp_platform.vocabulary.position import Position
from ofp_platform_tests.posture.test_evaluator import START, change_at

_WAITS = """
    SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"""


@pytest.fixture
def pins(request: pytest.FixtureRequest) -> ContextPins:
    return ContextPins(scenario_id="p", run_id=request.node.name[:60], manifest_fingerprint="0" * 64, parameter_hash="1" * 64)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


def change(dsn: str, pins: ContextPins, mode: Mode, sequence: int) -> None:
    with psycopg.connect(dsn) as connection:
        lock_posture(connection, pins)
        new_change = change_at(mode, START).model_copy(update={"context_pins": pins, "sequence": sequence})
        append_posture_change(connection, new_change, Position(stream_name="control", partition_id="0000", offset=sequence))


def await_waiter(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        while connection.execute(_WAITS).fetchone() == (0,):
            pass


def test_the_last_change_is_in_force(module_dsn: str, pins: ContextPins) -> None:
    for sequence, mode in enumerate([Mode.NORMAL, Mode.HOLD]):
        change(module_dsn, pins, mode, sequence)
    with psycopg.connect(module_dsn) as connection:
        in_force = posture_in_force(connection, pins)
        last = last_posture_change(connection, pins)
        assert last is not None
        assert (in_force.mode, in_force.sequence, last.mode) == (Mode.HOLD, 1, Mode.HOLD)
        assert in_force.position == Position(stream_name="control", partition_id="0000", offset=1)
        assert [each.mode for each, _ in posture_history(connection, pins, 10)] == [Mode.HOLD, Mode.NORMAL]
        assert len(posture_history(connection, pins, 1)) == 1
        another = pins.model_copy(update={"run_id": "another"})
        assert posture_in_force(connection, another) == NOTHING_SAID
        assert last_posture_change(connection, another) is None


def test_a_change_waits_for_who_decides(module_dsn: str, pins: ContextPins, threads: ThreadPoolExecutor) -> None:
    change(module_dsn, pins, Mode.NORMAL, 0)
    with psycopg.connect(module_dsn) as first, psycopg.connect(module_dsn) as second:
        for decider in (first, second):  # both at once
            assert hold_posture_shared(decider, pins).mode is Mode.NORMAL
            decider.execute("SET LOCAL idle_in_transaction_session_timeout = 0")
        kill: Future[None] = threads.submit(change, module_dsn, pins, Mode.FAIL_CLOSED, 1)
        await_waiter(module_dsn)
        first.commit()
        assert not kill.done()
        late = threads.submit(decide, module_dsn, pins)  # behind who waits to change it
        second.commit()
        kill.result()
        assert late.result() is Mode.FAIL_CLOSED


def decide(dsn: str, pins: ContextPins) -> Mode:
    with psycopg.connect(dsn) as connection:
        return hold_posture_shared(connection, pins).mode


def test_who_is_not_heard_of_is_ended(module_dsn: str, pins: ContextPins) -> None:
    change(module_dsn, pins, Mode.NORMAL, 0)
    decider = psycopg.connect(module_dsn)
    assert hold_posture_shared(decider, pins).mode is Mode.NORMAL
    change(module_dsn, pins, Mode.HOLD, 1)  # it waits no longer than that
    with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout):
        decider.execute("SELECT 1")
    decider.close()


def test_the_limit_is_of_that_transaction_alone(module_dsn: str, pins: ContextPins) -> None:
    with psycopg.connect(module_dsn) as connection:
        before = connection.execute("SHOW idle_in_transaction_session_timeout").fetchone()
        hold_posture_shared(connection, pins)
        assert connection.execute("SHOW idle_in_transaction_session_timeout").fetchone() == ("400ms",)
        connection.commit()
        assert connection.execute("SHOW idle_in_transaction_session_timeout").fetchone() == before


def test_changes_stay(module_dsn: str, pins: ContextPins) -> None:
    change(module_dsn, pins, Mode.NORMAL, 0)
    with pytest.raises(psycopg.errors.UniqueViolation):
        change(module_dsn, pins, Mode.HOLD, 0)
    for verb in ("UPDATE ofp.posture_change SET content = ''", "DELETE FROM ofp.posture_change", "TRUNCATE ofp.posture_change"):
        with psycopg.connect(module_dsn) as connection, pytest.raises(psycopg.Error, match="posture_change"):
            connection.execute(verb)


def test_outside_a_transaction_nothing_would_be_held(module_dsn: str, pins: ContextPins) -> None:
    with psycopg.connect(module_dsn, autocommit=True) as connection:
        for hold in (hold_posture_shared, lock_posture):
            with pytest.raises(RuntimeError, match="in none"):
                hold(connection, pins)
            with connection.transaction():
                hold(connection, pins)
