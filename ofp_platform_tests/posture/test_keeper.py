"""The keeper: the change, its message on control and the fact are one; an operator holds and releases; nothing happens twice."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import orjson
import psycopg
import pytest

from ofp_platform.ingress.own_streams import MessageRefused
from ofp_platform.log.port import LogUnavailable
from ofp_platform.posture import keeper as keeper_module
from ofp_platform.posture.keeper import KeeperOutcome, PostureRefused
from ofp_platform.storage.governance_facts import read_facts
from ofp_platform.storage.posture_changes import posture_history, posture_in_force
from ofp_platform.vocabulary.envelope import Envelope
from ofp_platform.vocabulary.identity import pins_digest
from ofp_platform.vocabulary.loop.posture import MOST_REASON, NOTHING_SAID, POSTURE_CHANGED, Mode, PostureChange
from ofp_platform.vocabulary.offline.governance_fact import PostureChanged, gist, subject
from ofp_platform_tests.api.test_stored_objects import schema
from ofp_platform_tests.posture.conftest import Run
from ofp_platform_tests.posture.test_evaluator import BAD, GOOD, POLICY, WORSE


def history(run: Run) -> list[PostureChange]:
    with run.plane.pool.connection() as connection:
        return [change for change, _ in posture_history(connection, run.pins, 1_000)]


def facts_of(run: Run) -> list[PostureChanged]:
    facts = [recorded.fact for recorded in read_facts(run.plane.pool, "posture_changed", limit=1_000)]
    return [fact for fact in facts if isinstance(fact, PostureChanged) and fact.context_pins == run.pins]


def messages_of(run: Run) -> list[Envelope]:
    batch = run.plane.control_log(create=True).read("0000", None, 1_000)
    return [batch.envelope(index) for index in range(len(batch))]


def test_what_is_stored_and_said_is_of_the_contracts(run: Run) -> None:
    run.keeper().hold(Mode.HOLD, "stop")
    run.keeper().release("over")
    assert look(run, WORSE) is not None
    with run.plane.pool.connection() as connection:
        rows = connection.execute(
            "SELECT content FROM ofp.posture_change WHERE pins_digest = %s", (pins_digest(run.pins),)
        ).fetchall()
    assert len(rows) == 3
    for (content,) in rows:
        schema("posture_change").validate(orjson.loads(content))
    for envelope in messages_of(run):
        schema("posture_message").validate(dict(envelope.payload))
    for fact in facts_of(run):
        schema("governance_fact").validate(fact.wire())


def look(run: Run, signals: Mapping[str, int]) -> KeeperOutcome | None:
    return run.keeper().look(signals, POLICY, 0)


def test_nothing_is_said_at_first(run: Run) -> None:
    with run.plane.pool.connection() as connection:
        assert posture_in_force(connection, run.pins) == NOTHING_SAID
    with pytest.raises(PostureRefused, match="nothing to release"):
        run.keeper().release("why")
    assert (history(run), facts_of(run), messages_of(run)) == ([], [], [])


def test_a_change_a_message_and_a_fact_are_one(run: Run) -> None:
    outcome = run.keeper("somebody").hold(Mode.NORMAL, " to\nbegin ")
    change = outcome.change
    assert outcome.is_new
    assert (change.mode, change.held, change.sequence, change.actor) == (Mode.NORMAL, True, 0, "somebody")
    assert change.reasons == ("to begin",)
    [envelope] = messages_of(run)
    assert (envelope.event_type, envelope.event_id, envelope.ts_utc) == (POSTURE_CHANGED, change.message_id, change.at_utc)
    payload = dict(envelope.payload)
    assert payload.pop("scenario_run_id") == run.pins.run_id
    assert PostureChange.model_validate(payload) == change
    with run.plane.pool.connection() as connection:
        in_force = posture_in_force(connection, run.pins)
    assert (in_force.mode, in_force.sequence) == (Mode.NORMAL, 0)
    assert in_force.position is not None
    assert (in_force.position.stream_name, in_force.position.offset) == (run.plane.profile.control_stream, 0)
    [fact] = facts_of(run)
    assert (fact.message_id, fact.former_mode, fact.mode, fact.held) == (change.message_id, Mode.FAIL_CLOSED, Mode.NORMAL, True)
    assert gist(fact) == "FAIL_CLOSED -> NORMAL, held  somebody: to begin"
    assert subject(fact) == "posture/0"
    assert subject(fact) in [subject(recorded.fact) for recorded in read_facts(run.plane.pool, about="posture/")]


def test_the_same_again_is_nothing_and_another_reason_is_a_change(run: Run) -> None:
    keeper = run.keeper()
    first = keeper.hold(Mode.HOLD, "stop")
    run.clock.pass_seconds(1)
    again = keeper.hold(Mode.HOLD, "stop")
    assert (again.is_new, again.change) == (False, first.change)
    assert keeper.hold(Mode.HOLD, "another reason").change.sequence == 1
    assert keeper.hold(Mode.FAIL_CLOSED, "another reason").change.sequence == 2
    released = keeper.release("over")
    assert (released.is_new, released.change.mode, released.change.held) == (True, Mode.FAIL_CLOSED, False)
    assert not keeper.release("over").is_new
    assert len(history(run)) == len(messages_of(run)) == len(facts_of(run)) == 4


def test_signals_change_nothing_that_is_held_and_all_that_is_released(run: Run) -> None:
    keeper = run.keeper()
    keeper.hold(Mode.NORMAL, "mine")
    assert look(run, WORSE) is None
    keeper.release("yours")
    down = look(run, WORSE)
    assert down is not None
    assert (down.change.mode, down.change.held, down.change.signals) == (Mode.HOLD, False, {"lag": 100, "posture": 0})
    assert look(run, WORSE) is None
    assert look(run, BAD) is not None  # no reason for HOLD any more
    run.clock.pass_seconds(POLICY.quiet_seconds)
    up = look(run, BAD)
    assert up is not None
    assert up.change.mode is Mode.RULES_ONLY
    assert [change.sequence for change in history(run)] == [4, 3, 2, 1, 0]


def test_the_first_look_fails_closed(run: Run) -> None:
    first = look(run, GOOD)
    assert first is not None
    assert (first.change.mode, first.change.sequence) == (Mode.FAIL_CLOSED, 0)


def test_control_never_says_an_earlier_time(run: Run) -> None:
    keeper = run.keeper()
    keeper.hold(Mode.NORMAL, "one")
    run.clock.pass_seconds(-3600)
    later = keeper.hold(Mode.HOLD, "two").change
    run.clock.pass_seconds(-3600)
    released = keeper.release("three").change
    assert later.at_utc == released.at_utc == released.bad_since_utc == history(run)[-1].at_utc


@pytest.mark.parametrize("reason", ["", " \n", "x" * (MOST_REASON + 1)])
def test_a_reason_is_needed(run: Run, reason: str) -> None:
    with pytest.raises(PostureRefused, match="say why"):
        run.keeper().hold(Mode.HOLD, reason)
    with pytest.raises(PostureRefused, match="say why"):
        run.keeper().release(reason)
    assert history(run) == []


def test_a_card_number_is_no_reason(run: Run) -> None:
    with pytest.raises(MessageRefused, match="takes no such posture_changed"):
        run.keeper().hold(Mode.HOLD, "card 4111111111111111")
    assert (history(run), facts_of(run), messages_of(run)) == ([], [], [])


def test_nothing_is_half_written(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise psycopg.errors.ConnectionFailure("cut")

    for name in ("append_messages", "append_posture_change", "append_facts_with"):
        with monkeypatch.context() as patch:
            patch.setattr(keeper_module, name, fail)
            with pytest.raises(LogUnavailable):
                run.keeper().hold(Mode.HOLD, "stop")
        assert (history(run), facts_of(run), messages_of(run)) == ([], [], [])


def test_those_who_race_leave_one_line_of_history(run: Run) -> None:
    run.plane.control_log(create=True)
    racers, barrier = 8, Barrier(8)

    def race(number: int) -> None:
        keeper = run.keeper(f"racer-{number}")
        barrier.wait()
        for turn in range(5):
            keeper.hold(Mode.HOLD if (number + turn) % 2 else Mode.NORMAL, f"{number}/{turn}")

    with ThreadPoolExecutor(racers) as threads:
        list(threads.map(race, range(racers)))
    changes = history(run)
    assert [change.sequence for change in changes] == list(reversed(range(40)))
    assert [message.event_id for message in messages_of(run)] == [change.message_id for change in reversed(changes)]
