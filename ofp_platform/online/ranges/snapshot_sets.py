"""Snapshot sets: the snapshots of every key that an hour of event time touched, by reference, with an index.

An hour is (start, end], as every window is; the snapshots are as of its end. All of one set are on one basis. The index is an
object like the snapshots: write-once, named by the SHA-256 of its canonical bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson
from psycopg import Connection

from ofp_platform.kernel.snapshot import Answer
from ofp_platform.online.plane import Plane
from ofp_platform.online.serving.reader import Reader
from ofp_platform.online.serving.snapshot_store import SnapshotStore
from ofp_platform.online.state.buckets import KEY_TYPE_CODES
from ofp_platform.online.state.chunk_codec import unpack_many
from ofp_platform.online.state.projection import ProjectionRow, read_projection
from ofp_platform.online.state.store_snapshot import store_snapshot
from ofp_platform.online.state.tail_codec import read_records
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.storage.objects import ObjectNotFound, ObjectStore
from ofp_platform.storage.snapshot_records import snapshot_path
from ofp_platform.vocabulary.canonical import canonical_bytes, sha256_hex
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.identity import KeyType
from ofp_platform.vocabulary.position import Basis
from ofp_platform.vocabulary.snapshot_set import SnapshotReference, SnapshotSetIndex
from ofp_platform.vocabulary.times import format_time

HOUR = 3_600_000_000
_ROWS = 500


class HourNotServable(Exception):
    """The hour is not over in event time, or lies behind what the state can answer."""


@dataclass(frozen=True)
class SnapshotSet:
    """One set. `entries`: key type, key id and snapshot hash, in order; `created`: how many snapshots were new."""

    hour_start: int
    projection_id: int
    basis: Basis
    index_path: str
    index_digest: str
    entries: tuple[tuple[str, str, str], ...]
    created: int


def last_full_hour(row: ProjectionRow) -> int | None:
    """The start of the newest hour that ends at or before the watermark, microseconds."""
    return None if row.watermark is None else row.watermark // HOUR * HOUR - HOUR


def materialise_hour(plane: Plane, row: ProjectionRow, objects: ObjectStore, hour_start: int) -> SnapshotSet:
    """Materialise the set of one hour. Idempotent: the same basis gives the same names.

    Raises:
        HourNotServable: see there.
    """
    hour_end = hour_start + HOUR
    registry = plane.registry_of(row)
    with store_snapshot(plane.pool, row.projection_id) as (connection, pool):
        row = read_projection(connection, row.projection_id)
        if row.watermark is None or row.watermark < hour_end:
            now = "before the first event" if row.watermark is None else format_time(row.watermark)
            raise HourNotServable(f"the hour ends at {format_time(hour_end)}, the watermark is {now}")
        oldest = row.watermark - plane.profile.allowed_lateness_us
        if hour_end < oldest:
            raise HourNotServable(
                f"the hour ends at {format_time(hour_end)}; online state answers from {format_time(oldest)} on:"
                " rebuild older snapshots from the archive"
            )
        limits = plane.profile.limits
        reader = Reader(pool, row.projection_id, plane.evaluator(row), limits, graph=plane.graph)
        answers: list[Answer] = []
        entries: list[tuple[str, str, str]] = []
        for key_type, groups in _groups(registry).items():
            for key_id in touched_keys(connection, row.projection_id, registry, key_type, hour_start, hour_end):
                answer = reader.answer(_request(row, key_type, key_id, groups, hour_end))
                answers.append(answer)
                entries.append((key_type, key_id, answer.hash))
    objects_created = SnapshotStore(plane.pool, objects).materialise(answers)
    index = canonical_bytes(
        SnapshotSetIndex(
            context_pins=row.pins,
            hour_start_utc=format_time(hour_start),
            as_of_time_utc=format_time(hour_end),
            registry_digest=row.registry_digest,
            run_config_digest=row.run_config_digest,
            input_basis=row.basis,
            snapshots=tuple(
                SnapshotReference(
                    key_type=KeyType(kind), key_id=name, feature_snapshot_hash=answer, reference=snapshot_path(answer)
                )
                for kind, name, answer in entries
            ),
        ).wire()
    )
    digest = sha256_hex(index)
    path = f"snapshot_sets/{format_time(hour_start)[:13]}/{digest}.json"
    objects.put_same(path, index)
    return SnapshotSet(hour_start, row.projection_id, row.basis, path, digest, tuple(entries), objects_created)


def damaged_objects(plane: Plane, objects: ObjectStore, index_path: str) -> list[str]:
    """Read a set back: the index, and every snapshot that it names. The names of objects whose hash is not their name."""
    try:
        index = objects.get(index_path)
    except ObjectNotFound:
        return [index_path]
    if sha256_hex(index) != index_path.rpartition("/")[2].removesuffix(".json"):
        return [index_path]
    store = SnapshotStore(plane.pool, objects)
    problems = []
    for entry in orjson.loads(index)["snapshots"]:
        try:
            store.load(entry["feature_snapshot_hash"], plane.is_own)
        except ContractError:
            problems.append(entry["reference"])
    return problems


def touched_keys(
    connection: Connection[Any], projection_id: int, registry: CompiledRegistry, key_type: str, after: int, until: int
) -> list[str]:
    """Keys of a type with an event at after < ts <= until, in the order of their ids."""
    key_ids: set[str] = set()
    # a chunk whose first or last event is inside says so by itself; only one that spans the hour has to be opened
    bounds = {"projection": projection_id, "kind": KEY_TYPE_CODES[key_type], "after": after, "until": until}
    rows = connection.execute(
        "SELECT key_id, CASE WHEN NOT (first_ts > %(after)s OR last_ts <= %(until)s) THEN block END FROM ofp.chunk"
        " WHERE projection_id = %(projection)s AND key_type = %(kind)s AND first_ts <= %(until)s AND last_ts > %(after)s",
        bounds,
        binary=True,
    )
    columns = registry.layouts[key_type].column_count
    for some in _batches(rows):
        key_ids.update(key_id for key_id, block in some if block is None)
        spanning = [(key_id, block) for key_id, block in some if block is not None and key_id not in key_ids]
        if not spanning:
            continue
        matrix, offsets = unpack_many([block for _, block in spanning], columns)
        inside = (matrix[0] > after) & (matrix[0] <= until)
        hits = np.logical_or.reduceat(inside, offsets[:-1])
        key_ids.update(key_id for (key_id, _), hit in zip(spanning, hits.tolist(), strict=True) if hit)
    rows = connection.execute(
        "SELECT key_id, CASE WHEN last_ts > %(until)s THEN block END FROM ofp.tail WHERE projection_id = %(projection)s"
        " AND key_type = %(kind)s AND after_ts < %(until)s AND last_ts > %(after)s AND octet_length(block) > 0",
        bounds,
        binary=True,
    )
    for some in _batches(rows):
        key_ids.update(key_id for key_id, block in some if block is None)
        spanning = [(key_id, block) for key_id, block in some if block is not None and key_id not in key_ids]
        matrix, offsets = read_records([block for _, block in spanning], columns)
        inside = (matrix[0] > after) & (matrix[0] <= until)
        counts = np.diff(np.concatenate([[0], np.cumsum(inside)])[offsets])
        key_ids.update(key_id for (key_id, _), count in zip(spanning, counts.tolist(), strict=True) if count)
    return sorted(key_ids)


def _batches(rows: Any) -> Iterator[list[tuple[str, bytes | None]]]:
    while some := rows.fetchmany(_ROWS):
        yield some


def _groups(registry: CompiledRegistry) -> dict[str, list[tuple[str, str]]]:
    """Group versions by key type; without those that need a request context, which an hour does not have."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for ref, plan in sorted(registry.groups.items()):
        if not plan.request_fields:
            groups.setdefault(plan.key_type, []).append(ref)
    return dict(sorted(groups.items()))


def _request(row: ProjectionRow, key_type: str, key_id: str, groups: Sequence[tuple[str, str]], as_of: int) -> bytes:
    return canonical_bytes(
        {
            "context_pins": row.pins.wire(),
            "feature_keys": [{"key_type": key_type, "key_id": key_id}],
            "feature_groups": [{"group_name": name, "group_version": version} for name, version in groups],
            "as_of_time_utc": format_time(as_of),
        }
    )
