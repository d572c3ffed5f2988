"""A network between a plane and its PostgreSQL: a TCP proxy in a process of its own that hands every byte on later, both ways.

What arrives is handed on in its order, each piece after the same delay; the pieces behind it do not wait for it, as on a
line that is long and not narrow. Timers of epoll have milliseconds; the loop waits by `select`, whose timers have microseconds.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import selectors
import socket
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import cast
from urllib.parse import unquote

import psycopg

_START_SECONDS = 30.0
_MOST_WAITING = 4 << 20
"""Bytes of one direction that wait to be handed on; beyond it, its sender is not read."""


class _End(asyncio.Protocol):
    """One end of a proxied connection: hands to the other end what arrives here, `delay` seconds later."""

    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._is_paused = False
        self._loop = asyncio.get_running_loop()
        self.transport: asyncio.Transport
        self.other: _End

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        raw = transport.get_extra_info("socket")
        if raw.family != socket.AF_UNIX:
            raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def data_received(self, data: bytes) -> None:
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes > _MOST_WAITING and not self._is_paused:
            self._is_paused = True
            self.transport.pause_reading()
        self._loop.call_later(self._delay, self._hand_on)

    def _hand_on(self) -> None:
        data = self._waiting.popleft()
        self._waiting_bytes -= len(data)
        if not self.other.transport.is_closing():
            self.other.transport.write(data)
        if self._is_paused and self._waiting_bytes <= _MOST_WAITING // 2 and not self.transport.is_closing():
            self._is_paused = False
            self.transport.resume_reading()

    def connection_lost(self, error: Exception | None) -> None:
        if hasattr(self, "other"):
            self._loop.call_later(self._delay, self.other.transport.close)


class _Front(_End):
    """The end of the client: opens the connection to the server when the client has come."""

    def __init__(self, delay: float, path: str) -> None:
        super().__init__(delay)
        self._path = path
        self._opening: asyncio.Task[None] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.pause_reading()
        self._opening = self._loop.create_task(self._open())

    async def _open(self) -> None:
        try:
            _, back = await self._loop.create_unix_connection(partial(_End, self._delay), self._path)
        except OSError:
            self.transport.close()  # the server is gone: the client sees that as it would behind a network
            return
        self.other, back.other = back, self
        if self.transport.is_closing():
            back.transport.close()
            return
        self.transport.resume_reading()


async def _serve(path: str, delay: float, ready: Connection) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(partial(_Front, delay, path), "127.0.0.1", 0)
    ready.send(server.sockets[0].getsockname()[1])
    await server.serve_forever()


def _run(path: str, delay: float, ready: Connection) -> None:
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        runner.run(_serve(path, delay, ready))


@contextmanager
def delayed(dsn: str, delay: float) -> Iterator[tuple[str, int]]:
    """The DSN of the same database behind the proxy, and the proxy's process id; `delay` in seconds, of each way.

    `dsn` is that of an embedded server, which listens on a socket in a folder.
    """
    options = psycopg.conninfo.conninfo_to_dict(dsn)
    path = str(Path(unquote(str(options["host"]))) / ".s.PGSQL.5432")
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(path, delay, sending), daemon=True)
    process.start()
    sending.close()
    try:
        if not receiving.poll(_START_SECONDS):
            raise RuntimeError("the proxy did not start")
        port = receiving.recv()
        assert process.pid is not None
        yield f"postgresql://{options['user']}@127.0.0.1:{port}/{options['dbname']}?sslmode=disable", process.pid
    finally:
        process.kill()  # it holds nothing, and a signal that can be ignored is inherited as ignored
        process.join()
        process.close()
        receiving.close()
