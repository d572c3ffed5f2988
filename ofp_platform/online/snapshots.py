"""Snapshots by reference: an immutable object named by its hash, and an index row.

An object is a zstd frame of the canonical JSON `{kind, contract_version, feature_snapshot_hash, hashed}`; the SHA-256 of the
canonical bytes of `hashed` is its name. Written once; the first writer wins and every other writer finds the same bytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from typing import Any

import orjson
import psycopg
import pyarrow as pa
from psycopg_pool import PoolTimeout

from ofp_platform.kernel.snapshot import Answer
from ofp_platform.storage.objects import ObjectNotFound, ObjectStore, ObjectStoreUnavailable
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.canonical import canonical_bytes, sha256_hex
from ofp_platform.vocabulary.errors import Reason, not_found, unavailable
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.times import parse_time

logger = logging.getLogger(__name__)
_CODEC = pa.Codec("zstd")
_LENGTH_BYTES = 8


def snapshot_path(snapshot_hash: str) -> str:
    """Where the object of a hash stands."""
    return f"snapshots/{snapshot_hash[:2]}/{snapshot_hash}.json.zst"


class SnapshotStore:
    """Writes and reads materialised snapshots. Safe for threads."""

    def __init__(self, pool: Pool, objects: ObjectStore) -> None:
        self._pool = pool
        self._objects = objects

    def materialise(self, answers: Iterable[Answer]) -> int:
        """Store answers and index them; idempotent. Returns how many were new here."""
        rows = []
        created = 0
        for answer in answers:
            record = canonical_bytes(
                {
                    "kind": "ofp_snapshot_record",
                    "contract_version": "v0",
                    "feature_snapshot_hash": answer.hash,
                    "hashed": orjson.Fragment(answer.hashed),
                }
            )
            frame = len(record).to_bytes(_LENGTH_BYTES, "little") + _CODEC.compress(record, asbytes=True)
            path = snapshot_path(answer.hash)
            created += self._objects.put_if_absent(path, frame)
            rows.append(_index_row(answer.hashed, answer.hash, path))
        with self._pool.connection() as connection, connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO ofp.snapshot_index (snapshot_hash, pins_digest, as_of, basis, graph_version, registry_digest,"
                " run_config_digest, reference) VALUES (%s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                rows,
            )
        return created

    def load(self, snapshot_hash: str) -> bytes:
        """The record of a hash, verified against it.

        Raises:
            ContractError: UNKNOWN_SNAPSHOT; SNAPSHOT_CORRUPT (the bytes are not what was written); STORE_DOWN.
        """
        try:
            frame = self._objects.get(snapshot_path(snapshot_hash))
        except ObjectNotFound:
            raise not_found(Reason.UNKNOWN_SNAPSHOT, f"no snapshot {snapshot_hash} was materialised here") from None
        except ObjectStoreUnavailable:
            raise unavailable(Reason.STORE_DOWN, "the object store does not answer") from None
        corrupt = unavailable(Reason.SNAPSHOT_CORRUPT, f"the stored bytes of snapshot {snapshot_hash} are damaged")
        try:
            size = int.from_bytes(frame[:_LENGTH_BYTES], "little")
            if size > 1 << 30:
                raise corrupt
            record = bytes(_CODEC.decompress(frame[_LENGTH_BYTES:], size, asbytes=True))
            hashed = orjson.loads(record)["hashed"]
        except (ValueError, OSError, KeyError, TypeError):
            raise corrupt from None
        if sha256_hex(canonical_bytes(hashed)) != snapshot_hash:
            raise corrupt
        return record

    def index(self, pins: ContextPins, *, limit: int = 100) -> list[dict[str, Any]]:
        """The newest index rows of a run, by as-of."""
        with self._pool.connection() as connection:
            rows = connection.execute(
                "SELECT snapshot_hash, as_of, registry_digest, reference FROM ofp.snapshot_index WHERE pins_digest = %s"
                " ORDER BY as_of DESC, snapshot_hash LIMIT %s",
                (pins_digest(pins), limit),
            ).fetchall()
        return [dict(zip(("snapshot_hash", "as_of", "registry_digest", "reference"), row, strict=True)) for row in rows]


def _index_row(hashed: bytes, snapshot_hash: str, path: str) -> tuple[Any, ...]:
    body = orjson.loads(hashed)
    return (
        snapshot_hash,
        pins_digest(ContextPins.model_validate(body["context_pins"])),
        parse_time(body["as_of_time_utc"]),
        canonical_bytes(body["input_basis"]).decode(),
        body.get("graph_version"),
        body["registry_digest"],
        body["run_config_digest"],
        path,
    )


class ServedLog:
    """Stores what was served, in batches, off the request path: any served hash can be looked up later.

    The buffer is bounded; what does not fit is counted by `dropped`, never waited for.
    """

    def __init__(self, store: SnapshotStore, *, capacity: int = 20_000, batch: int = 200) -> None:
        self._store = store
        self._queue: asyncio.Queue[Answer] = asyncio.Queue(capacity)
        self._batch = batch
        self._task: asyncio.Task[None] | None = None
        self.dropped = 0

    def start(self) -> None:
        """Begin writing, on the running event loop."""
        self._task = asyncio.create_task(self._write())

    def offer(self, answer: Answer) -> None:
        """Take an answer for storing, or count it as dropped."""
        try:
            self._queue.put_nowait(answer)
        except asyncio.QueueFull:
            self.dropped += 1

    async def close(self) -> None:
        """Write what is left, then stop."""
        if self._task is None:
            return
        await self._queue.join()
        self._task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task

    async def flushed(self) -> None:
        """Return when everything offered so far was written."""
        await self._queue.join()

    async def _write(self) -> None:
        while True:
            answers = [await self._queue.get()]
            while len(answers) < self._batch and not self._queue.empty():
                answers.append(self._queue.get_nowait())
            try:
                await asyncio.to_thread(self._store.materialise, answers)
            except (ObjectStoreUnavailable, psycopg.Error, PoolTimeout) as error:
                self.dropped += len(answers)
                logger.warning("%d served snapshots were not logged: %s", len(answers), type(error).__name__)
            for _ in answers:
                self._queue.task_done()
