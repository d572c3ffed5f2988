"""Receipts of hours that are over: in write-once files, all of them, and found out where one is not."""

from __future__ import annotations

import hashlib
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from ofp_platform.ingress import receipt_segments
from ofp_platform.ingress.door import Door
from ofp_platform.ingress.receipt_segments import (
    HOUR,
    SCHEMA,
    SegmentConflict,
    hours_over,
    is_over,
    read_segments,
    verify_segments,
    write_segments,
)
from ofp_platform.ingress.receipts import read_batches, read_receipts
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import open_pool
from ofp_platform.vocabulary.times import parse_time
from ofp_platform_tests.ingress.test_door import new_door, transfer


def some_batches(door: Door, number: int) -> None:
    for batch in range(number):
        door.admit([transfer(door, f"e-{batch}"), transfer(door, f"e-{batch}"), {"event_id": "broken"}], f"till-{batch}")


def an_hour_later(patch: pytest.MonkeyPatch) -> None:
    later = receipt_segments._NOW.replace("clock_timestamp()", "clock_timestamp() + interval '2 hours'")
    patch.setattr(receipt_segments, "_NOW", later)


def test_an_hour_that_is_over_is_written_once_with_every_receipt(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = ObjectStore(str(tmp_path / "objects"))
    monkeypatch.setattr(receipt_segments, "SEGMENT_RECEIPTS", 6)
    with open_pool(dsn) as pool:
        door = new_door(pool, objects)
        some_batches(door, 5)
        pins = door.gate.pins
        with pool.connection() as connection:
            hour = parse_time(read_batches(connection, pins)[0].received_at_utc) // HOUR * HOUR
            assert hours_over(connection, pins) == []
            assert not is_over(connection, hour)
            with pytest.raises(SegmentConflict, match="is not over before"):
                write_segments(connection, objects, pins, hour)
            an_hour_later(monkeypatch)
            assert hour in hours_over(connection, pins)
            assert verify_segments(connection, objects, pins, hour) == (
                0,
                [f"the hour from {receipt_segments.format_time(hour)} has 15 receipts, its segments hold 0: it has none yet"],
            )
            segments = write_segments(connection, objects, pins, hour)
            assert [(one.part, one.batches, one.receipts) for one in segments] == [(0, 2, 6), (1, 2, 6), (2, 1, 3)]
            assert read_segments(connection, pins, hour) == segments == read_segments(connection, pins)
            assert write_segments(connection, objects, pins, hour) == segments
            assert verify_segments(connection, objects, pins, hour) == (15, [])
            assert write_segments(connection, objects, pins, hour - HOUR) == []
            rows = [row for one in segments for row in pq.read_table(BytesIO(objects.get(one.object_path))).to_pylist()]
            for batch in read_batches(connection, pins):
                stored = read_receipts(connection, pins, batch.batch_id, door.streams)
                own = [row for row in rows if row["batch_id"] == batch.batch_id]
                assert [row["place"] for row in own] == [0, 1, 2]
                assert {row["producer"] for row in own} == {batch.producer}
                for row, receipt in zip(own, stored, strict=True):
                    position = receipt.position
                    assert row["outcome"] == receipt.outcome
                    assert row["record_offset"] == (None if position is None else position.offset)
                    assert (row["reason"], row["detail"]) == (receipt.reason, receipt.detail)
                    assert row["payload_hash"] == (None if receipt.payload_hash is None else bytes.fromhex(receipt.payload_hash))
        assert pq.read_schema(BytesIO(objects.get(segments[0].object_path))).equals(SCHEMA)


@pytest.mark.parametrize(
    ("harm", "words"),
    [
        (lambda path: path.unlink(), "is not in"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1] + b"x"), "is not what the index says"),
    ],
)
def test_a_segment_that_is_gone_or_changed_is_found(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, harm: Any, words: str
) -> None:
    objects = ObjectStore(str(tmp_path / "objects"))
    with open_pool(dsn) as pool:
        door = new_door(pool, objects)
        some_batches(door, 1)
        an_hour_later(monkeypatch)
        with pool.connection() as connection:
            (hour,) = hours_over(connection, door.gate.pins)
            (segment,) = write_segments(connection, objects, door.gate.pins, hour)
            harm(tmp_path / "objects" / segment.object_path)
            _, problems = verify_segments(connection, objects, door.gate.pins, hour)
    assert len(problems) == 1
    assert words in problems[0]


def test_other_receipts_under_the_name_of_a_segment_are_refused(
    dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    objects = ObjectStore(str(tmp_path / "objects"))
    with open_pool(dsn) as pool:
        door = new_door(pool, objects)
        some_batches(door, 1)
        an_hour_later(monkeypatch)
        with pool.connection() as connection:
            (hour,) = hours_over(connection, door.gate.pins)
            contents = list(receipt_segments._contents(connection, door.gate.pins, hour))
            again = list(receipt_segments._contents(connection, door.gate.pins, hour))
            assert [hashlib.sha256(one[0]).digest() for one in contents] == [hashlib.sha256(one[0]).digest() for one in again]
            (segment,) = write_segments(connection, objects, door.gate.pins, hour)
            connection.execute("ALTER TABLE ofp.receipt_segment DISABLE TRIGGER USER")
            connection.execute("DELETE FROM ofp.receipt_segment")
            (tmp_path / "objects" / segment.object_path).write_bytes(b"another")
            with pytest.raises(SegmentConflict, match="holds other bytes"):
                write_segments(connection, objects, door.gate.pins, hour)
            assert read_segments(connection, door.gate.pins) == []
