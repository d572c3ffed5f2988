"""Reading Kafka partitions: one consumer for each partition that is read, assigned to it and fetching ahead."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from confluent_kafka import TIMESTAMP_CREATE_TIME, TIMESTAMP_LOG_APPEND_TIME, Consumer, KafkaError, KafkaException, Message
from confluent_kafka import TopicPartition as Place

from ofp_platform.log.kafka_settings import ANSWER_SECONDS, KafkaSettings
from ofp_platform.log.kafka_topic import unavailable
from ofp_platform.log.port import LogTailLost, LogUnavailable
from ofp_platform.log.wire_records import WirePage

PAGE_RECORDS = 10_000
PAGE_BYTES = 32_000_000
_CONSUMERS_KEPT = 16
_PAUSE_SECONDS = 0.25  # after which a reader looks whether it is to stop


class OutOfRange(Exception):
    """The partition has no record at the offset any more, or not yet."""


@dataclass
class _Reader:
    """The consumer of one partition; `at`: the offset of what it gives next. None: it has to be assigned anew."""

    consumer: Consumer
    at: int | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)


class PartitionReaders:
    """Pages of the partitions of one topic. Safe to share between threads."""

    def __init__(
        self,
        settings: KafkaSettings,
        stream_name: str,
        is_stopped: Callable[[], bool],
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._settings = settings
        self._stream_name = stream_name
        self._is_stopped = is_stopped
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._readers: OrderedDict[int, _Reader] = OrderedDict()

    def page(self, number: int, start: int, end: int, limit: int) -> tuple[WirePage, int]:
        """At most `limit` records of partition `number` from `start` on and before `end`, and the offset behind them.

        That is behind offsets without a record, too, where all up to `end` was read. `end` is a last stable offset, so there is
        a record or such an offset to be had.

        Raises:
            OutOfRange: see there. LogTailLost: the partition was cut off behind a place that was read.
            LogUnavailable: see there.
        """
        reader = self._reader(number)
        with reader.lock:
            try:
                messages, reader.at = self._take(reader, number, start, end, limit)
            except BaseException:
                reader.at = None
                raise
        return self._columns(messages), reader.at or 0

    def _reader(self, number: int) -> _Reader:
        with self._lock:
            reader = self._readers.pop(number, None)
            if reader is None:
                reader = _Reader(Consumer(self._settings.consumer()))
            self._readers[number] = reader
            oldest = self._readers.popitem(last=False)[1] if len(self._readers) > _CONSUMERS_KEPT else None
        if oldest is not None:
            with oldest.lock:
                oldest.consumer.close()
        return reader

    def _take(self, reader: _Reader, number: int, start: int, end: int, limit: int) -> tuple[list[Message], int]:
        consumer, at, size = reader.consumer, start, 0
        messages: list[Message] = []
        deadline = self._monotonic() + ANSWER_SECONDS
        try:
            if reader.at != start:
                consumer.assign([Place(self._stream_name, number, start)])
            while at < end and len(messages) < limit and size < PAGE_BYTES:
                ready = consumer.consume(min(limit - len(messages), PAGE_RECORDS), 0)
                if not ready:
                    message = consumer.poll(_PAUSE_SECONDS)
                    ready = [] if message is None else [message]
                for message in ready:
                    at = self._behind_event(message, at)
                    if message.error() is None:
                        messages.append(message)
                        size += len(message)
                        at = (message.offset() or 0) + 1
                if not ready and self._is_stopped():
                    raise LogUnavailable("this process stops: nothing is asked of Kafka any more")
                if not ready and self._monotonic() > deadline:
                    raise LogUnavailable(
                        f"Kafka gave nothing of partition {number} of {self._stream_name!r} from offset {at} on in"
                        f" {ANSWER_SECONDS:.0f} s, though it ends at {end}"
                    )
        except KafkaException as error:
            raise unavailable(error, self._stream_name) from error
        return messages, at

    def _behind_event(self, message: Message, at: int) -> int:
        """The offset behind an event that is no record; that which was reached for a record."""
        error = message.error()
        if error is None:
            return at
        match error.code():
            case KafkaError._PARTITION_EOF:
                return max(at, message.offset() or 0)
            case KafkaError._LOG_TRUNCATION:
                raise LogTailLost(
                    f"partition {message.partition()} of {self._stream_name!r} was cut off behind a place that was read: its"
                    " leader changed without all records (docs/runbook.md, A failover)"
                )
            case KafkaError.OFFSET_OUT_OF_RANGE | KafkaError._AUTO_OFFSET_RESET:
                raise OutOfRange
            case _:
                raise unavailable(error, self._stream_name)

    def _columns(self, messages: list[Message]) -> WirePage:
        return WirePage(
            [message.offset() or 0 for message in messages],
            [message.value() or b"" for message in messages],
            [arrival(message, takes_create_time=self._settings.is_development) for message in messages],
        )

    def close(self) -> None:
        """Close the consumers."""
        with self._lock:
            readers = list(self._readers.values())
            self._readers.clear()
        for reader in readers:
            with reader.lock, suppress(KafkaException, RuntimeError):
                reader.consumer.close()


def arrival(message: Message, *, takes_create_time: bool) -> int | None:
    """When the broker took a record, microseconds; None where it did not say."""
    kind, milliseconds = message.timestamp()
    if kind == TIMESTAMP_LOG_APPEND_TIME or (kind == TIMESTAMP_CREATE_TIME and takes_create_time):
        return int(milliseconds) * 1000
    return None
