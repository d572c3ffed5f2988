"""A topic is taken as it has to be, or refused in words."""

from __future__ import annotations

import uuid

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from ofp_platform.log.kafka_settings import KafkaSettings
from ofp_platform.log.kafka_topic import ClusterTopic, demand_config
from ofp_platform.log.port import LogMisconfigured, LogUnavailable, StreamNotFound

RIGHT = {
    "cleanup.policy": "delete",
    "retention.bytes": "-1",
    "message.timestamp.type": "LogAppendTime",
    "retention.ms": "86400000",
}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("cleanup.policy", "compact"),
        ("cleanup.policy", "compact,delete"),
        ("message.timestamp.type", "CreateTime"),
        ("retention.bytes", "1000000"),
        ("retention.ms", ""),
        *((name, None) for name in RIGHT),
    ],
)
def test_a_setting_that_loses_or_changes_records_is_refused_by_its_name(name: str, value: str | None) -> None:
    demand_config("a", RIGHT)
    config = {key: text for key, text in {**RIGHT, name: value}.items() if text is not None}
    with pytest.raises(LogMisconfigured, match=name):
        demand_config("a", config)


def test_a_topic_that_is_kept_for_good_is_one() -> None:
    demand_config("a", {**RIGHT, "retention.ms": "-1"})


def test_a_topic_is_made_as_it_has_to_be(kafka_broker: KafkaSettings) -> None:
    name = f"topic-{uuid.uuid4().hex}"
    topic = ClusterTopic(kafka_broker, name, 3)
    with pytest.raises(StreamNotFound, match=name):
        topic.look()
    topic.create(3_600_000)
    topic.create(7_200_000)  # it stays as it is
    look = topic.look()
    assert (look.partitions, look.retention_ms) == (3, 3_600_000)
    assert (topic.starts(), topic.ends()) == ([0, 0, 0], [0, 0, 0])
    assert look == ClusterTopic(kafka_broker, name, 3).look()


def test_another_number_of_partitions_is_refused(kafka_broker: KafkaSettings) -> None:
    name = f"topic-{uuid.uuid4().hex}"
    ClusterTopic(kafka_broker, name, 3).create(3_600_000)
    with pytest.raises(LogMisconfigured, match="has 3 partitions, the profile says 2"):
        ClusterTopic(kafka_broker, name, 2).look()


def test_a_compacted_topic_is_refused(kafka_broker: KafkaSettings) -> None:
    name = f"topic-{uuid.uuid4().hex}"
    config = {**RIGHT, "cleanup.policy": "compact"}
    admin = AdminClient(kafka_broker.client())
    (future,) = admin.create_topics([NewTopic(name, 1, config=config)]).values()
    future.result(10)
    with pytest.raises(LogMisconfigured, match=r"cleanup\.policy is compact, and must be delete"):
        ClusterTopic(kafka_broker, name, 1).look()


def test_a_cluster_that_is_away_is_unavailable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ofp_platform.log.kafka_topic.ANSWER_SECONDS", 0.2)
    with pytest.raises(LogUnavailable, match="Kafka does not answer for 'a'"):
        ClusterTopic(KafkaSettings("127.0.0.1:1"), "a", 1).look()
