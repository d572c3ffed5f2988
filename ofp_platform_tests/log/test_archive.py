"""Writing the archive: ranges, trailing segments, retries, races, logs that changed, stores that do not work."""

from __future__ import annotations

import random
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from threading import Barrier

import boto3
import pytest

from ofp_platform.log import archive_segment
from ofp_platform.log.archive import (
    ArchiveConflict,
    ArchivedSpans,
    archive_closed_ranges,
    archive_new_ranges,
    archive_range,
    archive_up_to,
)
from ofp_platform.log.archive_reader import ReplayReader
from ofp_platform.log.archive_segment import SegmentDamaged
from ofp_platform.log.archive_store import Archive, SegmentMissing
from ofp_platform.log.ranges import OffsetRanges, RangeOpen
from ofp_platform.log.span_records import ReplayGap, log_batches
from ofp_platform.storage.objects import ObjectStore, ObjectStoreUnavailable
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.position import Basis, OffsetKind, make_basis
from ofp_platform_tests.oracle.list_log import PARTITION, STREAM, ListLog, listed, rows_of

SIZE = 10
DENSE, SPARSE = OffsetKind.EXCLUSIVE_NEXT, OffsetKind.AFTER_SEQUENCE_NUMBER


@pytest.fixture
def pool(dsn: str) -> Iterator[Pool]:
    with open_pool(dsn, max_size=4) as opened:
        yield opened


@pytest.fixture(params=["local", "s3"])
def archive(request: pytest.FixtureRequest, tmp_path: Path) -> Archive:
    if request.param == "local":
        return Archive(ObjectStore(str(tmp_path / "objects")), STREAM)
    endpoint = request.getfixturevalue("moto_server")
    bucket = f"bucket-{uuid.uuid4().hex}"
    with closing(boto3.client("s3", endpoint_url=endpoint, region_name="us-east-1")) as client:
        client.create_bucket(Bucket=bucket)
    return Archive(ObjectStore(f"s3://{bucket}/a", endpoint=endpoint), STREAM)


@pytest.fixture
def local(tmp_path: Path) -> Archive:
    return Archive(ObjectStore(str(tmp_path / "objects")), STREAM)


def up_to(log: ListLog, count: int) -> Basis:
    return make_basis(STREAM, {PARTITION: log.at(count)})


def replayed(log: ListLog, archive: Archive, first: int, following: int) -> list[tuple[object, ...]]:
    return rows_of(list(ReplayReader(log, archive).batches(log.span(first, following), 7)))


@pytest.mark.parametrize("kind", [DENSE, SPARSE])
def test_a_range_is_archived_once(pool: Pool, archive: Archive, kind: OffsetKind) -> None:
    log = listed(25, kind, unreadable=[11])
    ranges = OffsetRanges(pool, log, SIZE)
    receipt = archive_range(ranges, archive, PARTITION, 1)
    assert (receipt.range_number, receipt.records, receipt.unreadable, receipt.range_size) == (1, 9, 1, 10)
    assert (receipt.first, receipt.next) == (log.at(10).offset, log.at(20).offset)
    assert (receipt.admitted_min, receipt.admitted_max) == ("2024-05-01T10:00:01.000010Z", "2024-05-01T10:00:01.000019Z")
    assert (receipt.proves_event_times, receipt.event_time_max) == (True, "2024-05-01T10:00:00.000019Z")
    log.reads.clear()
    assert archive_range(ranges, archive, PARTITION, 1) == receipt
    assert kind is SPARSE or not log.reads
    assert archive.receipts(PARTITION, kind) == [receipt]
    assert len(archive.store.list("archive")) == 2
    with pytest.raises(RangeOpen):
        archive_range(ranges, archive, PARTITION, 2)


