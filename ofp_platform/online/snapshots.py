"""Snapshots by reference: an immutable object named by its hash, and an index row.

An object is a zstd frame of the canonical JSON `{kind, contract_version, feature_snapshot_hash, hashed}`; the SHA-256 of the
canonical bytes of `hashed` is its name. Written once; the first writer wins and every other writer finds the same bytes.
What a service served is stored many at a time, in packs (snapshot_packs.py): there the index row says where.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable, Sequence
from typing import Any

import orjson
import psycopg
from psycopg_pool import PoolTimeout

from ofp_platform.kernel.snapshot import Answer
from ofp_platform.online.snapshot_packs import make_pack, record_of
from ofp_platform.storage.objects import ObjectStore, ObjectStoreUnavailable
from ofp_platform.storage.postgres import Pool
from ofp_platform.storage.snapshot_records import SnapshotDamaged, SnapshotMissing, compress, read_record, snapshot_path
from ofp_platform.vocabulary.errors import Reason, not_found, unavailable
from ofp_platform.vocabulary.identity import ContextPins, pins_digest

logger = logging.getLogger(__name__)
# what a batch has in common is sent once
_INSERT_INDEX = """
INSERT INTO ofp.snapshot_index (pins_digest, registry_digest, run_config_digest, basis, snapshot_hash, as_of, reference)
SELECT %s, %s, %s, %s, r.* FROM json_to_recordset(%s::json) AS r (hash text, as_of bigint, reference text)
ON CONFLICT DO NOTHING
"""


class SnapshotStore:
    """Writes and reads materialised snapshots. Safe for threads."""

    def __init__(self, pool: Pool, objects: ObjectStore) -> None:
        self._pool = pool
        self._objects = objects

    def materialise(self, answers: Iterable[Answer]) -> int:
        """Store answers and index them; idempotent. Returns how many were new here."""
        placed = []
        created = 0
        for answer in answers:
            path = snapshot_path(answer.hash)
            created += self._objects.put_if_absent(path, compress(record_of(answer)))
            placed.append((answer, path))
        self._index(placed)
        return created

    def log(self, answers: Sequence[Answer]) -> None:
        """Store answers together, in one pack, and index them; idempotent."""
        if answers:
            path, frame, placed = make_pack(answers)
            self._objects.put_if_absent(path, frame)
            self._index(placed)

    def load(self, snapshot_hash: str) -> bytes:
        """The record of a hash, verified against it.

        Raises:
            ContractError: UNKNOWN_SNAPSHOT; SNAPSHOT_CORRUPT (the bytes are not what was written); STORE_DOWN.
        """
        try:
            return read_record(self._pool, self._objects, snapshot_hash)
        except SnapshotMissing as error:
            raise not_found(Reason.UNKNOWN_SNAPSHOT, str(error)) from None
        except SnapshotDamaged as error:
            raise unavailable(Reason.SNAPSHOT_CORRUPT, str(error)) from None
        except ObjectStoreUnavailable:
            raise unavailable(Reason.STORE_DOWN, "the object store does not answer") from None
        except (psycopg.Error, PoolTimeout):
            raise unavailable(Reason.STORE_DOWN, "the index of the snapshots does not answer") from None

    def _index(self, placed: Iterable[tuple[Answer, str]]) -> None:
        rows: dict[tuple[str, ...], dict[str, dict[str, str | int]]] = {}
        for answer, reference in placed:
            own = rows.setdefault((*answer.made_under, answer.basis), {})
            own[answer.hash] = {"hash": answer.hash, "as_of": answer.as_of, "reference": reference}
        if rows:
            # in one order whoever writes: two services that served the same snapshots must not wait for each other
            with self._pool.connection() as connection, connection.transaction():
                for common, own in sorted(rows.items()):
                    ordered = orjson.dumps([own[name] for name in sorted(own)]).decode()
                    connection.execute(_INSERT_INDEX, (*common, ordered))

    def index(self, pins: ContextPins, *, limit: int = 100) -> list[dict[str, Any]]:
        """The newest index rows of a run, by as-of."""
        with self._pool.connection() as connection:
            rows = connection.execute(
                "SELECT snapshot_hash, as_of, registry_digest, reference FROM ofp.snapshot_index WHERE pins_digest = %s"
                " ORDER BY as_of DESC, snapshot_hash LIMIT %s",
                (pins_digest(pins), limit),
            ).fetchall()
        return [dict(zip(("snapshot_hash", "as_of", "registry_digest", "reference"), row, strict=True)) for row in rows]


class ServedLog:
    """Stores what was served, in batches, off the request path: any served hash can be looked up later.

    A batch is what comes within `linger_seconds`, so that its cost is shared. While the store does not answer, what was served
    is kept and tried again every `retry_seconds`. The buffer is bounded; what does not fit is counted by `dropped`, never
    waited for.
    """

    def __init__(
        self,
        store: SnapshotStore,
        *,
        capacity: int = 20_000,
        batch: int = 2_000,
        linger_seconds: float = 0.25,
        retry_seconds: float = 1.0,
        close_seconds: float = 5.0,
    ) -> None:
        self._store = store
        self._capacity = capacity
        self._batch = batch
        self._linger = linger_seconds
        self._retry = retry_seconds
        self._close_seconds = close_seconds
        self._waiting: list[Answer] = []
        self._taken = 0
        self._stored = 0
        self._something = asyncio.Event()
        self._hurry = asyncio.Event()
        self._attempted = asyncio.Event()
        self._silent = False
        self._task: asyncio.Task[None] | None = None
        self.dropped = 0

    def start(self) -> None:
        """Begin writing, on the running event loop."""
        self._task = asyncio.create_task(self._write())

    def offer(self, answer: Answer) -> None:
        """Take an answer for storing, or count it as dropped."""
        waiting = self._waiting
        if len(waiting) >= self._capacity:
            self.dropped += 1
            return
        waiting.append(answer)
        self._taken += 1
        if len(waiting) == 1:
            self._something.set()
        elif len(waiting) == self._batch:
            self._hurry.set()

    async def close(self) -> None:
        """Write what is left, then stop, within `close_seconds`. What cannot be written in them is counted as dropped."""
        if self._task is None:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._close_seconds):
                await self.flushed()
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task
        if self._waiting:
            self.dropped += len(self._waiting)
            logger.warning("%d served snapshots were not logged", len(self._waiting))
            self._waiting.clear()

    def holds(self, snapshot_hash: str) -> bool:
        """Whether a snapshot was served and is not stored yet."""
        return any(answer.hash == snapshot_hash for answer in self._waiting)

    async def flushed(self) -> None:
        """Return when everything offered so far was written, or when the store did not answer to an attempt."""
        taken = self._taken
        while self._stored < taken:
            attempted = self._attempted
            self._hurry.set()
            await attempted.wait()
            if self._silent:
                return

    async def _write(self) -> None:
        while True:
            await self._something.wait()
            await self._pause(self._retry if self._silent else self._linger)
            self._silent = not await self._store_waiting()
            if not self._waiting:
                self._something.clear()
            self._attempted.set()
            self._attempted = asyncio.Event()

    async def _pause(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._hurry.wait()
        self._hurry.clear()

    async def _store_waiting(self) -> bool:
        """Write what waits now; what comes meanwhile waits for its own turn, so that it is many again. False: no answer."""
        count = len(self._waiting)
        while count > 0:
            answers = self._waiting[: min(self._batch, count)]
            try:
                await asyncio.to_thread(self._store.log, answers)
            except (ObjectStoreUnavailable, psycopg.Error, PoolTimeout) as error:
                logger.warning("%d served snapshots wait to be logged: %s", len(self._waiting), type(error).__name__)
                return False
            except Exception:
                # nobody expects it, and all the same what was served is kept, and the log goes on
                logger.exception("%d served snapshots wait to be logged", len(self._waiting))
                return False
            del self._waiting[: len(answers)]
            self._stored += len(answers)
            count -= len(answers)
        return True
