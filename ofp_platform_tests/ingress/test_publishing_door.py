"""The door to a log that somebody else keeps: whatever becomes of a request, each event is in the log once, with one receipt."""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import count
from typing import Any, cast

import boto3
import psycopg
import pytest
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ofp_platform.ingress.batches import BatchReceipt, IdempotencyKey, IngressRefused, KeyReused, SentBatch
from ofp_platform.ingress.class_map import class_map_of
from ofp_platform.ingress.door import columns_of
from ofp_platform.ingress.open_door import open_door
from ofp_platform.ingress.publish_rows import PublishUnsettled, count_on_their_way
from ofp_platform.ingress.publishing_door import HEADS_SECONDS, Heads, PublishingDoor, _Sending
from ofp_platform.ingress.receipts import read_batches, read_receipts
from ofp_platform.ingress.reconciliation import IngressReconciliation, reconcile_ingress
from ofp_platform.ingress.settlement import Settled
from ofp_platform.ingress.verdicts import without_copies
from ofp_platform.log.kafka import KafkaLog, _Placed
from ofp_platform.log.kafka_settings import KafkaSettings
from ofp_platform.log.kinesis import KinesisLog
from ofp_platform.log.port import EventLog, LogUnavailable, RecordRefusal, RefusalReason
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.registry.pack import shipped_pack
from ofp_platform.storage.objects import ObjectStore, ObjectStoreUnavailable
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.telemetry.event_spans import Interval
from ofp_platform.vocabulary.admission_receipt import AdmissionOutcome
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform_tests.log.conftest import FakeKinesis
from ofp_platform_tests.oracle.failover import end_sessions

ADMIT, DUPLICATE, QUARANTINE = AdmissionOutcome
CLASSES = class_map_of(shipped_pack("mule_rings"), has_context=True)
LOST = ReadTimeoutError(endpoint_url="kinesis")
NEVER_SENT = EndpointConnectionError(endpoint_url="kinesis")
_runs = count()


class LosingKinesis(FakeKinesis):
    """Its answers to PutRecords are lost on order, behind what it took."""

    def __init__(self) -> None:
        super().__init__()
        self.lost: deque[Exception | None] = deque()

    def put_records(self, **arguments: Any) -> dict[str, Any]:
        answer = super().put_records(**arguments)
        error = self.lost.popleft() if self.lost else None
        if error is not None:
            raise error
        return answer


def kinesis_log(client: Any, name: str, key: str = "payload.account_id", shards: int = 2) -> KinesisLog:
    log = KinesisLog(client, name, key, attempts=3, sleep=lambda _: None)
    log._client.create_stream(StreamName=name, ShardCount=shards)
    return log


def door_to(pool: Pool, objects: ObjectStore, traffic: EventLog, context: EventLog | None = None) -> PublishingDoor:
    pins = ContextPins(scenario_id="s", run_id=f"p-{next(_runs)}", manifest_fingerprint="0" * 64, parameter_hash="1" * 64)
    door = open_door(pool, traffic, context, objects, pins, CLASSES)
    assert isinstance(door, PublishingDoor)
    return door


@pytest.fixture
def client() -> LosingKinesis:
    return LosingKinesis()


@pytest.fixture
def door(pool: Pool, objects: ObjectStore, client: LosingKinesis) -> PublishingDoor:
    return door_to(pool, objects, kinesis_log(client, "traffic"))


def event(door: PublishingDoor, event_id: str, account: str = "a", amount: int = 100) -> dict[str, Any]:
    return {
        "event_id": event_id,
        "event_type": "transfer",
        "schema_version": "v1",
        "ts_utc": "2026-01-01T00:00:00Z",
        **door.gate.pins.wire(),
        "payload": {"account_id": account, "amount_minor": amount, "counterparty_id": "p"},
    }


