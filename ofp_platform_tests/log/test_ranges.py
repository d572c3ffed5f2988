"""Range arithmetic on a dense log, and the ledger on one that is not."""

from collections.abc import Iterator
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any, cast

import boto3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.log.kinesis import KinesisLog
from ofp_platform.log.port import PartitionNotFound, RecordBatch
from ofp_platform.log.range_ledger import RangeConflict, grow_ledger
from ofp_platform.log.ranges import (
    ClosedRanges,
    OffsetRanges,
    RangeBounds,
    RangeOpen,
    range_name,
    range_number,
    shared_ranges,
)
from ofp_platform.log.span_records import log_batches
from ofp_platform.online.plane import Plane
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
from ofp_platform.vocabulary.position import OffsetKind, PartitionBasis, make_basis, place
from ofp_platform_tests.oracle.list_log import PARTITION, listed
from ofp_platform_tests.oracle.simulated_log import RANGE_SIZE, append, deliveries, heads, profile


@pytest.fixture
def plane(dsn: str, tmp_path: Path) -> Iterator[Plane]:
    with Plane.open(profile(tmp_path), dsn) as opened:
        append(opened.log)
        yield opened


@given(st.integers(0, 10**9), st.integers(0, 10**9))
def test_names_order_like_numbers_and_lead_back(one: int, other: int) -> None:
    assert range_number(range_name(one)) == one
    if max(one, other) < 10**7:
        assert (range_name(one) < range_name(other)) == (one < other)


@pytest.mark.parametrize("name", ["", "r12", "0000012", "r000001x", "R0000012", " r0000012", "r00000012"])
def test_what_is_no_range_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="not the name of a range"):
        range_number(name)


NO_POOL = cast(Pool, None)  # a dense log needs no ledger of its ranges
DENSE, SPARSE = OffsetKind.EXCLUSIVE_NEXT, OffsetKind.AFTER_SEQUENCE_NUMBER


def dense(records: int, size: int = 10) -> OffsetRanges:
    return OffsetRanges(NO_POOL, listed(records), size)


@pytest.mark.parametrize(("records", "count"), [(0, 0), (9, 0), (10, 1), (19, 1), (20, 2), (21, 2)])
def test_a_range_of_a_dense_log_is_closed_once_it_is_full(records: int, count: int) -> None:
    ranges = dense(records)
    assert ranges.closed() == {PARTITION: ClosedRanges(count, False, records == 0)}
    for number in range(count):
        found = ranges.bounds(PARTITION, number)
        assert (found.partition_id, found.number, found.name) == (PARTITION, number, range_name(number))
        assert (found.start, found.end) == (ranges_at(DENSE, 10 * number), ranges_at(DENSE, 10 * number + 10))
        assert (found.first_ordinal, found.records) == (10 * number, 10)
    with pytest.raises(RangeOpen, match=rf"range r000000{count} .* record {10 * count + 10}, the log ends at {records}:"):
        ranges.bounds(PARTITION, count)
    with pytest.raises(PartitionNotFound, match="'nowhere'"):
        ranges.bounds("nowhere", 0)
    with pytest.raises(ValueError, match="not -1"):
        ranges.bounds(PARTITION, -1)


def ranges_at(kind: OffsetKind, offset: int | str) -> PartitionBasis:
    return PartitionBasis(partition_id=PARTITION, offset_kind=kind, offset=offset)


def test_a_range_lies_before_or_behind_or_across_a_basis() -> None:
    found = dense(30).bounds(PARTITION, 1)
    assert found.until("s") == make_basis("s", {PARTITION: ranges_at(DENSE, 20)})
    ends = [None, *(ranges_at(DENSE, offset) for offset in (0, 9, 10, 11, 19, 20, 21))]
    assert [found.begins_after(basis) for basis in ends] == [True, True, True, False, False, False, False, False]
    assert [found.is_inside(basis) for basis in ends] == [False, False, False, False, False, False, True, True]