@pytest.mark.parametrize("kind", [DENSE, SPARSE])
def test_the_trailing_range_and_then_the_full_one(pool: Pool, local: Archive, kind: OffsetKind) -> None:
    log = listed(34, kind)
    records, log.records = log.records, log.records[:25]
    ranges = OffsetRanges(pool, log, SIZE)
    first = archive_up_to(ranges, local, up_to(log, 25))
    assert [(one.range_number, one.records, one.closed) for one in first] == [(0, 10, False), (1, 10, False), (2, 5, False)]
    assert archive_up_to(ranges, local, up_to(log, 25)) == first
    log.records = records
    second = archive_up_to(ranges, local, up_to(log, 34))
    assert [(one.range_number, one.records) for one in second] == [(0, 10), (1, 10), (2, 10), (3, 4)]
    assert archive_closed_ranges(ranges, local) == second[:3]
    assert len(local.receipts(PARTITION, kind)) == 5
    expected = rows_of(list(log_batches(log, log.span(0, 34), 100)))
    log.floor = 34  # the log has nothing of it any more
    assert replayed(log, local, 0, 34) == expected


def test_many_writers_write_what_one_does(pool: Pool, local: Archive, tmp_path: Path) -> None:
    log = listed(95)
    ranges = OffsetRanges(pool, log, SIZE)
    alone = Archive(ObjectStore(str(tmp_path / "alone")), STREAM)
    one = archive_up_to(ranges, alone, log.ends())
    assert archive_up_to(ranges, local, log.ends(), workers=3) == one
    assert archive_closed_ranges(ranges, local, workers=3) == one[:9]
    log.change(93, payload=b"{}")
    log.records += listed(5).records
    with pytest.raises(ArchiveConflict):
        archive_up_to(ranges, local, log.ends(), workers=3)


def test_a_basis_inside_a_closed_range(pool: Pool, local: Archive) -> None:
    log = listed(30)
    found = archive_up_to(OffsetRanges(pool, log, SIZE), local, up_to(log, 13))
    assert [(one.first, one.next, one.range_number) for one in found] == [(0, 10, 0), (10, 13, 1)]


def test_a_shard_that_ended(pool: Pool, local: Archive) -> None:
    log = listed(23, SPARSE, unreadable=[22])
    log.ended = True
    found = archive_closed_ranges(OffsetRanges(pool, log, SIZE), local)
    assert [(one.records, one.unreadable, one.closed) for one in found] == [(10, 0, False), (10, 0, False), (2, 1, True)]
    assert archive_range(OffsetRanges(pool, log, SIZE), local, PARTITION, 2) == found[2]
    ended = log.span(0, 23).model_copy(update={"closed": True})
    batches = list(ReplayReader(log, local).batches(ended, 100))
    assert batches[-1].next == ended.end
    assert batches[-1].next.closed


def test_a_partition_without_records_has_no_segment(pool: Pool, local: Archive) -> None:
    log = listed(0)
    assert archive_up_to(OffsetRanges(pool, log, SIZE), local, log.ends()) == []
    assert archive_closed_ranges(OffsetRanges(pool, log, SIZE), local) == []


def test_a_basis_ahead_of_the_log_or_of_another(pool: Pool, local: Archive) -> None:
    log = listed(5)
    with pytest.raises(ReplayGap, match=r"ends at 5, before the end of \[0, 8\)"):
        archive_up_to(OffsetRanges(pool, log, SIZE), local, up_to(log, 8))
    assert local.store.list() == []
    with pytest.raises(ValueError, match="of stream 'other'"):
        archive_up_to(OffsetRanges(pool, log, SIZE), local, Basis(stream_name="other", partitions=()))


def test_a_range_that_the_log_lost_gets_no_receipt(pool: Pool, local: Archive) -> None:
    log = listed(20)
    log.floor = 3
    with pytest.raises(ReplayGap, match=r"partition shard:0/a of a-stream.*\[0, 10\)"):
        archive_range(OffsetRanges(pool, log, SIZE), local, PARTITION, 0)
    assert local.store.list() == []
    assert archive_range(OffsetRanges(pool, log, SIZE), local, PARTITION, 1).records == 10


def test_a_sparse_range_has_the_records_that_the_ledger_counted(pool: Pool, local: Archive) -> None:
    log = listed(20, SPARSE)
    ranges = OffsetRanges(pool, log, SIZE)
    assert ranges.closed()[PARTITION].count == 2
    log.floor = 4  # from '' the log now silently begins at its fifth record
    with pytest.raises(ReplayGap, match="has 6 records, not 10"):
        archive_range(ranges, local, PARTITION, 0)
    assert local.store.list() == []


