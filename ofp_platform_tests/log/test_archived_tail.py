"""What an archive holds behind the heads of its log."""

from __future__ import annotations

from pathlib import Path

import pytest

from ofp_platform.log.archive import archive_up_to
from ofp_platform.log.archive_store import Archive
from ofp_platform.log.archived_tail import demand_tail, lost_tails
from ofp_platform.log.port import LogTailLost
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.log.ranges import OffsetRanges
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import open_pool
from ofp_platform.vocabulary.position import OffsetKind
from ofp_platform_tests.oracle.list_log import ListLog
from ofp_platform_tests.oracle.simulated_log import append


def test_every_partition_that_is_behind_is_named(dsn: str, tmp_path: Path) -> None:
    archive = Archive(ObjectStore(f"file://{tmp_path}"), "s")
    with open_pool(dsn) as pool:
        log = PostgresLog.create(pool, "s", 3, "payload.account_id")
        assert lost_tails(log, archive) == []
        append(log)
        archive_up_to(OffsetRanges(pool, log, 40), archive, log.ends())
        demand_tail(log, archive)
        heads = {part.partition_id: int(part.offset) for part in log.ends().partitions}
        assert min(heads.values()) > 40
        with pool.connection() as connection:
            shorten = "UPDATE ofp.log_head SET next_offset = next_offset - 7 WHERE stream_name = 's' AND partition_id < '0002'"
            connection.execute(shorten)
        assert [(tail.partition_id, tail.start, tail.next) for tail in lost_tails(log, archive)] == [
            (name, heads[name] - 7, heads[name]) for name in ("0000", "0001")
        ]
        with pytest.raises(LogTailLost) as caught:
            demand_tail(log, archive)
    for name in ("0000", "0001"):
        assert f"{name!r} of 's' ends at {heads[name] - 7}, and the archive has it up to {heads[name]}" in str(caught.value)


def test_a_log_that_cannot_be_counted_is_not_asked(tmp_path: Path) -> None:
    log = ListLog([], offset_kind=OffsetKind.AFTER_SEQUENCE_NUMBER)
    assert lost_tails(log, Archive(ObjectStore(f"file://{tmp_path}"), log.stream_name)) == []
