"""A Kafka topic as its cluster describes it: which one it is, how it keeps records, and where its partitions begin and end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeout
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource, NewTopic, OffsetSpec, ResourceType

from ofp_platform.log.kafka_settings import ANSWER_SECONDS, KafkaSettings
from ofp_platform.log.port import LogMisconfigured, LogUnavailable, StreamNotFound
from ofp_platform.vocabulary.canonical import sha256_hex

_T = TypeVar("_T")
_CONFIG_SECONDS = 30.0
"""How old the last look at the configuration of a topic may be."""
_SPEC: Any = OffsetSpec  # its makers have no types
_NO_ID = "A" * 22  # sixteen zero bytes
_REQUIRED = {"cleanup.policy": "delete", "retention.bytes": "-1"}
_MISSING = (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)
_REFUSED = (
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.GROUP_AUTHORIZATION_FAILED,
)


@dataclass(frozen=True, slots=True)
class TopicLook:
    """A topic at one moment. `retention_ms`: how long it keeps a record; None: for good."""

    topic_id: str
    partitions: int
    retention_ms: int | None

    @property
    def incarnation(self) -> str:
        """The name of the history that this topic is: one of the same name that is made again is another."""
        return sha256_hex(self.topic_id.encode())[:12]


class Topic(Protocol):
    """A topic that can be looked at. Each method may raise LogUnavailable, StreamNotFound and LogMisconfigured."""

    def look(self) -> TopicLook:
        """Ask which topic it is now, and refuse one that could lose or change records by its configuration."""

    def starts(self) -> list[int]:
        """For each partition the oldest offset that is kept."""

    def ends(self) -> list[int]:
        """For each partition the last stable offset: no record before it will still be committed or aborted."""


def unavailable(error: KafkaException | KafkaError, stream_name: str) -> LogUnavailable | StreamNotFound:
    """The error of the port that one of Kafka is; its text holds nothing that a record or a setting held."""
    cause = error.args[0] if isinstance(error, KafkaException) else error
    if cause.code() in _MISSING:
        return StreamNotFound(f"there is no topic {stream_name!r} on this Kafka: `ofp projector run` creates it")
    if cause.code() in _REFUSED:
        return LogUnavailable(f"Kafka does not allow this for {stream_name!r}: {cause.name()} (docs/kafka.md, Rights)")
    return LogUnavailable(f"Kafka does not answer for {stream_name!r}: {cause.name()}")


def answer(future: Future[_T], stream_name: str) -> _T:
    """The answer of the cluster.

    Raises:
        LogUnavailable | StreamNotFound: see there.
    """
    try:
        return future.result(ANSWER_SECONDS + 1)
    except KafkaException as error:
        raise unavailable(error, stream_name) from error
    except FutureTimeout as error:
        raise LogUnavailable(f"Kafka does not answer for {stream_name!r} in {ANSWER_SECONDS:.0f} s") from error


class ClusterTopic:
    """A topic on a cluster. Safe to share between threads."""

    def __init__(
        self,
        settings: KafkaSettings,
        stream_name: str,
        partitions: int,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """A topic that has, or is to have, that many partitions: keys were placed by their number, so it never changes."""
        self._settings = settings
        self._stream_name = stream_name
        self._partitions = partitions
        self._admin = AdminClient(settings.client())
        self._monotonic = monotonic
        self._lock = threading.Lock()
        self._config: tuple[str, float, int | None] | None = None  # of which topic, good until, its retention

    def create(self, retention_ms: int) -> None:
        """Make the topic, with the broker's own number of replicas, where there is none."""
        config = {**_REQUIRED, "message.timestamp.type": "LogAppendTime", "retention.ms": str(retention_ms)}
        topic = NewTopic(self._stream_name, self._partitions, config=config)
        (future,) = self._admin.create_topics([topic], request_timeout=ANSWER_SECONDS).values()
        try:
            future.result(ANSWER_SECONDS + 1)
        except KafkaException as error:
            if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
                raise unavailable(error, self._stream_name) from error
        except FutureTimeout as error:
            raise LogUnavailable(f"Kafka does not make topic {self._stream_name!r} in {ANSWER_SECONDS:.0f} s") from error

    def look(self) -> TopicLook:
        """See `Topic.look`; the configuration is asked for twice a minute, and of each topic."""
        topics = TopicCollection([self._stream_name])
        (future,) = self._admin.describe_topics(topics, request_timeout=ANSWER_SECONDS).values()
        description: Any = answer(future, self._stream_name)
        topic_id, count = str(description.topic_id), len(description.partitions)
        if topic_id == _NO_ID:
            raise LogMisconfigured(
                f"Kafka gives topic {self._stream_name!r} no id, so one that is made again could not be told from it: use Kafka"
                " 3.1 or later"
            )
        if count != self._partitions:
            raise LogMisconfigured(
                f"topic {self._stream_name!r} has {count} partitions, the profile says {self._partitions}. A key has one"
                " partition by their number, so a topic never gets more of them: use another one (docs/kafka.md, Partitions)"
            )
        return TopicLook(topic_id, count, self._retention(topic_id))

    def _retention(self, topic_id: str) -> int | None:
        with self._lock:
            if self._config is not None and self._config[0] == topic_id and self._monotonic() < self._config[1]:
                return self._config[2]
        (future,) = self._admin.describe_configs(
            [ConfigResource(ResourceType.TOPIC, self._stream_name)], request_timeout=ANSWER_SECONDS
        ).values()
        entries: Any = answer(future, self._stream_name)
        config = {name: str(entry.value) for name, entry in entries.items()}
        demand_config(self._stream_name, config, takes_create_time=self._settings.is_development)
        retention_ms = int(config["retention.ms"])
        retention = None if retention_ms < 0 else retention_ms
        with self._lock:
            self._config = topic_id, self._monotonic() + _CONFIG_SECONDS, retention
        return retention

    def starts(self) -> list[int]:
        """See `Topic.starts`."""
        return self._offsets(_SPEC.earliest())

    def ends(self) -> list[int]:
        """See `Topic.ends`."""
        ends = self._offsets(_SPEC.latest())
        return self._farther(ends) if self._settings.is_development else ends

    def _farther(self, ends: list[int]) -> list[int]:
        """The ends behind those that a development broker tells: where reading on from them ends."""
        farther = list(ends)
        waiting = set(range(len(ends)))
        deadline = self._monotonic() + ANSWER_SECONDS
        consumer = Consumer({**self._settings.consumer(), "fetch.wait.max.ms": 1})
        try:
            consumer.assign([TopicPartition(self._stream_name, number, end) for number, end in enumerate(ends)])
            while waiting and self._monotonic() < deadline:
                message = consumer.poll(1.0)
                if message is None:
                    continue
                error = message.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    raise unavailable(error, self._stream_name)
                number, offset = message.partition() or 0, message.offset() or 0
                if error is None:
                    farther[number] = offset + 1
                else:
                    farther[number] = max(farther[number], offset)
                    waiting.discard(number)
        except KafkaException as error:
            raise unavailable(error, self._stream_name) from error
        finally:
            consumer.close()
        if waiting:
            raise LogUnavailable(f"Kafka does not tell the ends of {self._stream_name!r}")
        return farther

    def _offsets(self, which: Any) -> list[int]:
        places = [TopicPartition(self._stream_name, number) for number in range(self._partitions)]
        try:
            futures = self._admin.list_offsets(
                dict.fromkeys(places, which),
                isolation_level=IsolationLevel.READ_COMMITTED,
                request_timeout=ANSWER_SECONDS,
            )
        except KafkaException as error:
            raise unavailable(error, self._stream_name) from error
        offsets = [0] * self._partitions
        for place, future in futures.items():
            offsets[place.partition] = int(answer(future, self._stream_name).offset)
        return offsets


def demand_config(stream_name: str, config: Mapping[str, str], *, takes_create_time: bool = False) -> None:
    """Refuse a topic whose configuration could lose records unseen, or lets whoever writes choose when a record was admitted.

    Raises:
        LogMisconfigured: it names the setting. One that the broker does not tell is wrong, too.
    """
    demands = dict(_REQUIRED)
    if not takes_create_time:
        demands["message.timestamp.type"] = "LogAppendTime"
    why = {
        "cleanup.policy": "compaction removes records that readers have not seen, and leaves no trace of it",
        "retention.bytes": "what leaves by its size is not foreseen by its age, and may not be archived",
        "message.timestamp.type": "otherwise whoever writes a record chooses when it was admitted",
    }
    for name, value in demands.items():
        if config.get(name) != value:
            current = config.get(name, "not told by the broker")
            raise LogMisconfigured(
                f"topic {stream_name!r}: {name} is {current}, and must be {value}: {why[name]}. Set it with kafka-configs"
                f" --alter --topic {stream_name} --add-config {name}={value}"
            )
    if not config.get("retention.ms", "").removeprefix("-").isdecimal():
        raise LogMisconfigured(f"topic {stream_name!r}: the broker does not tell retention.ms, how long it keeps a record")
