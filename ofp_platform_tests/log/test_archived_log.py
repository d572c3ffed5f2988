"""The log with its archive in front, on a Kinesis whose records and shards expire."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ofp_platform.log.archive import archive_up_to
from ofp_platform.log.archive_store import Archive
from ofp_platform.log.archived_log import ArchivedLog
from ofp_platform.log.kinesis import KinesisLog
from ofp_platform.log.port import EventLog, PartitionVanished, PositionTrimmed, readable_partitions
from ofp_platform.log.ranges import OffsetRanges
from ofp_platform.log.shard_evidence import StoredEvidence, accept_gap
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.storage.schema import migrate
from ofp_platform.vocabulary.position import Basis, PartitionBasis, make_basis
from ofp_platform_tests.log.conftest import KEY, Event

FIRST = "shardId-000000000000"


def clock(_: object) -> int:
    return 1_717_200_000_000_000


@pytest.fixture
def pool(dsn: str) -> Any:
    migrate(dsn)
    with open_pool(dsn, max_size=4) as opened:
        yield opened


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(ObjectStore(f"file://{tmp_path}/objects"), "payments")


@pytest.fixture
def opened(fake_kinesis: Any, pool: Pool, archive: Archive) -> Callable[[], tuple[KinesisLog, ArchivedLog]]:
    """A process that starts: it has the evidence of those before it, and none of their iterators."""

    def start() -> tuple[KinesisLog, ArchivedLog]:
        evidence = StoredEvidence(pool, "payments")
        log = KinesisLog.create(fake_kinesis, "payments", 1, KEY, sleep=lambda _: None, evidence=evidence)
        return log, ArchivedLog(log, lambda: archive)

    return start


def fold(log: EventLog, basis: Basis | None = None, page: int = 3) -> tuple[list[str], Basis]:
    """What a projector reads from a basis on, and where that ends."""
    known: dict[str, PartitionBasis] = {} if basis is None else dict(basis.by_partition())
    seen: list[str] = []
    moved = True
    while moved:
        moved = False
        for name in readable_partitions(log.partitions(), make_basis("payments", known)):
            batch = log.read(name, known.get(name, log.position_kind.start(name)), page)
            moved |= known.get(name) != batch.next
            known[name] = batch.next
            seen += batch.event_ids
    return seen, make_basis("payments", known)


def names(first: int, following: int) -> list[str]:
    return [f"txn-{number:06d}" for number in range(first, following)]


def test_a_closed_parent_that_expires_unread_is_a_refusal(fake_kinesis: Any, opened: Any, event: Event) -> None:
    log, archived = opened()
    log.append([event(n) for n in range(5)], clock)
    seen, basis = fold(archived)
    log.append([event(n) for n in range(5, 8)], clock)
    fake_kinesis.split(FIRST)
    fake_kinesis.pass_time(hours=30)
    log, archived = opened()
    assert FIRST not in [info.partition_id for info in log.partitions()]
    with pytest.raises(PartitionVanished, match="is listed no more"):
        fold(archived, basis)
    for whole in (log, archived):
        with pytest.raises(PartitionVanished, match=r"came out of|is listed no more"):
            fold(whole)
        with pytest.raises(PartitionVanished):
            whole.demand(basis)
        with pytest.raises(PartitionVanished):
            whole.demand(make_basis("payments", {}))
    assert seen == names(0, 5)


def test_an_operator_decides_about_a_shard_that_is_gone(fake_kinesis: Any, opened: Any, event: Event, pool: Pool) -> None:
    log, archived = opened()
    log.append([event(n) for n in range(5)], clock)
    _, basis = fold(archived)
    children = fake_kinesis.split(FIRST)
    fake_kinesis.pass_time(hours=30)
    log, archived = opened()
    log.append([event(n) for n in range(5, 9)], clock)
    with pytest.raises(PartitionVanished):
        fold(archived, basis)
    accept_gap(pool, "payments", FIRST, str(basis.partitions[0].offset), "the producers were down")
    with pytest.raises(PositionTrimmed, match="older than its retention"):  # what came out of it, nobody looked at either
        fold(archived, basis)
    for child in children:
        accept_gap(pool, "payments", child, "", "the producers were down")
    archived.demand(basis)
    seen, after = fold(archived, basis)
    assert sorted(seen) == names(5, 9)
    assert after.by_partition()[FIRST].closed
    with pytest.raises(ValueError, match="has a reason"):
        accept_gap(pool, "payments", FIRST, "", " ")


def test_a_fold_of_archive_and_log_is_that_of_everything(
    fake_kinesis: Any, opened: Any, event: Event, pool: Pool, archive: Archive
) -> None:
    """Splits, archived and expired: a new fold reads the archive up to where the log goes on, each record once."""
    log, _ = opened()
    log.append([event(n) for n in range(7)], clock)
    fake_kinesis.split(FIRST)
    log.append([event(n) for n in range(7, 15)], clock)
    expected = fold(opened()[1])
    archive_up_to(OffsetRanges(pool, log, 4), archive, log.ends())
    fake_kinesis.pass_time(hours=20)
    assert fold(opened()[1], expected[1])[0] == []  # at the head
    fake_kinesis.pass_time(hours=10)
    log, archived = opened()
    log.append([event(n) for n in range(15, 20)], clock)
    assert FIRST not in [info.partition_id for info in log.partitions()]
    archived.demand(make_basis("payments", {}))
    archived.demand(expected[1])
    for page in (1, 2, 100):
        seen, basis = fold(archived, page=page)
        assert sorted(seen) == names(0, 20)
        assert len(seen) == len(set(seen))
        assert basis.by_partition()[FIRST].closed
    assert sorted(fold(archived, expected[1])[0]) == names(15, 20)


def test_a_shard_that_was_quiet_for_longer_than_the_retention_goes_on(fake_kinesis: Any, opened: Any, event: Event) -> None:
    log, archived = opened()
    log.append([event(n) for n in range(4)], clock)
    _, basis = fold(archived)
    for _ in range(3):  # seen at its head all the time
        fake_kinesis.pass_time(hours=20)
        assert fold(archived, basis)[0] == []
    log, archived = opened()
    assert fold(archived, basis)[0] == []
    log.append([event(n) for n in range(4, 6)], clock)
    assert fold(archived, basis)[0] == names(4, 6)


def test_a_reader_that_was_away_for_longer_than_the_retention_is_refused_until_an_operator_decides(
    fake_kinesis: Any, opened: Any, event: Event, pool: Pool
) -> None:
    log, archived = opened()
    log.append([event(n) for n in range(4)], clock)
    _, basis = fold(archived)
    log.append([event(n) for n in range(4, 6)], clock)
    fake_kinesis.pass_time(hours=30)
    log.append([event(n) for n in range(6, 8)], clock)
    log, archived = opened()
    with pytest.raises(PositionTrimmed, match="ofp log accept"):
        fold(archived, basis)
    fake_kinesis.now = fake_kinesis.now.replace(year=2026)  # decisions carry the time of the store
    fake_kinesis.retention_hours = 24 * 365 * 2
    accept_gap(pool, "payments", FIRST, str(basis.partitions[0].offset), "lost; the labels are corrected by hand")
    assert fold(archived, basis)[0] == names(6, 8)


def test_a_record_that_is_younger_than_the_retention_and_gone_is_no_quiet_shard(
    fake_kinesis: Any, opened: Any, event: Event
) -> None:
    log, archived = opened()
    log.append([event(n) for n in range(4)], clock)
    _, basis = fold(archived)
    log.append([event(n) for n in range(4, 8)], clock)
    fake_kinesis.trim(FIRST, 6)
    log, archived = opened()
    with pytest.raises(PositionTrimmed, match="younger than its retention"):
        fold(archived, basis)
    with pytest.raises(PositionTrimmed, match="began with record"):
        fold(archived)


def test_a_first_start_on_an_old_stream_cannot_tell(fake_kinesis: Any, opened: Any, event: Event) -> None:
    log, _ = opened()
    log.append([event(n) for n in range(4)], clock)
    fake_kinesis.pass_time(hours=10)
    log.append([event(n) for n in range(4, 6)], clock)
    fake_kinesis.pass_time(hours=20)
    with pytest.raises(PositionTrimmed, match="older than its retention"):
        fold(opened()[1])
    one, other = fake_kinesis.split(FIRST)
    log.append([event(n) for n in range(6, 10)], clock)
    fresh, _ = opened()
    for name in (one, other):  # opened within the retention: nothing of them can be gone
        fresh.read(name, fresh.position_kind.start(name), 10)


def test_a_fold_lists_the_archive_once_however_many_segments_it_reads(
    fake_kinesis: Any, opened: Any, event: Event, pool: Pool, archive: Archive, monkeypatch: pytest.MonkeyPatch
) -> None:
    log, _ = opened()
    log.append([event(n) for n in range(60)], clock)
    expected = fold(opened()[1])
    archive_up_to(OffsetRanges(pool, log, 4), archive, log.ends())
    fake_kinesis.pass_time(hours=20)
    assert fold(opened()[1], expected[1])[0] == []  # at the head
    fake_kinesis.pass_time(hours=10)
    log, archived = opened()
    log.append([event(60)], clock)
    listings: list[str] = []
    list_objects = ObjectStore.list

    def watched(store: ObjectStore, prefix: str = "") -> list[str]:
        listings.append(prefix)
        return list_objects(store, prefix)

    monkeypatch.setattr(ObjectStore, "list", watched)
    seen, _ = fold(archived)
    assert seen == names(0, 61)
    assert len(listings) <= 2  # before the first segment, and behind the last
