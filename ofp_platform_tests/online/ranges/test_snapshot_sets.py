"""An hour of event time as snapshots by reference."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest

from ofp_platform.online.plane import Plane
from ofp_platform.online.ranges.catch_up import catch_up
from ofp_platform.online.ranges.snapshot_sets import HOUR, HourNotServable, damaged_objects, last_full_hour, materialise_hour
from ofp_platform.online.serving.snapshot_store import SnapshotStore
from ofp_platform.online.state.projection import ProjectionRow
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.snapshot_records import snapshot_path
from ofp_platform.vocabulary.canonical import sha256_hex
from ofp_platform.vocabulary.times import format_time
from ofp_platform_tests.oracle.simulated_log import append, deliveries, profile


@pytest.fixture
def plane(dsn: str, tmp_path: Path) -> Iterator[Plane]:
    with Plane.open(profile(tmp_path), dsn) as opened:
        append(opened.log)
        yield opened


@pytest.fixture
def objects(tmp_path: Path) -> ObjectStore:
    return ObjectStore(f"file://{tmp_path}/objects")


def live(plane: Plane) -> ProjectionRow:
    row = plane.ensure_live()
    for info in plane.log.partitions():
        catch_up(plane, row, info.partition_id)
    return plane.row(row.projection_id)


def accounts_of(after: int, until: int) -> set[str]:
    """By the simulation itself: accounts with a payment that is applied."""
    events = deliveries()
    inside = np.flatnonzero((events.ts > after) & (events.ts <= until) & (events.pins_index == 0))
    found = set()
    for index in inside:
        payload = orjson.loads(events.payloads[index])
        if isinstance(payload.get("amount_minor", 0), int) and "merchant_id" in payload:
            found.add(payload["account_id"])
    return found


def test_every_key_of_the_hour_and_no_other(plane: Plane, objects: ObjectStore) -> None:
    row = live(plane)
    hour = last_full_hour(row)
    assert hour is not None
    assert row.watermark is not None
    assert hour + HOUR <= row.watermark < hour + 2 * HOUR
    found = materialise_hour(plane, row, objects, hour)
    assert {key_id for kind, key_id, _ in found.entries if kind == "account"} == accounts_of(hour, hour + HOUR)
    assert list(found.entries) == sorted(found.entries)
    assert found.created == len({digest for _, _, digest in found.entries}) > 3
    index = orjson.loads(objects.get(found.index_path))
    assert sha256_hex(objects.get(found.index_path)) == found.index_digest
    store = SnapshotStore(plane.pool, objects)
    for (kind, key_id, digest), entry in zip(found.entries, index["snapshots"], strict=True):
        assert entry["reference"] == snapshot_path(digest)
        hashed = orjson.loads(store.load(digest))["hashed"]
        assert hashed["feature_keys"] == [{"key_type": kind, "key_id": key_id}]
        assert hashed["as_of_time_utc"] == format_time(hour + HOUR)
        assert hashed["input_basis"] == found.basis.model_dump(mode="json")
    assert damaged_objects(plane, objects, found.index_path) == []


def test_again_is_the_same(plane: Plane, objects: ObjectStore) -> None:
    row = live(plane)
    hour = last_full_hour(row)
    assert hour is not None
    first, second = (materialise_hour(plane, row, objects, hour) for _ in range(2))
    assert (second.index_path, second.entries, second.created) == (first.index_path, first.entries, 0)


def test_an_hour_without_events_is_an_empty_set(plane: Plane, objects: ObjectStore) -> None:
    row = live(plane)
    hour = last_full_hour(row)
    assert hour is not None
    quiet = [start for start in range(hour - 20 * HOUR, hour, HOUR) if not accounts_of(start, start + HOUR)]
    assert quiet
    assert materialise_hour(plane, row, objects, quiet[0]).entries == ()


def test_hours_that_cannot_be_served(plane: Plane, objects: ObjectStore) -> None:
    with pytest.raises(HourNotServable, match="the watermark is before the first event"):
        materialise_hour(plane, plane.ensure_live(), objects, 0)
    row = live(plane)
    hour = last_full_hour(row)
    assert hour is not None
    with pytest.raises(HourNotServable, match="the watermark is 2026"):
        materialise_hour(plane, row, objects, hour + HOUR)
    with pytest.raises(HourNotServable, match="rebuild older snapshots from the archive"):
        materialise_hour(plane, row, objects, hour - 26 * HOUR)
    assert last_full_hour(plane.row(row.projection_id)) == hour


def test_damage_is_found(plane: Plane, objects: ObjectStore, tmp_path: Path) -> None:
    row = live(plane)
    hour = last_full_hour(row)
    assert hour is not None
    found = materialise_hour(plane, row, objects, hour)
    first, second = (snapshot_path(digest) for _, _, digest in found.entries[:2])
    folder = tmp_path / "objects"
    (folder / first).write_bytes((folder / second).read_bytes())
    assert damaged_objects(plane, objects, found.index_path) == [first]
    (folder / found.index_path).write_bytes(b"{}")
    assert damaged_objects(plane, objects, found.index_path) == [found.index_path]
    (folder / found.index_path).unlink()
    assert damaged_objects(plane, objects, found.index_path) == [found.index_path]
