"""The log of the served: what a service answered, stored in batches off the request path."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from ofp_platform.kernel.snapshot import Answer
from ofp_platform.online.serving.snapshot_store import SnapshotStore
from ofp_platform.storage.objects import ObjectStoreUnavailable
from ofp_platform.storage.transient import is_transient
from ofp_platform.vocabulary.background_tasks import BackgroundTasks

logger = logging.getLogger(__name__)
TASK = "served log"
WAITS, FAILS, FULL = "SERVED_LOG_WAITS", "SERVED_LOG_FAILS", "SERVED_LOG_FULL"
_ANSWER_BYTES = 512  # of the objects around an answer's bytes


class ServedLog:
    """Stores what was served, in batches, off the request path: any served hash can be looked up later.

    A batch is what comes within `linger_seconds`, so that its cost is shared. While the store does not answer, what was served
    is kept and tried again every `retry_seconds`. While `is_full` holds (more than `capacity_bytes` wait), whoever serves has
    to refuse: an answer that cannot be recorded is none. What was being answered meanwhile is still taken. `trouble` is a reason
    for the posture; `objects_down`: it is that the object store did not answer. `dropped` counts what could not be written at
    the end.
    """

    def __init__(
        self,
        store: SnapshotStore,
        *,
        capacity_bytes: int = 64 << 20,
        batch: int = 2_000,
        batch_bytes: int = 4 << 20,
        linger_seconds: float = 0.25,
        retry_seconds: float = 1.0,
        close_seconds: float = 5.0,
        tasks: BackgroundTasks | None = None,
    ) -> None:
        self._store = store
        self._capacity_bytes = capacity_bytes
        self._batch = batch
        self._batch_bytes = batch_bytes
        self._linger = linger_seconds
        self._retry = retry_seconds
        self._close_seconds = close_seconds
        self._waiting: list[Answer] = []
        self.waiting_bytes = 0
        self._taken_count = 0
        self._stored_count = 0
        self._answers_waiting = asyncio.Event()
        self._hurry = asyncio.Event()
        self._attempt_made = asyncio.Event()
        self._silent = False
        self._tasks = tasks or BackgroundTasks()
        self.dropped = 0
        self.objects_down = False
        self._trouble: str | None = None

    @property
    def is_full(self) -> bool:
        """Whether more waits than may."""
        return self.waiting_bytes >= self._capacity_bytes

    @property
    def trouble(self) -> str | None:
        """A reason for the posture: that it is full, why the last batch was not written, or that half of the room is used."""
        if self.is_full:
            return FULL
        return self._trouble or (WAITS if 2 * self.waiting_bytes >= self._capacity_bytes else None)

    def start(self) -> None:
        """Begin writing, on the running event loop."""
        self._tasks.start(TASK, self._write())

    def offer(self, answer: Answer) -> None:
        """Take an answer for storing."""
        waiting = self._waiting
        waiting.append(answer)
        self._taken_count += 1
        bytes_before = self.waiting_bytes
        self.waiting_bytes = bytes_now = bytes_before + _size(answer)
        if len(waiting) == 1:
            self._answers_waiting.set()
        if len(waiting) == self._batch or bytes_before < self._batch_bytes <= bytes_now:
            self._hurry.set()

    async def close(self) -> None:
        """Write what is left, then stop, within `close_seconds`. What cannot be written in them is counted as dropped."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._close_seconds):
                await self.flushed()
        await self._tasks.stop(TASK)
        if self._waiting:
            self.dropped += len(self._waiting)
            logger.warning("%d served snapshots were not logged", len(self._waiting))
            self._waiting.clear()
            self.waiting_bytes = 0

    def holds(self, snapshot_hash: str) -> bool:
        """Whether a snapshot was served and is not stored yet."""
        return any(answer.hash == snapshot_hash for answer in self._waiting)

    async def flushed(self) -> None:
        """Return when everything offered so far was written, or when the store did not answer to an attempt."""
        taken_until_now = self._taken_count
        while self._stored_count < taken_until_now and self._tasks.running().get(TASK, False):
            next_attempt = self._attempt_made
            self._hurry.set()
            await next_attempt.wait()
            if self._silent:
                return

    async def _write(self) -> None:
        try:
            while True:
                await self._answers_waiting.wait()
                await self._pause(self._retry if self._silent else self._linger)
                self._silent = not await self._store_waiting()
                if not self._waiting:
                    self._answers_waiting.clear()
                self._attempt_made.set()
                self._attempt_made = asyncio.Event()
        finally:
            self._silent = True  # nobody waits for a writer that is gone
            self._attempt_made.set()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        self._hurry.clear()

    async def _store_waiting(self) -> bool:
        """Write what waits now; what comes meanwhile waits for its own turn, so that it is many again. False: no answer."""
        count = len(self._waiting)
        while count > 0:
            answers = self._next_batch(count)
            try:
                await asyncio.to_thread(self._store.log, answers)
            except Exception as error:
                # also of what nobody expects: what was served is kept and the log goes on, and the posture says so
                self.objects_down = isinstance(error, ObjectStoreUnavailable)
                if isinstance(error, ObjectStoreUnavailable) or is_transient(error):
                    self._trouble = WAITS
                    logger.warning("%d served snapshots wait to be logged: %s", len(self._waiting), type(error).__name__)
                else:
                    self._trouble = f"{FAILS}:{type(error).__name__}"
                    logger.exception("%d served snapshots wait to be logged", len(self._waiting))
                return False
            self._trouble, self.objects_down = None, False
            del self._waiting[: len(answers)]
            self.waiting_bytes -= sum(map(_size, answers))
            self._stored_count += len(answers)
            count -= len(answers)
        return True

    def _next_batch(self, count: int) -> list[Answer]:
        """The oldest answers, at most `count`, and no more than fit in a batch; one at least."""
        answers: list[Answer] = []
        total = 0
        for answer in self._waiting[: min(self._batch, count)]:
            total += _size(answer)
            if answers and total > self._batch_bytes:
                break
            answers.append(answer)
        return answers


def _size(answer: Answer) -> int:
    return len(answer.body) + len(answer.hashed) + _ANSWER_BYTES
