"""TLS handshakes of the HTTP service: how many may be half-open, and for how long.

A connection gets a place among the others when its handshake is over. Until then it holds a file of the process and nothing
else, and there are only so many: the next one takes the place of the oldest of whoever holds most of them.
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable

from ofp_platform.api.connection_places import ConnectionLimits, Lane, peer_of

_IN_A_ROW = 64  # accepted before those that are connected have their turn
_PAUSE_SECONDS = 0.2


class TlsAcceptor:
    """Accepts connections of a bound socket; `connect` makes the protocol of one, which has it when its handshake is over.

    Has what uvicorn asks of a server: `close` and `wait_closed`.
    """

    def __init__(
        self, listener: socket.socket, context: ssl.SSLContext, limits: ConnectionLimits, connect: Callable[[], asyncio.Protocol]
    ) -> None:
        self._listener = listener
        self._context = context
        self._limits = limits
        self._connect = connect
        self._handshakes: Lane[asyncio.Task[None]] = Lane(limits.handshakes)
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop = asyncio.get_running_loop()
        self._is_closed = False

    def start(self) -> None:
        """Listen."""
        self._listener.setblocking(False)
        self._listener.listen(self._limits.backlog)
        self._resume()

    def _resume(self) -> None:
        if not self._is_closed:
            self._loop.add_reader(self._listener.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(_IN_A_ROW):
            try:
                sock, address = self._listener.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # no file left for another connection: those that stand go on
                self._loop.remove_reader(self._listener.fileno())
                self._loop.call_later(_PAUSE_SECONDS, self._resume)
                return
            sock.setblocking(False)
            task = self._loop.create_task(self._open(sock))
            self._tasks.add(task)
            task.add_done_callback(self._end)
            displaced_task = self._handshakes.enter(task, peer_of(address[0]))
            if displaced_task is not None:
                displaced_task.cancel()

    async def _open(self, sock: socket.socket) -> None:
        try:
            await self._loop.connect_accepted_socket(
                self._connect, sock, ssl=self._context, ssl_handshake_timeout=self._limits.handshake_seconds
            )
        except OSError:  # also of ssl, and that it took too long: nobody is there who could be told
            sock.close()
        except asyncio.CancelledError:
            sock.close()
            raise

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._handshakes.leave(task)

    def close(self) -> None:
        """Accept no more, and give up what is half-open."""
        self._is_closed = True
        self._loop.remove_reader(self._listener.fileno())
        for task in self._tasks:
            task.cancel()

    async def wait_closed(self) -> None:
        """Return when nothing is half-open."""
        if self._tasks:
            await asyncio.wait(self._tasks)
