"""Ranges apply in order, whole, once; what is there already is verified against the log."""

from collections.abc import Iterator
from pathlib import Path

import boto3
import numpy as np
import pytest

from ofp_platform.log.kinesis import KinesisLog
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.log.ranges import RangeGap, RangeOpen, RangeTrimmed
from ofp_platform.online.plane import Plane
from ofp_platform.online.ranges.catch_up import catch_up
from ofp_platform.online.ranges.log_progress import observe, progress
from ofp_platform.online.ranges.range_apply import RangeReceipt, apply_ranges
from ofp_platform.online.ranges.range_contents import ProjectionContents
from ofp_platform.online.state.identity_pages import PageCorrupt, pack_pages, unpack_pages
from ofp_platform.online.state.projection import ProjectionRow
from ofp_platform.vocabulary.position import Basis, OffsetKind, PartitionBasis, make_basis
from ofp_platform_tests.oracle.simulated_log import RANGE_SIZE, append, deliveries, heads, profile


@pytest.fixture
def plane(dsn: str, tmp_path: Path) -> Iterator[Plane]:
    with Plane.open(profile(tmp_path), dsn) as opened:
        append(opened.log)
        yield opened


@pytest.fixture
def plane_of_segments(dsn: str, tmp_path: Path) -> Iterator[Plane]:
    """Nearly all of its identities are in segments."""
    with Plane.open(profile(tmp_path, known_events_recent=30), dsn) as opened:
        append(opened.log)
        yield opened


def offset(plane: Plane, projection_id: int, partition_id: str) -> int:
    return int(plane.row(projection_id).basis.by_partition()[partition_id].offset)


def apply_range(plane: Plane, row: ProjectionRow, partition_id: str, number: int) -> RangeReceipt:
    """One range."""
    (receipt,) = apply_ranges(plane, row, partition_id, [number])
    return receipt


def fates(receipt: RangeReceipt) -> int:
    counts = receipt.counts
    return counts["events"] + counts["duplicates"] + counts["failed"] + counts["ignored"] + counts["forgotten"]


def test_all_ranges_in_order_and_then_again(plane: Plane) -> None:
    row = plane.ensure_live()
    count = plane.ranges.closed()["0000"].count
    applied = list(apply_ranges(plane, row, "0000", range(count)))
    assert [receipt.status for receipt in applied] == ["applied"] * count
    assert [receipt.basis.offset for receipt in applied] == [(number + 1) * RANGE_SIZE for number in range(count)]
    assert all(receipt.contiguous for receipt in applied)
    assert [fates(receipt) for receipt in applied] == [RANGE_SIZE] * count
    version = plane.row(row.projection_id).version

    verified = list(apply_ranges(plane, row, "0000", range(count)))
    assert [receipt.status for receipt in verified] == ["verified"] * count
    assert plane.row(row.projection_id).version == version  # nothing was written
    for before, after in zip(applied, verified, strict=True):
        assert after.verification is not None
        assert after.verification.holds
        assert after.verification.records == RANGE_SIZE
        for fate in ("events", "duplicates", "failed"):
            assert after.counts[fate] == before.counts[fate]
        assert after.failures == before.failures


def test_a_gap_is_refused_and_nothing_happens(plane: Plane) -> None:
    row = plane.ensure_live()
    with pytest.raises(RangeGap, match="r0000001 of partition 0000 begins at 40, the basis is at the start"):
        apply_range(plane, row, "0000", 1)
    apply_range(plane, row, "0000", 0)
    with pytest.raises(RangeGap, match="begins at 80, the basis is at 40"):
        apply_range(plane, row, "0000", 2)
    assert offset(plane, row.projection_id, "0000") == RANGE_SIZE
    assert "0001" not in plane.row(row.projection_id).basis.by_partition()


