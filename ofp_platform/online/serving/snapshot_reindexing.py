"""Indexing stored snapshots again, from the objects alone: rows of the index that a recovery of the database lost.

A record says itself what its row says. So what was served, and stored, is found by its hash again, whatever the database lost.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from ofp_platform.online.serving.served_batches import BATCHES
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import Pool
from ofp_platform.storage.snapshot_records import SNAPSHOTS, PackedPlace, SnapshotDamaged, frames_of, hashed_of_records
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.times import parse_time

_INSERT = """
    INSERT INTO ofp.snapshot_index (pins_digest, registry_digest, run_config_digest, basis, snapshot_hash, as_of, reference)
    VALUES (%s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"""


@dataclass(frozen=True)
class Reindexing:
    """Outcome: objects read, records in them, rows that were missing; `problems` are objects that are damaged, in words."""

    objects: int
    records: int
    indexed: int
    problems: tuple[str, ...]


def reindex(pool: Pool, objects: ObjectStore, on_objects: Callable[[int, int], None] = lambda read, total: None) -> Reindexing:
    """Read every stored snapshot, hold it against its hash, and index those that no row knows. Idempotent.

    `on_objects` hears how many objects of how many were read. Damaged objects are told and passed over.

    Raises:
        ObjectStoreUnavailable | psycopg.Error: what was indexed until then stays; the same call goes on.
    """
    paths = [path for path in objects.list(SNAPSHOTS) if path.endswith(".zst")]
    record_count = indexed_count = 0
    problems: list[str] = []
    for number, path in enumerate(paths, 1):
        try:
            rows = list(_rows(path, objects.get(path)))
        except (SnapshotDamaged, ValueError, OSError, KeyError) as error:
            problems.append(f"{path}: {error}")
            rows = []
        with pool.connection() as connection, connection.transaction(), connection.cursor() as cursor:
            for row in sorted(rows, key=lambda row: row[4]):  # in one order, as whoever serves does
                indexed_count += cursor.execute(_INSERT, row).rowcount
        record_count += len(rows)
        on_objects(number, len(paths))
    return Reindexing(len(paths), record_count, indexed_count, tuple(problems))


def _rows(path: str, content: bytes) -> Iterator[tuple[str | int, ...]]:
    frame_begin = 0
    for frame_at, frame_length, data in frames_of(content):
        for begin, length, snapshot_hash, hashed in hashed_of_records(data):
            place = PackedPlace(path, frame_begin + begin, length, (frame_at, frame_length), frame_begin, len(content))
            yield _row(snapshot_hash, hashed, place.reference if path.startswith(f"{BATCHES}/") else path)
        frame_begin += len(data)


def _row(snapshot_hash: str, hashed: Mapping[str, Any], reference: str) -> tuple[str | int, ...]:
    return (
        pins_digest(ContextPins.model_validate(hashed["context_pins"])),
        hashed["registry_digest"],
        hashed["run_config_digest"],
        canonical_bytes(hashed["input_basis"]).decode(),
        snapshot_hash,
        parse_time(hashed["as_of_time_utc"]),
        reference,
    )