def link(door: PublishingDoor, event_id: str) -> dict[str, Any]:
    payload = {"key_type": "account", "member": "b", "canonical": "a", "effective_time_utc": "2026-01-01T00:00:00Z"}
    return {**event(door, event_id), "event_type": "identity_link", "payload": payload}


def ended(receipt: BatchReceipt) -> list[str]:
    return [outcome.outcome.value for outcome in receipt.outcomes]


def in_log(log: EventLog) -> Counter[str]:
    """How often each event stands in a log."""
    found: Counter[str] = Counter()
    for info in log.partitions():
        at = None
        while True:
            batch = log.read(info.partition_id, at, 1_000)
            found.update(batch.event_ids)
            if batch.next == at:
                break
            at = batch.next
    return found


def balanced(door: PublishingDoor) -> IngressReconciliation:
    result = reconciled(door)
    assert result.differences == []
    assert result.sent_count == result.admitted_count + result.duplicate_count + result.quarantined_count
    return result


def reconciled(door: PublishingDoor) -> IngressReconciliation:
    with door.pool.connection() as connection:
        return reconcile_ingress(connection, door.gate.pins, door.class_map, door.traffic, door.context)


def on_their_way(door: PublishingDoor) -> tuple[int, int]:
    with door.pool.connection() as connection:
        return count_on_their_way(connection, pins_digest(door.gate.pins))


def note(door: PublishingDoor, *events: Mapping[str, Any]) -> _Sending:
    """Note a batch as a publisher does that is gone then."""
    with door.pool.connection() as connection:
        noted = door._note(connection, SentBatch(events, "gone"), without_copies(door.gate.examine(events)))
    assert isinstance(noted, _Sending)
    return noted


def aged(door: PublishingDoor, hours: int) -> None:
    """What was noted was so that much earlier, by the clock of the database."""
    with door.pool.connection() as connection:
        connection.execute("UPDATE ofp.admission_publish SET begun_at = begun_at - %s", (hours * 3_600_000_000,))


def test_each_record_gets_a_receipt_with_its_sequence_number(pool: Pool, objects: ObjectStore, client: LosingKinesis) -> None:
    traffic, context = kinesis_log(client, "traffic"), kinesis_log(LosingKinesis(), "links", "payload.member", 1)
    door = door_to(pool, objects, traffic, context)
    events = [event(door, "1"), event(door, "2", "b"), event(door, "1"), event(door, "1", amount=5), link(door, "1")]
    receipt = door.admit([*events, {"event_id": "8"}], "test")
    assert ended(receipt) == ["ADMIT", "ADMIT", "DUPLICATE", "QUARANTINE", "ADMIT", "QUARANTINE"]
    positions = [outcome.position for outcome in receipt.outcomes]
    assert all(isinstance(at.offset, str) for at in positions if at is not None)
    assert positions[0] == positions[2] == positions[3]
    assert positions[4] is not None
    assert positions[4].is_context
    assert in_log(traffic) == Counter("12")
    assert in_log(context) == Counter("1")
    again = door.admit(events, "test")
    assert ended(again) == ["DUPLICATE", "DUPLICATE", "DUPLICATE", "QUARANTINE", "DUPLICATE"]
    assert [outcome.position for outcome in again.outcomes] == positions[:5]
    with pool.connection() as connection:
        stored = read_receipts(connection, door.gate.pins, receipt.batch_id, door.streams)
    assert [one.position and one.position.offset for one in stored] == [at and at.offset for at in positions]
    result = balanced(door)
    assert (result.sent_count, result.admitted_count, result.in_log) == (11, 3, 3)
    assert on_their_way(door) == (0, 0)