def test_an_open_range_waits(plane: Plane) -> None:
    with pytest.raises(RangeOpen):
        apply_range(plane, plane.ensure_live(), "0000", heads(plane)["0000"] // RANGE_SIZE)


def test_a_range_half_in_the_basis_is_finished_and_its_first_half_verified(plane: Plane) -> None:
    row = plane.ensure_live()
    bound = PartitionBasis(partition_id="0001", offset_kind=OffsetKind.EXCLUSIVE_NEXT, offset=RANGE_SIZE + 13)
    while plane.projector(row).apply_available(max_records=1000, until=Basis(stream_name=row.stream_name, partitions=(bound,))):
        pass
    receipt = apply_range(plane, row, "0001", 1)
    assert receipt.status == "applied"
    assert receipt.verification is not None
    assert receipt.verification.records == 13
    assert sum(one.records for one in receipt.receipts) == RANGE_SIZE - 13
    assert fates(receipt) == RANGE_SIZE
    assert receipt.contiguous


def test_ranges_and_catch_up_leave_the_same_state(plane: Plane, tmp_path: Path) -> None:
    """However the records came in, every partition's counters and the answer are the same."""
    row = plane.ensure_live()
    for partition_id, closed in plane.ranges.closed().items():
        list(apply_ranges(plane, row, partition_id, range(closed.count)))
        receipt = catch_up(plane, row, partition_id)
        assert receipt.lag == 0
        assert receipt.counts["records"] == heads(plane)[partition_id] - closed.count * RANGE_SIZE
        assert catch_up(plane, row, partition_id).receipts == ()
    observation = observe(plane, row, stalled_seconds=5.0)
    assert observation.lag_records == 0
    assert observation.totals.counters()["records_read"] == len(deliveries()) == sum(heads(plane).values())
    assert observation.totals.anomalies == 2
    assert {one.partition_id: one.lag for one in progress(plane, row)} == {"0000": 0, "0001": 0}
    assert [one.floor.offset for one in progress(plane, row)] == [0, 0]


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM ofp.apply_failure WHERE ctid = (SELECT min(ctid) FROM ofp.apply_failure)",
        "DELETE FROM ofp.identity_run WHERE version = 1",
        "UPDATE ofp.identity_run SET content = overlay(content placing '\\x00000000'::bytea from 1) WHERE version = 1",
    ],
)
def test_verification_finds_what_the_store_lost(plane: Plane, damage: str) -> None:
    row = plane.ensure_live()
    bounds = [plane.ranges.closed()[name].count for name in ("0000", "0001")]
    for partition_id, count in zip(("0000", "0001"), bounds, strict=True):
        list(apply_ranges(plane, row, partition_id, range(count)))
    with plane.pool.connection() as connection:
        connection.execute(damage)
    receipts = [
        receipt
        for partition_id, count in zip(("0000", "0001"), bounds, strict=True)
        for receipt in apply_ranges(plane, row, partition_id, range(count))
    ]
    assert any(receipt.verification is not None and receipt.verification.lost for receipt in receipts)


def test_verification_finds_an_event_that_no_record_stands_for(plane: Plane) -> None:
    row = plane.ensure_live()
    apply_range(plane, row, "0000", 0)
    contents = ProjectionContents(plane, row)
    bounds = plane.ranges.bounds("0000", 0)
    assert contents.contents(bounds).events > 0
    assert contents.verify(bounds.start, bounds.end).holds
    failed = sum(contents.contents(bounds).failures.values())
    with plane.pool.connection() as connection:
        # the position of an event moves onto that of a copy or a failure, or to where no record is
        connection.execute("DELETE FROM ofp.identity_run WHERE projection_id = %s AND version > 1", (row.projection_id,))
        connection.execute("UPDATE ofp.identity_run SET content = overlay(content placing substr(content, 89, 8) from 41)")
    found = ProjectionContents(plane, row).verify(bounds.start, bounds.end)
    assert not found.holds
    assert found.records == RANGE_SIZE
    assert sum(found.failures.values()) == failed


def test_a_verification_reads_segments_as_it_reads_runs(plane_of_segments: Plane) -> None:
    plane = plane_of_segments
    row = plane.ensure_live()
    count = plane.ranges.closed()["0000"].count
    applied = list(apply_ranges(plane, row, "0000", range(count)))
    verified = list(apply_ranges(plane, row, "0000", range(count)))
    for before, after in zip(applied, verified, strict=True):
        assert after.verification is not None
        assert after.verification.holds
        assert [after.counts[fate] for fate in ("events", "duplicates", "failed")] == [
            before.counts[fate] for fate in ("events", "duplicates", "failed")
        ]
    with plane.pool.connection() as connection:
        segments = connection.execute(
            "SELECT segment_id FROM ofp.identity_segment WHERE state = 'whole' AND bounds LIKE '%\"0\"%' ORDER BY segment_id"
        ).fetchall()
        assert len(segments) > 2
        # one identity of the oldest segment goes: the page has another in its place
        page, content = connection.execute(
            "SELECT page, content FROM ofp.identity_page WHERE segment_id = %s ORDER BY page LIMIT 1", segments[0]
        ).fetchone() or (0, b"")
        entries = unpack_pages([content], 6)
        entries[0, 3] ^= np.uint64(1)
        (changed,) = pack_pages(entries, page, page + 1, 0)
        connection.execute(
            "UPDATE ofp.identity_page SET content = %s WHERE segment_id = %s AND page = %s", (changed, *segments[0], page)
        )
    again = [receipt.verification for receipt in apply_ranges(plane, row, "0000", range(count))]
    assert sum(len(verification.lost) for verification in again if verification) == 1
    assert sum(len(verification.invented) for verification in again if verification) == 1
    with plane.pool.connection() as connection:
        connection.execute("DELETE FROM ofp.identity_page WHERE (segment_id, page) = (%s, %s)", (*segments[0], page))
    with pytest.raises(PageCorrupt, match="are missing"):
        list(apply_ranges(plane, row, "0000", range(count)))


