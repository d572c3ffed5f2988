"""Actions asked for in cases become intents of who acts, once each."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pydantic import ValidationError

from ofp_platform.actions import case_requests
from ofp_platform.actions.case_requests import CaseRequests
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.storage.case_entries import OfferedEntry, append_entries
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.action import ActionIntent, OriginKind
from ofp_platform.vocabulary.loop.case import ActionRequested, CaseEvent, CaseTrigger, StatedEvidence, Triggered

PINS = ContextPins(scenario_id="s", run_id="r", manifest_fingerprint="0" * 64, parameter_hash="1" * 64)
EVENT = CaseEvent(event_class="card_payment", event_id="e-1")
POLICY = f"1.{'6' * 64}"
AT = 1_767_225_600_000_000


@pytest.fixture
def pool(dsn: str) -> Iterator[Pool]:
    with open_pool(dsn, max_size=2) as opened:
        yield opened


def asked(pool: Pool, target: str, ref: str) -> None:
    content = ActionRequested(action_type="hold_account", target=target, reason="while we look")
    with pool.connection() as connection, connection.transaction():
        append_entries(connection, PINS, [OfferedEntry(EVENT, ref, AT, "ann", content)])


def test_each_request_becomes_one_intent_however_often_it_is_looked(pool: Pool) -> None:
    log = PostgresLog.create(pool, "decisions", 1, "event_id")
    opened = Triggered(trigger=CaseTrigger.MANUAL_ASSERTION, evidence=StatedEvidence(reason="odd"))
    with pool.connection() as connection, connection.transaction():
        append_entries(connection, PINS, [OfferedEntry(EVENT, "manual/1", AT, "ann", opened)])
    asked(pool, "account:acct-1", "ask/1")
    asked(pool, "webhook:payments", "ask/2")

    def collect() -> int:
        return CaseRequests(pool, log, PINS, POLICY, lambda: 0.0).collect()  # as a process that just began

    seconds = [0.0]
    requests = CaseRequests(pool, log, PINS, POLICY, lambda: seconds[0])
    assert [requests.collect(), collect(), requests.collect()] == [2, 0, 0]
    asked(pool, "account:acct-1", "ask/3")
    assert [requests.collect(), collect(), requests.collect()] == [1, 0, 0]
    with pool.connection() as connection:
        rows = connection.execute("SELECT content FROM ofp.action_intent ORDER BY intent_id").fetchall()
    intents = [ActionIntent.model_validate_json(content) for (content,) in rows]
    assert [intent.scope for intent in intents] == ["account", "payments", "account"]
    assert {(intent.actor, intent.origin.origin_kind, intent.reason) for intent in intents} == {
        ("ann", OriginKind.CASE, "while we look")
    }
    assert len(log.read("0000", None, 10)) == 3


@pytest.mark.parametrize("target", ["acct-1", "account:", "planet:mars", "webhook:"])
def test_a_target_that_there_is_not_is_refused_when_it_is_asked_for(target: str) -> None:
    with pytest.raises(ValidationError, match="target"):
        ActionRequested(action_type="hold_account", target=target, reason="x")


def test_entries_that_were_seen_are_left_out_until_a_look_at_all(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    log = PostgresLog.create(pool, "decisions", 1, "event_id")
    opened = Triggered(trigger=CaseTrigger.MANUAL_ASSERTION, evidence=StatedEvidence(reason="odd"))
    with pool.connection() as connection, connection.transaction():
        append_entries(connection, PINS, [OfferedEntry(EVENT, "manual/1", AT, "ann", opened)])
    looked_behind: list[int] = []

    def requested(connection: object, pins: object, limit: int, after: int) -> list[object]:
        looked_behind.append(after)
        return []

    monkeypatch.setattr(case_requests, "requested_actions", requested)
    seconds = [0.0]
    requests = CaseRequests(pool, log, PINS, POLICY, lambda: seconds[0])
    requests.collect()
    requests.collect()  # nothing is new, so nothing is read
    asked(pool, "account:acct-1", "ask/1")
    requests.collect()
    assert looked_behind == [-1, 0]
    seconds[0] = 60.0
    requests.collect()
    assert looked_behind == [-1, 0, -1]

    def broken(*_: object) -> list[object]:
        raise RuntimeError("broken")

    monkeypatch.setattr(case_requests, "requested_actions", broken)
    asked(pool, "account:acct-1", "ask/2")
    with pytest.raises(RuntimeError, match="broken"):
        requests.collect()
    monkeypatch.setattr(case_requests, "requested_actions", requested)
    requests.collect()
    assert looked_behind == [-1, 0, -1, -1]


def test_more_than_a_page_is_collected_at_once(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(case_requests, "PAGE", 2)
    log = PostgresLog.create(pool, "decisions", 1, "event_id")
    opened = Triggered(trigger=CaseTrigger.MANUAL_ASSERTION, evidence=StatedEvidence(reason="odd"))
    with pool.connection() as connection, connection.transaction():
        append_entries(connection, PINS, [OfferedEntry(EVENT, "manual/1", AT, "ann", opened)])
    for number in range(5):
        asked(pool, f"account:acct-{number}", f"ask/{number}")
    requests = CaseRequests(pool, log, PINS, POLICY, lambda: 0.0)
    assert [requests.collect(), requests.collect()] == [5, 0]
    assert len(log.read("0000", None, 10)) == 5
