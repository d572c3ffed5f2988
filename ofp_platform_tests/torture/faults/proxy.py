"""A TCP proxy that does to connections what networks do: it delays, resets, falls silent, cuts in the middle, and drips.

One thread and one event loop of its own; it listens on 127.0.0.1 and forwards to a TCP address or a Unix socket. What goes
wrong and where is drawn from a seed; each thing that was really done to somebody's bytes is counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from types import TracebackType
from typing import Self

PIECE = 65_536
_DEAD_SHARE = 0.5


class Fault(StrEnum):
    """What may go wrong. CORRUPT is no fault that a plane has to survive: it is there for checks that must not be blind."""

    LATENCY = "latency"
    RESET = "reset"
    HALF_OPEN = "half-open"
    CUT = "cut"
    TRICKLE = "trickle"
    CORRUPT = "corrupt"


KINDS = (Fault.LATENCY, Fault.RESET, Fault.HALF_OPEN, Fault.CUT, Fault.TRICKLE)
_BREAK_SHARE = 0.25
"""Of the pieces that pass a network that resets or cuts, how many it breaks."""
_LARGE = 4_096
Upstream = str | tuple[str, int]


@dataclass(eq=False)
class _Connection:
    """One client and its other end. A connection that is dead swallows everything and says nothing."""

    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    dead: bool | None = None

    def close(self, *, reset: bool = False) -> None:
        for writer in self.writers:
            if reset and (raw := writer.get_extra_info("socket")) is not None and raw.family == socket.AF_INET:
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if reset:
                writer.transport.abort()
            else:
                writer.close()


class FaultProxy:
    """A context manager; `port` is known before it is entered, and connections wait until then.

    `upstream`: the path of a Unix socket, or a host and port. `counts`: how often each fault was done to a connection or to a
    piece of its bytes. `dead_share`: of the connections that fell silent, how many stay so when the network is well again.
    """

    def __init__(self, upstream: Upstream, seed: int, *, dead_share: float = _DEAD_SHARE) -> None:
        self._upstream = upstream
        self._dead_share = dead_share
        self._chance = random.Random(seed)
        self._fault: Fault | None = None
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]
        self.counts: Counter[Fault] = Counter()
        self._loop = asyncio.new_event_loop()
        self._calm = asyncio.Event()
        self._calm.set()
        self._open: set[_Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._thread = threading.Thread(target=self._run, name=f"fault-proxy-{self.port}", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def disturb(self, fault: Fault) -> None:
        """From now on, until `calm`, this goes wrong."""
        self._loop.call_soon_threadsafe(self._set, fault)

    def calm(self) -> None:
        """The network is well again. Some of the connections that fell silent go on, the others are dead for good."""
        self._loop.call_soon_threadsafe(self._set, None)

    def _set(self, fault: Fault | None) -> None:
        self._fault = fault
        if fault is Fault.HALF_OPEN:
            self._calm.clear()
        else:
            self._calm.set()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        server = self._loop.run_until_complete(asyncio.start_server(self._accept, sock=self._listener))
        self._loop.run_forever()
        server.close()
        for connection in self._open:
            connection.close(reset=True)
        for task in self._tasks:
            task.cancel()
        self._loop.run_until_complete(asyncio.gather(*self._tasks, return_exceptions=True))
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = self._loop.create_task(self._serve(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection([writer])
        self._open.add(connection)
        try:
            if isinstance(self._upstream, str):
                there, out = await asyncio.open_unix_connection(self._upstream)
            else:
                there, out = await asyncio.open_connection(*self._upstream)
            connection.writers.append(out)
            # an end that closes takes the other with it: neither store nor plane works with half of a connection
            ways = [self._loop.create_task(self._pump(connection, *way)) for way in ((reader, out), (there, writer))]
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)
        except OSError:
            pass  # the other end is not there: to the client that is a connection that closes
        finally:
            connection.close()
            self._open.discard(connection)

    async def _pump(self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):  # an end that was reset
            await self._carry(connection, reader, writer)

    async def _carry(self, connection: _Connection, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(PIECE):
            if not self._calm.is_set() and connection.dead is None:
                connection.dead = self._chance.random() < self._dead_share
                self.counts[Fault.HALF_OPEN] += 1
            if connection.dead:
                continue
            await self._calm.wait()
            connection.dead = None
            if not await self._forward(connection, writer, data):
                return

    async def _forward(self, connection: _Connection, writer: asyncio.StreamWriter, data: bytes) -> bool:
        """Pass a piece on; False: the connection is over."""
        fault, chance = self._fault, self._chance
        if fault is Fault.RESET and chance.random() < _BREAK_SHARE:
            self.counts[fault] += 1
            connection.close(reset=True)
            return False
        if fault is Fault.CUT and chance.random() < _BREAK_SHARE:
            self.counts[fault] += 1
            writer.write(data[: chance.randrange(len(data))])
            await writer.drain()
            return False
        if fault is Fault.LATENCY:
            self.counts[fault] += 1
            await asyncio.sleep(chance.uniform(0.002, 0.08))
        elif fault is Fault.TRICKLE:
            self.counts[fault] += 1
            size = chance.choice((1, 7, 100))
            for start in range(0, min(len(data), 40 * size), size):
                writer.write(data[start : start + size])
                await writer.drain()
                await asyncio.sleep(0.002)
            data = data[40 * size :]
        elif fault is Fault.CORRUPT and len(data) > _LARGE and writer is not connection.writers[0]:
            self.counts[fault] += 1
            place = chance.randrange(len(data) // 4, len(data) - 8)  # of what is sent to the store, and is no statement
            data = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        writer.write(data)
        await writer.drain()
        return True
