"""Kafka's own: gaps, topics that are made again, records that were not confirmed, places that left or never were."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
from confluent_kafka import Producer

from ofp_platform.log.archive import ArchiveConflict, archive_up_to
from ofp_platform.log.archive_check import cross_check
from ofp_platform.log.archive_reader import ReplayReader
from ofp_platform.log.archive_store import Archive
from ofp_platform.log.archive_verify import verify_partition
from ofp_platform.log.archived_log import ArchivedLog
from ofp_platform.log.kafka import KafkaLog
from ofp_platform.log.kafka_settings import KafkaSettings
from ofp_platform.log.port import LogTailLost, LogUnavailable, PositionTrimmed, PositionUnknown, RefusalReason
from ofp_platform.log.ranges import OffsetRanges, RangeBounds
from ofp_platform.log.span_records import log_batches
from ofp_platform.log.wire_records import wire_records
from ofp_platform.offline.requests.admission_selection import select_admitted
from ofp_platform.offline.requests.replay_resolution import resolve_replay
from ofp_platform.offline.sources.stream_records import StreamRecords
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import open_pool
from ofp_platform.vocabulary.envelope import Envelope
from ofp_platform.vocabulary.offline.build_intent import Offsets
from ofp_platform.vocabulary.offline.build_refusal import BuildRefused
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
from ofp_platform.vocabulary.position import Position, make_basis
from ofp_platform_tests.log.kafka_clusters import MockCluster, MockTopic, transact

KEY = "payload.account_id"
Event = Callable[..., Envelope]


@pytest.fixture
def topic(kafka_mock: MockCluster) -> MockTopic:
    """A new topic of the mock cluster with one partition in use."""
    return kafka_mock.topic(f"topic-{uuid.uuid4().hex}", 1)


@pytest.fixture
def log(kafka_mock: MockCluster, topic: MockTopic) -> Iterator[KafkaLog]:
    """A log on it."""
    with closing(kafka_mock.log(topic.name, 1, KEY, topic)) as opened:
        yield opened


def wire(log: KafkaLog, event: Event, numbers: range) -> list[bytes]:
    return wire_records(log._admission.admit_batch([event(n) for n in numbers], lambda _: 5))


def test_the_basis_moves_over_markers_of_transactions(kafka_mock: MockCluster, log: KafkaLog, event: Event) -> None:
    transact(kafka_mock.settings, log.stream_name, wire(log, event, range(3)))
    log.append([event(3)], lambda _: 5)
    transact(kafka_mock.settings, log.stream_name, wire(log, event, range(4, 6)))
    assert log.ends().partitions[0].offset == 8
    first = log.read("0000", None, 3)
    assert (first.offsets, first.next.offset) == ([0, 1, 2], 3)
    rest = log.read("0000", first.next, 10)
    assert rest.offsets == [4, 5, 6]
    assert [first.event_ids, rest.event_ids] == [[f"txn-{n:06d}" for n in numbers] for numbers in (range(3), range(3, 6))]
    assert rest.next.offset in (7, 8)
    trailing = log.read("0000", rest.next.moved(7), 10)
    assert (len(trailing), trailing.next) == (0, log.ends().partitions[0])
    assert not log.wait(log.ends(), 0)


def test_what_is_archived_has_the_gaps_of_the_log_and_is_read_instead_of_it(
    kafka_mock: MockCluster, log: KafkaLog, topic: MockTopic, event: Event, module_dsn: str, tmp_path: Path
) -> None:
    for start in range(0, 9, 3):
        transact(kafka_mock.settings, log.stream_name, wire(log, event, range(start, start + 3)))
    basis = log.ends()
    assert basis.partitions[0].offset == 12
    (tmp_path / "objects").mkdir()
    archive = Archive(ObjectStore(f"file://{tmp_path / 'objects'}"), log.stream_name)
    with open_pool(module_dsn) as pool:
        receipts = archive_up_to(OffsetRanges(pool, log, 4), archive, basis)
        assert archive_up_to(OffsetRanges(pool, log, 4), archive, basis) == receipts
        assert [bounds.records for bounds in _bounds(OffsetRanges(pool, log, 4))] == [4, 4]
    assert [(receipt.first, receipt.next, receipt.records) for receipt in receipts] == [(0, 5, 4), (5, 10, 4), (10, 12, 1)]
    assert {receipt.contract_version for receipt in receipts} == {"v2"}
    verification = verify_partition(archive, "0000", log.position_kind.offset_kind)
    assert (verification.records, verification.problems) == (9, ())
    in_front = ArchivedLog(log, lambda: archive)
    whole = [offset for batch in log_batches(log, ReplayBasis.up_to(basis).partitions[0], 100) for offset in batch.offsets]
    topic.starts = lambda: [12]  # type: ignore[method-assign]
    at, offsets = log.position_kind.start("0000"), []
    in_front.demand(make_basis(log.stream_name, {}))
    while at != basis.partitions[0]:
        batch = in_front.read("0000", at, 3)
        offsets += batch.offsets
        at = batch.next
    assert offsets == whole == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    topic.looked = replace(topic.looked, topic_id="another")  # what it trimmed is not what was archived
    with pytest.raises(LogTailLost, match="the archive is of topic"):
        ArchivedLog(log, lambda: archive).read("0000", log.position_kind.start("0000"), 3)
    topic.starts = lambda: [0]  # type: ignore[method-assign]
    with open_pool(module_dsn) as pool, pytest.raises(ArchiveConflict, match="made again"):
        archive_up_to(OffsetRanges(pool, log, 4), archive, log.ends())
    topic.ends = lambda: [11]  # type: ignore[method-assign]
    topic.starts = lambda: [0]  # type: ignore[method-assign]
    with pytest.raises(LogTailLost, match="ends at 11"):
        ArchivedLog(log, lambda: archive).demand(make_basis(log.stream_name, {}))


def _bounds(ranges: OffsetRanges) -> list[RangeBounds]:
    return [bounds for name, closed in ranges.closed().items() for bounds in ranges.closed_bounds(name, closed)]


def test_a_tombstone_and_what_is_no_envelope_are_unreadable(kafka_mock: MockCluster, log: KafkaLog, event: Event) -> None:
    producer = Producer(kafka_mock.settings.producer())
    for value in (None, b"not JSON", wire(log, event, range(1))[0]):
        producer.produce(log.stream_name, value, partition=0)
    producer.flush(10)
    batch = log.read("0000", None, 10)
    assert (batch.offsets, [record.offset for record in batch.unreadable]) == ([2], [0, 1])


def test_a_topic_that_is_made_again_is_another_history(log: KafkaLog, topic: MockTopic, event: Event) -> None:
    log.append([event(0), event(1)], lambda _: 5)
    old = log.read("0000", None, 1)
    topic.looked = replace(topic.looked, topic_id="another")
    with pytest.raises(LogTailLost, match="made again"):
        log.read("0000", old.next, 10)
    with pytest.raises(LogTailLost, match="made again"):
        log.demand(log._basis([2]).model_copy(update={"partitions": (old.next,)}))
    anew = log.read("0000", None, 1)
    assert anew.next.offset == old.next.offset
    assert anew.next != old.next


def test_a_broker_gives_each_topic_its_own_history(kafka_broker: KafkaSettings, event: Event) -> None:
    name = f"topic-{uuid.uuid4().hex}"
    with closing(KafkaLog.create(kafka_broker, name, 1, KEY)) as log:
        log.append([event(0)], lambda _: 5)
        basis = log.ends()
        admin = log._topic._admin  # type: ignore[attr-defined]
        (future,) = admin.delete_topics([name]).values()
        future.result(10)
        with closing(KafkaLog.create(kafka_broker, name, 1, KEY)) as again:
            again.append([event(1)], lambda _: 5)
            for handle in (log, again):
                with pytest.raises(LogTailLost, match="made again"):
                    handle.read("0000", basis.partitions[0], 10)
                assert handle.read("0000", None, 10).event_ids == ["txn-000001"]


def test_what_is_appended_while_the_topic_is_made_anew_is_not_confirmed(log: KafkaLog, topic: MockTopic, event: Event) -> None:
    look, looks = topic.look, []

    def changing() -> object:
        looks.append(look())
        return replace(looks[-1], topic_id=str(len(looks)))

    topic.look = changing  # type: ignore[method-assign, assignment]
    [refusal] = log.append([event(0)], lambda _: 5).refusals
    assert (refusal.reason, "made anew" in refusal.message) == (RefusalReason.LOG_UNAVAILABLE, True)


def test_what_is_not_confirmed_in_time_is_refused_and_may_count(
    monkeypatch: pytest.MonkeyPatch, topic: MockTopic, event: Event
) -> None:
    monkeypatch.setattr("ofp_platform.log.kafka_settings.ANSWER_SECONDS", 0.3)
    with closing(KafkaLog(KafkaSettings("127.0.0.1:1"), topic.name, 1, KEY, topic=topic)) as log:
        receipt = log.append([event(0), {}, event(1)], lambda _: 5)
    assert [refusal.index for refusal in receipt.refusals] == [0, 1, 2]
    assert {refusal.reason for refusal in receipt.refusals if refusal.index != 1} == {RefusalReason.LOG_UNAVAILABLE}


def test_a_cluster_that_is_away_when_the_append_begins_refuses_it(log: KafkaLog, topic: MockTopic, event: Event) -> None:
    topic.errors = [LogUnavailable("away")]
    [refusal] = log.append([event(0)], lambda _: 5).refusals
    assert (refusal.reason, refusal.message) == (RefusalReason.LOG_UNAVAILABLE, "away")
    assert [isinstance(outcome, Position) for outcome in log.append([event(0)], lambda _: 5).outcomes] == [True]


def test_records_without_a_time_of_the_broker_are_refused_where_it_is_no_broker_to_develop_on(
    kafka_mock: MockCluster, topic: MockTopic, event: Event
) -> None:
    settings = replace(kafka_mock.settings, is_development=False)
    producer = Producer(settings.producer())
    with closing(KafkaLog(settings, topic.name, 1, KEY, topic=topic)) as log:
        for clock in (None, lambda _: 7):
            [data] = wire_records(log._admission.admit_batch([event(0)], clock))
            producer.produce(log.stream_name, data, partition=0, timestamp=1_000)
        producer.flush(10)
        batch = log.read("0000", None, 10)
    assert [(record.offset, record.reason) for record in batch.unreadable] == [(0, RefusalReason.INVALID_TIME)]
    assert (batch.offsets, batch.admitted_at.tolist()) == ([1], [7])


def test_a_position_that_left_is_refused_and_one_that_never_was(log: KafkaLog, topic: MockTopic, event: Event) -> None:
    log.append([event(n) for n in range(5)], lambda _: 5)
    at = log.read("0000", None, 2).next
    assert log.retention_used(log._basis([2])) == {"0000": pytest.approx(0, abs=0.01)}
    topic.starts = lambda: [3]  # type: ignore[method-assign]
    with pytest.raises(PositionTrimmed, match="kept from offset 3 on; 2 is gone"):
        log.read("0000", at, 10)
    with pytest.raises(PositionTrimmed):
        log.demand(log._basis([2]))
    assert log.read("0000", None, 10).offsets == [3, 4]
    assert log.retention_used(log._basis([2])) == {"0000": 1.0}
    topic.ends = lambda: [3]  # type: ignore[method-assign]
    with pytest.raises(PositionUnknown, match="ends at 3; 4 is"):
        log.read("0000", at.moved(4), 10)


def test_how_much_of_the_retention_is_used_is_told_by_the_oldest_record(
    kafka_mock: MockCluster, topic: MockTopic, event: Event
) -> None:
    now = [0.0]
    with closing(kafka_mock.log(topic.name, 1, KEY, topic, now=lambda: now[0])) as log:
        producer = Producer(kafka_mock.settings.producer())
        producer.produce(topic.name, wire(log, event, range(1))[0], partition=0, timestamp=1_000_000)
        producer.flush(10)
        now[0] = 1_000 + 43_200
        assert log.retention_used(log._basis([0])) == {"0000": 0.5}
        assert log.retention_used(log._basis([1])) == {"0000": 0.0}
        assert log.retention_hours() == 24
        topic.looked = replace(topic.looked, retention_ms=None)
        assert (log.retention_used(log._basis([0])), log.retention_hours()) == ({}, None)


def test_a_replay_is_of_one_topic_wherever_its_records_are_read(
    kafka_mock: MockCluster, log: KafkaLog, topic: MockTopic, event: Event, module_dsn: str, tmp_path: Path
) -> None:
    """Spans name the topic, also those chosen by time; what was resolved or archived of one is not read of another."""
    for start in range(0, 9, 3):
        transact(kafka_mock.settings, log.stream_name, wire(log, event, range(start, start + 3)))
    basis = log.ends()
    own = basis.partitions[0].incarnation
    assert own is not None
    (tmp_path / "objects").mkdir()
    archive = Archive(ObjectStore(f"file://{tmp_path / 'objects'}"), log.stream_name)
    in_log = select_admitted(StreamRecords(log, archive), "0000", 5, 6)
    with open_pool(module_dsn) as pool:
        archive_up_to(OffsetRanges(pool, log, 4), archive, basis)
        span = ReplayBasis.up_to(basis).partitions[0]
        assert select_admitted(StreamRecords(log, archive), "0000", 5, 6) == in_log
        assert (in_log.start, in_log.next, in_log.incarnation) == (0, 11, own)
        assert {batch.next.incarnation for batch in ReplayReader(log, archive).batches(span, 2)} == {own}
        replay = Offsets(basis=ReplayBasis.up_to(basis))
        assert resolve_replay(replay, StreamRecords(log, archive)).basis.partitions == (span,)
        nameless = span.model_copy(update={"incarnation": None})
        with pytest.raises(BuildRefused, match=f"of its first history, and at 12 the log is of history {own}"):
            resolve_replay(
                Offsets(basis=ReplayBasis(stream_name=log.stream_name, partitions=(nameless,))), StreamRecords(log, archive)
            )

        topic.looked = replace(topic.looked, topic_id="another")
        with pytest.raises(BuildRefused, match=f"the basis is of history {own}"):
            resolve_replay(replay, StreamRecords(log, archive))
        with pytest.raises(LogTailLost, match=f"of history {own}"):
            next(ReplayReader(log, archive).batches(span, 2))
        with pytest.raises(LogTailLost, match="the archive is of topic"):
            next(ReplayReader(log, archive).batches(nameless, 2))
        with pytest.raises(LogTailLost, match="the archive is of topic"):
            select_admitted(StreamRecords(log, archive), "0000", 5, 6)
        with pytest.raises(LogTailLost, match="the archive is of topic"):
            cross_check(log, archive, pool, nameless)
