"""The listener to a projection's commits (LISTEN/NOTIFY): passes them on to the reader, and has a switch followed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any, Protocol

import asyncpg

from ofp_platform.online.state.projection import ProjectionRow
from ofp_platform.storage.notices import PROJECTION_CHANNEL, SWITCH
from ofp_platform.storage.postgres import asyncpg_arguments
from ofp_platform.storage.transient import is_transient

_RECONNECT_SECONDS = 1.0
_LISTEN_SECONDS = 3.0  # for each statement on the connection that hears of commits
_HEARTBEAT_SECONDS = 5.0  # a server that vanished silently reports no commits either


class CommitReceiver(Protocol):
    """Whoever is told of commits; see AsyncReader."""

    def moved(self) -> None:
        """The projection committed."""

    def listening(self) -> None:
        """From now on commits are reported by `moved`, but for a notice that is lost with its sender."""

    def deaf(self) -> None:
        """A commit may have been missed."""


class CommitListener:
    """Tells the attached receiver of every commit, and whether it hears of all of them; calls `follow` at a switch.

    `live` reads the row of the live projection and blocks. `follow` is to `attach` a receiver for the row it is given. A
    notice may be lost: every `heartbeat_seconds` the listener looks for a switch, and whether its connection still lives.
    """

    def __init__(
        self,
        dsn: str,
        live: Callable[[], ProjectionRow | None],
        follow: Callable[[ProjectionRow], Awaitable[None]],
        *,
        heartbeat_seconds: float = _HEARTBEAT_SECONDS,
    ) -> None:
        self._dsn = dsn
        self._live = live
        self._follow = follow
        self._heartbeat_seconds = heartbeat_seconds
        self._listens = False
        self._receiver: CommitReceiver | None = None
        self._projection_id: int | None = None

    def attach(self, row: ProjectionRow, receiver: CommitReceiver) -> None:
        """Tell this receiver from now on, in place of the one before, which is deaf from here."""
        before, self._receiver = self._receiver, receiver
        if before is not None:
            before.deaf()
        if self._listens:
            receiver.listening()
        self._projection_id = row.projection_id

    async def run(self) -> None:
        """Listen until cancelled. A lost connection is made again; what does not pass by itself ends the listener."""
        while True:
            try:
                await self.listen_once()
            except Exception as error:
                if not is_transient(error):
                    raise
                await asyncio.sleep(_RECONNECT_SECONDS)

    async def listen_once(self) -> None:
        """Listen until the connection ends."""
        may_have_changed, connection_closed = asyncio.Event(), asyncio.Event()
        may_have_changed.set()  # a switch may have come while nobody listened

        def on_notify(_connection: Any, _pid: int, _channel: str, payload: str) -> None:
            if payload == SWITCH:
                may_have_changed.set()
            elif self._receiver is not None:
                self._receiver.moved()

        def on_end(_connection: Any) -> None:
            # at once, not when the task below comes to run: until then requests would be answered from what cannot be followed
            self._set_listening(False)
            connection_closed.set()
            may_have_changed.set()

        bounds = {"timeout": _LISTEN_SECONDS, "command_timeout": _LISTEN_SECONDS}
        connection = await asyncpg.connect(**asyncpg_arguments(self._dsn), **bounds)
        try:
            connection.add_termination_listener(on_end)
            await connection.add_listener(PROJECTION_CHANNEL, on_notify)
            self._set_listening(True)
            while not connection_closed.is_set():
                try:
                    async with asyncio.timeout(self._heartbeat_seconds):
                        await may_have_changed.wait()
                except TimeoutError:
                    await connection.execute("SELECT 1")  # and look: the notice of a switch may be lost
                may_have_changed.clear()
                if not connection_closed.is_set():
                    live = await asyncio.to_thread(self._live)
                    if live is not None and live.projection_id != self._projection_id:
                        await self._follow(live)
        finally:
            self._set_listening(False)
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await connection.close(timeout=_LISTEN_SECONDS)

    def _set_listening(self, listens: bool) -> None:
        self._listens = listens
        if self._receiver is not None:
            if listens:
                self._receiver.listening()
            else:
                self._receiver.deaf()