@dataclass
class DyingStore(ObjectStore):
    """Fails at the n-th put from now on; None: never."""

    inner: ObjectStore
    dies_at: int | None = None
    puts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.__dict__.update({name: value for name, value in self.inner.__dict__.items() if name not in self.__dict__})

    def put_if_absent(self, path: str, data: bytes) -> bool:
        self.puts.append(path)
        if self.dies_at is not None and len(self.puts) > self.dies_at:
            raise ObjectStoreUnavailable("the store is full")
        return self.inner.put_if_absent(path, data)


def test_a_writer_that_dies_leaves_nothing_visible_and_the_next_one_finishes(pool: Pool, local: Archive) -> None:
    log = listed(20)
    ranges = OffsetRanges(pool, log, SIZE)
    for dies_at in (0, 1):
        with pytest.raises(ObjectStoreUnavailable, match="full"):
            archive_range(ranges, Archive(DyingStore(local.store, dies_at), STREAM), PARTITION, 0)
        assert local.receipts(PARTITION, DENSE) == []
        assert len(local.store.list()) == dies_at
    receipt = archive_range(ranges, local, PARTITION, 0)
    assert local.receipts(PARTITION, DENSE) == [receipt]
    assert DyingStore(local.store).get(receipt.segment_path)


def test_two_writers_at_once_have_one_outcome(pool: Pool, archive: Archive) -> None:
    barrier = Barrier(2)

    class Meeting(DyingStore):
        def put_if_absent(self, path: str, data: bytes) -> bool:
            barrier.wait(timeout=30)
            return super().put_if_absent(path, data)

    def write(_: int) -> object:
        log = listed(20)
        return archive_range(OffsetRanges(pool, log, SIZE), Archive(Meeting(archive.store), STREAM), PARTITION, 0)

    with ThreadPoolExecutor(2) as executor:
        one, other = executor.map(write, range(2))
    assert one == other
    assert archive.receipts(PARTITION, DENSE) == [one]