def test_a_lost_answer_is_found_in_the_log_and_nothing_is_sent_again(door: PublishingDoor, client: LosingKinesis) -> None:
    key = IdempotencyKey("k", b"\0" * 32)
    batch = [event(door, "1"), event(door, "2"), {"event_id": "broken"}]
    client.lost.append(LOST)
    with pytest.raises(PublishUnsettled):
        door.admit(batch, "test", idempotency_key=key)
    assert on_their_way(door) == (0, 2)
    calls = sum(name == "put_records" for name, _ in client.calls)
    receipt = door.admit(batch, "test", idempotency_key=key)
    assert receipt.repeated
    assert ended(receipt) == ["ADMIT", "ADMIT", "QUARANTINE"]
    assert sum(name == "put_records" for name, _ in client.calls) == calls
    assert in_log(door.traffic) == Counter("12")
    assert balanced(door).quarantined_count == 1
    with pytest.raises(KeyReused):
        door.admit(batch, "test", idempotency_key=IdempotencyKey("k", b"\1" * 32))


def test_without_a_key_what_was_found_is_a_duplicate_of_itself(door: PublishingDoor, client: LosingKinesis) -> None:
    client.lost.append(LOST)
    with pytest.raises(PublishUnsettled):
        door.admit([event(door, "1")], "test")
    receipt = door.admit([event(door, "1"), event(door, "2")], "test")
    assert ended(receipt) == ["DUPLICATE", "ADMIT"]
    with door.pool.connection() as connection:
        assert [(row.records, row.admitted) for row in read_batches(connection, door.gate.pins)] == [(2, 1), (1, 1)]
    assert balanced(door).admitted_count == 2


def test_what_is_not_in_the_log_is_released_when_it_cannot_come_any_more(door: PublishingDoor, client: LosingKinesis) -> None:
    client.errors.append(("put_records", LOST))
    with pytest.raises(PublishUnsettled):
        door.admit([event(door, "1")], "test")
    with pytest.raises(PublishUnsettled):  # nobody sends it as long as it may come
        door.admit([event(door, "1")], "test")
    assert in_log(door.traffic) == Counter()
    assert any("PUBLISH_AMBIGUOUS" in words for words in reconciled(door).differences)
    assert door.settler.settle() == Settled(ambiguous_count=1)
    assert replace(door.settler, late_seconds=0.0).settle() == Settled(released_count=1)
    assert ended(door.admit([event(door, "1")], "test")) == ["ADMIT"]
    assert in_log(door.traffic) == Counter("1")
    balanced(door)


def test_a_batch_of_which_half_was_taken_is_sent_again_without_that_half(door: PublishingDoor, client: LosingKinesis) -> None:
    key = IdempotencyKey("k", b"\0" * 32)
    batch = [event(door, f"e-{number}") for number in range(700)]  # two requests: 500 and 200
    first = client.put_records

    def second_is_lost(**arguments: Any) -> dict[str, Any]:
        if len(arguments["Records"]) == 200:
            raise LOST
        return first(**arguments)

    client.put_records = second_is_lost  # type: ignore[method-assign]
    with pytest.raises(PublishUnsettled):
        door.admit(batch, "test", idempotency_key=key)
    client.put_records = first  # type: ignore[method-assign]
    assert on_their_way(door) == (0, 700)
    assert replace(door.settler, late_seconds=0.0).settle() == Settled(admitted_count=500, released_count=200)
    assert Counter(ended(door.admit(batch, "test", idempotency_key=key))) == {"DUPLICATE": 500, "ADMIT": 200}
    assert set(in_log(door.traffic).values()) == {1}
    assert balanced(door).admitted_count == 700


def test_what_was_refused_for_certain_is_not_ambiguous(door: PublishingDoor, client: LosingKinesis) -> None:
    client.refused_entries.extend([{0}, set()])
    assert ended(door.admit([event(door, "1"), event(door, "2")], "test")) == ["ADMIT", "ADMIT"]
    client.refused_entries.extend([{1}] + [{0}] * 2)  # to the last attempt
    with pytest.raises(LogUnavailable, match="ProvisionedThroughputExceeded"):
        door.admit([event(door, "3"), event(door, "4")], "test")
    assert on_their_way(door) == (0, 0)
    client.errors.extend([("put_records", NEVER_SENT)] * 3)
    with pytest.raises(LogUnavailable, match="EndpointConnectionError"):
        door.admit([event(door, "4")], "test")
    client.errors.extend([("put_records", client.error("AccessDeniedException"))])
    with pytest.raises(LogUnavailable, match="AccessDenied"):
        door.admit([event(door, "4")], "test")
    assert on_their_way(door) == (0, 0)
    assert ended(door.admit([event(door, "3"), event(door, "4")], "test")) == ["DUPLICATE", "ADMIT"]
    assert in_log(door.traffic) == Counter("1234")
    balanced(door)


