"""Verification finds what is wrong in an archive, and names the object."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ofp_platform.log.archive import archive_range, archive_up_to
from ofp_platform.log.archive_segment import SegmentDamaged, SegmentWriter
from ofp_platform.log.archive_store import Archive
from ofp_platform.log.archive_verify import verify_partition, verify_segment
from ofp_platform.log.ranges import OffsetRanges
from ofp_platform.log.span_records import log_batches
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.canonical import sha256_hex
from ofp_platform.vocabulary.offline.archive_receipt import ArchiveReceipt
from ofp_platform.vocabulary.position import OffsetKind, make_basis
from ofp_platform_tests.oracle.list_log import PARTITION, STREAM, ListLog, batch_of, listed
from ofp_platform_tests.oracle.no_ledger import NO_LEDGER

DENSE, SPARSE = OffsetKind.EXCLUSIVE_NEXT, OffsetKind.AFTER_SEQUENCE_NUMBER


def ranges(log: ListLog) -> OffsetRanges:
    return OffsetRanges(NO_LEDGER, log, 10)


@pytest.fixture
def archive(tmp_path: Path) -> Archive:
    return Archive(ObjectStore(str(tmp_path)), STREAM)


def test_a_whole_partition(archive: Archive) -> None:
    log = listed(34, unreadable=[5, 33])
    for count in (15, 34):
        archive_up_to(ranges(log), archive, make_basis(STREAM, {PARTITION: log.at(count)}))
    found = verify_partition(archive, PARTITION, DENSE)
    assert (found.segments, found.records, found.problems) == (5, 32, ())
    assert found.contiguous == log.span(0, 34)
    nothing = verify_partition(archive, "empty", SPARSE)
    assert (nothing.segments, nothing.records, nothing.contiguous, nothing.problems) == (0, 0, None, ())


def test_what_is_wrong_is_listed(archive: Archive, tmp_path: Path) -> None:
    log = listed(50)
    archive_up_to(ranges(log), archive, make_basis(STREAM, {PARTITION: log.at(50)}))
    gone, damaged = (tmp_path / archive.segment_path(log.span(n, n + 10)) for n in (20, 30))
    receipt = tmp_path / archive.receipt_path(log.span(40, 50))
    gone.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-1])
    receipt.write_bytes(receipt.read_bytes().replace(b'"records":10', b'"records":11'))
    found = verify_partition(archive, PARTITION, DENSE)
    assert [(problem.error, problem.path) for problem in found.problems] == [
        ("SegmentMissing", archive.segment_path(log.span(20, 30))),
        ("SegmentDamaged", archive.segment_path(log.span(30, 40))),
        ("ReceiptDamaged", archive.receipt_path(log.span(40, 50))),
        ("ReplayGap", archive.receipt_folder(PARTITION)),
    ]
    assert "[20, 50) is not all archived" in found.problems[-1].message
    assert (found.contiguous, found.records) == (log.span(0, 20), 20)
    (receipt.parent / "notes.txt").write_text("x")
    assert [problem.error for problem in verify_partition(archive, PARTITION, DENSE).problems] == ["ReceiptDamaged"]


def test_an_archive_that_does_not_begin_at_the_start(archive: Archive) -> None:
    log = listed(20)
    archive_range(ranges(log), archive, PARTITION, 1)
    found = verify_partition(archive, PARTITION, DENSE)
    assert (found.contiguous, [problem.error for problem in found.problems]) == (None, ["ReplayGap"])


def forge(archive: Archive, log: ListLog, first: int, following: int, **changes: Any) -> ArchiveReceipt:
    """A segment and a receipt whose digests fit, by somebody who does not check what an archive checks."""
    span = log.span(first, following)
    writer = SegmentWriter(STREAM, span)
    for batch in log_batches(log, span, 100):
        writer.add(batch)
    data, facts = writer.finish()
    fields: dict[str, Any] = {
        "stream_name": STREAM,
        "partition_id": PARTITION,
        "offset_kind": span.offset_kind,
        "first": span.start,
        "next": span.next,
        "closed": False,
        "range_number": 0,
        "range_size": 10,
        "records": facts.records,
        "unreadable": facts.unreadable,
        "admitted_min": "2024-05-01T10:00:01Z",
        "admitted_max": f"2024-05-01T10:00:01.{following - 1:06d}Z",
        "segment_path": archive.segment_path(span),
        "segment_bytes": len(data),
        "segment_digest": sha256_hex(data),
        "content_digest": facts.content_digest,
        **changes,
    }
    receipt = ArchiveReceipt.sealed(**fields)
    archive.store.put_if_absent(receipt.segment_path, data)
    archive.store.put_if_absent(archive.receipt_path(span), receipt.wire_bytes())
    return receipt


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"admitted_min": "2024-05-01T10:00:00Z"},
        {"admitted_max": None},
        {"content_digest": "0" * 64},
        {"contract_version": "v1", "event_time_max": "2024-05-01T09:00:00Z"},
        {"records": 9, "unreadable": 1},
    ],
)
def test_a_receipt_says_what_its_segment_holds(archive: Archive, changes: dict[str, Any]) -> None:
    receipt = forge(archive, listed(10), 0, 10, **changes)
    if not changes:
        verify_segment(archive, receipt)
        return
    with pytest.raises(SegmentDamaged, match="its receipt says"):
        verify_segment(archive, receipt)


class Lying(ListLog):
    """Gives payload hashes that are not those of its records."""

    def read(self, *arguments: Any) -> Any:
        batch = super().read(*arguments)
        batch.payload_hashes[4] = bytes(32)
        return batch


def test_a_payload_hash_that_is_not_its_records(archive: Archive) -> None:
    receipt = forge(archive, Lying(listed(10).records), 0, 10)
    with pytest.raises(SegmentDamaged, match="payload hash of record 4"):
        verify_segment(archive, receipt)


def test_overlapping_segments_that_differ(archive: Archive) -> None:
    log = listed(10)
    forge(archive, log, 0, 6)
    log.change(5, payload=b"{}")
    forge(archive, log, 0, 10)
    [problem] = verify_partition(archive, PARTITION, DENSE).problems
    assert (problem.error, problem.path) == ("ArchiveConflict", archive.segment_path(log.span(0, 10)))
    assert "[0, 6)" in problem.message


def test_a_moment_that_is_none(archive: Archive) -> None:
    log = listed(3)
    numbered = [(n, log.records[n]) for n in range(3)]
    batch = batch_of(numbered, log.at(3))
    batch.ts[1] = 2**62

    class Timeless(ListLog):
        def read(self, *arguments: Any) -> Any:
            return batch

    receipt = forge(archive, Timeless(log.records), 0, 3)
    with pytest.raises(SegmentDamaged, match="payload hash of record 1"):
        verify_segment(archive, receipt)
