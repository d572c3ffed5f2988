"""How a Kafka cluster is reached: wiring from the environment, never from a file of the product."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ofp_platform.log.port import LogMisconfigured

logger = logging.getLogger(__name__)
BOOTSTRAP = "OFP_KAFKA_BOOTSTRAP_SERVERS"
PROTOCOL = "OFP_KAFKA_SECURITY_PROTOCOL"
DEVELOPMENT = "OFP_KAFKA_DEVELOPMENT_BROKER"
_PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_SSL")
_OPTIONS = {
    "OFP_KAFKA_SASL_MECHANISM": "sasl.mechanism",
    "OFP_KAFKA_SASL_USERNAME": "sasl.username",
    "OFP_KAFKA_SASL_PASSWORD": "sasl.password",
    "OFP_KAFKA_SSL_CA_FILE": "ssl.ca.location",
    "OFP_KAFKA_SSL_CERTIFICATE_FILE": "ssl.certificate.location",
    "OFP_KAFKA_SSL_KEY_FILE": "ssl.key.location",
    "OFP_KAFKA_SSL_KEY_PASSWORD": "ssl.key.password",
}
ANSWER_SECONDS = 10.0
"""How long one request may take."""


@dataclass(frozen=True)
class KafkaSettings:
    """Connection of clients. `options` are librdkafka's, and may hold a password: they are never shown.

    `is_development`: the broker is one to develop on, as `ofp_platform/cli/services/kafka_service.py` starts it. It gives
    records no time of its own, so that of their producer counts; and the end that it tells is the start of its last batch.
    """

    bootstrap_servers: str
    options: Mapping[str, str] = field(default_factory=dict, repr=False)
    is_development: bool = False

    @classmethod
    def of_environment(cls, environment: Mapping[str, str]) -> KafkaSettings:
        """The settings that the environment gives.

        Raises:
            LogMisconfigured: a variable is missing or wrong; the text names it.
        """
        servers = environment.get(BOOTSTRAP, "")
        if not servers:
            raise LogMisconfigured(f"log_kind kafka needs {BOOTSTRAP} in the environment, as in broker-1:9093,broker-2:9093")
        options = {name: environment[variable] for variable, name in _OPTIONS.items() if environment.get(variable)}
        protocol = environment.get(PROTOCOL, "")
        if not protocol:
            if options:
                raise LogMisconfigured(f"{PROTOCOL} is not set, and other OFP_KAFKA_ variables mean SSL or SASL_SSL: set it")
            protocol = "PLAINTEXT"
        if protocol not in _PROTOCOLS:
            raise LogMisconfigured(f"{PROTOCOL} is {protocol!r}, not one of {', '.join(_PROTOCOLS)}")
        if protocol == "PLAINTEXT" and options:
            raise LogMisconfigured(f"{PROTOCOL} is PLAINTEXT, which uses no password and no certificate, and such are set")
        if protocol == "SASL_SSL" and "sasl.mechanism" not in options:
            raise LogMisconfigured("OFP_KAFKA_SASL_MECHANISM is not set, as in SCRAM-SHA-512")
        word = environment.get(DEVELOPMENT, "")
        if word not in ("", "1"):
            raise LogMisconfigured(f"{DEVELOPMENT} is {word!r}: 1, or not set")
        return cls(servers, {"security.protocol": protocol, **options}, is_development=bool(word))

    def client(self, **more: Any) -> dict[str, Any]:
        """The configuration of one client of librdkafka, with `more` of it; `_` there stands for `.`."""
        return {
            "bootstrap.servers": self.bootstrap_servers,
            "client.id": "ofp",
            "socket.timeout.ms": int(ANSWER_SECONDS * 1000),
            "reconnect.backoff.max.ms": 1000,
            "logger": logger,
            **{name.replace("_", "."): value for name, value in more.items()},
            **self.options,
        }

    def consumer(self) -> dict[str, Any]:
        """A consumer of a partition assigned to it: no group is joined and nothing is committed there, the basis is ours."""
        return self.client(
            group_id="ofp",
            enable_auto_commit=False,
            enable_auto_offset_store=False,
            auto_offset_reset="error",
            isolation_level="read_committed",
            enable_partition_eof=True,
            allow_auto_create_topics=False,
            fetch_wait_max_ms=100,
            fetch_error_backoff_ms=100,
            queued_max_messages_kbytes=32_768,
            check_crcs=True,
        )

    def producer(self) -> dict[str, Any]:
        """A producer that writes each record once as long as it lives, and is answered when all replicas in sync have it."""
        return self.client(
            enable_idempotence=True,
            acks="all",
            linger_ms=2,
            compression_type="lz4",
            message_timeout_ms=int(ANSWER_SECONDS * 1000),
            message_max_bytes=2_000_000,
        )
