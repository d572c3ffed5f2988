"""Work of requests on the database, in few threads, with bounds of what waits for them. It connects at the first request."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import psycopg

from ofp_platform.storage.postgres import DatabaseUnavailable, Pool, open_pool
from ofp_platform.storage.transient import is_transient
from ofp_platform.vocabulary.errors import ContractError, Reason, unavailable

# in threads of its own: the event loop has few, and the online plane needs those
_MOST_AT_ONCE = 4
# shorter than what a client waits by default: it is told of an outage, and tries again
_CONNECT_SECONDS = 1.0


@dataclass(frozen=True)
class WorkBounds:
    """`answer_seconds` bounds a request's wait: for its place, and for a database that took it and does not answer.

    `most_waiting` and `most_waiting_bytes` bound what waits: more than a database answers in that time, and more than a client
    sends that is in order.
    """

    answer_seconds: float = 5.0
    most_waiting: int = 512
    most_waiting_bytes: int = 64 << 20


class BoundedWork:
    """A few requests are answered at a time, the others wait. `down` words an outage, `subject` what the requests are about."""

    def __init__(
        self, dsn: str, down: str, subject: str, bounds: WorkBounds | None = None, most_at_once: int = _MOST_AT_ONCE
    ) -> None:
        self._dsn = dsn
        self._down = down
        self._subject = subject
        self._bounds = bounds or WorkBounds()
        self._pool: Pool | None = None
        self._opening = threading.Lock()
        self.under_way: set[asyncio.Future[bytes]] = set()
        self._most_at_once = most_at_once
        self._places = asyncio.Semaphore(most_at_once)
        self._threads = ThreadPoolExecutor(most_at_once, "bounded-work")
        self._waiting = 0
        self._waiting_bytes = 0

    async def answer(self, work: Callable[[], bytes], size: int) -> bytes:
        """The answer that `work` gives in a thread, for a request of `size` bytes.

        Raises:
            ContractError: STORE_DOWN; OVERLOADED; what `work` raises.
        """
        bounds = self._bounds
        if self._waiting >= bounds.most_waiting or (self._waiting and self._waiting_bytes + size > bounds.most_waiting_bytes):
            raise unavailable(Reason.OVERLOADED, f"{self._waiting} requests about {self._subject} wait to be answered; try again")
        try:
            async with asyncio.timeout(self._bounds.answer_seconds):
                await self._place(size)
                future = asyncio.get_running_loop().run_in_executor(self._threads, work)
                self.under_way.add(future)
                future.add_done_callback(self._on_end)
                return await asyncio.shield(future)
        except (TimeoutError, DatabaseUnavailable, psycopg.Error) as error:
            if not is_transient(error):
                raise
            raise self._outage() from None

    def pool(self) -> Pool:
        """The connections, for the work itself.

        Raises:
            ContractError: STORE_DOWN, another thread waits for them. DatabaseUnavailable: see `open_pool`.
        """
        if not self._opening.acquire(timeout=_CONNECT_SECONDS):
            raise self._outage()
        try:
            if self._pool is None:
                self._pool = open_pool(self._dsn, max_size=self._most_at_once, timeout_seconds=_CONNECT_SECONDS)
            return self._pool
        finally:
            self._opening.release()

    async def close(self) -> None:
        """Wait for what is under way, and disconnect."""
        if self.under_way:
            await asyncio.wait(self.under_way, timeout=self._bounds.answer_seconds)
        if self._pool is not None:
            await asyncio.to_thread(self._pool.close)
            self._pool = None
        self._threads.shutdown(wait=False)  # one that does not end keeps nobody

    async def _place(self, size: int) -> None:
        self._waiting += 1
        self._waiting_bytes += size
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1
            self._waiting_bytes -= size

    def _on_end(self, future: asyncio.Future[bytes]) -> None:
        # a thread cannot be stopped: it keeps its place until it ends, whoever still waits for it
        self.under_way.discard(future)
        self._places.release()
        if not future.cancelled():
            future.exception()  # nobody may be left to ask for it

    def _outage(self) -> ContractError:
        return unavailable(Reason.STORE_DOWN, self._down)
