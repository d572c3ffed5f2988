"""The sums of the loop: they balance where everything stands for something, and name what does not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ofp_platform.governance.loop_reconciliation import keep_reconciliation, reconcile_loop
from ofp_platform.log.governance_log import compare_facts
from ofp_platform.storage.case_entries import OfferedEntry, append_entries
from ofp_platform.storage.decision_records import append_decisions
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.canonical import sha256_hex
from ofp_platform.vocabulary.identity import pins_digest
from ofp_platform.vocabulary.loop.bundle import Slot
from ofp_platform.vocabulary.loop.case import (
    CASE_SOURCE,
    CaseContent,
    CaseEvent,
    CaseTrigger,
    LabelAccepted,
    LabelPending,
    LabelRejected,
    StatedEvidence,
    Triggered,
)
from ofp_platform.vocabulary.loop.loop_reconciliation import LoopReconciliation
from ofp_platform.vocabulary.loop.outcome import Outcome
from ofp_platform.vocabulary.offline.label_assertion import LabelAssertion
from ofp_platform.vocabulary.position import Basis, OffsetKind, PartitionBasis
from ofp_platform_tests.decisions.test_wanted_actions import PINS, record

UNSENT = sha256_hex(b"{}")


@pytest.fixture
def pool(dsn: str) -> Iterator[Pool]:
    with open_pool(dsn, max_size=2) as opened:
        yield opened


def basis(offset: int) -> Basis:
    return Basis(
        stream_name="payments",
        partitions=(PartitionBasis(partition_id="0000", offset_kind=OffsetKind.EXCLUSIVE_NEXT, offset=offset),),
    )


def summed(pool: Pool, *event_ids: str) -> LoopReconciliation:
    with pool.connection() as connection:
        return reconcile_loop(connection, PINS, "card_payment", event_ids, (basis(0), basis(9)), compare_facts(pool))


def test_facts_that_are_not_on_their_stream_are_named(pool: Pool) -> None:
    assert (summed(pool).governance_facts, summed(pool).governance_messages) == (0, 0)
    with pool.connection() as connection:
        connection.execute("INSERT INTO ofp.governance_fact (digest, fact, content) VALUES (%s, 'x', '{}')", (UNSENT,))
    report = summed(pool)
    assert (report.governance_facts, report.governance_messages) == (1, 0)
    assert f"1 governance facts without a message on their stream: {UNSENT}" in report.differences


def test_nothing_at_all_balances_and_says_so_in_zeros(pool: Pool) -> None:
    report = summed(pool)
    assert (report.traffic, report.decisions, report.differences) == (0, 0, ())


def test_an_event_without_a_decision_and_a_decision_without_an_event_are_named(pool: Pool) -> None:
    with pool.connection() as connection:
        append_decisions(connection, [record(Outcome.APPROVE)])
    report = summed(pool, "e-2", "e-2", "e-3")
    assert (report.traffic, report.decisions) == (2, 1)
    assert "2 events without a decision: e-2, e-3" in report.differences
    assert "1 decisions on events that do not stand there: e-1" in report.differences
    assert "1 decisions behind the newest head of the audit log" in report.differences
    many = summed(pool, *(f"x-{number}" for number in range(9)))
    assert "9 events without a decision: x-0, x-1, x-2, x-3, x-4 and 4 more" in many.differences


def test_what_has_a_leaf_and_an_outcome_balances(pool: Pool, tmp_path: Path) -> None:
    decision = record(Outcome.APPROVE)
    run = pins_digest(PINS)
    with pool.connection() as connection:
        append_decisions(connection, [decision])
        connection.execute(
            "INSERT INTO ofp.audit_leaf (leaf_index, leaf_kind, subject, record_digest, content, leaf_hash)"
            " VALUES (0, 'decision', %s, '', '{}', sha256('\\x00'::bytea || convert_to('{}', 'UTF8')))",
            (decision.decision_id,),
        )
    report = summed(pool, "e-1", "e-1")
    assert (report.traffic, report.decisions, report.decision_leaves, report.differences) == (1, 1, 1, ())
    objects = ObjectStore(f"file://{tmp_path}")
    path = keep_reconciliation(objects, report)
    assert objects.get(path) == report.stored()
    assert keep_reconciliation(objects, report) == path
    with pool.connection() as connection:
        connection.execute(
            "INSERT INTO ofp.action_intent (pins_digest, idempotency_key, content_digest, content) VALUES (%s, 'k', 'd', '{}')",
            (run,),
        )
        append_decisions(connection, [shadow()])
    unfinished = summed(pool, "e-1")
    assert (unfinished.intents, unfinished.open_intents, unfinished.shadow_decisions) == (1, 1, 1)
    assert "1 intents without an outcome" in unfinished.differences


def test_a_label_is_one_however_often_it_was_asked_for_and_answered(pool: Pool) -> None:
    event = CaseEvent(event_class="card_payment", event_id="e-1")
    assertion = LabelAssertion(
        event_class=event.event_class,
        event_id=event.event_id,
        label_type="fraud_disposition",
        value=1,
        effective_time_utc="2026-02-01T00:00:00Z",
        observed_time_utc="2026-02-01T00:00:00Z",
        source=CASE_SOURCE,
    )
    name = assertion.assertion_id
    trigger = Triggered(trigger=CaseTrigger.MANUAL_ASSERTION, evidence=StatedEvidence(reason="a call"))
    pending = LabelPending(word="fraud", assertion_id=name, assertion=assertion)

    def add(*entries: tuple[str, CaseContent]) -> LoopReconciliation:
        offered_entries = [OfferedEntry(event, source_ref, 1, "ann", content) for source_ref, content in entries]
        with pool.connection() as connection:
            append_entries(connection, PINS, offered_entries)
        return summed(pool)

    def labels(report: LoopReconciliation) -> tuple[int, int, int, int]:
        return report.labels_asserted, report.labels_accepted, report.labels_rejected, report.labels_pending

    waiting = add(("call", trigger), ("ann/1", pending), ("bob/1", pending))
    assert (labels(waiting), waiting.differences) == (
        (1, 0, 0, 1),
        ("1 labels that the label store has not answered",),
    )
    answered = add((name, LabelAccepted(assertion_id=name)))
    assert (labels(answered), answered.differences) == ((1, 1, 0, 0), ())
    # two who settled it at once had two answers: the first counts
    twice = add((name, LabelRejected(assertion_id=name, reason="no such class")))
    assert (labels(twice), twice.differences) == ((1, 1, 0, 0), ())


def shadow() -> object:
    from ofp_platform.vocabulary.loop.bundle import BundleRef
    from ofp_platform.vocabulary.loop.decision_record import loop_decision_id
    from ofp_platform_tests.decisions.test_wanted_actions import AT, BUNDLE

    other = BUNDLE.model_copy(update={"bundle": BundleRef(bundle_name="c", digest="9" * 64)})
    name = loop_decision_id("e-1", other.bundle, AT)
    return record(Outcome.APPROVE, slot=Slot.SHADOW, bundle=other, decision_id=name)
