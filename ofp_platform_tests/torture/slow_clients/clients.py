"""Clients that take their time: they drip a request, stop in the middle of it, never read the answer, or say nothing at all."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import resource
import socket
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from statistics import median

from benchmarks.load import Load, load

CLIENTS = 5_000
OPEN_SHARE = 0.9
"""How many of them are open at any moment, at least: the server ends most after five seconds, and they come again."""
_DRIP_SECONDS = 2.0
_COMING_SECONDS = 10.0
_SOURCES = 50  # addresses that they come from
_OTHER_FILES = 128
_PIPELINED = 8
_SETTLING_SECONDS = 2.0
KINDS = ("drips its head", "drips its body", "stops in its body", "never reads", "says nothing")


@dataclass
class _Crowd:
    port: int
    request: bytes
    kinds: Sequence[str]
    count: int
    open: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)

    async def client(self, number: int) -> None:
        kind = self.kinds[number % len(self.kinds)]
        await asyncio.sleep(number / self.count * _COMING_SECONDS)  # they come one after the other
        while True:
            with contextlib.suppress(OSError):
                await self._once(kind, f"127.0.1.{1 + number % _SOURCES}")
                self.ended[kind] += 1
            await asyncio.sleep(0.1)

    async def _once(self, kind: str, source: str) -> None:
        raw = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        raw.setblocking(False)
        raw.bind((source, 0))
        if kind == "never reads":
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", self.port))
        reader, writer = await asyncio.open_connection(sock=raw, limit=1_024)
        self.open[kind] += 1
        try:
            head, _, body = self.request.partition(b"\r\n\r\n")
            if kind == "never reads":
                writer.write(self.request * _PIPELINED)
                await asyncio.Event().wait()
            elif kind == "stops in its body":
                writer.write(head + b"\r\n\r\n" + body[: len(body) // 2])
            elif kind == "drips its body":
                writer.write(head + b"\r\n\r\n")
                await self._drip(reader, writer, body)
            elif kind == "drips its head":
                await self._drip(reader, writer, head)
            await reader.read()
        finally:
            self.open[kind] -= 1
            writer.transport.abort()

    @staticmethod
    async def _drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, data: bytes) -> None:
        for byte in data:
            if reader.at_eof() or writer.is_closing():
                return
            writer.write(bytes([byte]))
            await asyncio.sleep(_DRIP_SECONDS)


def _raise_file_limit() -> None:
    """Let this process open as many files as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def possible_clients(count: int = CLIENTS) -> int:
    """So many clients, or as many as one process of this machine may hold connections."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return count if hard == resource.RLIM_INFINITY else min(count, hard - _OTHER_FILES)


def _crowd(port: int, request: bytes, count: int, kinds: Sequence[str], orders: Connection) -> None:
    """In a process of its own: tell how many are open whenever asked, until the other end closes."""

    async def run() -> None:
        _raise_file_limit()
        crowd = _Crowd(port, request, kinds, count)
        tasks = [asyncio.create_task(crowd.client(number)) for number in range(count)]
        with contextlib.suppress(EOFError, OSError):
            while True:
                await asyncio.to_thread(orders.recv)
                orders.send((crowd.open.total(), dict(crowd.open), dict(crowd.ended)))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())


@contextmanager
def crowd(port: int, request: bytes, count: int = CLIENTS, kinds: Sequence[str] = KINDS) -> Iterator[Connection]:
    """So many slow clients; send anything to hear (open now, by kind, ended by the server by kind)."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_crowd, args=(port, request, count, kinds, theirs))
    process.start()
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        process.join(20)
        if process.is_alive():
            process.kill()
            process.join()
        process.close()


@dataclass
class Slowness:
    """What eight ordinary connections measured, in turns without and with the slow ones."""

    alone: list[Load] = field(default_factory=list)
    crowded: list[Load] = field(default_factory=list)
    least_open: int = CLIENTS
    ended: Counter[str] = field(default_factory=Counter)

    @property
    def ratio(self) -> float:
        """p99 with the slow clients over p99 without them: the median over the pairs of turns."""
        return median(slow.quantile(0.99) / own.quantile(0.99) for own, slow in zip(self.alone, self.crowded, strict=True))

    @property
    def failures(self) -> int:
        """Ordinary requests without a right answer."""
        return sum(part.failures for part in (*self.alone, *self.crowded))


def measure(port: int, requests: Sequence[bytes], turns: int, seconds: float, count: int = CLIENTS) -> Slowness:
    """Turns of so many seconds, alternately without and with the slow clients."""
    found = Slowness(least_open=count)
    load(port, requests, 8, min(seconds, 1.0))
    for _ in range(turns):
        found.alone.append(load(port, requests, 8, seconds))
        with crowd(port, requests[0], count) as slow:
            _until_open(slow, count)
            found.crowded.append(load(port, requests, 8, seconds))
            slow.send(None)
            now, _, ended = slow.recv()
            found.least_open = min(found.least_open, now)
            found.ended.update(ended)
    return found


def _until_open(slow: Connection, count: int) -> None:
    for _ in range(1_200):
        slow.send(None)
        if slow.recv()[0] >= count * OPEN_SHARE:
            time.sleep(_SETTLING_SECONDS)  # so many arrivals at once are another thing than slowness
            return
        time.sleep(0.05)
    raise TimeoutError("the slow clients are not let in")
