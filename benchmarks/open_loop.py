"""An open-loop load: requests come by a schedule and wait for nobody, so a server that stalls is not asked less meanwhile.

Arrivals are those of a Poisson process. A request whose turn comes while all connections wait for answers stands in line; its
latency counts from its scheduled time. The loop waits by `select`: timers of epoll have milliseconds.
"""

from __future__ import annotations

import asyncio
import gc
import selectors
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import numpy as np

from benchmarks.load import Load

_GRACE_SECONDS = 60.0
_CONNECTIONS = 64


class _Connection(asyncio.Protocol):
    """One keep-alive connection: sends a request, and says when its answer is whole."""

    def __init__(
        self, on_answer: Callable[[_Connection, float, bool], None], on_loss: Callable[[_Connection, Exception | None], None]
    ) -> None:
        self._on_answer = on_answer
        self._on_loss = on_loss
        self._due = 0.0
        self._buffer = b""
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def send(self, request: bytes, due: float) -> None:
        """Send a request that was due at that time of the clock."""
        self._due = due
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data
        end = buffer.find(b"\r\n\r\n")
        if end >= 0 and len(buffer) >= end + 4 + int(buffer[:end].lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0]):
            self._buffer = b""
            self._on_answer(self, time.perf_counter() - self._due, buffer.startswith(b"HTTP/1.1 200"))
        else:
            self._buffer = buffer

    def connection_lost(self, error: Exception | None) -> None:
        self._on_loss(self, error)

    def close(self) -> None:
        """No more requests."""
        self._transport.close()


class _Schedule:
    """Sends each request when it is due, or as soon after it as a connection is free."""

    def __init__(self, requests: Sequence[bytes], arrivals: list[float], ended: asyncio.Future[None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._requests = requests
        self._arrivals = arrivals
        self._ended = ended
        self._next = 0
        self._began = 0.0
        self._line: deque[tuple[bytes, float]] = deque()
        self._free: list[_Connection] = []
        self.latencies: list[float] = []
        self.failures = 0

    def begin(self, connections: list[_Connection]) -> None:
        """Go."""
        self._free = connections
        self._began = time.perf_counter()
        self._send_due()

    def _send_due(self) -> None:
        now = time.perf_counter() - self._began
        while self._next < len(self._arrivals) and self._arrivals[self._next] <= now:
            request, due = self._requests[self._next % len(self._requests)], self._began + self._arrivals[self._next]
            self._next += 1
            if self._free:
                self._free.pop().send(request, due)
            else:
                self._line.append((request, due))
        if self._next < len(self._arrivals):
            self._loop.call_later(self._arrivals[self._next] - (time.perf_counter() - self._began), self._send_due)

    def answer(self, connection: _Connection, latency: float, is_good: bool) -> None:
        """Take note of an answer."""
        self.latencies.append(latency)
        self.failures += not is_good
        if self._line:
            connection.send(*self._line.popleft())
        else:
            self._free.append(connection)
        if len(self.latencies) == len(self._arrivals):
            self._ended.set_result(None)

    def loss(self, connection: _Connection, error: Exception | None) -> None:
        """A connection is gone. A server may close one that nothing waits on, while others are left."""
        if connection in self._free and len(self._free) > 1:
            self._free.remove(connection)
        elif not self._ended.done():
            self._ended.set_exception(error or ConnectionResetError("the server closed a connection that was in use"))


async def _run(port: int, requests: Sequence[bytes], arrivals: list[float]) -> Load:
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()
    schedule = _Schedule(requests, arrivals, ended)
    connections: list[_Connection] = []
    for _ in range(_CONNECTIONS):
        _, connection = await loop.create_connection(partial(_Connection, schedule.answer, schedule.loss), "127.0.0.1", port)
        connections.append(connection)
    began = time.perf_counter()
    schedule.begin(list(connections))
    await asyncio.wait_for(ended, arrivals[-1] + _GRACE_SECONDS)
    seconds = time.perf_counter() - began
    for connection in connections:
        connection.close()
    return Load(len(arrivals), seconds, sorted(schedule.latencies), schedule.failures)


def open_load(port: int, requests: Sequence[bytes], rate: float, seconds: float, seed: int) -> Load:
    """Ask a server of this machine `rate` times a second on average; latencies count from the scheduled times.

    Raises:
        ConnectionError: the server closed a connection. TimeoutError: it hangs.
    """
    rng = np.random.default_rng(seed)
    arrivals = np.cumsum(rng.exponential(1 / rate, max(round(rate * seconds), 1))).tolist()
    gc.collect()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
            return runner.run(_run(port, requests, arrivals))
    finally:
        gc.enable()