def test_another_writer_with_other_bytes_of_the_same_records_wins_too(
    pool: Pool, local: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = listed(20)
    ranges = OffsetRanges(pool, log, SIZE)
    with monkeypatch.context() as patch:
        patch.setattr(archive_segment, "ROW_GROUP_RECORDS", 3)
        patch.setattr("ofp_platform.log.archive.ROW_GROUP_RECORDS", 3)
        with pytest.raises(ObjectStoreUnavailable):
            archive_range(ranges, Archive(DyingStore(local.store, 1), STREAM), PARTITION, 0)
    [path] = local.store.list()
    theirs = local.store.get(path)
    receipt = archive_range(ranges, local, PARTITION, 0)
    assert receipt.segment_bytes == len(theirs)
    assert replayed(log, local, 0, 10) == rows_of(list(log_batches(log, log.span(0, 10), 100)))


@pytest.mark.parametrize("dies_at", [1, None])
def test_another_writer_with_other_records_is_a_conflict(pool: Pool, local: Archive, dies_at: int | None) -> None:
    log = listed(20)
    first = Archive(DyingStore(local.store, dies_at), STREAM)
    if dies_at is None:
        archive_range(OffsetRanges(pool, log, SIZE), first, PARTITION, 0)
    else:
        with pytest.raises(ObjectStoreUnavailable):
            archive_range(OffsetRanges(pool, log, SIZE), first, PARTITION, 0)
    before = {path: local.store.get(path) for path in local.store.list()}
    log.change(4, payload=b'{"amount_minor":5}')

    class Late(DyingStore):
        """Does not see the receipt of the other before it writes its own."""

        def get(self, path: str) -> bytes:
            return super().get(path if path.endswith(".parquet") or any("receipts" in put for put in self.puts) else "none")

    with pytest.raises(ArchiveConflict, match=r"other records"):
        archive_range(OffsetRanges(pool, log, SIZE), Archive(Late(local.store), STREAM), PARTITION, 0)
    assert {path: local.store.get(path) for path in local.store.list()} == before


def test_a_receipt_of_other_records_is_a_conflict(pool: Pool, local: Archive) -> None:
    log, other = listed(20), listed(20)
    other.change(4, payload=b"{}")
    ranges = OffsetRanges(pool, log, SIZE)

    class Overtaken(DyingStore):
        """Somebody else writes a receipt of other records between the segment and the receipt."""

        def put_if_absent(self, path: str, data: bytes) -> bool:
            if "receipts" in path:
                (Path(self.url) / "archive").rename(Path(self.url) / "ours")
                archive_range(OffsetRanges(pool, other, SIZE), local, PARTITION, 0)
            return super().put_if_absent(path, data)

    with pytest.raises(ArchiveConflict, match="receipt of other records"):
        archive_range(ranges, Archive(Overtaken(local.store), STREAM), PARTITION, 0)


def test_a_log_that_changed_conflicts_with_its_trailing_segment(pool: Pool, local: Archive) -> None:
    log = listed(20)
    ranges = OffsetRanges(pool, log, SIZE)
    archive_up_to(ranges, local, up_to(log, 15))
    before = local.store.list()
    log.change(12, payload=b"{}")
    with pytest.raises(ArchiveConflict, match=r"other records at \[10, 15\)"):
        archive_range(ranges, local, PARTITION, 1)
    assert local.store.list() == before


def another(count: int) -> ListLog:
    """A log of the same name whose records are others at every position."""
    log = listed(count)
    for place in range(count):
        log.change(place, payload=b"{}")
    return log


@pytest.mark.parametrize("archived", [10, 25])
def test_another_log_of_the_same_name_adds_nothing_however_late_it_comes(pool: Pool, local: Archive, archived: int) -> None:
    log, other = listed(35), another(35)
    archive_up_to(OffsetRanges(pool, log, SIZE), local, up_to(log, archived))
    before = local.store.list()
    for basis in (archived, 35):
        with pytest.raises(ArchiveConflict, match="not the log that was archived there"):
            archive_up_to(OffsetRanges(pool, other, SIZE), local, up_to(other, basis), workers=basis % 3 + 1)
    with pytest.raises(ArchiveConflict):
        archive_range(OffsetRanges(pool, other, SIZE), local, PARTITION, archived // SIZE)
    assert local.store.list() == before
    assert len(archive_up_to(OffsetRanges(pool, log, SIZE), local, log.ends())) == 4


def test_another_log_stops_where_a_writer_was_ahead_of_it(pool: Pool, local: Archive) -> None:
    log, other = listed(30), another(30)

    class Ahead(DyingStore):
        """Somebody else archives the first range just when this one asks for its receipt."""

        asked = 0

        def get(self, path: str) -> bytes:
            if "receipts" in path and not self.asked:
                self.asked += 1
                archive_range(OffsetRanges(pool, log, SIZE), local, PARTITION, 0)
            return super().get(path)

    with pytest.raises(ArchiveConflict, match=r"other records at \[0, 10\)"):
        archive_up_to(OffsetRanges(pool, other, SIZE), Archive(Ahead(local.store), STREAM), other.ends())
    assert len(local.receipts(PARTITION, DENSE)) == 1


def test_what_the_log_no_longer_keeps_is_not_compared(pool: Pool, local: Archive) -> None:
    log = listed(30)
    ranges = OffsetRanges(pool, log, SIZE)
    archive_up_to(ranges, local, up_to(log, 20))
    log.floor = 12
    assert archive_range(ranges, local, PARTITION, 2).records == 10
    assert len(archive_closed_ranges(ranges, local)) == 3


def test_a_lost_segment_is_written_again_where_the_log_still_has_it(pool: Pool, local: Archive) -> None:
    log = listed(20)
    ranges = OffsetRanges(pool, log, SIZE)
    receipt = archive_range(ranges, local, PARTITION, 0)
    segment = Path(local.store.url) / receipt.segment_path
    data = segment.read_bytes()
    segment.unlink()
    assert archive_range(ranges, local, PARTITION, 0) == receipt
    assert segment.read_bytes() == data
    segment.unlink()
    log.change(4, payload=b"{}")
    with pytest.raises(SegmentMissing, match="no longer gives the same bytes"):
        archive_range(ranges, local, PARTITION, 0)
    assert not segment.exists()
    log.floor = 5
    with pytest.raises(ReplayGap):
        archive_range(ranges, local, PARTITION, 0)


def test_a_segment_that_is_damaged_before_its_receipt_is_named(pool: Pool, local: Archive) -> None:
    log = listed(20)
    local.store.put_if_absent(local.segment_path(log.span(0, 10)), b"half a segm")
    with pytest.raises(SegmentDamaged, match=r"0000000000000000-0000000000000010\.parquet"):
        archive_range(OffsetRanges(pool, log, SIZE), local, PARTITION, 0)
    assert local.receipts(PARTITION, DENSE) == []


def test_a_store_that_cannot_be_written(pool: Pool, tmp_path: Path) -> None:
    log = listed(20)
    (tmp_path / "objects").mkdir()
    (tmp_path / "objects" / "archive").write_text("no folder: as good as read-only, also for root")
    with pytest.raises(ObjectStoreUnavailable, match="objects"):
        archive_range(OffsetRanges(pool, log, SIZE), Archive(ObjectStore(str(tmp_path / "objects")), STREAM), PARTITION, 0)


class Counted(DyingStore):
    """Counts what is asked of it."""

    def __init__(self, inner: ObjectStore) -> None:
        super().__init__(inner)
        self.asked: Counter[str] = Counter()

    def list(self, prefix: str = "") -> list[str]:
        self.asked["list"] += 1
        return self.inner.list(prefix)

    def folders(self, prefix: str) -> list[str]:
        self.asked["folders"] += 1
        return self.inner.folders(prefix)


@pytest.mark.parametrize("kind", [DENSE, SPARSE])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_run_lists_as_often_however_many_ranges_it_archives(pool: Pool, local: Archive, kind: OffsetKind, workers: int) -> None:
    for count, records in ((4, 40), (40, 400)):
        log = listed(records, kind)
        store = Counted(local.store)
        receipts = archive_closed_ranges(OffsetRanges(pool, log, SIZE), Archive(store, STREAM), workers)
        assert len(receipts) == count
        assert store.asked == {"folders": 1, "list": 2}
    assert archive_closed_ranges(OffsetRanges(pool, log, SIZE), Archive(store, STREAM), workers) == receipts
    assert store.asked == {"folders": 2, "list": 3}  # nothing was written: nobody can have come in between


def test_only_new_ranges_are_asked_for(pool: Pool, local: Archive) -> None:
    log = listed(400)
    store = Counted(local.store)
    ranges, archive = OffsetRanges(pool, log, SIZE), Archive(store, STREAM)
    records, log.records = log.records, log.records[:390]
    assert len(archive_new_ranges(ranges, archive)) == 39
    store.asked.clear()
    assert archive_new_ranges(ranges, archive) == []
    assert store.asked == {"list": 1}
    log.records = records
    assert [receipt.range_number for receipt in archive_new_ranges(ranges, archive)] == [39]


@pytest.mark.parametrize("changed", [None, 33])
def test_what_another_writer_archives_meanwhile_is_held_against_the_log(pool: Pool, local: Archive, changed: int | None) -> None:
    log, other = listed(40), listed(40)
    if changed is not None:
        other.change(changed, payload=b"{}")

    class Beside(DyingStore):
        """Somebody else archives the first half of the last range just when this one begins to write."""

        def put_if_absent(self, path: str, data: bytes) -> bool:
            if not self.puts:
                archive_up_to(OffsetRanges(pool, other, SIZE), local, up_to(other, 35))
            return super().put_if_absent(path, data)

    ranges, archive = OffsetRanges(pool, log, SIZE), Archive(Beside(local.store), STREAM)
    if changed is None:
        assert len(archive_closed_ranges(ranges, archive)) == 4
    else:
        with pytest.raises(ArchiveConflict, match=r"other records at \[30, 35\)"):
            archive_closed_ranges(ranges, archive)


def test_spans_that_share_a_position_are_found_among_many() -> None:
    log = listed(200)
    choice = random.Random(7)
    spans = [log.span(first, first + choice.randint(1, 30)) for first in (choice.randrange(170) for _ in range(60))]
    archived_spans = ArchivedSpans(spans)
    for first in range(0, 190, 3):
        for length in (1, 7, 40):
            span = log.span(first, min(first + length, 200))
            wanted = [one for one in spans if span.shared(one) is not None]
            assert Counter(map(str, archived_spans.overlapping(span))) == Counter(map(str, wanted))
            assert archived_spans.has(span) == ((span.start, span.next) in {(one.start, one.next) for one in spans})
