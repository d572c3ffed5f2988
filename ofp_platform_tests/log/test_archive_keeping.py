"""The archive kept up with the log."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ofp_platform.log.archive_keeping import keep_up
from ofp_platform.log.archive_store import Archive
from ofp_platform.log.archived_log import ArchivedLog
from ofp_platform.log.kinesis import KinesisLog
from ofp_platform.log.ranges import OffsetRanges
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import open_pool
from ofp_platform.storage.schema import migrate
from ofp_platform_tests.log.conftest import KEY, Event


def clock(_: object) -> int:
    return 1_717_200_000_000_000


def test_closed_ranges_at_once_and_the_head_before_the_retention_is_over(
    fake_kinesis: Any, event: Event, dsn: str, tmp_path: Path
) -> None:
    migrate(dsn)
    archive = Archive(ObjectStore(f"file://{tmp_path}/objects"), "payments")
    with open_pool(dsn, max_size=4) as pool:
        log = KinesisLog.create(fake_kinesis, "payments", 1, KEY, sleep=lambda _: None)
        ranges, archived_log = OffsetRanges(pool, log, 4), ArchivedLog(log, lambda: archive)
        assert keep_up(ranges, archived_log, archive) == []
        log.append([event(n) for n in range(6)], clock)
        assert [receipt.records for receipt in keep_up(ranges, archived_log, archive)] == [4]
        assert keep_up(ranges, archived_log, archive) == []
        assert archived_log.archive_lag() == 0.0
        fake_kinesis.pass_time(hours=12)
        assert archived_log.archive_lag() == 0.5
        assert [receipt.records for receipt in keep_up(ranges, archived_log, archive)][-1] == 2
        assert archived_log.archive_lag() == 0.0
