"""The mock cluster inside librdkafka, and topics of it: it has no admin interface, so tests say what a topic is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from confluent_kafka import Producer

from ofp_platform.log.kafka import KafkaLog
from ofp_platform.log.kafka_settings import KafkaSettings
from ofp_platform.log.kafka_topic import ClusterTopic, TopicLook


class MockTopic:
    """A topic of the mock cluster: its ends are the cluster's, what it is is said by the test."""

    def __init__(self, settings: KafkaSettings, name: str, partitions: int) -> None:
        self.name = name
        self.looked = TopicLook(f"id-of-{name}", partitions, 86_400_000)
        self.errors: list[Exception] = []
        self._cluster = ClusterTopic(settings, name, partitions)

    def look(self) -> TopicLook:
        if self.errors:
            raise self.errors.pop(0)
        return self.looked

    def starts(self) -> list[int]:
        return self._cluster.starts()

    def ends(self) -> list[int]:
        return self._cluster.ends()


class MockCluster:
    """The cluster lives in one client of librdkafka; each topic is made by its first metadata request, with four partitions."""

    def __init__(self) -> None:
        self._home = Producer({"bootstrap.servers": "nowhere:1", "test.mock.num.brokers": 1})
        (broker,) = self._home.list_topics(timeout=10).brokers.values()
        # the markers of its transactions have no checksum
        self.settings = KafkaSettings(f"{broker.host}:{broker.port}", {"check.crcs": "false"}, is_development=True)

    def topic(self, name: str, partitions: int) -> MockTopic:
        """Make a topic, and say that it has that many partitions: those that a test does not use stay empty."""
        self._home.list_topics(name, timeout=10)
        return MockTopic(self.settings, name, partitions)

    def log(self, name: str, partitions: int, key: str, topic: MockTopic | None = None, **more: Any) -> KafkaLog:
        """A handle on a topic."""
        topic = topic or self.topic(name, partitions)
        return KafkaLog(self.settings, name, partitions, key, topic=topic, poll_seconds=0.01, **more)

    def close(self) -> None:
        """The cluster goes with its client."""
        del self._home


def transact(settings: KafkaSettings, name: str, values: Sequence[bytes], partition: int = 0, *, commits: bool = True) -> None:
    """Write records in one transaction, which leaves its marker behind them."""
    producer = Producer(
        settings.client(transactional_id=f"writer-of-{name}", message_timeout_ms=5000, transaction_timeout_ms=20_000)
    )
    producer.init_transactions(10)
    producer.begin_transaction()
    for value in values:
        producer.produce(name, value, partition=partition)
    producer.flush(10)
    (producer.commit_transaction if commits else producer.abort_transaction)(10)
