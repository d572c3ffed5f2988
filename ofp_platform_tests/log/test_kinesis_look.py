"""Pages that a wait saw: given out once, to the reads after it, and never for longer than it is true."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import pytest

from ofp_platform.log.kinesis import KinesisLog
from ofp_platform.log.kinesis_look import Look
from ofp_platform.log.kinesis_shards import Interrupted, Page
from ofp_platform.log.port import LogUnavailable, PartitionInfo, PositionTrimmed
from ofp_platform.vocabulary.envelope import Envelope
from ofp_platform.vocabulary.position import Basis, PartitionBasis, make_basis

Event = Callable[..., Envelope]
KEY = "payload.account_id"
SHARDS = [PartitionInfo("a"), PartitionInfo("b")]


def clock(_: Envelope) -> int:
    return 1_700_000_000_000_000


def page(*numbers: str, ended: bool = False) -> Page:
    return Page([{"SequenceNumber": number} for number in numbers], ended, at_head=True)  # type: ignore[typeddict-item]


def numbers(taken: Page | None) -> list[str] | None:
    return None if taken is None else [record["SequenceNumber"] for record in taken.records]


def test_a_page_is_given_out_in_parts_and_once() -> None:
    look = Look()
    look.keep(SHARDS, {("a", ""): page("1", "2", "3", ended=True)}, 0.0)
    assert look.has([("b", ""), ("a", "")])
    first = look.take_page("a", "", 2, 9.0)
    assert (numbers(first), first and first.ended) == (["1", "2"], False)
    assert look.take_page("a", "", 2, 9.0) is None
    rest = look.take_page("a", "2", 2, 9.0)
    assert (numbers(rest), rest and rest.ended) == (["3"], True)
    assert look.take_page("a", "3", 2, 9.0) is None
    assert not look.has([("a", ""), ("a", "2"), ("a", "3")])


def test_a_head_is_one_for_a_while() -> None:
    look = Look()
    for moment, seen in ((0.9, []), (1.0, None)):
        look.keep(SHARDS, {("a", "5"): page()}, 1.0)
        assert numbers(look.take_page("a", "5", 1, moment)) == seen
    look.keep(SHARDS, {("a", "5"): page()}, 1.0)
    look.forget_heads()
    assert look.take_page("a", "5", 1, 0.5) is None


def test_an_empty_page_on_the_way_is_no_head() -> None:
    look = Look()
    look.keep(SHARDS, {("a", "5"): Page([], ended=False, at_head=False)}, 1.0)
    assert look.take_page("a", "5", 1, 0.5) is None


def test_a_list_of_shards_ends_with_a_shard_and_with_its_time() -> None:
    look = Look()
    look.note_listing(SHARDS, 5.0)
    look.keep(SHARDS, {}, 1.0)
    assert (look.listed(4.9), look.listed(5.0)) == (SHARDS, None)
    assert (look.take_shards(), look.take_shards()) == (SHARDS, None)
    look.keep(SHARDS, {}, 1.0)
    look.note("a", page(ended=True), 3.0)
    assert (look.listed(1.0), look.take_shards()) == (None, None)


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def basis_of(log: KinesisLog, known: dict[str, PartitionBasis] | None = None) -> Basis:
    return make_basis(log.stream_name, known or {})


def test_a_record_is_asked_for_once(fake_kinesis: Any, event: Event) -> None:
    time = Time()
    log = KinesisLog.create(fake_kinesis, "payments", 3, KEY, sleep=time.sleep, monotonic=time)
    log.append([event(n) for n in range(30)], clock)
    assert log.wait(basis_of(log), 1.0)
    lag = log.seen_lag()
    assert lag is not None
    assert sum(lag.values()) == 30
    before = len(fake_kinesis.calls)
    assert log.wait(basis_of(log), 1.0)
    known: dict[str, PartitionBasis] = {}
    ids: list[str] = []
    for info in log.partitions():
        start = log.position_kind.start(info.partition_id)
        for part in (start, None):
            batch = log.read(info.partition_id, part or known[info.partition_id], 4 if part else 100)
            known[info.partition_id] = batch.next
            ids += batch.event_ids
    assert sorted(ids) == [f"txn-{n:06d}" for n in range(30)]
    assert len(fake_kinesis.calls) == before
    began = time.now
    assert not log.wait(basis_of(log, known), 2.0)
    assert log.seen_lag() == dict.fromkeys(known, 0)
    asked = [operation for operation, _ in fake_kinesis.calls[before:]]
    assert asked.count("get_records") <= 3 * (time.now - began) / log.poll_seconds
    assert asked.count("list_shards") == 0


def test_what_is_appended_here_is_read_at_once(fake_kinesis: Any, event: Event) -> None:
    log = KinesisLog.create(fake_kinesis, "payments", 2, KEY, sleep=lambda _: None)
    shards = [info.partition_id for info in log.partitions()]
    numbered = {shard: [n for n in range(40) if place(log, event(n)) == shard] for shard in shards}
    log.append([event(numbered[shards[0]][0])], clock)
    assert log.wait(basis_of(log), 1.0)
    log.append([event(numbered[shards[1]][0])], clock)
    batches = [log.read(shard, log.position_kind.start(shard), 10) for shard in shards]
    assert [batch.event_ids for batch in batches] == [[f"txn-{numbered[shard][0]:06d}"] for shard in shards]


def place(log: KinesisLog, event: Envelope) -> str:
    """The shard of an event: a stream of its own that has the same shards tells."""
    (outcome,) = log.append([event.model_copy(update={"event_type": "other"})], clock).placed
    assert isinstance(outcome, tuple)
    name = outcome[0]
    shard = log._client.shards[name]  # type: ignore[attr-defined]
    shard.records.clear()
    return name


def test_a_position_that_reading_refuses_wakes_the_reader(fake_kinesis: Any, event: Event) -> None:
    log = KinesisLog.create(fake_kinesis, "payments", 1, KEY, sleep=lambda _: None)
    log.append([event(n) for n in range(3)], clock)
    (shard,) = [info.partition_id for info in log.partitions()]
    after = log.read(shard, log.position_kind.start(shard), 1).next
    fake_kinesis.trim(shard, 2)
    other = KinesisLog(fake_kinesis, "payments", KEY, sleep=lambda _: None)
    assert other.wait(basis_of(log, {shard: after}), 1.0)
    assert other.seen_lag() is None
    with pytest.raises(PositionTrimmed):
        other.read(shard, after, 1)


def test_children_of_a_split_are_seen_when_their_parent_ends(fake_kinesis: Any, event: Event) -> None:
    log = KinesisLog.create(fake_kinesis, "payments", 1, KEY, sleep=lambda _: None)
    (parent,) = [info.partition_id for info in log.partitions()]
    known = {parent: log.read(parent, log.position_kind.start(parent), 10).next}
    assert not log.wait(basis_of(log, known), 0.0)
    children = fake_kinesis.split(parent)
    log.append([event(n) for n in range(20)], clock)
    assert log.wait(basis_of(log, known), 1.0)
    known[parent] = log.read(parent, known[parent], 10).next
    assert known[parent].closed
    assert log.wait(basis_of(log, known), 1.0)
    assert {info.partition_id for info in log.partitions()} == {parent, *children}
    assert sum(len(log.read(name, log.position_kind.start(name), 100)) for name in children) == 20


@pytest.mark.parametrize("what", ["wait", "retry"])
def test_a_pause_ends_when_the_process_stops(fake_kinesis: Any, what: str) -> None:
    log = KinesisLog.create(fake_kinesis, "payments", 1, KEY, sleep=lambda _: None)
    log = KinesisLog(fake_kinesis, "payments", KEY, poll_seconds=3600.0, attempts=1_000_000)
    if what == "retry":
        throttled = fake_kinesis.error("ProvisionedThroughputExceededException")
        fake_kinesis.errors.extend([("list_shards", throttled)] * 1_000)
    stop = threading.Event()
    timer = threading.Timer(0.05, stop.set)
    with log.pauses_end_with(stop):
        timer.start()
        with pytest.raises(Interrupted, match="this process stops"):
            log.wait(basis_of(log), 7200.0)
    timer.join()
    fake_kinesis.errors.clear()
    assert len(log.partitions()) == 1


def test_closing_ends_pauses(fake_kinesis: Any) -> None:
    KinesisLog.create(fake_kinesis, "payments", 1, KEY, sleep=lambda _: None)
    log = KinesisLog(fake_kinesis, "payments", KEY, poll_seconds=3600.0)
    timer = threading.Timer(0.05, log.close)
    timer.start()
    with pytest.raises(LogUnavailable, match="this process stops"):
        log.wait(basis_of(log), 7200.0)
    timer.join()
