"""Partitions that an archive knows and the log lists no more: a refusal of whoever archives, replays or verifies."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ofp_platform.log.archive import archive_closed_ranges, archive_up_to
from ofp_platform.log.archive_store import Archive
from ofp_platform.log.archived_partitions import archived_end, demand_archived_listed
from ofp_platform.log.kinesis import KinesisLog
from ofp_platform.log.port import PartitionVanished
from ofp_platform.log.ranges import OffsetRanges
from ofp_platform.log.shard_evidence import StoredEvidence, accept_gap
from ofp_platform.offline.sources.stream_records import StreamRecords
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import open_pool
from ofp_platform.storage.schema import migrate
from ofp_platform_tests.log.conftest import KEY, Event

FIRST = "shardId-000000000000"


def clock(_: object) -> int:
    return 1_717_200_000_000_000


def test_a_shard_that_expired_before_it_was_archived_to_its_end(
    fake_kinesis: Any, event: Event, dsn: str, tmp_path: Path
) -> None:
    migrate(dsn)
    archive = Archive(ObjectStore(f"file://{tmp_path}/objects"), "payments")
    with open_pool(dsn, max_size=4) as pool:
        evidence = StoredEvidence(pool, "payments")
        log = KinesisLog.create(fake_kinesis, "payments", 1, KEY, sleep=lambda _: None, evidence=evidence)
        log.append([event(n) for n in range(5)], clock)
        archive_up_to(OffsetRanges(pool, log, 4), archive, log.ends())
        demand_archived_listed(log, archive)
        log.append([event(n) for n in range(5, 8)], clock)
        children = fake_kinesis.split(FIRST)
        fake_kinesis.pass_time(hours=30)
        demanded = (
            lambda: demand_archived_listed(log, archive),
            lambda: StreamRecords(log, archive).ends,
            lambda: archive_closed_ranges(OffsetRanges(pool, log, 4), archive),
        )
        for child in children:
            accept_gap(pool, "payments", child, "", "opened while nobody produced")
        for demand in demanded:
            with pytest.raises(PartitionVanished, match=FIRST):
                demand()
        end = archived_end(log, archive, FIRST)
        assert not end.closed
        accept_gap(pool, "payments", FIRST, str(end.offset), "the last three are known to be copies")
        for demand in demanded:
            demand()
        assert StreamRecords(log, archive).ends[FIRST].closed


def test_a_shard_that_is_archived_to_its_end_may_go(fake_kinesis: Any, event: Event, dsn: str, tmp_path: Path) -> None:
    migrate(dsn)
    archive = Archive(ObjectStore(f"file://{tmp_path}/objects"), "payments")
    with open_pool(dsn, max_size=4) as pool:
        evidence = StoredEvidence(pool, "payments")
        log = KinesisLog.create(fake_kinesis, "payments", 1, KEY, sleep=lambda _: None, evidence=evidence)
        log.append([event(n) for n in range(5)], clock)
        fake_kinesis.split(FIRST)
        log.append([event(n) for n in range(5, 9)], clock)
        archive_up_to(OffsetRanges(pool, log, 4), archive, log.ends())
        fake_kinesis.pass_time(hours=30)
        demand_archived_listed(log, archive)
        records = StreamRecords(log, archive)
        assert records.ends[FIRST].closed
        batches = [batch for name in records.ends for batch in records.reader.batches(records.whole(name), 10)]
        assert sum(map(len, batches)) == 9
