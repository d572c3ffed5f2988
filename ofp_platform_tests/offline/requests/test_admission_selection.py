"""From admission times to offsets, against a plain look at every record, wherever the records are."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.log.archive import archive_up_to
from ofp_platform.log.archive_store import Archive
from ofp_platform.log.ranges import OffsetRanges
from ofp_platform.log.span_records import ReplayGap
from ofp_platform.offline.requests.admission_selection import select_admitted
from ofp_platform.offline.sources.stream_records import StreamRecords
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import open_pool
from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan
from ofp_platform.vocabulary.position import OffsetKind, make_basis
from ofp_platform_tests.oracle.list_log import PARTITION, STREAM, ListedRecord, ListLog
from ofp_platform_tests.oracle.no_ledger import NO_LEDGER

DENSE, SPARSE = OffsetKind.EXCLUSIVE_NEXT, OffsetKind.AFTER_SEQUENCE_NUMBER
SECOND = 1_000_000


def log_of(admitted: list[int], kind: OffsetKind = DENSE, *, unreadable: tuple[int, ...] = ()) -> ListLog:
    """Records admitted at those seconds."""
    records = [
        ListedRecord(f"event-{number}", admitted_at=second * SECOND, readable=number not in unreadable)
        for number, second in enumerate(admitted)
    ]
    return ListLog(records, kind)


def plain(log: ListLog, first: int, until: int) -> PartitionSpan:
    """What the definition says, record by record."""
    times = [(number, record.admitted_at) for number, record in enumerate(log.records) if record.readable]
    count = len(log.records)
    start = next((number for number, time in times if time >= first), count)
    behind = max((number + 1 for number, time in times if time < until), default=0)
    return log.span(start, max(start, behind))


def selected(log: ListLog, first: int, until: int, archive: Archive) -> PartitionSpan:
    return select_admitted(StreamRecords(log, archive), PARTITION, first * SECOND, until * SECOND)


@given(st.data(), st.lists(st.integers(0, 20), max_size=30), st.sampled_from([DENSE, SPARSE]), st.booleans())
def test_selection_is_what_the_definition_says(data: st.DataObject, admitted: list[int], kind: OffsetKind, ordered: bool) -> None:
    unreadable = tuple(data.draw(st.sets(st.integers(0, 30), max_size=3)))
    log = log_of(sorted(admitted) if ordered else admitted, kind, unreadable=unreadable)
    first = data.draw(st.integers(0, 20))
    until = data.draw(st.integers(first + 1, 22))
    with TemporaryDirectory() as folder:
        archive = Archive(ObjectStore(folder), STREAM)
        expected = plain(log, first * SECOND, until * SECOND)
        found = selected(log, first, until, archive)
        if kind is SPARSE:
            # where the position before the first record is unreadable, a sparse start is just as well behind it as before it
            found = replace_start(found, log, expected)
        assert found == expected
        if kind is DENSE and log.records:
            count = data.draw(st.integers(1, len(log.records)))
            archive_up_to(OffsetRanges(NO_LEDGER, log, 4), archive, make_basis(STREAM, {PARTITION: log.at(count)}))
            log.floor = data.draw(st.integers(0, count))
            assert selected(log, first, until, archive) == expected


def replace_start(found: PartitionSpan, log: ListLog, expected: PartitionSpan) -> PartitionSpan:
    between = [
        number
        for number in range(len(log.records))
        if str(log.offset(number)) in (str(found.start), str(expected.start)) and not log.records[number].readable
    ]
    if not between:
        return found
    end = expected.next if found.start == found.next else found.next  # an empty span ends where it begins
    return found.model_copy(update={"start": expected.start, "next": end})


def test_segments_are_read_only_where_a_bound_lies_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = log_of(list(range(40)))
    archive = Archive(ObjectStore(str(tmp_path)), STREAM)
    archive_up_to(OffsetRanges(NO_LEDGER, log, 10), archive, log.ends())
    opened: list[str] = []
    segment = Archive.segment
    monkeypatch.setattr(
        Archive, "segment", lambda self, receipt: (opened.append(receipt.segment_path), segment(self, receipt))[1]
    )
    assert selected(log, 15, 32, archive) == log.span(15, 32)
    assert [path.rpartition("/")[2] for path in sorted(set(opened))] == [
        f"{first:016d}-{first + 10:016d}.parquet" for first in (10, 20, 30)
    ]


def test_a_sparse_log_behind_its_archive(tmp_path: Path, dsn: str) -> None:
    log = log_of(list(range(30)), SPARSE)
    archive = Archive(ObjectStore(str(tmp_path)), STREAM)
    with open_pool(dsn) as pool:
        archive_up_to(OffsetRanges(pool, log, 10), archive, make_basis(STREAM, {PARTITION: log.at(25)}))
    log.floor = 20
    for first, until in [(0, 30), (3, 4), (12, 28), (26, 29), (0, 99), (40, 50)]:
        assert selected(log, first, until, archive) == plain(log, first * SECOND, until * SECOND)


def test_what_is_unreadable_at_the_edges_of_a_segment_is_selected_from_the_archive_as_from_the_log(tmp_path: Path) -> None:
    log = log_of([9, 9, 9, 9, 3, 3, 3, 3, 9, 9], unreadable=(0, 1, 6, 7))
    expected = {(0, 1): log.span(2, 2), (4, 5): log.span(2, 6), (8, 10): log.span(2, 10)}
    archive = Archive(ObjectStore(str(tmp_path)), STREAM)
    for archived in (False, True):
        if archived:
            archive_up_to(OffsetRanges(NO_LEDGER, log, 4), archive, log.ends())
        assert {between: selected(log, *between, archive) for between in expected} == expected


def test_what_was_lost_before_the_range_does_not_matter(tmp_path: Path) -> None:
    log = log_of(list(range(30)))
    log.floor = 10
    archive = Archive(ObjectStore(str(tmp_path)), STREAM)
    assert selected(log, 11, 20, archive) == log.span(11, 20)
    for first in (10, 5):
        with pytest.raises(ReplayGap, match="may have been admitted in the range"):
            selected(log, first, 20, archive)


def test_the_end_of_a_partition_that_ended_is_told(tmp_path: Path) -> None:
    log = log_of([1, 2, 3], SPARSE)
    log.ended = True
    archive = Archive(ObjectStore(str(tmp_path)), STREAM)
    assert selected(log, 1, 9, archive) == replace_closed(log.span(0, 3))
    assert selected(log, 1, 3, archive) == log.span(0, 2)


def replace_closed(span: PartitionSpan) -> PartitionSpan:
    return span.model_copy(update={"closed": True})


@pytest.mark.parametrize("kind", [DENSE, SPARSE])
def test_the_last_record_tells_when_the_data_ends(kind: OffsetKind, tmp_path: Path, dsn: str) -> None:
    log = log_of(list(range(30)), kind, unreadable=(28, 29))
    archive = Archive(ObjectStore(str(tmp_path)), STREAM)
    held = StreamRecords(log, archive)
    assert held.last_admitted(log.span(0, 30)) == 27 * SECOND
    assert held.last_admitted(log.span(0, 28)) == 27 * SECOND
    assert held.last_admitted(log.span(4, 5)) == 4 * SECOND
    assert held.last_admitted(log.span(4, 4)) is None
    assert held.last_admitted(log.span(28, 30)) is None
    with open_pool(dsn) as pool:
        archive_up_to(OffsetRanges(pool, log, 10), archive, make_basis(STREAM, {PARTITION: log.at(25)}))
    log.floor = 25
    assert held.last_admitted(log.span(0, 30)) == 27 * SECOND
    assert held.last_admitted(log.span(3, 15)) == 14 * SECOND
    log.records = [replace(record, readable=False) for record in log.records]
    assert held.last_admitted(log.span(26, 30)) is None