def test_a_fault_of_the_service_within_an_answer_is_not_known(door: PublishingDoor, client: LosingKinesis) -> None:
    first = client.put_records

    def half(**arguments: Any) -> dict[str, Any]:
        answer = first(**arguments)
        answer["Records"][1] = {"ErrorCode": "InternalFailure", "ErrorMessage": "secret"}
        return answer

    client.put_records = half  # type: ignore[method-assign]
    with pytest.raises(PublishUnsettled):
        door.admit([event(door, "1"), event(door, "2")], "test")
    client.put_records = first  # type: ignore[method-assign]
    assert ended(door.admit([event(door, "1"), event(door, "2")], "test")) == ["DUPLICATE", "DUPLICATE"]
    assert in_log(door.traffic) == Counter("12")
    balanced(door)


@pytest.mark.parametrize("was_sent", [True, False])
def test_a_publisher_that_is_gone_is_settled_by_another_door(door: PublishingDoor, was_sent: bool) -> None:
    sending = note(door, event(door, "1"), event(door, "2"))
    assert on_their_way(door) == (2, 0)
    assert reconciled(door).differences == []
    if was_sent:
        door._send(sending)
        assert (reconciled(door).in_flight, reconciled(door).differences) == (2, [])
    with pytest.raises(PublishUnsettled):  # who noted it just now is about to send it
        door.admit([event(door, "2")], "test")
    assert on_their_way(door) == (2, 0)
    settled = replace(door.settler, late_seconds=0.0).settle()
    assert settled == (Settled(admitted_count=2) if was_sent else Settled(released_count=2))
    assert ended(door.admit([event(door, "2")], "test")) == ["DUPLICATE" if was_sent else "ADMIT"]
    balanced(door)


def test_what_was_given_up_is_not_sent_by_who_noted_it(door: PublishingDoor) -> None:
    sending = note(door, event(door, "1"))
    door.settler.settle()
    with door.pool.connection() as connection, pytest.raises(PublishUnsettled):
        door._publish(connection, sending, Interval())
    assert in_log(door.traffic) == Counter()


