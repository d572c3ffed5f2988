"""Sends what is fuzzed and looks at what comes back: failures, silence, and right answers that are no longer right."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from ofp_platform_tests.torture.fuzz.raw import Raw, Then
from ofp_platform_tests.torture.fuzz.requests import Sent

LIMIT_SECONDS = 20.0
"""A connection on which nothing has happened by then hangs. The service gives a head 5 s, and a body 5 s."""
_SHOWN = 300
_RESET = struct.pack("ii", 1, 0)


@dataclass
class Seen:
    """What came back."""

    sent: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    closed: int = 0
    right: int = 0
    failures: list[str] = field(default_factory=list)
    hangs: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    slowest_seconds: float = 0.0

    def failed(self, answer: bytes, request: bytes) -> None:
        """Note an answer of 5xx."""
        place = answer.find(b"HTTP/1.1 5")
        self.failures.append(f"{answer[place : place + _SHOWN + 200]!r} to {request[:_SHOWN]!r}")


class _Connection(asyncio.Protocol):
    """One keep-alive connection, one request in flight."""

    def __init__(self) -> None:
        self.transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._head_only = False
        self._answer: asyncio.Future[tuple[int, bytes]] | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def connection_lost(self, error: Exception | None) -> None:
        self.transport = None
        self._settle(0)

    def data_received(self, data: bytes) -> None:
        received = self._received
        received += data
        end = received.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(received[:end]).lower()
        status = int(head[9:12])
        length = 0 if self._head_only or status in (204, 304) else _length(head)
        if length >= 0 and len(received) >= end + 4 + length and self.transport is not None:
            if b"\r\nconnection: close" in head:
                self.transport.close()
                self.transport = None
            self._settle(status)

    def _settle(self, status: int) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_result((status, bytes(self._received)))

    async def ask(self, sent: Sent) -> tuple[int, bytes]:
        """The status and the answer, 0 when it was closed instead. Raises TimeoutError: nothing came."""
        assert self.transport is not None
        loop = asyncio.get_running_loop()
        self._received.clear()
        self._head_only = sent.head_only
        self._answer = loop.create_future()
        self.transport.write(sent.data)
        async with asyncio.timeout(LIMIT_SECONDS):
            return await self._answer


class _Talker:
    """Asks over one connection after another: a new one whenever the service, or a hang, ended the last."""

    def __init__(self) -> None:
        self._connection: _Connection | None = None

    def drop(self) -> None:
        """Leave the connection, without a good-bye."""
        if self._connection is not None and self._connection.transport is not None:
            self._connection.transport.abort()
        self._connection = None

    async def ask(self, port: int, sent: Sent) -> tuple[int, bytes]:
        """As `_Connection.ask`."""
        last = self._connection
        if last is None or last.transport is None or last.transport.is_closing():
            _, self._connection = await asyncio.get_running_loop().create_connection(_Connection, "127.0.0.1", port)
        assert self._connection is not None
        return await self._connection.ask(sent)


def _length(head: bytes) -> int:
    found = head.partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0].strip()
    return int(found) if found else -1


def _named_hash(answer: bytes) -> str:
    return answer.partition(b"ofp-snapshot-hash: ")[2][:64].decode("latin-1")


async def talk(
    port: int, source: Iterator[Sent], count: int, seen: Seen, look: Callable[[Sent, int, bytes], None], connections: int = 16
) -> None:
    """Send so many well-framed requests over a few connections; `look` sees each answer (status, all its bytes)."""
    some = islice(source, count)

    async def one() -> None:
        talker = _Talker()
        for sent in some:
            began = time.perf_counter()
            seen.sent += 1
            try:
                status, answer = await talker.ask(port, sent)
            except TimeoutError:
                seen.hangs.append(repr(sent.data[:_SHOWN]))
                talker.drop()
                continue
            except OSError as error:
                seen.failures.append(f"no connection: {error}")
                await asyncio.sleep(0.1)
                continue
            seen.slowest_seconds = max(seen.slowest_seconds, time.perf_counter() - began)
            seen.statuses[status] += 1
            seen.closed += status == 0
            if status >= 500:
                seen.failed(answer, sent.data)
            if sent.expected is not None:
                if status == 200 and _named_hash(answer) == sent.expected:
                    seen.right += 1
                else:
                    seen.wrong.append(f"{status} {answer[:_SHOWN]!r} to a valid request")
            look(sent, status, answer)
        talker.drop()

    await asyncio.gather(*(one() for _ in range(connections)))


async def shout(port: int, source: Iterator[Raw], count: int, seen: Seen, connections: int = 200) -> None:
    """Send so many raw pieces of bytes, each over a connection of its own; each must be answered or closed."""
    some = islice(source, count)

    async def one() -> None:
        for raw in some:
            seen.sent += 1
            began = time.perf_counter()
            try:
                async with asyncio.timeout(LIMIT_SECONDS):
                    received = await _shouted(port, raw)
            except TimeoutError:
                seen.hangs.append(f"{raw.then.value}: {b''.join(raw.pieces)[:_SHOWN]!r}")
                continue
            seen.slowest_seconds = max(seen.slowest_seconds, time.perf_counter() - began)
            status = int(received[9:12]) if received[:5] == b"HTTP/" and received[9:12].isdigit() else 0
            seen.statuses[status] += 1
            seen.closed += status == 0
            if b"HTTP/1.1 5" in received:
                seen.failed(received, b"".join(raw.pieces))

    await asyncio.gather(*(one() for _ in range(connections)))


async def _shouted(port: int, raw: Raw) -> bytes:
    """What came back until the server closed, or said enough."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    received = bytearray()
    try:
        # closed with a reset: so many connections would leave no port free for a minute
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        for index, piece in enumerate(raw.pieces):
            if index:
                await asyncio.sleep(0.005)
            writer.write(piece)
            await writer.drain()
        if raw.then is Then.HALF_CLOSE:
            writer.write_eof()
        while raw.then is not Then.LEAVE and (data := await reader.read(65_536)):
            received += data
            if raw.then is Then.WAIT and b"\r\n\r\n" in received:
                break
    except OSError:
        pass  # closed by the service: what it said before counts
    finally:
        writer.transport.abort()
    return bytes(received)
