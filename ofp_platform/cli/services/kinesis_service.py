"""A Kinesis to work with: moto's server, a process whose streams go when it ends. It takes any credentials."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from ofp_platform.cli.processes import Child, started
from ofp_platform.cli.services.ports import free_ports
from ofp_platform.cli.terminal.refusals import CommandRefused


@dataclass
class KinesisService:
    """One server."""

    output: Path
    credentials: dict[str, str]
    port: int = field(default_factory=lambda: free_ports(1)[0])
    child: Child | None = None

    name = "Kinesis (moto)"

    @property
    def endpoint(self) -> str:
        """Where it takes requests."""
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start it, without any stream, and wait until it answers.

        Raises:
            CommandRefused: it ended, or does not answer.
        """
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self.child = started(self.name, command, self.credentials, self.output, " * Running on")


@contextmanager
def kinesis_service(output: Path, credentials: dict[str, str]) -> Iterator[KinesisService]:
    """A new server that runs; it ends with the context.

    Raises:
        CommandRefused: moto is not installed, or does not start.
    """
    if importlib.util.find_spec("moto") is None:
        raise CommandRefused(
            "there is no Kinesis here: install moto (`make setup` does, or pip install 'moto[kinesis,server]'), or name the"
            " endpoint of another with OFP_KINESIS_ENDPOINT_URL"
        )
    service = KinesisService(output, credentials)
    service.start()
    try:
        yield service
    finally:
        if service.child is not None:
            service.child.stop()
