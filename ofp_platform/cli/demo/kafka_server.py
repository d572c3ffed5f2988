"""A Kafka to try the demo on, in the environment of this process for as long as that needs it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from ofp_platform.cli.services.kafka_service import broker_environment, kafka_service


@contextmanager
def temporary_kafka(output: Path, port: int | None = None) -> Iterator[Mapping[str, str]]:
    """A broker that lives as long as the context, on that port or a free one; the environment of who uses it.

    This process has it in its environment, too.

    Raises:
        CommandRefused: no broker is installed.
    """
    with kafka_service(output, port) as service:
        environment = broker_environment(service.port)
        before = {name: os.environ.get(name) for name in environment}
        os.environ.update(environment)
        try:
            yield environment
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
