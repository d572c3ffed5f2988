"""The log on Apache Kafka.

A position is an offset: integers with gaps, for transactions leave markers and aborted records between those that are read.
The end of a partition is its last stable offset. Nothing joins a consumer group; the basis is ours. Each topic is a history of
its own, told by its topic id: every position names it as its incarnation, and one that is made again has another.

A record's value is the canonical JSON of `{"admitted_at_utc", "envelope"}`, as on Kinesis; an append without a clock leaves the
time out, and the broker's time (`LogAppendTime`) is the admission time.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from ofp_platform.log.admission import Admission
from ofp_platform.log.admitted import AdmittedBatch, AdmittedColumns
from ofp_platform.log.column_admission import admit_columns
from ofp_platform.log.incarnations import ONE_HISTORY, IncarnationStart, LogHistory
from ofp_platform.log.kafka_partitions import PAGE_RECORDS, OutOfRange, PartitionReaders, arrival
from ofp_platform.log.kafka_settings import ANSWER_SECONDS, KafkaSettings
from ofp_platform.log.kafka_topic import ClusterTopic, Topic, TopicLook
from ofp_platform.log.port import (
    AdmissionClock,
    AppendReceipt,
    Candidate,
    LogError,
    LogTailLost,
    LogUnavailable,
    PartitionInfo,
    PartitionNotFound,
    PositionTrimmed,
    PositionUnknown,
    RecordBatch,
    RecordRefusal,
    RefusalReason,
    checked_start,
    demand_listed,
    empty_batch,
)
from ofp_platform.log.publishing import NotTaken, PublishReceipt
from ofp_platform.log.wire_records import batch_of, wire_records
from ofp_platform.vocabulary.columns import EventColumns, Int64
from ofp_platform.vocabulary.position import INTEGERS_WITH_GAPS, Basis, PartitionBasis, make_basis

_Placed = tuple[str, int | str] | RecordRefusal
_RETENTION_MS = 7 * 24 * 3600 * 1000


class KafkaLog:
    """One topic. Safe to share between threads."""

    position_kind = INTEGERS_WITH_GAPS
    kept_seconds = 0.0
    late_seconds = 900.0
    """A request that was given up may lie in buffers; nothing bounds that, and this is far beyond what was seen (0092)."""

    def __init__(
        self,
        settings: KafkaSettings,
        stream_name: str,
        partitions: int,
        partition_key: str,
        *,
        topic: Topic | None = None,
        poll_seconds: float = 0.05,
        now: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """An existing topic of that many partitions. `topic` describes it; None: as its cluster does. `now` serves lags alone."""
        self.stream_name = stream_name
        self.partition_key = partition_key
        self.poll_seconds = poll_seconds
        self._settings = settings
        self._ids = self.first_partition_ids(partitions)
        self._numbers = {name: number for number, name in enumerate(self._ids)}
        self._admission = Admission(partition_key)
        self._topic = ClusterTopic(settings, stream_name, partitions) if topic is None else topic
        self._look: TopicLook | None = None
        self._history = ONE_HISTORY
        self._now = now
        self._monotonic = monotonic
        self._closing = self._stop = threading.Event()
        self._readers = PartitionReaders(settings, stream_name, lambda: self._stop.is_set(), monotonic)
        self._scouts = PartitionReaders(settings, stream_name, lambda: self._stop.is_set(), monotonic)
        self._lock = threading.Lock()
        self._producer: Producer | None = None

    @property
    def is_for_development(self) -> bool:
        """Whether its broker is one to develop on, which gives no time of its own."""
        return self._settings.is_development

    @staticmethod
    def first_partition_ids(count: int) -> list[str]:
        """The ids of the partitions of a topic."""
        return [f"{number:04d}" for number in range(count)]

    @classmethod
    def create(
        cls,
        settings: KafkaSettings,
        stream_name: str,
        partitions: int,
        partition_key: str,
        *,
        retention_ms: int = _RETENTION_MS,
        poll_seconds: float = 0.05,
    ) -> KafkaLog:
        """The topic, made if it does not exist; one that exists stays as it is.

        Raises:
            LogMisconfigured: it has other partitions, or could lose or change records by its configuration.
            LogUnavailable: Kafka does not answer.
        """
        topic = ClusterTopic(settings, stream_name, partitions)
        topic.create(retention_ms)
        log = cls(settings, stream_name, partitions, partition_key, topic=topic, poll_seconds=poll_seconds)
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                log.partitions()
                return log
            except LogError as error:
                # a topic is made before every broker knows of it, and before it has leaders
                if not isinstance(error, LogUnavailable) or time.monotonic() > deadline:
                    log.close()
                    raise
                log._pause(0.1)

    @property
    def history(self) -> LogHistory:
        """The topic, as it was last seen, as the one history."""
        look = self._look or self._look_again()
        incarnation = look.incarnation
        if self._history.current != incarnation:
            self._history = LogHistory((IncarnationStart(incarnation, {}),))
        return self._history

    def demand_settled(self) -> None:
        """See `EventLog.demand_settled`: what all replicas in sync acknowledged Kafka keeps; see `read` where it did not."""

    def _look_again(self) -> TopicLook:
        self._look = self._topic.look()
        return self._look

    def partition_of(self, key: str) -> int:
        """The partition of a key: CRC-32 of its UTF-8 bytes modulo the number of partitions, for good."""
        return zlib.crc32(key.encode()) % len(self._ids)

    def partitions(self) -> list[PartitionInfo]:
        """All partitions; they never close. A topic that got more of them is refused."""
        self._look_again()
        return [PartitionInfo(name) for name in self._ids]

    def append(self, envelopes: Sequence[Candidate], clock: AdmissionClock | None = None) -> AppendReceipt:
        """See `EventLog.append`. A record that Kafka did not confirm in time is refused as LOG_UNAVAILABLE: it may count."""
        return self._append(self._admission.admit_batch(envelopes, clock))

    def append_columns(self, columns: EventColumns, admitted_at: Int64) -> AppendReceipt:
        """See `EventLog.append_columns`; as with `append`."""
        return self._append(admit_columns(self._admission, columns, admitted_at))

    def _append(self, batch: AdmittedBatch) -> AppendReceipt:
        if not len(batch.records):
            return batch.receipt(self.stream_name, [])
        places = batch.records.places
        try:
            before = self._look_again()
        except LogUnavailable as error:
            return batch.receipt(self.stream_name, [_refusal(place, str(error)) for place in places])
        outcomes = self._send(batch)
        try:
            after = self._look_again()
        except LogUnavailable as error:
            return batch.receipt(self.stream_name, [_refusal(place, str(error)) for place in places])
        if after.topic_id != before.topic_id:
            text = "the topic was made anew meanwhile: whether the record is in it is not known"
            return batch.receipt(self.stream_name, [_refusal(place, text) for place in places])
        return batch.receipt(self.stream_name, outcomes, after.incarnation)

    def publish(self, records: AdmittedColumns, admitted_at: Sequence[int] | None) -> PublishReceipt:
        """See `Publisher.publish`: what Kafka does not confirm may be in the topic."""
        try:
            before = self._look_again()
        except LogUnavailable as error:
            return PublishReceipt([NotTaken(str(error))] * len(records))
        times = None if admitted_at is None else list(admitted_at)
        outcomes = self._send(AdmittedBatch(len(records), records, [], times))
        try:
            after = self._look_again()
        except LogUnavailable:
            return PublishReceipt([None] * len(records))
        if after.topic_id != before.topic_id:
            return PublishReceipt([None] * len(records))
        return PublishReceipt(
            [None if isinstance(outcome, RecordRefusal) else outcome for outcome in outcomes], after.incarnation
        )

    def _send(self, batch: AdmittedBatch) -> list[_Placed]:
        """Send the records, and wait until each is confirmed or given up. What becomes of those given up is not known."""
        outcomes: list[_Placed | None] = [None] * len(batch.records)
        waiting = set(range(len(outcomes)))
        needs_stamp = batch.admitted_at is None
        places = batch.records.places

        def on_delivery(index: int, error: KafkaError | None, message: Message) -> None:
            waiting.discard(index)
            if error is not None:
                outcomes[index] = _refusal(places[index], f"Kafka did not confirm the record: {error.name()}")
            elif needs_stamp and arrival(message, takes_create_time=self._settings.is_development) is None:
                outcomes[index] = _refusal(places[index], "the broker gave the record no time, so it will not be readable")
            else:
                outcomes[index] = self._ids[message.partition() or 0], message.offset() or 0

        producer = self._open_producer()
        try:
            for index, (key, value) in enumerate(zip(batch.records.keys, wire_records(batch), strict=True)):
                while True:
                    try:
                        producer.produce(
                            self.stream_name,
                            value,
                            key.encode(),
                            self.partition_of(key),
                            on_delivery=partial(on_delivery, index),
                        )
                        break
                    except BufferError:  # the queue is full: what is under way makes room, or is given up in time
                        producer.poll(0.1)
                producer.poll(0)
            deadline = self._monotonic() + 2 * ANSWER_SECONDS
            while waiting and self._monotonic() < deadline:
                producer.poll(0.1)
        except KafkaException as error:  # a producer that is at its end takes nothing more
            self._drop_producer(producer)
            code = error.args[0].name()
            text = f"Kafka did not take the record: {code}"
            return [_refusal(place, text) if o is None else o for place, o in zip(places, outcomes, strict=True)]
        if any(isinstance(outcome, RecordRefusal) for outcome in outcomes):
            self._drop_producer(producer)
        silence = "Kafka did not confirm the record in time"
        return [_refusal(place, silence) if o is None else o for place, o in zip(places, outcomes, strict=True)]

    def _open_producer(self) -> Producer:
        with self._lock:
            if self._producer is None:
                self._producer = Producer(self._settings.producer())
            return self._producer

    def _drop_producer(self, producer: Producer) -> None:
        """Use another one from now on: a record of this one that was given up could still be under way."""
        with self._lock:
            if self._producer is producer:
                self._producer = None

    def read(self, partition_id: str, basis: PartitionBasis | None, max_records: int) -> RecordBatch:
        """See `EventLog.read`; the batch is of one topic, which is looked at before and behind it."""
        checked_start(partition_id, basis, self.position_kind.offset_kind, max_records)
        number = self._number(partition_id)
        before = self._look_again()
        floor, end = self._topic.starts()[number], self._topic.ends()[number]
        start = floor if basis is None else int(basis.offset)
        _demand_between(self.stream_name, partition_id, start, floor, end)
        self._demand_history(basis)
        if start == end:
            return empty_batch(self._part(partition_id, start))
        try:
            page, page_end = self._readers.page(number, start, end, min(max_records, PAGE_RECORDS))
        except OutOfRange:
            _demand_between(self.stream_name, partition_id, start, self._topic.starts()[number], self._topic.ends()[number])
            raise LogUnavailable(f"partition {partition_id!r} of {self.stream_name!r} changed while it was read") from None
        if self._look_again().topic_id != before.topic_id:
            raise LogUnavailable(f"topic {self.stream_name!r} was made anew while it was read")
        return batch_of(page, self._admission, self._part(partition_id, page_end))

    def _number(self, partition_id: str) -> int:
        if partition_id not in self._numbers:
            raise PartitionNotFound(f"topic {self.stream_name!r} has no partition {partition_id!r}")
        return self._numbers[partition_id]

    def ends(self) -> Basis:
        """See `EventLog.ends`: the last stable offsets."""
        self._look_again()
        return self._basis(self._topic.ends())

    def retention_floor(self) -> Basis:
        """See `EventLog.retention_floor`."""
        self._look_again()
        return self._basis(self._topic.starts())

    def ordinal_lag(self, basis: Basis) -> dict[str, int]:
        """See `EventLog.ordinal_lag`: at most that many, offsets without a record count."""
        return self._lag(self._topic.ends(), basis)

    def demand(self, basis: Basis) -> None:
        """See `EventLog.demand`."""
        known_parts = basis.by_partition()
        demand_listed(self.stream_name, self.partitions(), known_parts)
        for name, floor, end in zip(self._ids, self._topic.starts(), self._topic.ends(), strict=True):
            part = known_parts.get(name, self.position_kind.start(name))
            if part.closed:  # it counts as read to its end: nobody asks for what follows
                continue
            _demand_between(self.stream_name, name, int(part.offset), floor, end)
            self._demand_history(part)

    def _demand_history(self, basis: PartitionBasis | None) -> None:
        if basis is not None and not self.history.is_of(basis):
            raise LogTailLost(
                f"partition {basis.partition_id!r} of {self.stream_name!r}: the basis {basis.offset} is of topic"
                f" {basis.incarnation or 'without a name'}, and this one is {self.history.current}: it was deleted and made"
                " again, and the records that the basis knows are gone from it (docs/kafka.md, A topic that is made again)"
            )

    def accepted_ends(self) -> dict[str, PartitionBasis]:
        """See `EventLog.accepted_ends`."""
        return {}

    def retention_used(self, basis: Basis) -> dict[str, float]:
        """See `EventLog.retention_used`; one record of each partition is read."""
        retention_ms = self._look_again().retention_ms
        if retention_ms is None:
            return {}
        known_parts = basis.by_partition()
        shares = {}
        for name, floor, end in zip(self._ids, self._topic.starts(), self._topic.ends(), strict=True):
            start = int(known_parts[name].offset) if name in known_parts else 0
            shares[name] = 1.0 if start < floor else self._age(name, start, end) / retention_ms
        return shares

    def _age(self, partition_id: str, start: int, end: int) -> float:
        """How old the oldest record between two offsets is, milliseconds; 0: there is none, or the broker gives no time."""
        if start >= end:
            return 0.0
        try:
            page, _ = self._scouts.page(self._numbers[partition_id], start, end, 1)
        except OutOfRange:  # it left a moment ago
            return float("inf")
        arrived_at = page.arrived_at[0] if len(page) else None
        return 0.0 if arrived_at is None else max(0.0, self._now() * 1000 - arrived_at / 1000)

    def retention_hours(self) -> int | None:
        """How long the topic keeps a record, in whole hours; None: for good."""
        retention_ms = self._look_again().retention_ms
        return None if retention_ms is None else retention_ms // 3_600_000

    def wait(self, basis: Basis, timeout_seconds: float) -> bool:
        """See `EventLog.wait`; asks every `poll_seconds`. Offsets without a record count, too: reading passes over them."""
        deadline = self._monotonic() + timeout_seconds
        while True:
            if any(self._lag(self._topic.ends(), basis).values()):
                return True
            remaining_seconds = deadline - self._monotonic()
            if remaining_seconds <= 0:
                return False
            self._pause(min(self.poll_seconds, remaining_seconds))
            if self._stop.is_set():
                raise LogUnavailable("this process stops: nothing is asked of Kafka any more")

    def seen_lag(self) -> dict[str, int] | None:
        """See `EventLog.seen_lag`: it is asked for."""
        return None

    @contextmanager
    def pauses_end_with(self, stop: threading.Event) -> Iterator[None]:
        """See `EventLog.pauses_end_with`; a request that is under way is waited for (`ANSWER_SECONDS`)."""
        self._stop = stop
        try:
            yield
        finally:
            self._stop = self._closing

    def close(self) -> None:
        """Close the clients."""
        self._closing.set()
        self._readers.close()
        self._scouts.close()
        with self._lock:
            self._producer = None

    def _pause(self, seconds: float) -> None:
        self._stop.wait(seconds)

    def _part(self, partition_id: str, offset: int) -> PartitionBasis:
        return self.history.with_incarnation(self.position_kind.basis(partition_id, offset))

    def _basis(self, offsets: Sequence[int]) -> Basis:
        pairs = zip(self._ids, offsets, strict=True)
        return make_basis(self.stream_name, {name: self._part(name, offset) for name, offset in pairs})

    def _lag(self, ends: Sequence[int], basis: Basis) -> dict[str, int]:
        starts = {name: int(part.offset) for name, part in basis.by_partition().items()}
        return {name: max(end - starts.get(name, 0), 0) for name, end in zip(self._ids, ends, strict=True)}


def _refusal(place: int, text: str) -> RecordRefusal:
    return RecordRefusal(place, RefusalReason.LOG_UNAVAILABLE, text)


def _demand_between(stream_name: str, partition_id: str, start: int, floor: int, end: int) -> None:
    where = f"partition {partition_id!r} of {stream_name!r}"
    if start < floor:
        raise PositionTrimmed(f"{where} is kept from offset {floor} on; {start} is gone")
    if start > end:
        raise PositionUnknown(
            f"{where} ends at {end}; {start} is of another log, or was lost when a replica without it became the leader"
            " (docs/kafka.md, Lost records)"
        )
