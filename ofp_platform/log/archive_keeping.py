"""Keeping the archive up with the log: ranges as they close, and the head before the log's retention runs out."""

from __future__ import annotations

from ofp_platform.log.archive import archive_range, archive_up_to
from ofp_platform.log.archive_store import Archive
from ofp_platform.log.archived_log import ArchivedLog
from ofp_platform.log.ranges import OffsetRanges
from ofp_platform.vocabulary.offline.archive_receipt import ArchiveReceipt

HEAD_AT = 0.2
"""The part of the retention from which on records are archived whose range is not full: rounds enough are left to fail."""


def keep_up(ranges: OffsetRanges, archived_log: ArchivedLog, archive: Archive) -> list[ArchiveReceipt]:
    """Archive every closed range that is not archived, and up to the head where records there grow old. What was new.

    Raises:
        as `archive_range` and `archive_up_to`.
    """
    receipts = []
    for partition_id, closed_ranges in sorted(ranges.closed().items()):
        kind = ranges.log.position_kind.offset_kind
        archived_spans = {(span.start, span.next) for span in archive.spans(partition_id, kind)}
        for number in range(closed_ranges.count):
            bounds = ranges.bounds(partition_id, number)
            if (bounds.start.offset, bounds.end.offset) not in archived_spans:
                receipts.append(archive_range(ranges, archive, partition_id, number))
    lag = archived_log.archive_lag()
    if lag is not None and lag >= HEAD_AT:
        receipts += archive_up_to(ranges, archive, ranges.log.ends())
    return receipts
