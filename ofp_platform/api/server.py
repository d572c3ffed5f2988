"""Runs the HTTP service on uvloop: checks the address, starts workers, says when they answer, stops on a signal.

uvicorn keeps the life of a worker (start and end of the application, signals, the drain); a connection is `HttpConnection`.
"""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection
from typing import Any, cast

from uvicorn import Config, Server

from ofp_platform.api.connection_places import ConnectionLimits, fit_file_limit
from ofp_platform.api.handshakes import TlsAcceptor
from ofp_platform.api.http_connection import DirectApplication, Front
from ofp_platform.api.tls import CertificateWatch, Tls
from ofp_platform.api.workers import STOP_SECONDS, Workers
from ofp_platform.vocabulary.background_tasks import EndedTasks

_PR_SET_PDEATHSIG = 1
# of every answer: what it is, is what it says it is, and it stands in no page of another site
_HEADERS = [
    ("x-content-type-options", "nosniff"),
    ("cross-origin-resource-policy", "same-origin"),
    ("x-frame-options", "DENY"),
]
_HANDSHAKES = 512
_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


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


def address_of(host: str, port: int, scheme: str = "http") -> str:
    """The URL of a service bound to an address."""
    reachable = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)
    return f"{scheme}://[{reachable}]:{port}" if ":" in reachable else f"{scheme}://{reachable}:{port}"


def print_address(address: str) -> None:
    """Tell whoever started the process."""
    print(f"serving at {address}", flush=True)


def serve(
    factory: Callable[[], DirectApplication],
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int = 1,
    *,
    limits: ConnectionLimits | None = None,
    tls: Tls | None = None,
    ended: EndedTasks | None = None,
    on_ready: Callable[[str], None] = print_address,
) -> None:
    """Serve until SIGTERM or SIGINT, in the main thread of a process that holds no threads or pools yet.

    `factory` builds the application in the process that serves: this one for a single worker, else one process each (it must be
    picklable where processes are spawned). `on_ready` is called once, with the URL, when every worker answers. Requests under way
    are finished first. One of several workers that ends is started again, and told in `ended`, which they share.

    Raises:
        AddressError: the port is taken.
        CertificateUnusable: see Tls.
        TooFewFiles: the process may not open enough files.
        SystemExit: a worker could not start, the only one died, or all of several are given up; their messages are in the log.
    """
    limits = limits or ConnectionLimits()
    limits = replace(limits, handshakes=0 if tls is None else limits.handshakes or _HANDSHAKES)
    limits, lowered = fit_file_limit(limits)
    if lowered is not None:
        print(lowered, file=sys.stderr, flush=True)
    if tls is not None:
        tls.context()
    with reserved_port(host, port) as port_number:
        address = address_of(host, port_number, "http" if tls is None else "https")
        if workers == 1:
            _work(factory, host, port_number, limits, tls, lambda: on_ready(address))
        else:
            arguments = (factory, host, port_number, limits, tls, os.getpid())
            if not Workers(workers, _work_apart, arguments, lambda: on_ready(address), ended or EndedTasks()).run():
                raise SystemExit(1)


class _Worker(Server):
    """uvicorn's server, which also says when it answers. With `tls` it accepts connections itself."""

    def __init__(self, config: Config, front: Front, tls: Tls | None, on_ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._front = front
        self._certificate = None if tls is None else CertificateWatch(tls)
        self._context = None if tls is None else tls.context()
        self._on_ready = on_ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        context = self._context
        if context is None or sockets is None:
            await super().startup(sockets)
        else:
            await super().startup([])
            connect = partial(self._front.connection, server_state=self.server_state)
            for listener in sockets:
                acceptor = TlsAcceptor(listener, context, self._front.places.limits, connect)
                acceptor.start()
                self.servers.append(cast(Any, acceptor))
        if not self.should_exit:
            self._on_ready()

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second; once a second, look at the certificate."""
        if self._certificate is not None and self._context is not None and counter % 10 == 0:
            self._certificate.refresh(self._context)
        return await super().on_tick(counter)


def _work(
    factory: Callable[[], DirectApplication],
    host: str,
    port: int,
    limits: ConnectionLimits,
    tls: Tls | None,
    on_ready: Callable[[], None],
) -> None:
    """Serve in this process, until a signal."""
    application = factory()
    # what was loaded up to here stays: without this a full collection walks over all of it in the middle of some request
    gc.collect()
    gc.freeze()
    # every few requests would be one in ten of the time that answering takes; the rare full ones walk over the cache
    gc.set_threshold(20_000, 20, 1_000)
    front = Front(application, limits)
    config = Config(
        cast(Any, application),
        http=cast(Any, front.connection),
        loop="uvloop",
        ws="none",
        interface="asgi3",
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        headers=_HEADERS,
        workers=1,
        backlog=limits.backlog,
        timeout_graceful_shutdown=STOP_SECONDS,
    )
    # uvicorn raises the signal that ended it again, for whoever handled it before: that is nobody, and the end is a good one
    for number in _STOP_SIGNALS:
        signal.signal(number, lambda *_: None)
    try:
        _Worker(config, front, tls, on_ready).run([_bind(host, port, socket.SO_REUSEPORT, socket.SO_REUSEADDR)])
    except SystemExit:
        raise SystemExit(1) from None  # it could not start, and said why


def _work_apart(
    factory: Callable[[], DirectApplication],
    host: str,
    port: int,
    limits: ConnectionLimits,
    tls: Tls | None,
    parent: int,
    ready: Connection,
) -> None:
    """Serve in a process of its own, which does not outlive the one that started it."""
    for number in _STOP_SIGNALS:
        signal.signal(number, signal.SIG_DFL)  # the parent's own way to stop is not ours
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != parent:
            raise SystemExit("the process that started this worker is gone")
    _work(factory, host, port, limits, tls, lambda: ready.send(None))
