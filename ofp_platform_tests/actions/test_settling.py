"""An operator settles what nobody can be asked about, and nothing else."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from ofp_platform.actions.ports import Done, NotDone, Unknown
from ofp_platform.actions.settling import NothingToSettle, Settlement, settle
from ofp_platform.storage.governance_facts import RecordedFact, read_facts
from ofp_platform.vocabulary.loop.action import ActionIntent, ActionState, AttemptEnd, OutcomeKind
from ofp_platform.vocabulary.offline.governance_fact import ActionSettled
from ofp_platform_tests.actions.conftest import Scripted, Site, policy


def say(site: Site, intent: ActionIntent, *, is_done: bool) -> None:
    settlement = Settlement(intent.idempotency_key, is_done, "ann", "looked at their books", lambda: next(site.moments))
    with site.plane.pool.connection() as connection, connection.transaction():
        settle(connection, site.log, site.pins, policy(), settlement)


def facts(site: Site, intent: ActionIntent) -> list[RecordedFact]:
    recorded_facts = read_facts(site.plane.pool, "action_settled", about=intent.idempotency_key)
    return [one for one in recorded_facts if isinstance(one.fact, ActionSettled) and one.fact.context_pins == site.pins]


def unknown(site: Site) -> ActionIntent:
    intent = site.intent("d-1", "notify_decision")
    site.record(intent)
    assert site.rounds(site.executor({"cases": Scripted([Unknown("no answer")])})).for_people == 1
    return intent


def test_done(site: Site) -> None:
    intent = unknown(site)
    say(site, intent, is_done=True)
    record = site.read(intent)
    assert record.outcome is not None
    assert (record.state, record.outcome.settled_by, record.outcome.reason) == (
        ActionState.EXECUTED,
        "ann",
        "looked at their books",
    )
    assert record.attempts[0].reason == "ann: looked at their books"
    assert site.stream()[-1] == ("action_outcome", record.outcome.message_id)
    with pytest.raises(NothingToSettle, match="is over"):
        say(site, intent, is_done=False)
    [recorded] = facts(site, intent)
    fact = recorded.fact
    assert isinstance(fact, ActionSettled)
    assert (fact.actor, fact.reason, fact.is_done, fact.attempt) == ("ann", "looked at their books", True, 1)
    assert (fact.context_pins, fact.action_type, fact.action_policy_rev) == (site.pins, "notify_decision", policy().rev)


def test_nothing_is_settled_without_its_fact(site: Site) -> None:
    intent = unknown(site)
    settlement = Settlement(intent.idempotency_key, True, "ann", "", lambda: next(site.moments))
    with site.plane.pool.connection() as connection, pytest.raises(ValidationError, match="reason"), connection.transaction():
        settle(connection, site.log, site.pins, policy(), settlement)
    assert site.read(intent).state is ActionState.UNKNOWN
    assert facts(site, intent) == []


def test_not_done_is_tried_again(site: Site) -> None:
    intent = unknown(site)
    say(site, intent, is_done=False)
    assert site.read(intent).state is ActionState.OPEN
    assert [getattr(recorded.fact, "is_done", None) for recorded in facts(site, intent)] == [False]
    webhook = Scripted([Done()])
    assert site.rounds(site.executor({"cases": webhook})).outcomes == {OutcomeKind.EXECUTED: 1}
    assert [attempt.end for attempt in site.read(intent).attempts] == [AttemptEnd.NOT_DONE, AttemptEnd.DONE]


def test_no_attempt_is_left_behind_the_last(site: Site) -> None:
    intent = unknown(site)
    say(site, intent, is_done=False)
    attempts = {"most": 1, "first_pause_ms": 1, "longest_pause_ms": 1}
    assert site.rounds(site.executor({"cases": Scripted()}, attempts=attempts)).outcomes == {OutcomeKind.FAILED: 1}


def test_what_does_not_wait_for_people(site: Site) -> None:
    open_intent, waiting = site.intent("d-2", "notify_decision"), site.intent("d-3", "notify_decision")
    with pytest.raises(NothingToSettle, match="there is none"):
        say(site, open_intent, is_done=True)
    site.record(waiting)
    site.executor({"cases": Scripted([Unknown("no answer")], [Unknown("does not know")])}).run_round()
    site.record(open_intent)
    for intent in (open_intent, waiting):
        with pytest.raises(NothingToSettle, match="does not wait for people"):
            say(site, intent, is_done=True)
    webhook = Scripted([NotDone("no connection")], [Done()])
    assert site.rounds(site.executor({"cases": webhook})).outcomes == {OutcomeKind.EXECUTED: 1, OutcomeKind.FAILED: 1}