@pytest.mark.parametrize("ended", [False, True])
def test_the_ranges_of_a_sparse_log_are_those_of_its_ledger(dsn: str, ended: bool) -> None:
    log = listed(25, SPARSE)
    log.ended = ended
    with open_pool(dsn) as pool:
        ranges = OffsetRanges(pool, log, 10)
        closed = 3 if ended else 2  # the last range of an ended partition is closed as it is
        assert ranges.closed() == {PARTITION: ClosedRanges(closed, ended, False)}
        edges = ["", *(log.offset(ordinal) for ordinal in (9, 19, 24))]
        for number in range(closed):
            found = ranges.bounds(PARTITION, number)
            assert (found.start.offset, found.end.offset) == (edges[number], edges[number + 1])
            assert (found.start.offset_kind, found.partition_id, found.number) == (SPARSE, PARTITION, number)
            assert (found.first_ordinal, found.records) == (10 * number, 5 if number == 2 else 10)
        with pytest.raises(RangeOpen, match=f"record {10 * closed + 10}, {closed} ranges are closed"):
            ranges.bounds(PARTITION, closed)
        empty = OffsetRanges(pool, replace(listed(5, SPARSE), stream_name="another"), 10)
        assert empty.closed() == {PARTITION: ClosedRanges(0, False, True)}


def test_where_integers_have_gaps_ranges_are_counted_by_reading(dsn: str) -> None:
    log = replace(listed(25), has_gaps=True, stream_name="gaps")
    with open_pool(dsn) as pool:
        ranges = OffsetRanges(pool, log, 10)
        for _ in range(2):  # the second time from the stored ledger
            assert ranges.closed() == {PARTITION: ClosedRanges(2, False, False)}
            assert [ranges.bounds(PARTITION, number).start for number in (0, 1)] == [log.at(0), log.at(10)]
            assert [ranges.bounds(PARTITION, number).end for number in (0, 1)] == [log.at(10), log.at(20)]
        with pytest.raises(RangeOpen, match="2 ranges are closed"):
            ranges.bounds(PARTITION, 2)
    [span] = ReplayBasis.up_to(log.ends()).partitions
    second = span.cut(log.at(10), log.at(20))
    assert [offset for batch in log_batches(log, second, 4) for offset in batch.offsets] == [log.offset(n) for n in range(10, 20)]


def test_places_order_the_bases_of_a_partition() -> None:
    def dense(offset: int) -> PartitionBasis:
        return PartitionBasis(partition_id="0", offset_kind=OffsetKind.EXCLUSIVE_NEXT, offset=offset)

    def sparse(offset: str) -> PartitionBasis:
        return PartitionBasis(partition_id="0", offset_kind=OffsetKind.AFTER_SEQUENCE_NUMBER, offset=offset)

    assert place(None) == place(dense(0)) == place(sparse("")) == -1
    assert place(dense(1)) == 0  # record 0 is the last one inside
    assert place(sparse("9")) < place(sparse("10"))


def test_neither_an_empty_nor_an_ended_partition_holds_the_others_up() -> None:
    assert shared_ranges({}) == 0
    assert shared_ranges({"a": ClosedRanges(5, False, False), "b": ClosedRanges(3, False, False)}) == 3
    assert shared_ranges({"a": ClosedRanges(5, False, False), "b": ClosedRanges(0, False, True)}) == 5
    assert shared_ranges({"a": ClosedRanges(5, False, False), "b": ClosedRanges(2, True, False)}) == 5
    assert shared_ranges({"a": ClosedRanges(4, True, False), "b": ClosedRanges(2, True, False)}) == 4


def test_a_dense_range_is_offsets(plane: Plane) -> None:
    head = heads(plane)["0000"]
    last = head // RANGE_SIZE - 1
    bounds = plane.ranges.bounds("0000", last)
    assert (bounds.start.offset, bounds.end.offset) == (last * RANGE_SIZE, (last + 1) * RANGE_SIZE)
    assert (bounds.first_ordinal, bounds.records) == (last * RANGE_SIZE, RANGE_SIZE)
    assert plane.ranges.closed()["0000"] == ClosedRanges(last + 1, False, False)
    with pytest.raises(RangeOpen, match=f"closes at record {(last + 2) * RANGE_SIZE}, the log ends at {head}"):
        plane.ranges.bounds("0000", last + 1)
    with pytest.raises(PartitionNotFound):
        plane.ranges.bounds("0009", 0)
    with pytest.raises(ValueError, match="from 0 on"):
        plane.ranges.bounds("0000", -1)


