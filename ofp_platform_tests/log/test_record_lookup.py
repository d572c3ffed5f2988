"""One record by its position, on every log."""

from __future__ import annotations

from pathlib import Path

import pytest

from ofp_platform.log.archive import archive_up_to
from ofp_platform.log.archive_store import Archive
from ofp_platform.log.archived_log import ArchivedLog
from ofp_platform.log.port import LogError
from ofp_platform.log.ranges import OffsetRanges
from ofp_platform.log.record_lookup import NoSuchRecord, StoredRecord, record_at
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import open_pool
from ofp_platform.storage.schema import migrate
from ofp_platform.vocabulary.position import Position
from ofp_platform_tests.log.conftest import Event, Open


def test_every_record_is_at_its_position_and_none_beside_it(open_log: Open, event: Event, tmp_path: Path, dsn: str) -> None:
    log = open_log(2)
    archive = Archive(ObjectStore(f"file://{tmp_path}/objects"), log.stream_name)
    events = [event(number) for number in range(40)]
    places = log.append(events).outcomes
    archived_log = ArchivedLog(log, lambda: archive)

    def assert_each_is_there() -> None:
        for envelope, position in zip(events, places, strict=True):
            assert isinstance(position, Position)
            record = record_at(archived_log, archive, position.partition_id, str(position.offset))
            assert isinstance(record, StoredRecord)
            assert record.envelope == envelope
            assert record.admitted_at_utc.endswith("Z")

    assert_each_is_there()
    migrate(dsn)
    with open_pool(dsn, max_size=2) as pool:
        archive_up_to(OffsetRanges(pool, log, 5), archive, log.ends(), 1)
    assert_each_is_there()
    last = places[-1]
    assert isinstance(last, Position)
    with pytest.raises(LogError):
        record_at(archived_log, archive, last.partition_id, str(10**9) if isinstance(last.offset, int) else f"{last.offset}9")
    for text in ("", "-1", "one", "1.0", "٣"):
        with pytest.raises(NoSuchRecord, match="is no offset"):
            record_at(archived_log, archive, last.partition_id, text)
