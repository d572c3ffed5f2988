"""A Kinesis to try the demo on: moto's server as a process of its own, with data that goes when it ends."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ofp_platform.cli.environment import Environment
from ofp_platform.cli.processes import Child
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.storage.embedded import stop_embedded

_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "demo",
    "AWS_SECRET_ACCESS_KEY": "demo",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def temporary_kinesis(output: Path) -> Iterator[str]:
    """The endpoint of a moto server that lives as long as the context. boto3 in this process gets credentials for it.

    Raises:
        CommandRefused: moto is not installed.
    """
    if importlib.util.find_spec("moto") is None:
        raise CommandRefused(
            "--log kinesis needs a Kinesis: install moto (`make setup` does, or pip install 'moto[kinesis,server]'),"
            " or name an endpoint with --kinesis-endpoint"
        )
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    before = {name: os.environ.get(name) for name in _CREDENTIALS}
    with Child("the moto server", command, _CREDENTIALS, output) as server:
        server.wait_for_line(" * Running on", 60.0)
        os.environ.update(_CREDENTIALS)
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


@contextmanager
def temporary_home(environment: Environment) -> Iterator[Environment]:
    """A home inside the home that goes with the context: state that was folded from a log that goes, too."""
    environment.folder.mkdir(parents=True, exist_ok=True)
    folder = Path(tempfile.mkdtemp(prefix="kinesis-", dir=environment.folder))
    try:
        yield Environment(home=folder, database_url=None)
    finally:
        stop_embedded(folder / "postgres")
        shutil.rmtree(folder, ignore_errors=True)
