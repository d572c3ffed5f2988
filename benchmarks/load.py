"""A small HTTP/1.1 load generator: a fixed number of keep-alive connections, one request in flight on each."""

from __future__ import annotations

import asyncio
import gc
import itertools
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import cast

import uvloop

from benchmarks.keys import KEY

QUANTILES = (0.5, 0.9, 0.99, 0.999, 1.0)
_GRACE_SECONDS = 60.0


@dataclass(frozen=True)
class Load:
    """The measurement of one run. `latencies` in seconds, in ascending order; `failures` are the answers other than 200."""

    requests: int
    seconds: float
    latencies: list[float]
    failures: int

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds

    def quantile(self, q: float) -> float:
        """A latency quantile, in milliseconds."""
        return self.latencies[min(len(self.latencies) - 1, int(q * len(self.latencies)))] * 1000

    def compact(self) -> dict[str, object]:
        """The run for raw results: its quantiles in milliseconds (1.0 is the slowest) in place of every latency."""
        quantiles = {str(q): round(self.quantile(q), 4) for q in QUANTILES}
        return {"requests": self.requests, "seconds": round(self.seconds, 4), "failures": self.failures, "ms": quantiles}


def post(path: str, body: bytes) -> bytes:
    """The bytes of one keep-alive POST."""
    lines = [
        f"POST {path} HTTP/1.1",
        "host: localhost",
        f"authorization: Bearer {KEY}",
        "content-type: application/json",
        f"content-length: {len(body)}",
    ]
    return "\r\n".join([*lines, "\r\n"]).encode() + body


class _Connection(asyncio.Protocol):
    """Sends the next request as soon as the answer to the last one is whole; `outcome` gets the number of failures."""

    def __init__(self, requests: Iterator[bytes], latencies: list[float], outcome: asyncio.Future[int]) -> None:
        self._requests = requests
        self._latencies = latencies
        self._outcome = outcome
        self._until = 0.0
        self._began = 0.0
        self._buffer = b""
        self._failures = 0
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is not of that class

    def start(self, until: float) -> None:
        """Go, and send nothing more after `until`, seconds of the performance counter."""
        self._until = until
        self._next()

    def _next(self) -> None:
        request = next(self._requests, None)
        if request is None:
            self._outcome.set_result(self._failures)
            self._transport.close()
            return
        self._began = time.perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer + data
        end = buffer.find(b"\r\n\r\n")
        if end >= 0 and len(buffer) >= end + 4 + _content_length(buffer[:end]):
            now = time.perf_counter()
            self._latencies.append(now - self._began)
            self._failures += not buffer.startswith(b"HTTP/1.1 200")
            self._buffer = b""
            if now >= self._until:
                self._requests = iter(())
            self._next()
        else:
            self._buffer = buffer

    def connection_lost(self, error: Exception | None) -> None:
        if not self._outcome.done():
            self._outcome.set_exception(error or ConnectionResetError("the server closed a connection that was in use"))


def _content_length(head: bytes) -> int:
    return int(head.lower().split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])


async def run(host: str, port: int, requests: Sequence[bytes], connections: int, seconds: float | None = None) -> Load:
    """Send all requests once, spread over the connections; or, given `seconds`, in circles until they are over.

    Raises:
        ConnectionError: the server closed a connection. TimeoutError: it hangs.
    """
    loop = asyncio.get_running_loop()
    latencies: list[float] = []
    source = iter(requests) if seconds is None else itertools.cycle(requests)
    open_connections: list[tuple[_Connection, asyncio.Future[int]]] = []
    for _ in range(connections):
        outcome: asyncio.Future[int] = loop.create_future()
        _, connection = await loop.create_connection(partial(_Connection, source, latencies, outcome), host, port)
        open_connections.append((connection, outcome))
    began = time.perf_counter()
    for connection, _ in open_connections:
        connection.start(began + seconds if seconds is not None else float("inf"))
    limit = None if seconds is None else seconds + _GRACE_SECONDS
    failures = await asyncio.wait_for(asyncio.gather(*(outcome for _, outcome in open_connections)), limit)
    return Load(len(latencies), time.perf_counter() - began, sorted(latencies), sum(failures))


def load(port: int, requests: Sequence[bytes], connections: int, seconds: float | None = None) -> Load:
    """`run` against this machine. The generator's own garbage collection waits until it is over."""
    gc.collect()
    gc.disable()
    try:
        return uvloop.run(run("127.0.0.1", port, requests, connections, seconds))
    finally:
        gc.enable()