@pytest.fixture
def kinesis_plane(dsn: str, tmp_path: Path, moto_server: str) -> Iterator[Plane]:
    with Plane.open(profile(tmp_path), dsn) as opened:
        client = boto3.client("kinesis", endpoint_url=moto_server)
        name = f"ranges-{dsn.partition('/t_')[2][:12]}"
        opened.opened_log = KinesisLog.create(client, name, 2, "payload.account_id", sleep=lambda seconds: None)
        yield opened


def test_the_ledger_counts_where_offsets_do_not(kinesis_plane: Plane) -> None:
    log, pool = kinesis_plane.log, kinesis_plane.pool
    append(log, deliveries().part(0, 150))
    shard = log.partitions()[0].partition_id
    first = grow_ledger(pool, log, shard, 20)
    append(log, deliveries().part(150, 300))
    second = grow_ledger(pool, log, shard, 20)
    at_once = grow_ledger(pool, log, shard, 7)
    assert first.entries
    assert len(second.entries) > len(first.entries)
    assert second.entries[: len(first.entries)] == first.entries  # what was closed stays as it was
    assert not second.ended
    whole = log.read(shard, None, 1000)
    assert [entry.end_offset for entry in second.entries] == whole.offsets[19::20]
    assert [entry.end_offset for entry in at_once.entries] == whole.offsets[6::7]
    with pool.connection() as connection:
        rows = connection.execute("SELECT count(*) FROM ofp.range_end").fetchone()
    assert rows == (len(second.entries) + len(at_once.entries),)


@pytest.mark.parametrize("end_offset", ["same", "7"])
def test_a_ledger_that_another_process_grew_otherwise_meanwhile_is_refused(
    kinesis_plane: Plane, monkeypatch: pytest.MonkeyPatch, end_offset: str
) -> None:
    log, pool = kinesis_plane.log, kinesis_plane.pool
    append(log, deliveries().part(0, 150))
    shard = log.partitions()[0].partition_id
    stored = log.read(shard, None, 1000).offsets[19] if end_offset == "same" else end_offset
    read = log.read

    def meanwhile(*arguments: Any) -> RecordBatch:
        with pool.connection() as connection:
            row = (log.stream_name, shard, 20, 0, str(stored), 20)
            connection.execute("INSERT INTO ofp.range_end VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING", row)
        return read(*arguments)

    monkeypatch.setattr(log, "read", meanwhile)
    if end_offset == "same":
        assert grow_ledger(pool, log, shard, 20).entries
        return
    with pytest.raises(RangeConflict, match=f"range 0 of partition {shard} .* ends at 7 with 20 records in ofp.range_end"):
        grow_ledger(pool, log, shard, 20)


def test_a_sparse_range_is_between_two_tokens(kinesis_plane: Plane) -> None:
    append(kinesis_plane.log)
    shard = kinesis_plane.log.partitions()[1].partition_id
    count = kinesis_plane.ranges.closed()[shard].count
    assert count > 1
    first, second = kinesis_plane.ranges.bounds(shard, 0), kinesis_plane.ranges.bounds(shard, 1)
    assert first.start.offset == ""
    assert first.end == second.start
    assert (second.first_ordinal, second.records) == (RANGE_SIZE, RANGE_SIZE)
    with pytest.raises(RangeOpen, match=f"{count} ranges are closed"):
        kinesis_plane.ranges.bounds(shard, count)


@pytest.mark.parametrize("kind", [RangeBounds, ClosedRanges, OffsetRanges])
def test_what_is_said_of_ranges_does_not_change(kind: type) -> None:
    with pytest.raises(FrozenInstanceError):
        object.__new__(kind).size = 1
