"""Each intent ends once; nothing is done twice, and what nobody knows is never tried again by itself."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import replace

import orjson
import psycopg
import pytest

from ofp_platform.actions.executing import Round, run_until_done
from ofp_platform.actions.ports import Done, NotDone, Refused, Unknown
from ofp_platform.storage.action_records import count_actions, held_accounts, list_actions
from ofp_platform.vocabulary.identity import FeatureKey, KeyType
from ofp_platform.vocabulary.loop.action import ActionOrigin, ActionState, AttemptEnd, OriginKind, OutcomeKind, WebhookTarget
from ofp_platform_tests.actions.conftest import POLICY, Scripted, Site, policy


def test_holds_are_done_with_their_outcomes(site: Site) -> None:
    hold, release = site.intent("d-1"), site.intent("d-2", "release_account")
    site.record(hold)
    executor = site.executor()
    assert executor.run_round() == Round(Counter({OutcomeKind.EXECUTED: 1}))
    with site.plane.pool.connection() as connection:
        assert held_accounts(connection, site.pins, ["acct-1", "acct-2"]) == {"acct-1"}
    site.record(release, hold)
    assert site.rounds(executor).outcomes == {OutcomeKind.EXECUTED: 1}
    with site.plane.pool.connection() as connection:
        assert held_accounts(connection, site.pins, ["acct-1", "acct-2"]) == set()
    record = site.read(hold)
    assert record.outcome is not None
    assert (record.state, record.outcome.executor, record.outcome.attempts) == (ActionState.EXECUTED, "account_hold", 1)
    assert record.outcome.action_policy_rev == policy().rev
    assert [attempt.end for attempt in record.attempts] == [AttemptEnd.DONE]
    assert site.stream() == [
        ("action_intent", hold.idempotency_key),
        ("action_outcome", record.outcome.message_id),
        ("action_intent", release.idempotency_key),
        ("action_outcome", site.read(release).outcome.message_id),
    ]
    assert orjson.loads(site.payloads()[1]) == record.outcome.wire()


def test_what_is_not_allowed_is_denied_and_nothing_done(site: Site) -> None:
    webhook = Scripted()
    intents = [
        site.intent("d-1", actor="somebody"),
        site.intent("d-2", "close_account"),
        site.intent("d-3", target=FeatureKey(key_type=KeyType.CARD, key_id="card-1")),
        site.intent("d-4", "release_account", target=FeatureKey(key_type=KeyType.CARD, key_id="card-1")),
        site.intent("d-5", "notify_decision", target=WebhookTarget(webhook="others")),
        site.intent("d-6", "notify_decision", target=WebhookTarget(webhook="elsewhere")),
        site.intent("d-7", "notify_decision", actor="somebody"),
    ]
    site.record(*intents)
    assert site.rounds(site.executor({"cases": webhook})) == Round(Counter({OutcomeKind.DENIED: 7}))
    assert webhook.executed == {}
    with site.plane.pool.connection() as connection:
        assert held_accounts(connection, site.pins, ["acct-1"]) == set()
        assert count_actions(connection, site.pins) == {ActionState.DENIED: 7}
    reasons = [site.read(intent).outcome.reason for intent in intents]
    assert [reason.split(":")[0] for reason in reasons] == [
        *["NOT_ALLOWED"] * 3,
        "NO_EXECUTOR",
        "NOT_ALLOWED",
        "NO_EXECUTOR",
        "NOT_ALLOWED",
    ]
    assert all(not site.read(intent).attempts for intent in intents)
    assert len(site.stream()) == 14


def test_a_webhook_that_is_down_is_tried_again_and_ends(site: Site) -> None:
    once, never, refused = (site.intent(f"d-{number}", "notify_decision") for number in range(3))
    site.record(once)
    down_once = Scripted([NotDone("no connection"), Done("HTTP 200")])
    assert site.rounds(site.executor({"cases": down_once})) == Round(Counter({OutcomeKind.EXECUTED: 1}), waiting=1)
    assert [attempt.end for attempt in site.read(once).attempts] == [AttemptEnd.NOT_DONE, AttemptEnd.DONE]
    site.record(never)
    down = Scripted([NotDone("no connection")])
    assert site.rounds(site.executor({"cases": down})) == Round(Counter({OutcomeKind.FAILED: 1}), waiting=2)
    assert down.executed == {never.idempotency_key: 3}
    assert "not done in 3 attempts, the last: no connection" in site.read(never).outcome.reason
    site.record(refused)
    refusing = Scripted([Refused("HTTP 422")])
    assert site.rounds(site.executor({"cases": refusing})) == Round(Counter({OutcomeKind.FAILED: 1}))
    assert [attempt.end for attempt in site.read(refused).attempts] == [AttemptEnd.REFUSED]


def test_a_pause_is_waited_for(site: Site) -> None:
    site.record(site.intent("d-1", "notify_decision"))
    webhook = Scripted([NotDone("no connection")])
    attempts = {"most": 3, "first_pause_ms": 3_600_000, "longest_pause_ms": 3_600_000}
    executor = site.executor({"cases": webhook}, attempts=attempts)
    assert run_until_done(executor, lambda _: None).waiting == 1
    assert executor.run_round().total == 0
    assert webhook.executed.total() == 1


@pytest.mark.parametrize(("finding", "executed"), [(Done(), 1), (NotDone("never came"), 2)])
def test_what_nobody_knows_is_asked_by_key(site: Site, finding: Done | NotDone, executed: int) -> None:
    intent = site.intent("d-1", "notify_decision")
    site.record(intent)
    webhook = Scripted([Unknown("no answer"), Done()], [Unknown("does not know"), finding])
    executor = site.executor({"cases": webhook})
    assert executor.run_round() == Round(waiting=1)
    assert (site.read(intent).state, site.read(intent).waiting) == (ActionState.UNKNOWN, "no answer")
    assert site.rounds(executor).outcomes == {OutcomeKind.EXECUTED: 1}
    assert (webhook.executed.total(), webhook.questions.total()) == (executed, 2)
    assert all(attempt.end is not None for attempt in site.read(intent).attempts)


def test_questions_have_an_end_and_then_it_waits_for_people(site: Site) -> None:
    intent = site.intent("d-1", "notify_decision")
    site.record(intent)
    webhook = Scripted([Unknown("no answer")], [Unknown("does not know")])
    assert site.rounds(site.executor({"cases": webhook})) == Round(waiting=3, for_people=1)
    assert (webhook.executed.total(), webhook.questions.total()) == (1, 3)
    with site.plane.pool.connection() as connection:
        assert [one.intent for one in list_actions(connection, site.pins, ActionState.UNKNOWN)] == [intent]


def test_who_cannot_be_asked_is_never_tried_again(site: Site) -> None:
    intent = site.intent("d-1", "notify_decision")
    site.record(intent)
    webhook = Scripted([Unknown("no answer"), Done()])
    assert site.rounds(site.executor({"cases": webhook})) == Round(for_people=1)
    assert webhook.executed.total() == 1
    assert site.read(intent).state is ActionState.UNKNOWN


def test_an_executor_that_fails_has_not_said_whether_it_was_done(site: Site) -> None:
    intent = site.intent("d-1", "notify_decision")
    site.record(intent)

    def fail() -> None:
        raise KeyError("a bug")

    webhook = Scripted(findings=[Done()], meanwhile=fail)
    executor = site.executor({"cases": webhook})
    assert executor.run_round() == Round(waiting=1)
    assert site.read(intent).waiting == "the executor failed: KeyError"
    assert site.rounds(executor).outcomes == {OutcomeKind.EXECUTED: 1}
    assert webhook.executed.total() == 1


def test_a_store_that_is_down_between_claim_and_outcome(site: Site) -> None:
    intent = site.intent("d-1", "notify_decision")
    site.record(intent)

    def take_the_table_away() -> None:
        with psycopg.connect(site.plane.dsn, autocommit=True) as connection:
            connection.execute("ALTER TABLE ofp.action_outcome RENAME TO action_outcome_away")

    webhook = Scripted(findings=[Done("it was")], meanwhile=take_the_table_away)
    executor = site.executor({"cases": webhook})
    with pytest.raises(psycopg.Error):
        executor.run_round()
    with psycopg.connect(site.plane.dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE ofp.action_outcome_away RENAME TO action_outcome")
    assert executor.run_round().total == 0  # its lease is not over
    assert site.read(intent).state is ActionState.UNKNOWN
    assert site.rounds(executor) == Round(Counter({OutcomeKind.EXECUTED: 1}))
    assert (webhook.executed.total(), webhook.questions.total()) == (1, 1)
    assert len(site.stream()) == 2


def test_a_lease_that_was_lost_says_nothing_more(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    intent = site.intent("d-1", "notify_decision")
    site.record(intent)
    second = site.executor({"cases": Scripted([Done("the second")], [NotDone("still nothing")])})
    slow = Scripted([Done("the first")], meanwhile=lambda: (site.make_due(), second.run_round())[0])
    site.executor({"cases": slow}).run_round()
    assert "its lease was over" in caplog.text
    assert [attempt.reason for attempt in site.read(intent).attempts] == ["still nothing"]
    assert site.read(intent).state is ActionState.OPEN


def test_what_is_no_more_allowed_is_asked_for_and_then_denied(site: Site) -> None:
    known, lost = site.intent("d-1", "notify_decision"), site.intent("d-2", "notify_decision")
    site.record(known, lost)
    site.executor({"cases": Scripted([Unknown("no answer")], [Done()])}).run_round()
    shorter = POLICY["allow_list"][:1]
    findings: list[Done | NotDone | Unknown] = [Done(), NotDone("never came")]
    webhook = Scripted([Done()], findings)
    assert site.rounds(site.executor({"cases": webhook}, allow_list=shorter)).outcomes == {
        OutcomeKind.EXECUTED: 1,
        OutcomeKind.DENIED: 1,
    }
    assert webhook.executed.total() == 0
    gone = site.intent("d-3", "notify_decision")
    site.record(gone)
    site.executor({"cases": Scripted([Unknown("no answer")], [Done()])}).run_round()
    assert site.rounds(site.executor({}, webhooks={})) == Round(for_people=1)
    assert "cannot be asked" in site.read(gone).waiting


def test_many_executors_at_once_do_each_intent_once(site: Site) -> None:
    intents = [site.intent(f"d-{number}", "notify_decision") for number in range(60)]
    holds = [site.intent(f"h-{number}") for number in range(200)]
    site.record(*intents, *holds)
    webhook = Scripted()
    threads = [
        threading.Thread(target=run_until_done, args=(site.executor({"cases": webhook}), lambda _: None)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert webhook.executed == {intent.idempotency_key: 1 for intent in intents}
    with site.plane.pool.connection() as connection:
        assert count_actions(connection, site.pins) == {ActionState.EXECUTED: 260}
    assert max(Counter(name for _, name in site.stream()).values()) == 1


def test_an_intent_of_another_run_is_left_alone(site: Site) -> None:
    other = site.other_run()
    theirs = other.intent("d-1")
    site.record(theirs)
    assert site.rounds(site.executor()).total == 0
    assert other.read(theirs).state is ActionState.OPEN
    assert other.rounds(other.executor()).outcomes == {OutcomeKind.EXECUTED: 1}


def test_an_operator_is_an_actor_like_any_other(site: Site) -> None:
    origin = ActionOrigin(origin_kind=OriginKind.OPERATOR, reference="ticket-1")
    intent = site.intent("d-1", origin=origin, actor="operator")
    site.record(intent)
    allow_list = [{"actor": "operator", "action_type": "hold_account", "scope": "*"}]
    assert site.rounds(site.executor(allow_list=allow_list)).outcomes == {OutcomeKind.EXECUTED: 1}


def test_a_process_that_slept_sends_nothing(site: Site) -> None:
    intent = site.intent("d-1", "notify_decision")
    site.record(intent)
    webhook = Scripted([Unknown("no answer"), Done()], [Done()])
    times = iter([0.0, 60.0, 0.0, 0.1, 0.0, 60.0])
    slept = replace(site.executor({"cases": webhook}), clock=lambda: next(times))
    assert slept.run_round() == Round(waiting=1)
    assert webhook.executed.total() == 0
    assert [attempt.end for attempt in site.read(intent).attempts] == [AttemptEnd.NOT_DONE]
    for _ in range(2):
        site.make_due()
        assert slept.run_round() == Round(waiting=1)
    assert (webhook.executed.total(), webhook.questions.total()) == (1, 0)
    assert site.rounds(site.executor({"cases": webhook})).outcomes == {OutcomeKind.EXECUTED: 1}