def test_more_batches_than_are_looked_at_at_once_are_all_settled(door: PublishingDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ofp_platform.ingress.settlement._AT_ONCE", 2)
    for number in range(5):
        note(door, event(door, f"{number}"))
    assert door.settler.settle() == Settled(ambiguous_count=5)
    assert replace(door.settler, late_seconds=0.0).settle() == Settled(released_count=5)


def test_a_shard_that_was_split_meanwhile_is_read_in_its_children(door: PublishingDoor, client: LosingKinesis) -> None:
    door.admit([event(door, "1")], "test")
    sending = note(door, *(event(door, f"e-{number}", f"a-{number}") for number in range(20)))
    for shard in list(client.shards):
        client.split(shard)
    door._send(sending)
    assert door.settler.settle() == Settled(admitted_count=20)
    balanced(door)


def test_where_the_log_does_not_lead_any_more_an_operator_releases(door: PublishingDoor, client: LosingKinesis) -> None:
    door.admit([event(door, f"e-{number}") for number in range(30)], "test")
    note(door, event(door, "1"))
    client.pass_time(hours=1)
    client.put("a", b"{}")
    client.pass_time(hours=24)
    aged(door, 25)
    settled = replace(door.settler, late_seconds=0.0).settle()
    assert (settled.admitted_count, settled.released_count, settled.ambiguous_count) == (0, 0, 1)
    assert len(settled.problems) == 1
    released = door.settler.settle(release_unread=True)
    assert (released.released_count, released.ambiguous_count) == (1, 0)
    assert ended(door.admit([event(door, "1")], "test")) == ["ADMIT"]


def test_of_a_stream_that_can_be_read_nothing_is_released_with_the_other(
    pool: Pool, objects: ObjectStore, client: LosingKinesis
) -> None:
    links = LosingKinesis()
    door = door_to(pool, objects, kinesis_log(client, "traffic"), kinesis_log(links, "links", "payload.member", 1))
    door.admit([event(door, "0"), link(door, "0")], "test")
    sending = note(door, event(door, "1"), link(door, "1"))
    door.traffic.publish(columns_of(sending.new, None, is_context=False)[1], None)
    links.pass_time(hours=1)
    links.put("a", b"{}")
    links.pass_time(hours=24)
    aged(door, 25)
    settled = door.settler.settle()
    assert (settled.admitted_count, settled.ambiguous_count, len(settled.problems)) == (0, 2, 1)
    released = door.settler.settle(release_unread=True)
    assert (released.admitted_count, released.released_count, released.ambiguous_count) == (1, 1, 0)
    assert ended(door.admit([event(door, "1")], "test")) == ["DUPLICATE"]
    assert in_log(door.traffic) == Counter("01")


def test_heads_are_asked_for_again_before_their_records_are_gone(door: PublishingDoor, client: LosingKinesis) -> None:
    now = [0.0]
    old = replace(door, heads=Heads(lambda: now[0]), late_seconds=0.0)
    old.admit([event(door, f"e-{number}", f"a-{number}") for number in range(20)], "test")
    client.pass_time(hours=30)  # everything that the heads name is gone
    now[0] = HEADS_SECONDS + 1
    client.lost.append(LOST)
    with pytest.raises(PublishUnsettled):
        old.admit([event(door, "late")], "test")
    assert old.settler.settle() == Settled(admitted_count=1)


def test_one_event_of_many_doors_is_sent_by_one(pool: Pool, objects: ObjectStore, client: LosingKinesis) -> None:
    door = door_to(pool, objects, kinesis_log(client, "traffic"))
    others = [door_to_same(pool, objects, door) for _ in range(3)]
    batch = [event(door, f"e-{number}") for number in range(20)]
    outcomes: Counter[str] = Counter()
    start = threading.Barrier(4)

    def send(one: PublishingDoor) -> None:
        start.wait()
        while True:
            try:
                outcomes.update(ended(one.admit(batch, "test")))
            except PublishUnsettled:
                continue
            return

    threads = [threading.Thread(target=send, args=(one,)) for one in (door, *others)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == {"ADMIT": 20, "DUPLICATE": 60}
    assert set(in_log(door.traffic).values()) == {1}
    balanced(door)


def door_to_same(pool: Pool, objects: ObjectStore, door: PublishingDoor) -> PublishingDoor:
    other = open_door(pool, door.traffic, None, objects, door.gate.pins, CLASSES)
    assert isinstance(other, PublishingDoor)
    return other


Fault = tuple[str, int]
FAULTS = st.lists(
    st.tuples(st.sampled_from(["lost", "not sent", "before", "throttled", "gone", "gone behind"]), st.integers(0, 2)), max_size=6
)
BATCHES = st.lists(st.lists(st.integers(0, 12), min_size=1, max_size=6), min_size=1, max_size=6)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(batches=BATCHES, faults=FAULTS)
def test_each_event_is_in_the_log_once_whatever_fails(
    pool: Pool, objects: ObjectStore, batches: list[list[int]], faults: list[Fault]
) -> None:
    client = LosingKinesis()
    door = replace(door_to(pool, objects, kinesis_log(client, "traffic")), late_seconds=0.0)
    waiting = deque(faults)
    sent: set[str] = set()
    for number, batch in enumerate(batches):
        events = [event(door, f"e-{one}", f"a-{one % 3}") for one in batch]
        sent.update(one["event_id"] for one in events)
        key = IdempotencyKey(f"k-{number}", b"\0" * 32) if number % 2 else None
        for _ in range(20):
            if waiting:
                client.errors.clear()
                _arm(door, client, *waiting.popleft(), events)
            try:
                receipt = door.admit(events, "test", idempotency_key=key)
                break
            except LogUnavailable:
                door.settler.settle()
        assert {outcome.outcome for outcome in receipt.outcomes} <= {ADMIT, DUPLICATE}
    client.errors.clear()
    client.lost.clear()
    door.settler.settle()
    assert on_their_way(door) == (0, 0)
    assert in_log(door.traffic) == Counter(sent)
    assert balanced(door).admitted_count == len(sent)


def _arm(door: PublishingDoor, client: LosingKinesis, kind: str, number: int, events: Sequence[Mapping[str, Any]]) -> None:
    match kind:
        case "lost":
            client.lost.extend([None] * number + [LOST])
        case "not sent":
            client.errors.extend([("put_records", NEVER_SENT)] * (number + 1))
        case "before":
            client.errors.append(("put_records", LOST))
        case "throttled":
            client.refused_entries.extend([{number}] * (number + 1))
        case _:
            with door.pool.connection() as connection:
                noted = door._note(connection, SentBatch(events, "gone"), without_copies(door.gate.examine(events)))
            if isinstance(noted, _Sending) and kind == "gone behind":
                door._send(noted)


def test_a_door_that_forgets_is_found_out(door: PublishingDoor, client: LosingKinesis) -> None:
    """The negative control: what nobody knows of is released at once, without a look at the log."""
    client.lost.append(LOST)
    with pytest.raises(PublishUnsettled):
        door.admit([event(door, "1")], "test")
    with door.pool.connection() as connection:
        connection.execute("DELETE FROM ofp.admission_publish_record")
        connection.execute("DELETE FROM ofp.admission_publish")
    assert ended(door.admit([event(door, "1")], "test")) == ["ADMIT"]
    assert in_log(door.traffic) == Counter({"1": 2})
    assert any("has not admitted" in words for words in reconciled(door).differences)


def test_streams_of_two_kinds_have_no_door(pool: Pool, objects: ObjectStore, client: LosingKinesis) -> None:
    traffic = kinesis_log(client, "traffic")
    links = PostgresLog.create(pool, "links-beside-kinesis", 1, "payload.member")
    with pytest.raises(IngressRefused, match="both are in PostgreSQL, or both are published to"):
        door_to(pool, objects, traffic, links)


def test_a_group_is_admitted_one_by_one(door: PublishingDoor) -> None:
    from ofp_platform.log.group_commit import GroupCommit

    together = GroupCommit(door.admit_group)
    batches = [SentBatch([event(door, "1"), event(door, f"e-{number}")], "test") for number in range(3)]
    assert [ended(together.write(batch, 10)) for batch in batches] == [["ADMIT", "ADMIT"]] + [["DUPLICATE", "ADMIT"]] * 2


def test_on_moto(pool: Pool, objects: ObjectStore, moto_server: str) -> None:
    with closing(boto3.client("kinesis", endpoint_url=moto_server, region_name="us-east-1")) as client:
        door = door_to(pool, objects, KinesisLog.create(client, f"door-{next(_runs)}", 2, "payload.account_id"))
        assert set(ended(door.admit([event(door, f"e-{n}", f"a-{n}") for n in range(40)], "test"))) == {"ADMIT"}
        door._send(note(door, event(door, "late")))
        assert door.settler.settle() == Settled(admitted_count=1)
        assert ended(door.admit([event(door, "late"), event(door, "e-1", "a-1")], "test")) == ["DUPLICATE"] * 2
        assert balanced(door).admitted_count == 41


class DeafKafka(KafkaLog):
    """It does not hear what became of what it sends."""

    is_deaf = False

    def _send(self, batch: Any) -> list[_Placed]:
        outcomes = super()._send(batch)
        if self.is_deaf:
            return [RecordRefusal(place, RefusalReason.LOG_UNAVAILABLE, "deaf") for place in batch.records.places]
        return outcomes


def test_on_kafka(pool: Pool, objects: ObjectStore, kafka_broker: KafkaSettings) -> None:
    with closing(DeafKafka.create(kafka_broker, f"door-{next(_runs)}", 2, "payload.account_id")) as log:
        door = door_to(pool, objects, log)
        first = door.admit([event(door, f"e-{n}", f"a-{n}") for n in range(10)], "test")
        assert set(ended(first)) == {"ADMIT"}
        assert first.outcomes[0].position is not None
        assert first.outcomes[0].position.incarnation is not None
        cast(DeafKafka, log).is_deaf = True
        with pytest.raises(PublishUnsettled):
            door.admit([event(door, "1"), event(door, "2")], "test")
        cast(DeafKafka, log).is_deaf = False
        assert ended(door.admit([event(door, "1"), event(door, "3")], "test")) == ["DUPLICATE", "ADMIT"]
        assert set(in_log(log).values()) == {1}
        assert balanced(door).admitted_count == 13


def test_judged_batches_of_a_part_keep_no_key(door: PublishingDoor) -> None:
    from ofp_platform.ingress.settlement import found_part

    sending = note(door, event(door, "1"), event(door, "2"))
    positions, _, _ = door._send(sending)
    part, by_place = found_part(sending.judgement, {1: positions[1]})
    assert by_place == {0: positions[1]}
    assert found_part(sending.judgement, positions) == (sending.judgement, positions)
    assert [outcome.event_id for outcome in part.outcomes] == ["2"]
    assert part.senders[0].idempotency_key is None
    assert list(part.new) == [0]


def test_a_database_that_goes_between_append_and_receipt_loses_nothing(
    dsn: str, objects: ObjectStore, client: LosingKinesis
) -> None:
    with open_pool(dsn, max_size=2) as own, psycopg.connect(dsn, autocommit=True) as other:
        door = door_to(own, objects, kinesis_log(client, "traffic"))
        put = client.put_records

        def put_and_cut(**arguments: Any) -> dict[str, Any]:
            answer = put(**arguments)
            end_sessions(other, other.info.dbname)
            return answer

        client.put_records = put_and_cut  # type: ignore[method-assign]
        with pytest.raises(LogUnavailable):
            door.admit([event(door, "1"), event(door, "2")], "test")
        client.put_records = put  # type: ignore[method-assign]
        assert on_their_way(door) == (2, 0)
        assert door.settler.settle() == Settled(admitted_count=2)
        assert ended(door.admit([event(door, "1"), event(door, "3")], "test")) == ["DUPLICATE", "ADMIT"]
        assert in_log(door.traffic) == Counter("123")
        assert balanced(door).admitted_count == 3


def test_an_object_store_that_is_full_sends_nothing(door: PublishingDoor, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> bool:
        raise ObjectStoreUnavailable("no space")

    monkeypatch.setattr(ObjectStore, "put_same", full)
    with pytest.raises(ObjectStoreUnavailable):
        door.admit([event(door, "1"), {"event_id": "broken"}], "test")
    assert (in_log(door.traffic), on_their_way(door)) == (Counter(), (0, 0))


def test_a_clock_in_2099_is_admitted_as_it_says(door: PublishingDoor) -> None:
    """The projection says that it comes from the future; what was sent is not lost."""
    receipt = door.admit([{**event(door, "1"), "ts_utc": "2099-01-01T00:00:00Z"}], "test")
    assert ended(receipt) == ["ADMIT"]
