"""Keeping the archive up with the log: ranges as they close, and the head before the log's retention runs out."""

from __future__ import annotations

from ofp_platform.log.archive import archive_new_ranges, archive_up_to
from ofp_platform.log.archive_store import Archive
from ofp_platform.log.archived_log import ArchivedLog
from ofp_platform.log.ranges import OffsetRanges
from ofp_platform.vocabulary.offline.archive_receipt import ArchiveReceipt

HEAD_AT = 0.2
"""The part of the retention from which on records are archived whose range is not full: rounds enough are left to fail."""


def keep_up(ranges: OffsetRanges, archived_log: ArchivedLog, archive: Archive) -> list[ArchiveReceipt]:
    """Archive every closed range that is not archived, and up to the head where records there grow old. What was new.

    Raises:
        as `archive_new_ranges` and `archive_up_to`.
    """
    receipts = archive_new_ranges(ranges, archive)
    lag = archived_log.archive_lag()
    if lag is not None and lag >= HEAD_AT:
        receipts += archive_up_to(ranges, archive, ranges.log.ends())
    return receipts
