"""Replay: archive and log together give what the log had, and nothing is ever silently left out."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.log.archive import archive_closed_ranges, archive_range, archive_up_to
from ofp_platform.log.archive_reader import ReplayReader
from ofp_platform.log.archive_segment import SegmentDamaged
from ofp_platform.log.archive_store import Archive, ReceiptDamaged, SegmentMissing
from ofp_platform.log.kinesis import KinesisLog
from ofp_platform.log.port import RecordBatch
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.log.ranges import OffsetRanges
from ofp_platform.log.span_records import ReplayGap, log_batches
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan, ReplayBasis
from ofp_platform.vocabulary.position import OffsetKind, make_basis, place
from ofp_platform_tests.oracle.list_log import PARTITION, STREAM, ListLog, list_logs, listed, rows_of
from ofp_platform_tests.oracle.no_ledger import NO_LEDGER

SIZE = 10
DENSE, SPARSE = OffsetKind.EXCLUSIVE_NEXT, OffsetKind.AFTER_SEQUENCE_NUMBER


@pytest.fixture
def pool(dsn: str) -> Iterator[Pool]:
    with open_pool(dsn, max_size=4) as opened:
        yield opened


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(ObjectStore(str(tmp_path / "objects")), STREAM)


def no_ledger(log: ListLog, size: int) -> OffsetRanges:
    """Ranges of a dense log need no database."""
    return OffsetRanges(NO_LEDGER, log, size)


def archive_parts(log: ListLog, archive: Archive, size: int, counts: list[int]) -> None:
    for count in counts:
        archive_up_to(no_ledger(log, size), archive, make_basis(STREAM, {PARTITION: log.at(count)}))


def replay(log: ListLog, archive: Archive, span: PartitionSpan, max_records: int = 7) -> list[RecordBatch]:
    return list(ReplayReader(log, archive).batches(span, max_records))


@given(
    list_logs.filter(lambda log: log.is_dense),
    st.integers(1, 5),
    st.lists(st.integers(0, 12), max_size=3),
    st.integers(1, 5),
    st.data(),
)
def test_a_replay_is_what_the_log_had(
    log: ListLog, size: int, archived: list[int], max_records: int, data: st.DataObject
) -> None:
    count = len(log.records)
    first = data.draw(st.integers(0, count))
    span = log.span(first, data.draw(st.integers(first, count)))
    expected = rows_of(list(log_batches(log, span, 100)))
    with tempfile.TemporaryDirectory() as folder:
        archive = Archive(ObjectStore(folder), STREAM)
        archive_parts(log, archive, size, [min(one, count) for one in archived])
        reader = ReplayReader(log, archive)
        at = reader.cut_over(span)
        assert place(at) == max(place(span.first), min(max([0, *(min(n, count) for n in archived)]) - 1, place(span.end)))
        for floor in (0, int(at.offset)):  # with the log whole, and trimmed up to the cut-over
            log.floor = floor
            log.reads.clear()
            batches = list(reader.batches(span, max_records))
            assert rows_of(batches) == expected
            assert [batch.next for batch in batches[-1:]] == ([span.end] if span.start != span.next else [])
            assert all(len(batch) <= max_records for batch in batches)
            assert all(place(at) <= int(offset) for offset in log.reads)
        if int(at.offset) < int(span.next):
            log.floor = int(at.offset) + 1
            with pytest.raises(ReplayGap, match=f"{PARTITION}.*{at.offset}"):
                list(reader.batches(span, max_records))


def test_the_cut_over_of_a_plan(archive: Archive) -> None:
    log = listed(30)
    archive_parts(log, archive, SIZE, [20])
    reader, span = ReplayReader(log, archive), log.span(3, 28)
    assert reader.cut_over(span) == log.at(20)
    expected = rows_of(list(log_batches(log, span, 100)))
    for ordinal in (3, 10, 14, 20):
        log.reads.clear()
        assert rows_of(list(reader.batches(span, 4, log.at(ordinal)))) == expected
        assert log.reads[0] == ordinal
    with pytest.raises(ReplayGap, match=r"no complete archive segment holds \[20, 25\)"):
        list(reader.batches(span, 4, log.at(25)))
    for outside in (log.at(2), log.at(29), log.at(20).model_copy(update={"partition_id": "x"})):
        with pytest.raises(ValueError, match="lies outside"):
            list(reader.batches(span, 4, outside))
    with pytest.raises(ValueError, match="max_records"):
        list(reader.batches(span, 0))


def test_a_gap_names_the_positions_that_are_gone(archive: Archive) -> None:
    log = listed(60)
    ranges = no_ledger(log, SIZE)
    for number in (0, 1, 4):
        archive_range(ranges, archive, PARTITION, number)
    reader = ReplayReader(log, archive)
    assert reader.cut_over(log.span(0, 60)) == log.at(20)
    assert len(rows_of(list(reader.batches(log.span(0, 60), 100)))) == 60
    log.floor = 35
    with pytest.raises(ReplayGap, match=r"shard:0/a of a-stream: \[20, 35\) are in no complete.* kept from 35 on"):
        list(reader.batches(log.span(0, 60), 100))
    log.floor = 50
    with pytest.raises(ReplayGap, match=r"\[20, 40\) are in no complete"):
        list(reader.batches(log.span(0, 60), 100))
    assert len(rows_of(list(reader.batches(log.span(40, 60), 100)))) == 20
    with pytest.raises(ReplayGap, match=r"ends at 60, before the end of \[50, 61\)"):
        list(reader.batches(log.span(40, 60).model_copy(update={"next": 61}), 100))


def test_a_segment_without_a_receipt_is_not_in_the_archive(archive: Archive) -> None:
    log = listed(20)
    archive_parts(log, archive, SIZE, [20])
    receipt = Path(archive.store.url) / archive.receipt_path(log.span(10, 20))
    data = receipt.read_bytes()
    receipt.unlink()
    reader = ReplayReader(log, archive)
    assert reader.cut_over(log.span(0, 20)) == log.at(10)
    log.floor = 20
    with pytest.raises(ReplayGap, match=r"\[10, 20\)"):
        list(reader.batches(log.span(0, 20), 100))
    receipt.write_bytes(data)
    assert len(rows_of(list(reader.batches(log.span(0, 20), 100)))) == 20


def test_every_flipped_byte_of_a_segment_is_found(archive: Archive) -> None:
    log = listed(20, unreadable=[3])
    archive_parts(log, archive, 20, [20])
    path = Path(archive.store.url) / archive.segment_path(log.span(0, 20))
    data = path.read_bytes()
    for place_ in [*range(0, len(data), 11), len(data) - 1]:
        path.write_bytes(data[:place_] + bytes([data[place_] ^ 0x10]) + data[place_ + 1 :])
        with pytest.raises(SegmentDamaged, match=path.name):
            replay(log, archive, log.span(0, 20))
    for damaged in (data[:-1], data[: len(data) // 2], b"", data + b"x"):
        path.write_bytes(damaged)
        with pytest.raises(SegmentDamaged, match=f"{path.name}.*bytes"):
            replay(log, archive, log.span(0, 20))
    path.unlink()
    with pytest.raises(SegmentMissing, match=path.name):
        replay(log, archive, log.span(0, 20))


def test_every_flipped_byte_of_a_receipt_is_found(archive: Archive) -> None:
    log = listed(20)
    archive_parts(log, archive, 20, [20])
    path = Path(archive.store.url) / archive.receipt_path(log.span(0, 20))
    data = path.read_bytes()
    for place_ in range(len(data)):
        for bit in (0x01, 0x10):
            path.write_bytes(data[:place_] + bytes([data[place_] ^ bit]) + data[place_ + 1 :])
            with pytest.raises(ReceiptDamaged, match=path.name):
                replay(log, archive, log.span(0, 20))
    for damaged in (data[:-1], b"", b"{}", data + b"\n", b" " + data):
        path.write_bytes(damaged)
        with pytest.raises(ReceiptDamaged, match=path.name):
            replay(log, archive, log.span(0, 20))


def test_damage_is_not_read_around(archive: Archive) -> None:
    log = listed(20)
    archive_parts(log, archive, SIZE, [15, 20])
    path = Path(archive.store.url) / archive.segment_path(log.span(10, 20))
    path.write_bytes(b"x")
    with pytest.raises(SegmentDamaged):
        replay(log, archive, log.span(0, 20))


def test_a_receipt_that_vanishes_while_it_is_read(archive: Archive) -> None:
    log = listed(20)
    archive_parts(log, archive, SIZE, [20])
    batches = ReplayReader(log, archive).batches(log.span(0, 20), 5)
    next(batches)
    (Path(archive.store.url) / archive.receipt_path(log.span(10, 20))).unlink()
    with pytest.raises(ReceiptDamaged, match="is gone"):
        list(batches)


def test_log_and_archive_of_different_streams() -> None:
    with pytest.raises(ValueError, match="the archive of 'other'"):
        ReplayReader(listed(0), Archive(ObjectStore(tempfile.gettempdir()), "other"))


def test_a_sparse_log_behind_its_archive(pool: Pool, archive: Archive) -> None:
    log = listed(25, SPARSE, unreadable=[9, 10, 24])
    archive_closed_ranges(OffsetRanges(pool, log, SIZE), archive)
    reader = ReplayReader(log, archive)
    whole = log.span(0, 25)
    assert reader.cut_over(whole) == log.at(20)
    expected = rows_of(list(log_batches(log, whole, 100)))
    assert rows_of(list(reader.batches(whole, 3))) == expected
    log.floor = 19  # Kinesis proves a position by its record, which is the last one of the archive
    assert rows_of(list(reader.batches(whole, 3))) == expected
    log.floor = 21
    with pytest.raises(ReplayGap, match=f"after {log.at(20).offset}"):
        list(reader.batches(whole, 3))
    inside = log.span(0, 25).model_copy(update={"start": "7", "next": str(int(str(log.at(13).offset)) + 5)})
    assert rows_of(list(reader.batches(inside, 3))) == expected[:13]
    (Path(archive.store.url) / archive.receipt_path(log.span(0, 10))).unlink()
    with pytest.raises(ReplayGap, match="holds its start"):
        list(reader.batches(whole, 3))


def test_the_log_in_postgres_beyond_its_retention(pool: Pool, tmp_path: Path, event: Any) -> None:
    log = PostgresLog.create(pool, STREAM, 2, "payload.account_id")
    for start in range(0, 300, 60):
        assert not log.append([event(n) for n in range(start, start + 60)]).refusals
    store = ObjectStore(str(tmp_path / "objects"))
    archive = Archive(store, STREAM)
    basis = ReplayBasis.up_to(log.ends())
    expected = {name: rows_of(list(log_batches(log, span, 100))) for name, span in basis.by_partition().items()}
    ranges = OffsetRanges(pool, log, 50)
    receipts = archive_closed_ranges(ranges, archive)
    assert sum(receipt.records for receipt in receipts) == 50 * len(receipts) <= sum(map(len, expected.values()))
    reader = ReplayReader(log, archive)
    with pool.connection() as connection:
        for span in basis.partitions:
            connection.execute(
                "UPDATE ofp.log_head SET floor_offset = %s WHERE (stream_name, partition_id) = (%s, %s)",
                (reader.cut_over(span).offset, STREAM, span.partition_id),
            )
    assert {name: rows_of(list(reader.batches(span, 33))) for name, span in basis.by_partition().items()} == expected
    with pool.connection() as connection:
        connection.execute("UPDATE ofp.log_head SET floor_offset = floor_offset + 1 WHERE stream_name = %s", (STREAM,))
    for span in basis.partitions:
        with pytest.raises(ReplayGap, match=f"partition {span.partition_id} of {STREAM}"):
            list(reader.batches(span, 33))


def test_a_block_that_postgres_lost_is_no_silence(pool: Pool, archive: Archive, event: Any) -> None:
    log = PostgresLog.create(pool, STREAM, 1, "payload.account_id")
    for start in range(0, 90, 30):
        log.append([event(n) for n in range(start, start + 30)])
    [span] = ReplayBasis.up_to(log.ends()).partitions
    for lost in (60, 30, 0):
        with pool.connection() as connection:
            connection.execute("DELETE FROM ofp.log_block WHERE first_offset = %s", (lost,))
        with pytest.raises(ReplayGap, match="partition 0000 of a-stream"):
            list(ReplayReader(log, archive).batches(span, 1000))


def test_shards_of_kinesis_that_split(pool: Pool, tmp_path: Path, fake_kinesis: Any, event: Any) -> None:
    log = KinesisLog.create(fake_kinesis, STREAM, 1, "payload.account_id", sleep=lambda _: None)
    log.append([event(n) for n in range(45)])
    [parent] = fake_kinesis.shards
    fake_kinesis.put("key", b"no envelope")
    fake_kinesis.split(parent)
    log.append([event(n) for n in range(45, 120)])
    basis = ReplayBasis.up_to(log.ends())
    expected = {name: rows_of(list(log_batches(log, span, 100))) for name, span in basis.by_partition().items()}
    assert sorted(map(len, expected.values()))[1] == 46
    archive = Archive(ObjectStore(str(tmp_path / "objects")), STREAM)
    receipts = archive_up_to(OffsetRanges(pool, log, 20), archive, log.ends())
    assert [(one.records, one.unreadable, one.closed) for one in receipts if one.partition_id == parent] == [
        (20, 0, False),
        (20, 0, False),
        (5, 1, True),
    ]
    for name in fake_kinesis.shards:
        fake_kinesis.trim(name, 10**6)
    reader = ReplayReader(log, archive)
    for name, span in basis.by_partition().items():
        batches = list(reader.batches(span, 7))
        assert rows_of(batches) == expected[name]
        assert batches[-1].next == span.end
    assert basis.by_partition()[parent].closed
