"""Runs the HTTP service under Granian: checks the address, starts workers, says when they answer, stops on a signal."""

from __future__ import annotations

import ctypes
import errno
import gc
import http.client
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from granian.constants import HTTPModes, Interfaces, Loops
from granian.errors import ConfigurationError
from granian.http import HTTP1Settings
from granian.log import LogLevels
from granian.server import Server
from starlette.types import ASGIApp

from ofp_platform.api.authentication import check_exposure, load_tokens
from ofp_platform.api.rsgi import OnRsgi

LOGGER = logging.getLogger("ofp.http")
_HEADER_READ_TIMEOUT_MS = 5_000
_STOP_SECONDS = 10
_PR_SET_PDEATHSIG = 1


class AddressError(Exception):
    """The address cannot be bound; the text says why."""


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET


def _bind(host: str, port: int, *options: int) -> socket.socket:
    bound = socket.socket(_family(host), socket.SOCK_STREAM)
    try:
        for option in options:
            bound.setsockopt(socket.SOL_SOCKET, option, 1)
        bound.bind((host, port))
    except OSError as error:
        bound.close()
        if error.errno == errno.EADDRINUSE:
            raise AddressError(f"port {port} of {host} is taken by another process; choose another with --port") from None
        raise AddressError(f"{host}:{port} cannot be bound: {error.strerror or error}") from None
    return bound


@contextmanager
def reserved_port(host: str, port: int) -> Iterator[int]:
    """A port that is ours while the context lasts; 0 chooses a free one.

    Workers share a port by SO_REUSEPORT, which would also let a second service slip onto it unseen: so first the port is
    taken alone, and then held, bound but not listening, for as long as the workers come and go.

    Raises:
        AddressError: the port is taken, or the address is not of this machine.
    """
    # SO_REUSEADDR passes over connections that a stopped service left behind, but not over a service
    with _bind(host, port, socket.SO_REUSEADDR) as alone:
        port_number: int = alone.getsockname()[1]
    with _hold(host, port_number):
        yield port_number


def _hold(host: str, port: int) -> socket.socket:
    try:
        return _bind(host, port, socket.SO_REUSEPORT)
    except AddressError:
        # another program left connections behind: then the port can be held only less firmly, against all that listens
        return _bind(host, port, socket.SO_REUSEPORT, socket.SO_REUSEADDR)


def address_of(host: str, port: int) -> str:
    """The URL of a service bound to an address."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"http://[{reachable}]:{port}" if ":" in reachable else f"http://{reachable}:{port}"


def answers(host: str, port: int) -> bool:
    """Whether an HTTP service answers there at all, whatever it says."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    connection = http.client.HTTPConnection(reachable, port, timeout=1.0)
    try:
        connection.request("GET", "/health")
        connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
    return True


def _announce(host: str, port: int, stop_event: threading.Event, on_ready: Callable[[str], None]) -> None:
    # the first wait is longer than it takes to fork the workers: nothing here may be under way at a fork
    if stop_event.wait(0.1):
        return
    while not stop_event.wait(0.02):
        if answers(host, port):
            on_ready(address_of(host, port))
            return


def print_address(address: str) -> None:
    """Tell whoever started the process."""
    print(f"serving at {address}", flush=True)


def _load(factory: Callable[[], ASGIApp], parent: int) -> OnRsgi:
    """In a worker: build the application, and see to it that no worker outlives the process that started it."""
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            raise SystemExit("the process that started this worker is gone")
    application = OnRsgi(factory())
    # what was loaded up to here stays: without this a full collection walks over all of it in the middle of some request
    gc.collect()
    gc.freeze()
    # every few requests would be one in ten of the time that answering takes; the rare full ones walk over the cache
    gc.set_threshold(20_000, 20, 1_000)
    return application


def serve(
    factory: Callable[[], ASGIApp],
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int = 1,
    *,
    on_ready: Callable[[str], None] = print_address,
) -> None:
    """Serve until SIGTERM or SIGINT, in the main thread of a process that holds no threads or pools yet.

    `factory` builds the application inside each worker process (it must be picklable where processes are spawned).
    `on_ready` is called once, with the URL, when the service answers. Requests under way are finished first.

    Raises:
        ExposureError: the address is open to a network and no token is configured.
        AddressError: the port is taken.
        SystemExit: a worker could not start or died; its own message is in the log.
    """
    check_exposure(host, load_tokens(os.environ))
    with reserved_port(host, port) as port_number:
        server = _server(host, port_number, workers)
        stop_event = threading.Event()
        herald = threading.Thread(target=_announce, args=(host, port_number, stop_event, on_ready), daemon=True)
        server.on_startup(herald.start)
        try:
            server.serve(target_loader=partial(_load, factory, os.getpid()), wrap_loader=False)
        except ConfigurationError as error:
            raise AddressError(f"the server refuses its settings: {error}") from None
        finally:
            stop_event.set()


def _server(host: str, port: int, workers: int) -> Any:
    return Server(
        "ofp_platform.api",
        address=host,
        port=port,
        interface=Interfaces.RSGI,
        workers=workers,
        loop=Loops.uvloop,
        http=HTTPModes.http1,
        http1_settings=HTTP1Settings(header_read_timeout=_HEADER_READ_TIMEOUT_MS),
        websockets=False,
        backlog=1024,
        log_level=LogLevels.warning,
        workers_kill_timeout=_STOP_SECONDS,
    )
