"""Intents are in the ledger and in the stream, or in neither; one key means one thing."""

from __future__ import annotations

import logging
import threading
from itertools import count

import orjson
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ofp_platform.actions.intents import IntentConflict, record_intents
from ofp_platform.ingress.own_streams import MessageRefused
from ofp_platform.storage.action_records import count_actions, list_actions
from ofp_platform.vocabulary.identity import pins_digest
from ofp_platform.vocabulary.loop.action import ActionState
from ofp_platform_tests.actions.conftest import Site

RUNS = count()


def test_ledger_and_stream_say_the_same(site: Site) -> None:
    intents = [site.intent(f"d-{number}", parameters={"amount": "12.50", "deep": {"none": None}}) for number in range(3)]
    recorded = site.record(*intents)
    assert (len(recorded.new_intents), recorded.known_intents, recorded.conflicts) == (3, (), ())
    assert site.stream() == [("action_intent", intent.idempotency_key) for intent in intents]
    for intent, payload in zip(intents, site.payloads(), strict=True):
        assert orjson.loads(payload) == orjson.loads(intent.content)
        assert (site.read(intent).intent, site.read(intent).state) == (intent, ActionState.OPEN)


def test_the_same_again_is_known_whenever_it_was_asked_for(site: Site) -> None:
    intent = site.intent("d-1")
    site.record(intent)
    later = site.intent("d-1", at_utc="2026-02-02T00:00:00Z")
    assert site.record(later, later).known_intents == (later, later)
    assert len(site.stream()) == 1


def test_other_content_under_a_key_is_refused_and_told(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    intent = site.intent("d-1")
    other = site.intent("d-1", parameters={"for": "ever"})
    assert other.idempotency_key == intent.idempotency_key
    site.record(intent)
    with caplog.at_level(logging.WARNING):
        recorded = site.record(other, site.intent("d-2"))
    assert (recorded.conflicts, len(recorded.new_intents)) == ((other,), 1)
    assert "INTENT_CONFLICT" in caplog.text
    with pytest.raises(IntentConflict, match="INTENT_CONFLICT"):
        recorded.demand_no_conflict()
    site.record(other)  # refused once more: one conflict, not two
    assert (site.read(intent).intent, site.read(intent).conflicts) == (intent, 1)
    assert len(site.stream()) == 2
    first, second = site.intent("d-3"), site.intent("d-3", reason="another")
    recorded = site.record(first, second)
    assert (recorded.new_intents, recorded.conflicts) == ((first,), (second,))


def test_nothing_stays_of_a_transaction_that_is_rolled_back(site: Site) -> None:
    intent = site.intent("d-1")
    with site.plane.pool.connection() as connection, pytest.raises(MessageRefused), connection.transaction():
        record_intents(connection, site.log, [intent, site.intent("d-2", reason="card 4111111111111111")])
    assert site.stream() == []
    with site.plane.pool.connection() as connection:
        assert count_actions(connection, site.pins) == {}
    assert site.record() == site.record(*[])


def test_who_wants_the_same_at_once_records_it_once(site: Site) -> None:
    intents = [site.intent(f"d-{number}") for number in range(20)]
    counts: list[int] = []

    def want() -> None:
        counts.append(len(site.record(*intents).new_intents))

    threads = [threading.Thread(target=want) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counts) == [0, 0, 0, 20]
    assert len(site.stream()) == 20


def test_the_ledger_is_only_appended_to(site: Site) -> None:
    site.record(site.intent("d-1"))
    with site.plane.pool.connection() as connection:
        for statement in ("DELETE FROM ofp.action_intent", "UPDATE ofp.action_intent SET content = ''"):
            with pytest.raises(psycopg.errors.RestrictViolation):
                connection.execute(statement)


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=st.lists(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 1)), max_size=6), max_size=5))
def test_against_a_dictionary(site: Site, batches: list[list[tuple[int, int]]]) -> None:
    ledger: dict[str, str] = {}
    run = next(RUNS)
    for batch in batches:
        intents = [site.intent(f"{run}-{name}", reason=str(content)) for name, content in batch]
        known, conflicts = [], []
        for intent in intents:
            first = ledger.setdefault(intent.idempotency_key, intent.reason)
            (conflicts if first != intent.reason else known).append(intent)
        recorded = site.record(*intents)
        assert sorted(map(repr, [*recorded.new_intents, *recorded.known_intents])) == sorted(map(repr, known))
        assert sorted(map(repr, recorded.conflicts)) == sorted(map(repr, conflicts))
    with site.plane.pool.connection() as connection:
        stored = {one.intent.idempotency_key: one.intent.reason for one in list_actions(connection, site.pins, limit=10_000)}
    assert {key: reason for key, reason in stored.items() if key in ledger} == ledger


def test_runs_are_apart(site: Site) -> None:
    other = site.other_run()
    mine, theirs = site.intent("d-1"), other.intent("d-1")
    assert mine.idempotency_key == theirs.idempotency_key
    assert len(site.record(mine, theirs).new_intents) == 2
    assert pins_digest(mine.context_pins) != pins_digest(theirs.context_pins)
    assert site.read(theirs).intent == theirs
