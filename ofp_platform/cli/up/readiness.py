"""When a started process answers, and not before."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx

from ofp_platform.cli.processes import Child
from ofp_platform.cli.terminal.refusals import CommandRefused

_POLL_SECONDS = 0.25
_DAEMONS = """{ instance { daemonHealth { allDaemonStatuses { required healthy } } } }"""


def chosen_port(port: int, option: str) -> int:
    """The port, if it is free on the loopback; 0 chooses one.

    Raises:
        CommandRefused: something else listens there.
    """
    try:
        with socket.create_server(("127.0.0.1", port)) as probe:
            free: int = probe.getsockname()[1]
            return free
    except OSError:
        raise CommandRefused(f"port {port} is taken by another process; choose another with {option}") from None


def wait_until(child: Child, ready: Callable[[], bool], timeout_seconds: float, stop: threading.Event) -> bool:
    """Poll until it is ready; False when `stop` was set before.

    Raises:
        CommandRefused: it ended, or the time is over.
    """
    deadline = time.monotonic() + timeout_seconds
    while not stop.is_set():
        if child.ended:
            raise child.failure()
        try:
            if ready():
                return True
        except (httpx.HTTPError, ValueError, KeyError, TypeError):
            pass  # not yet
        if time.monotonic() > deadline:
            raise child.failure()
        stop.wait(_POLL_SECONDS)
    return False


def service_follows(address: str) -> bool:
    """Whether the HTTP service serves the projection that the projector has made.

    Raises:
        httpx.HTTPError: it does not answer.
    """
    return httpx.get(f"{address}/health", timeout=5.0, trust_env=False).json()["projection"] is not None


def _asked(address: str, session: str, query: dict[str, str]) -> Any:
    headers = {"authorization": f"Bearer {session}"}
    return httpx.post(f"{address}/graphql", json=query, headers=headers, timeout=5.0, trust_env=False).json()


def webserver_ready(address: str, session: str) -> bool:
    """Whether Dagster's web server has loaded the definitions.

    Raises:
        httpx.HTTPError: it does not answer yet.
    """
    query = {"query": "{ repositoriesOrError { __typename ... on RepositoryConnection { nodes { name } } } }"}
    response = _asked(address, session, query)
    return bool(response["data"]["repositoriesOrError"]["nodes"])


def daemons_ready(address: str, session: str) -> bool:
    """Whether every daemon that the instance needs has given a heartbeat.

    Raises:
        httpx.HTTPError: the web server does not answer.
    """
    response = _asked(address, session, {"query": _DAEMONS})
    statuses = response["data"]["instance"]["daemonHealth"]["allDaemonStatuses"]
    return bool(statuses) and all(status["healthy"] for status in statuses if status["required"])
