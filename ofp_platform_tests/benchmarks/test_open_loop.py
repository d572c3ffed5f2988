"""An open loop asks by its schedule, and a server that stalls shows in the latencies of all that came meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.load import post
from benchmarks.open_loop import open_load


class _Server:
    """Answers in the order of the requests; stalls for `stall` seconds at the request number `at`, for all connections."""

    def __init__(self, at: int, stall: float, status: bytes = b"200 OK") -> None:
        self.count = 0
        self._at = at
        self._stall = stall
        self._status = status
        self._turn = asyncio.Lock()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection."""
        try:
            while True:
                await reader.readuntil(b"\r\n\r\n{}")
                async with self._turn:
                    self.count += 1
                    if self.count == self._at:
                        await asyncio.sleep(self._stall)
                writer.write(b"HTTP/1.1 " + self._status + b"\r\nContent-Length: 3\r\n\r\nabc")
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()


@contextmanager
def listening(at: int, stall: float, status: bytes = b"200 OK") -> Iterator[tuple[int, _Server]]:
    ready, port, servers = threading.Event(), [0], []
    stop: list[tuple[asyncio.AbstractEventLoop, asyncio.Event]] = []

    async def main() -> None:
        server = _Server(at, stall, status)
        servers.append(server)
        stopped = asyncio.Event()
        stop.append((asyncio.get_running_loop(), stopped))
        async with await asyncio.start_server(server.serve, "127.0.0.1", 0) as listener:
            port[0] = listener.sockets[0].getsockname()[1]
            ready.set()
            await stopped.wait()

    thread = threading.Thread(target=asyncio.run, args=(main(),))
    thread.start()
    ready.wait()
    try:
        yield port[0], servers[0]
    finally:
        stop[0][0].call_soon_threadsafe(stop[0][1].set)
        thread.join()


def test_all_that_came_during_a_stall_waited_for_its_end() -> None:
    with listening(at=100, stall=0.4) as (port, server):
        measured = open_load(port, [post("/", b"{}")], rate=500, seconds=1.0, seed=1)
    assert measured.requests == len(measured.latencies) == server.count == 500
    assert measured.failures == 0
    # 0.4 s of 500 requests a second: about 200 waited, half of them more than 0.2 s; a closed loop would have asked 64 meanwhile
    assert sum(latency > 0.2 for latency in measured.latencies) > 70
    assert measured.latencies == sorted(measured.latencies)


def test_answers_other_than_200_are_counted() -> None:
    with listening(at=0, stall=0, status=b"503 Service Unavailable") as (port, _):
        measured = open_load(port, [post("/", b"{}")], rate=1_000, seconds=0.05, seed=1)
    assert measured.failures == 50


def test_a_server_that_is_gone_is_an_error() -> None:
    with listening(at=0, stall=0) as (port, _):
        pass
    with pytest.raises(ConnectionError):
        open_load(port, [post("/", b"{}")], rate=10, seconds=0.1, seed=1)
