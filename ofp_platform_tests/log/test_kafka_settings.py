"""Settings of a Kafka cluster come from the environment; what is missing or contradicts itself is refused by its name."""

from __future__ import annotations

import pytest

from ofp_platform.log.kafka_settings import KafkaSettings
from ofp_platform.log.port import LogMisconfigured

SERVERS = {"OFP_KAFKA_BOOTSTRAP_SERVERS": "broker:9093"}
SASL = {
    "OFP_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
    "OFP_KAFKA_SASL_MECHANISM": "SCRAM-SHA-512",
    "OFP_KAFKA_SASL_USERNAME": "plane",
    "OFP_KAFKA_SASL_PASSWORD": "not-to-be-shown",
    "OFP_KAFKA_SSL_CA_FILE": "/etc/ca.pem",
}


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({}, "OFP_KAFKA_BOOTSTRAP_SERVERS"),
        ({"OFP_KAFKA_BOOTSTRAP_SERVERS": ""}, "OFP_KAFKA_BOOTSTRAP_SERVERS"),
        ({**SERVERS, "OFP_KAFKA_SASL_PASSWORD": "not-to-be-shown"}, "OFP_KAFKA_SECURITY_PROTOCOL is not set"),
        ({**SERVERS, **SASL, "OFP_KAFKA_SECURITY_PROTOCOL": "SASL_PLAINTEXT"}, "not one of PLAINTEXT, SSL, SASL_SSL"),
        ({**SERVERS, **SASL, "OFP_KAFKA_SECURITY_PROTOCOL": "PLAINTEXT"}, "no password and no certificate"),
        ({**SERVERS, **SASL, "OFP_KAFKA_SASL_MECHANISM": ""}, "OFP_KAFKA_SASL_MECHANISM"),
        ({**SERVERS, "OFP_KAFKA_DEVELOPMENT_BROKER": "yes"}, "OFP_KAFKA_DEVELOPMENT_BROKER"),
    ],
)
def test_what_is_missing_or_wrong_is_named(environment: dict[str, str], words: str) -> None:
    with pytest.raises(LogMisconfigured, match=words) as refusal:
        KafkaSettings.of_environment(environment)
    assert "not-to-be-shown" not in str(refusal.value)


def test_a_password_reaches_the_client_and_nothing_else() -> None:
    settings = KafkaSettings.of_environment({**SERVERS, **SASL})
    assert "not-to-be-shown" not in repr(settings)
    client = settings.client()
    assert (client["security.protocol"], client["sasl.password"]) == ("SASL_SSL", "not-to-be-shown")
    assert client["ssl.ca.location"] == "/etc/ca.pem"


def test_readers_see_committed_records_and_commit_nothing() -> None:
    consumer = KafkaSettings.of_environment(SERVERS).consumer()
    assert (consumer["isolation.level"], consumer["enable.auto.commit"]) == ("read_committed", False)
    assert (consumer["auto.offset.reset"], consumer["allow.auto.create.topics"]) == ("error", False)


def test_producers_write_once_to_all_replicas() -> None:
    producer = KafkaSettings.of_environment(SERVERS).producer()
    assert (producer["enable.idempotence"], producer["acks"]) == (True, "all")
