"""Stored snapshots: found alone or in a pack, verified, and told apart when missing or damaged."""

from __future__ import annotations

from pathlib import Path

import pytest

from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import open_pool
from ofp_platform.storage.snapshot_records import (
    PackedPlace,
    SnapshotDamaged,
    SnapshotMissing,
    compress,
    decompress,
    hashed_part,
    place_in_pack,
    read_record,
    read_records,
    record_bytes,
    snapshot_path,
)
from ofp_platform.vocabulary.canonical import canonical_bytes, digest_of
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform_tests.oracle.simulated_log import PINS

OWN = ContextPins.model_validate(PINS)
OTHERS = OWN.model_copy(update={"run_id": "run-2"})
HASHED = {"context_pins": OWN.wire(), "values": [1, "2", None]}
NAME = digest_of(HASHED)
RECORD = record_bytes(NAME, canonical_bytes(HASHED))
_INDEX = "INSERT INTO ofp.snapshot_index VALUES (%s, %s, 0, 'b', NULL, 'r', 'c', %s)"


def test_a_frame_gives_back_what_was_put_in() -> None:
    assert decompress(compress(RECORD)) == RECORD
    for frame in (b"", b"\0" * 8, (1 << 40).to_bytes(8, "little"), compress(RECORD)[:-3]):
        with pytest.raises((ValueError, OSError)):
            decompress(frame)


def test_a_flipped_bit_anywhere_in_a_frame_is_found() -> None:
    frame = compress(RECORD)
    for place in range(len(frame)):
        for bit in range(8):
            with pytest.raises((ValueError, OSError)):
                decompress(frame[:place] + bytes([frame[place] ^ 1 << bit]) + frame[place + 1 :])


def test_a_record_is_verified_also_where_its_hash_is_not_over(dsn: str, tmp_path: Path) -> None:
    objects = ObjectStore(str(tmp_path))
    with open_pool(dsn, max_size=1) as pool:
        objects.put_if_absent(snapshot_path(NAME), compress(RECORD.replace(b'"v0"', b'"v1"')))
        with pytest.raises(SnapshotDamaged, match=NAME):
            read_record(pool, objects, NAME)


def test_a_reference_is_an_object_or_a_place_in_a_pack() -> None:
    of_a_release_before = PackedPlace("snapshots/packs/ab/x.zst", 10, 20)
    for place in (of_a_release_before, PackedPlace("snapshots/packs/ab/x.zst", 10, 20, (3, 90), 7, 200)):
        assert place_in_pack(place.reference) == place
    assert of_a_release_before.reference == "snapshots/packs/ab/x.zst#10+20"
    assert place_in_pack(snapshot_path(NAME)) is None


@pytest.mark.parametrize(
    "record", [b"", b"[]", b"{}", b'{"hashed":[]}', RECORD.replace(b"[1", b"[2"), RECORD[1:], RECORD + b" ", RECORD[:9]]
)
def test_a_record_that_has_not_its_hash_is_damaged(record: bytes) -> None:
    with pytest.raises(SnapshotDamaged, match=NAME):
        hashed_part(record, NAME)
    assert hashed_part(RECORD, NAME) == HASHED


def test_records_are_read_alone_and_out_of_packs(dsn: str, tmp_path: Path) -> None:
    objects = ObjectStore(str(tmp_path))
    other = digest_of({"other": 1})
    with open_pool(dsn, max_size=1) as pool:
        with pytest.raises(SnapshotMissing, match=NAME):
            read_record(pool, objects, NAME)
        objects.put_if_absent("snapshots/packs/ab/x.zst", compress(b"before" + RECORD))
        with pool.connection() as connection:
            for name in (NAME, other):
                connection.execute(
                    _INDEX,
                    (name, pins_digest(OWN), f"snapshots/packs/ab/x.zst#6+{len(RECORD)}"),
                )
        assert read_record(pool, objects, NAME) == RECORD
        with pytest.raises(SnapshotDamaged, match=other):
            read_record(pool, objects, other)
        objects.put_if_absent(snapshot_path(NAME), b"\0" * 8 + b"no frame")
        with pytest.raises(SnapshotDamaged, match=NAME):
            read_record(pool, objects, NAME)


@pytest.mark.parametrize("packed", [False, True])
def test_a_planted_record_of_another_run_is_refused(dsn: str, tmp_path: Path, *, packed: bool) -> None:
    objects = ObjectStore(str(tmp_path))
    path = "snapshots/packs/ab/x.zst" if packed else snapshot_path(NAME)
    objects.put_if_absent(path, compress(RECORD))
    reference = f"{path}#0+{len(RECORD)}" if packed else path
    with open_pool(dsn, max_size=1) as pool:
        with pool.connection() as connection:
            connection.execute(_INDEX, (NAME, pins_digest(OTHERS), reference))  # a row of that run leads to the other's object
        for reader in (None, OTHERS, OWN):
            with pytest.raises(SnapshotDamaged, match="is of run"):
                read_record(pool, objects, NAME, reader)
        assert read_records(pool, objects, [NAME], OTHERS) == read_records(pool, objects, [NAME], OWN) == {}
        with pool.connection() as connection:
            connection.execute("DELETE FROM ofp.snapshot_index")  # as the owner, who then indexes again
            connection.execute(_INDEX, (NAME, pins_digest(OWN), reference))
        assert read_record(pool, objects, NAME) == read_record(pool, objects, NAME, OWN) == RECORD
        assert read_records(pool, objects, [NAME], OWN) == {NAME: HASHED}
        with pytest.raises(SnapshotDamaged, match="not of the one"):
            read_record(pool, objects, NAME, OTHERS)
        assert read_records(pool, objects, [NAME], OTHERS) == {}


@pytest.mark.parametrize("name", ["manifest_fingerprint", "parameter_hash"])
def test_each_pin_says_whose_a_record_is(dsn: str, tmp_path: Path, name: str) -> None:
    objects = ObjectStore(str(tmp_path))
    objects.put_if_absent(snapshot_path(NAME), compress(RECORD))
    reader = OWN.model_copy(update={name: "a" * 64})
    with open_pool(dsn, max_size=1) as pool, pytest.raises(SnapshotDamaged, match="not of the one"):
        read_record(pool, objects, NAME, reader)
