"""The door: each record gets one receipt, is in the log once, and what cannot be admitted is kept."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ofp_platform.ingress.batches import (
    MOST_RECORDS,
    BatchReceipt,
    IdempotencyKey,
    IngressRefused,
    KeyReused,
    NotTogether,
    SentBatch,
)
from ofp_platform.ingress.class_map import ClassMap, class_map_of
from ofp_platform.ingress.door import Door, class_map_path
from ofp_platform.ingress.gate import Sent
from ofp_platform.ingress.open_door import open_door
from ofp_platform.ingress.quarantine_replay import replay_record
from ofp_platform.ingress.receipts import (
    UnknownReceipt,
    kept_record,
    quarantine_by_reason,
    quarantined_record,
    read_batches,
    read_quarantine,
    read_receipts,
)
from ofp_platform.ingress.reconciliation import IngressReconciliation, reconcile_ingress
from ofp_platform.log.port import LogUnavailable, RecordRefusal, RefusalReason
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.registry.pack import shipped_pack
from ofp_platform.storage.governance_facts import read_facts
from ofp_platform.storage.objects import ObjectStore, ObjectStoreUnavailable
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.admission_receipt import AdmissionOutcome, QuarantineReason
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import make_basis, order
from ofp_platform_tests.oracle.rows_read import rows_read

ADMIT, DUPLICATE, QUARANTINE = AdmissionOutcome
PACK = shipped_pack("mule_rings")
CLASSES = class_map_of(PACK, has_context=True)
_runs = count()


def new_door(pool: Pool, objects: ObjectStore) -> Door:
    """The door of a run, and streams, of its own."""
    number = next(_runs)
    pins = ContextPins(scenario_id="s", run_id=f"r-{number}", manifest_fingerprint="0" * 64, parameter_hash="1" * 64)
    traffic = PostgresLog.create(pool, f"traffic-{number}", 2, "payload.account_id")
    context = PostgresLog.create(pool, f"links-{number}", 1, "payload.member")
    return open_door(pool, traffic, context, objects, pins, CLASSES)


def transfer(door: Door, event_id: str, **more: Any) -> dict[str, Any]:
    payload = {"account_id": more.pop("account", "a"), "amount_minor": more.pop("amount", 100), "counterparty_id": "p"}
    return {
        "event_id": event_id,
        "event_type": "transfer",
        "schema_version": "v1",
        "ts_utc": "2026-01-01T00:00:00Z",
        **door.gate.pins.wire(),
        "payload": payload,
        **more,
    }


def link(door: Door, event_id: str) -> dict[str, Any]:
    payload = {"key_type": "account", "member": "b", "canonical": "a", "effective_time_utc": "2026-01-01T00:00:00Z"}
    return {**transfer(door, event_id), "event_type": "identity_link", "payload": payload}


def ended(receipt: BatchReceipt) -> list[str]:
    return [outcome.outcome.value if outcome.reason is None else outcome.reason.value for outcome in receipt.outcomes]


def in_log(log: PostgresLog) -> list[tuple[str, int, str]]:
    """Partition, offset and event id of each record."""
    found = []
    for part in log.ends().partitions:
        start = make_basis(log.stream_name, {part.partition_id: log.position_kind.start(part.partition_id)}).partitions[0]
        if order(part.offset) > 0:
            batch = log.read(part.partition_id, start, 10_000)
            found += [(part.partition_id, int(at), event_id) for at, event_id in zip(batch.offsets, batch.event_ids, strict=True)]
    return found


def balanced(door: Door) -> IngressReconciliation:
    with door.pool.connection() as connection:
        result = reconcile_ingress(connection, door.gate.pins, door.class_map, door.traffic, door.context)
    assert result.differences == []
    assert result.sent_count == result.admitted_count + result.duplicate_count + result.quarantined_count
    return result


def test_a_door_under_another_class_map_is_a_fact(pool: Pool, objects: ObjectStore) -> None:
    door = new_door(pool, objects)
    traffic, context, pins = door.traffic, door.context, door.gate.pins
    other = ClassMap.model_validate({**CLASSES.wire(), "partition_key": "payload.account_id"})
    for class_map in (CLASSES, other, other, CLASSES):
        open_door(pool, traffic, context, objects, pins, class_map)
    facts = [recorded.fact for recorded in read_facts(pool, "policy_in_force", limit=1_000)]
    told = [fact.rev for fact in facts if fact.fact == "policy_in_force" and fact.context_pins == pins]
    assert told == [CLASSES.digest, other.digest, CLASSES.digest]


def test_every_record_gets_one_receipt_and_each_event_is_in_the_log_once(pool: Pool, objects: ObjectStore) -> None:
    door = new_door(pool, objects)
    sent: list[Sent] = [
        transfer(door, "1"),
        transfer(door, "2", account="b"),
        transfer(door, "1"),  # a copy
        transfer(door, "1", amount=5),  # a conflict
        link(door, "1"),  # another class
        transfer(door, "3", schema_version="9"),
        transfer(door, "4", event_type="chargeback"),
        transfer(door, "5", run_id="another"),
        transfer(door, "6", amount="4111111111111111"),
        {**transfer(door, "7"), "payload": {"amount_minor": 1}},
        {"event_id": "8"},
        transfer(door, "9", ts_utc="yesterday"),
        RecordRefusal(0, RefusalReason.INVALID_ENVELOPE, "not a JSON object"),
    ]
    receipt = door.admit(sent, "test")
    assert ended(receipt) == [
        "ADMIT",
        "ADMIT",
        "DUPLICATE",
        "EVENT_ID_CONFLICT",
        "ADMIT",
        "UNKNOWN_SCHEMA_VERSION",
        "UNKNOWN_EVENT_TYPE",
        "RUN_NOT_ACTIVE",
        "RAW_IDENTIFIER",
        "MISSING_PARTITION_KEY",
        "INVALID_ENVELOPE",
        "INVALID_TIME",
        "INVALID_ENVELOPE",
    ]
    assert door.context is not None
    assert sorted(name for *_, name in in_log(door.traffic)) == ["1", "2"]
    assert [name for *_, name in in_log(door.context)] == ["1"]
    first = receipt.outcomes[0].position
    assert first is not None
    assert (first.partition_id, first.offset, "1") in in_log(door.traffic)
    assert receipt.outcomes[2].position == receipt.outcomes[3].position == first
    assert receipt.outcomes[3].admitted_payload_hash == receipt.outcomes[0].payload_hash
    with pool.connection() as connection:
        stored = read_receipts(connection, door.gate.pins, receipt.batch_id, (door.traffic.stream_name, door.context.stream_name))
        (batch,) = read_batches(connection, door.gate.pins)
        by_reason = quarantine_by_reason(connection, door.gate.pins)
        aside = {record.place: record for record in read_quarantine(connection, door.gate.pins)}
    assert [one.outcome for one in stored] == [outcome.outcome for outcome in receipt.outcomes]
    assert [one.reason for one in stored] == [outcome.reason for outcome in receipt.outcomes]
    assert stored[4].position is not None
    assert stored[4].position.stream_name == door.context.stream_name
    assert stored[3].admitted_payload_hash == stored[0].payload_hash
    assert (batch.records, batch.admitted, batch.duplicates, batch.quarantined, batch.producer) == (13, 3, 1, 9, "test")
    assert objects.exists(class_map_path(batch.class_map_digest))
    assert sum(by_reason.values()) == 9
    for place, record in aside.items():
        if record.reason == "RAW_IDENTIFIER" or isinstance(sent[place], RecordRefusal):
            with pytest.raises(UnknownReceipt, match="kept nowhere"):
                kept_record(objects, record)
        else:
            assert kept_record(objects, record) == sent[place]
    assert [aside[place].event_id for place in (3, 5, 8, 10)] == ["1", "3", None, None]  # of what is no envelope nothing is shown
    assert balanced(door).in_log == 3


def test_no_object_holds_a_card_number(pool: Pool, objects: ObjectStore) -> None:
    door = new_door(pool, objects)
    door.admit([transfer(door, "1", amount="4111111111111111"), transfer(door, "2", schema_version="9")], "test")
    assert all(b"4111111111111111" not in objects.get(path) for path in objects.list("quarantine"))


def test_a_batch_that_is_sent_again_is_all_duplicates(pool: Pool, objects: ObjectStore) -> None:
    door = new_door(pool, objects)
    sent = [transfer(door, str(number), account=f"a-{number % 5}") for number in range(300)]
    first, again = door.admit(sent, "test"), door.admit(sent, "test")
    assert (first.count(ADMIT), again.count(DUPLICATE)) == (300, 300)
    assert [one.position for one in first.outcomes] == [one.position for one in again.outcomes]
    assert len(in_log(door.traffic)) == 300
    assert balanced(door).duplicate_count == 300


def test_an_id_that_was_admitted_is_in_conflict_for_good(pool: Pool, objects: ObjectStore) -> None:
    door = new_door(pool, objects)
    first = door.admit([transfer(door, "1")], "test").outcomes[0]
    receipt = door.admit(
        [transfer(door, "1", amount=2), transfer(door, "1"), transfer(door, "1", amount=2), transfer(door, "1", amount=3)], "test"
    )
    assert ended(receipt) == ["EVENT_ID_CONFLICT", "DUPLICATE", "EVENT_ID_CONFLICT", "EVENT_ID_CONFLICT"]
    assert {one.position for one in receipt.outcomes} == {first.position}
    assert {one.admitted_payload_hash for one in receipt.outcomes} == {first.payload_hash, None}
    assert len(in_log(door.traffic)) == 1


KINDS = st.sampled_from(["good", "copy", "conflict", "type", "version", "run", "key", "link"])


@pytest.mark.parametrize("together", [False, True])
@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture], max_examples=40, deadline=None)
@given(st.lists(st.lists(st.tuples(KINDS, st.integers(0, 4)), min_size=1, max_size=8), min_size=1, max_size=5))
def test_any_batches_balance_and_agree_with_a_plain_model(
    pool: Pool, tmp_path_factory: pytest.TempPathFactory, together: bool, batches: list[list[tuple[str, int]]]
) -> None:
    door = new_door(pool, ObjectStore(str(tmp_path_factory.mktemp("o") / "objects")))
    admitted: dict[tuple[str, str], Any] = {}
    group: list[SentBatch] = []
    expected_of_group: list[list[str]] = []
    for batch in batches:
        sent = [made(door, kind, number) for kind, number in batch]
        expected = []
        for (kind, _), record in zip(batch, sent, strict=True):
            name = record["event_type"], record["event_id"]
            faults = {"type": "UNKNOWN_EVENT_TYPE", "version": "UNKNOWN_SCHEMA_VERSION", "run": "RUN_NOT_ACTIVE"}
            if kind in faults or kind == "key":
                expected.append(faults.get(kind, "MISSING_PARTITION_KEY"))
            elif name not in admitted:
                admitted[name] = record["payload"]
                expected.append("ADMIT")
            else:
                expected.append("DUPLICATE" if admitted[name] == record["payload"] else "EVENT_ID_CONFLICT")
        # within a batch it is what was admitted before that decides about all of its copies; the model reads in order
        if together:
            group.append(SentBatch(sent, f"p-{len(group)}"))
            expected_of_group.append(expected)
        else:
            assert ended(door.admit(sent, "test")) == expected
    if together:  # in one transaction, as if each came behind the one before it
        receipts = door.admit_group(group)
        assert [ended(receipt) for receipt in receipts] == expected_of_group
        with pool.connection() as connection:
            for receipt, sent_batch in zip(receipts, group, strict=True):
                stored = read_receipts(connection, door.gate.pins, receipt.batch_id, door.streams)
                assert [one.place for one in stored] == list(range(len(sent_batch.records_sent)))
                assert [one.reason for one in stored] == [outcome.reason for outcome in receipt.outcomes]
            listed = {(row.batch_id, row.place) for row in read_quarantine(connection, door.gate.pins, limit=1_000)}
        aside = {(r.batch_id, place) for r in receipts for place, outcome in enumerate(r.outcomes) if outcome.reason is not None}
        assert listed == aside
    result = balanced(door)
    assert (result.admitted_count, result.sent_count) == (len(admitted), sum(map(len, batches)))
    assert door.context is not None
    in_logs = Counter(name for log in (door.traffic, door.context) for *_, name in in_log(log))
    assert in_logs == Counter(event_id for _, event_id in admitted)


def test_batches_that_came_before_are_answered_beside_new_ones(pool: Pool, objects: ObjectStore) -> None:
    door = new_door(pool, objects)
    key, other_key = IdempotencyKey("k-1", b"1" * 32), IdempotencyKey("k-2", b"2" * 32)
    first = SentBatch([transfer(door, "1")], "p", idempotency_key=key)
    (receipt,) = door.admit_group([first])
    repeated, new = door.admit_group([first, SentBatch([transfer(door, "2")], "p", idempotency_key=other_key)])
    assert (repeated.batch_id, repeated.repeated, ended(repeated)) == (receipt.batch_id, True, ["ADMIT"])
    assert (new.repeated, ended(new)) == (False, ["ADMIT"])
    with pytest.raises(NotTogether):  # the second must see the first
        door.admit_group([replace(first, idempotency_key=IdempotencyKey("k-3", b"3" * 32))] * 2)
    with pytest.raises(NotTogether):
        door.admit_group([SentBatch([transfer(door, "3")], "p"), SentBatch([transfer(door, "4")], "p", [5])])
    with pytest.raises(KeyReused):
        door.admit_group(
            [SentBatch([transfer(door, "5")], "p"), replace(first, idempotency_key=IdempotencyKey("k-1", b"9" * 32))]
        )
    with pytest.raises(IngressRefused):
        door.admit_group([SentBatch([transfer(door, "6")], "p"), SentBatch([], "p")])
    assert sorted(event_id for *_, event_id in in_log(door.traffic)) == ["1", "2"]  # all of a group or none
    declared = door.admit_group([SentBatch([transfer(door, "7")], "p", [7]), SentBatch([transfer(door, "8")], "p", [8])])
    assert [ended(one) for one in declared] == [["ADMIT"], ["ADMIT"]]


def made(door: Door, kind: str, number: int) -> dict[str, Any]:
    event_id = f"e-{number}"
    match kind:
        case "conflict":
            return transfer(door, event_id, amount=7)
        case "type":
            return transfer(door, event_id, event_type="other")
        case "version":
            return transfer(door, event_id, schema_version="9")
        case "run":
            return transfer(door, event_id, parameter_hash="another")
        case "key":
            return {**transfer(door, event_id), "payload": {}}
        case "link":
            return link(door, event_id)
        case _:
            return transfer(door, event_id)


def test_doors_side_by_side_admit_each_event_once(pool: Pool, objects: ObjectStore) -> None:
    door = new_door(pool, objects)
    sent = [transfer(door, str(number), account=f"a-{number % 7}") for number in range(120)]
    receipts: list[BatchReceipt] = []

    def send(seed: int) -> None:
        for begin in range(0, 120, 20):
            part = sent[(begin + 20 * seed) % 120 :][:20]
            receipts.append(door.admit(part[::-1] if seed % 2 else part, f"p-{seed}"))

    threads = [threading.Thread(target=send, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(receipts) == 24
    assert sum(receipt.count(ADMIT) for receipt in receipts) == 120
    assert sum(receipt.count(DUPLICATE) for receipt in receipts) == 360
    assert len(in_log(door.traffic)) == 120
    assert balanced(door).sent_count == 480


def test_what_an_operator_sends_again_is_on_record(pool: Pool, objects: ObjectStore) -> None:
    door = new_door(pool, objects)
    door.admit([transfer(door, "1", event_type="other")], "test")
    with pool.connection() as connection:
        (record,) = read_quarantine(connection, door.gate.pins)
    assert ended(replay_record(door, record, "somebody", "looked at it", "2026-01-02T00:00:00Z")) == ["UNKNOWN_EVENT_TYPE"]
    # the pack knows the type now
    wider_pack = PACK.model_copy(update={"events": {**PACK.events, "other": PACK.events["transfer"]}})
    wider = open_door(pool, door.traffic, door.context, objects, door.gate.pins, class_map_of(wider_pack, has_context=True))
    receipt = replay_record(wider, record, "somebody", "the pack knows it now", "2026-01-03T00:00:00Z")
    assert ended(receipt) == ["ADMIT"]
    assert ended(replay_record(wider, record, "somebody", "again", "2026-01-04T00:00:00Z")) == ["DUPLICATE"]
    with pool.connection() as connection:
        assert quarantined_record(connection, door.gate.pins, record.quarantine_id).replays == 3
        with pytest.raises(UnknownReceipt, match="has no record 999999 in quarantine"):
            quarantined_record(connection, door.gate.pins, 999_999)
        other = new_door(pool, objects)
        with pytest.raises(UnknownReceipt, match="no record"):
            quarantined_record(connection, other.gate.pins, record.quarantine_id)
    facts = [fact.fact for fact in read_facts(pool, "quarantine_replayed", about=f"quarantine/{record.quarantine_id}")]
    assert [(fact.outcome, fact.reason) for fact in facts if fact.fact == "quarantine_replayed"] == [
        (DUPLICATE, "again"),
        (ADMIT, "the pack knows it now"),
        (QUARANTINE, "looked at it"),
    ]


def test_a_kept_record_that_is_gone_or_changed_is_told(pool: Pool, objects: ObjectStore, tmp_path: Path) -> None:
    door = new_door(pool, objects)
    door.admit([transfer(door, "1", event_type="other"), transfer(door, "2", event_type="other")], "test")
    with pool.connection() as connection:
        records = read_quarantine(connection, door.gate.pins)
    path = tmp_path / "objects" / str(records[0].object_path).partition("#")[0]
    assert [kept_record(objects, record)["event_id"] for record in records] == ["2", "1"]
    path.write_bytes(path.read_bytes().replace(b'"1"', b'"3"'))
    with pytest.raises(UnknownReceipt, match="is not what its name says"):
        kept_record(objects, records[0])
    path.unlink()
    with pytest.raises(UnknownReceipt, match=r"is not in .*restore it"):
        kept_record(objects, records[0])


def test_batches_that_are_none_are_refused(pool: Pool, objects: ObjectStore) -> None:
    door = new_door(pool, objects)
    with pytest.raises(IngressRefused, match="from 1 to 10,000 records, and this one has 0"):
        door.admit([], "test")
    with pytest.raises(IngressRefused, match="10,001"):
        door.admit([transfer(door, "1")] * (MOST_RECORDS + 1), "test")
    for name in ("", "a till", "4111111111111111"):
        with pytest.raises(IngressRefused, match="a producer's name has"):
            door.admit([transfer(door, "1")], name)
    with pytest.raises(IngressRefused, match="1 times of admission for 2 records"):
        door.admit([transfer(door, "1"), transfer(door, "2")], "test", [0])
    with pool.connection() as connection:
        assert read_batches(connection, door.gate.pins) == []
        with pytest.raises(UnknownReceipt, match="has no batch 999999"):
            read_receipts(connection, door.gate.pins, 999_999, ("t", None))


def test_declared_times_are_those_of_the_records(pool: Pool, objects: ObjectStore) -> None:
    door = new_door(pool, objects)
    door.admit([transfer(door, "1"), transfer(door, "2"), link(door, "3")], "test", [50, 60, 70])
    assert door.context is not None
    (part,) = [part for part in door.traffic.ends().partitions if order(part.offset)]
    batch = door.traffic.read(part.partition_id, door.traffic.position_kind.start(part.partition_id), 10)
    assert dict(zip(batch.event_ids, batch.admitted_at.tolist(), strict=True)) == {"1": 50, "2": 60}
    assert door.context.read("0000", door.context.position_kind.start("0000"), 10).admitted_at.tolist() == [70]


def test_a_store_that_is_away_leaves_nothing_half_done(pool: Pool, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    door = new_door(pool, objects)

    def away(*_: object) -> bool:
        raise ObjectStoreUnavailable("no space")

    sent: Sequence[Sent] = [transfer(door, "1"), transfer(door, "2", event_type="other")]
    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "put_same", away)
        with pytest.raises(ObjectStoreUnavailable):
            door.admit(sent, "test")
    assert in_log(door.traffic) == []
    assert ended(door.admit(sent, "test")) == ["ADMIT", "UNKNOWN_EVENT_TYPE"]
    assert balanced(door).sent_count == 2


def test_a_log_that_is_not_settled_takes_nothing(pool: Pool, objects: ObjectStore) -> None:
    door = new_door(pool, objects)
    with pool.connection() as connection:
        connection.execute("UPDATE ofp.log_stream SET server = NULL WHERE stream_name = %s", (door.traffic.stream_name,))
    with pytest.raises(LogUnavailable, match="was promoted or put back"):
        door.admit([transfer(door, "1")], "test")
    door.traffic.begin_incarnation("settled")
    assert ended(door.admit([transfer(door, "1")], "test")) == ["ADMIT"]
    balanced(door)


def test_the_reconciliation_tells_each_difference(pool: Pool, objects: ObjectStore, module_dsn: str) -> None:
    door = new_door(pool, objects)
    door.admit([transfer(door, str(number)) for number in range(5)], "test")
    assert door.traffic.append([transfer(door, "around-the-door")]).appended == 1
    with pool.connection() as connection:
        result = reconcile_ingress(connection, door.gate.pins, door.class_map, door.traffic, door.context)
    assert (result.admitted_count, result.in_log, result.differing) == (5, 5, 1)
    assert result.differences[0].endswith(": a record of the run that ingress has not admitted")
    with psycopg.connect(module_dsn, autocommit=True) as connection:  # as the owner, who may
        connection.execute("UPDATE ofp.admitted_event SET payload_hash = %s WHERE record_offset = 1", (bytes(32),))
        connection.execute("DELETE FROM ofp.admitted_event WHERE record_offset = 2")
        connection.execute("UPDATE ofp.admitted_event SET record_offset = 90 WHERE record_offset = 3")
        result = reconcile_ingress(connection, door.gate.pins, door.class_map, door.traffic, door.context)
        words = " | ".join(result.differences)
        assert "/1: another event, or payload, than was admitted there" in words
        assert "/2: a record of the run that ingress has not admitted" in words
        assert "/3: a record of the run that ingress has not admitted" in words
        assert result.later == 1  # behind the end that was read: told by the count
        connection.execute("UPDATE ofp.admission_batch SET admitted = admitted - 1, duplicates = duplicates + 1")
        result = reconcile_ingress(connection, door.gate.pins, door.class_map, door.traffic, door.context)
        assert any("its counters say" in one for one in result.differences)


def test_known_events_are_looked_up_one_by_one(dsn: str, objects: ObjectStore) -> None:
    with open_pool(dsn, max_size=1) as own:
        door = new_door(own, objects)
        door.admit([transfer(door, f"e-{number}", account=f"a-{number}") for number in range(5_000)], "test")
        before = rows_read(own, ["admitted_event"])["admitted_event"]
        for number in range(7):
            door.admit([transfer(door, f"e-{number}", account=f"a-{number}"), transfer(door, f"n-{number}")], "test")
        assert rows_read(own, ["admitted_event"])["admitted_event"] - before < 7 * 20


def test_another_log_is_refused_in_words(pool: Pool, objects: ObjectStore) -> None:
    door = new_door(pool, objects)

    class Another:
        stream_name = "x"

    with pytest.raises(IngressRefused, match="no door leads into such streams"):
        open_door(pool, Another(), None, objects, door.gate.pins, CLASSES)  # type: ignore[arg-type]


def test_reasons_are_those_of_the_log_and_of_the_door() -> None:
    of_log = {reason.value for reason in RefusalReason} - {"LOG_UNAVAILABLE"}
    assert of_log < {reason.value for reason in QuarantineReason}