def test_a_counter_that_is_off_is_not_contiguous(plane: Plane) -> None:
    row = plane.ensure_live()
    assert apply_range(plane, row, "0000", 0).contiguous
    with plane.pool.connection() as connection:
        connection.execute("UPDATE ofp.projection_partition SET records = records - 1")
    assert not apply_range(plane, row, "0000", 1).contiguous


def test_what_the_log_lost_is_not_skipped(plane: Plane) -> None:
    row = plane.ensure_live()
    assert isinstance(plane.log, PostgresLog)
    floor = PartitionBasis(partition_id="0000", offset_kind=OffsetKind.EXCLUSIVE_NEXT, offset=heads(plane)["0000"])
    apply_range(plane, row, "0000", 0)
    plane.log.truncate_before(make_basis(row.stream_name, {"0000": floor}))
    with pytest.raises(RangeTrimmed, match="neither log nor archive has"):
        apply_range(plane, row, "0000", 1)
    with pytest.raises(RangeTrimmed):
        apply_range(plane, row, "0000", 0)  # applied, but nobody can verify it any more


def test_a_log_trimmed_before_the_first_record_was_taken(plane: Plane) -> None:
    row = plane.ensure_live()
    assert isinstance(plane.log, PostgresLog)
    floor = PartitionBasis(partition_id="0000", offset_kind=OffsetKind.EXCLUSIVE_NEXT, offset=10)
    plane.log.truncate_before(make_basis(row.stream_name, {"0000": floor}))
    with pytest.raises(RangeTrimmed):
        apply_range(plane, row, "0000", 0)
    assert plane.row(row.projection_id).version == 0


def test_two_drivers_at_once(plane: Plane) -> None:
    """Another projector moves the basis between any two commits; ranges go on from what they find."""
    row = plane.ensure_live()
    other = plane.projector(row)
    for number, receipt in enumerate(apply_ranges(plane, row, "0000", range(plane.ranges.closed()["0000"].count))):
        assert receipt.bounds.number == number
        assert receipt.contiguous
        assert fates(receipt) == RANGE_SIZE
        other.forget()
        other.apply_available(max_records=30)


def test_ranges_on_kinesis(dsn: str, tmp_path: Path, moto_server: str) -> None:
    with Plane.open(profile(tmp_path), dsn) as plane:
        client = boto3.client("kinesis", endpoint_url=moto_server)
        name = f"apply-{dsn.partition('/t_')[2][:12]}"
        log = KinesisLog.create(client, name, 2, "payload.account_id", sleep=lambda seconds: None)
        append(log)
        plane = Plane(plane.profile.model_copy(update={"stream_name": name}), dsn, plane.pool, log)
        row = plane.ensure_live()
        shard = log.partitions()[0].partition_id
        count = plane.ranges.closed()[shard].count
        with pytest.raises(RangeGap):
            apply_range(plane, row, shard, 1)
        applied = list(apply_ranges(plane, row, shard, range(count)))
        verified = list(apply_ranges(plane, row, shard, range(count)))
        assert [receipt.status for receipt in applied] == ["applied"] * count
        assert [receipt.status for receipt in verified] == ["verified"] * count
        assert all(receipt.contiguous for receipt in applied + verified)
        assert all(receipt.verification is not None and receipt.verification.holds for receipt in verified)
        assert [fates(receipt) for receipt in applied] == [fates(receipt) for receipt in verified] == [RANGE_SIZE] * count
