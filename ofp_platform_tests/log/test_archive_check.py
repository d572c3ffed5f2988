"""Log against archive: conflicts are found where both have a position, recorded, and stay recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ofp_platform.log.archive import ArchiveConflict, archive_up_to
from ofp_platform.log.archive_check import cross_check
from ofp_platform.log.archive_segment import SegmentDamaged
from ofp_platform.log.archive_store import Archive
from ofp_platform.log.ranges import OffsetRanges
from ofp_platform.log.span_records import ReplayGap
from ofp_platform.storage.governance_facts import read_facts
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.offline.governance_fact import ArchiveConflictFound
from ofp_platform.vocabulary.position import OffsetKind, make_basis
from ofp_platform_tests.oracle.list_log import PARTITION, STREAM, ListLog, listed

DENSE, SPARSE = OffsetKind.EXCLUSIVE_NEXT, OffsetKind.AFTER_SEQUENCE_NUMBER


@pytest.fixture
def pool(dsn: str) -> Iterator[Pool]:
    with open_pool(dsn, max_size=4) as opened:
        yield opened


@pytest.fixture(params=[DENSE, SPARSE])
def log(request: pytest.FixtureRequest) -> ListLog:
    return listed(28, request.param, unreadable=[7, 13])


@pytest.fixture
def archive(pool: Pool, log: ListLog, tmp_path: Path) -> Archive:
    archive = Archive(ObjectStore(str(tmp_path)), STREAM)
    archive_up_to(OffsetRanges(pool, log, 10), archive, make_basis(STREAM, {PARTITION: log.at(25)}))
    return archive


def test_they_agree(pool: Pool, log: ListLog, archive: Archive) -> None:
    for first, following, compared in ((0, 28, 25), (4, 22, 18), (25, 28, 0), (0, 0, 0)):
        found = cross_check(log, archive, pool, log.span(first, following))
        assert (found.compared, found.conflicts) == (compared, ())
        found.demand_agreement()


def test_a_position_with_two_contents(pool: Pool, log: ListLog, archive: Archive) -> None:
    archived = log.records[12].payload_hash
    log.change(12, payload=b"{}")
    log.change(13, readable=True)
    log.change(21, readable=False)
    whole = log.span(0, 28)
    found = cross_check(log, archive, pool, whole)
    assert [conflict.offset for conflict in found.conflicts] == [log.offset(n) for n in (12, 13, 21)]
    changed, read_now, unreadable_now = found.conflicts
    assert (changed.archive_payload_hash, changed.log_payload_hash) == (archived, log.records[12].payload_hash)
    assert (read_now.archive_payload_hash, unreadable_now.log_payload_hash) == (b"", b"")
    assert changed.segment_path == archive.segment_path(log.span(10, 20))
    with pytest.raises(ArchiveConflict, match=f"3 positions, the first is {log.offset(12)} in .*parquet"):
        found.demand_agreement()
    assert cross_check(log, archive, pool, whole) == found
    assert cross_check(log, archive, pool, log.span(0, 12)).conflicts == ()
    assert cross_check(log, archive, pool, log.span(0, 13)).conflicts == (changed,)
    with pool.connection() as connection:
        rows = connection.execute("SELECT stream_name, partition_id, position FROM ofp.archive_conflict").fetchall()
    assert sorted(rows) == sorted((STREAM, PARTITION, str(log.offset(n))) for n in (12, 13, 21))
    facts = [recorded.fact for recorded in read_facts(pool, "archive_conflict")]  # once for each segment, however often compared
    told = [(f.segment_path, f.positions, f.position_count) for f in facts if isinstance(f, ArchiveConflictFound)]
    assert set(told) == {
        (changed.segment_path, (str(log.offset(12)), str(log.offset(13))), 2),
        (unreadable_now.segment_path, (str(log.offset(21)),), 1),
    }
    assert len(facts) == 2


def test_a_conflict_outlives_the_log(pool: Pool, log: ListLog, archive: Archive) -> None:
    log.change(12, payload=b"{}")
    found = cross_check(log, archive, pool, log.span(0, 28))
    log.floor = 25
    later = cross_check(log, archive, pool, log.span(0, 28))
    assert later.conflicts == found.conflicts != ()
    assert later.compared == 0


def test_what_only_one_of_them_has_is_not_compared(pool: Pool, log: ListLog, archive: Archive) -> None:
    log.floor = 14
    found = cross_check(log, archive, pool, log.span(0, 28))
    assert found.conflicts == ()
    # a sparse log does not tell its floor: from a segment that it trimmed in part nothing can be read
    assert found.compared == (11 if log.is_dense else 5)


def test_a_sparse_log_that_lost_its_oldest_records(pool: Pool, tmp_path: Path) -> None:
    log = listed(20, SPARSE)
    archive = Archive(ObjectStore(str(tmp_path)), STREAM)
    archive_up_to(OffsetRanges(pool, log, 10), archive, log.ends())
    log.floor = 4
    found = cross_check(log, archive, pool, log.span(0, 20))
    assert (found.compared, found.conflicts) == (16, ())


def test_damage_and_loss_are_no_agreement(pool: Pool, log: ListLog, archive: Archive) -> None:
    records = log.records
    log.records = records[:18]
    with pytest.raises(ReplayGap):
        cross_check(log, archive, pool, listed(28, log.position_kind.offset_kind).span(0, 28))
    log.records = records
    (Path(archive.store.url) / archive.segment_path(log.span(0, 10))).write_bytes(b"")
    with pytest.raises(SegmentDamaged):
        cross_check(log, archive, pool, log.span(0, 28))
