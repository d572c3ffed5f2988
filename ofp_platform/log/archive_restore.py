"""Putting a tail that the log lost back from the archive: exactly the archived records, at their places.

It is refused where log and archive differ about a place that both have: the log went on after the loss, and what stands there now
cannot make room.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ofp_platform.log.archive_check import cross_check
from ofp_platform.log.archive_segment import ROW_GROUP_RECORDS
from ofp_platform.log.archive_store import Archive
from ofp_platform.log.archive_verify import verify_segment
from ofp_platform.log.archived_tail import lost_tails
from ofp_platform.log.port import PartitionNotFound, RecordBatch
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.log.span_records import ReplayGap
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan
from ofp_platform.vocabulary.position import place


def plan_restore(log: PostgresLog, archive: Archive, pool: Pool) -> list[PartitionSpan]:
    """The spans to put back, every segment of them verified; the log is held against the archive before it.

    Raises:
        ArchiveConflict: log and archive have other records at one place.
        ReplayGap: the archive does not lead on from the head. PartitionNotFound: the log has not the partition.
        SegmentMissing | SegmentDamaged | ReceiptDamaged: the archive is damaged.
        ObjectStoreUnavailable | LogUnavailable: the same call may be made again.
    """
    heads, floors = log.ends().by_partition(), log.retention_floor().by_partition()
    for name in archive.partition_ids():
        if name not in heads:
            raise PartitionNotFound(
                f"the archive has partition {name!r} of {log.stream_name!r}, and the log has no such partition"
            )
    tails = lost_tails(log, archive)
    for tail in tails:
        name = tail.partition_id
        spans = _segments(archive, tail)
        if not spans or place(spans[-1].end) < place(tail.end):
            reach = spans[-1].next if spans else tail.start
            raise ReplayGap(
                f"partition {name!r} of {log.stream_name!r}: the archive has {tail.text} without what follows {reach}"
            )
        if place(floors[name]) < place(tail.first):
            cross_check(
                log, archive, pool, tail.model_copy(update={"start": floors[name].offset, "next": tail.start})
            ).demand_agreement()
        for span in spans:
            receipt = archive.receipt(span)
            if receipt is not None:
                verify_segment(archive, receipt)
    return tails


def restore(log: PostgresLog, archive: Archive, tails: Sequence[PartitionSpan]) -> str | None:
    """Put back what `plan_restore` said, all of it or nothing, and let another incarnation begin behind it.

    None: there was nothing to put back, and the log is settled.

    Raises:
        PositionUnknown: something was appended meanwhile; nothing is put back. As `plan_restore`.
    """
    if tails:
        log.restore(batch for tail in tails for batch in _batches(archive, tail))
    spans_text = ", ".join(f"{tail.partition_id} {tail.text}" for tail in tails)
    reason = f"put back from the archive: {spans_text}" if tails else "its server was promoted or put back; nothing was put back"
    return log.begin_incarnation(reason, again=bool(tails))


def _segments(archive: Archive, tail: PartitionSpan) -> list[PartitionSpan]:
    return tail.covered_by(archive.spans(tail.partition_id, tail.offset_kind))


def _batches(archive: Archive, tail: PartitionSpan) -> Iterator[RecordBatch]:
    at = tail.first
    for span in _segments(archive, tail):
        receipt = archive.receipt(span)
        if receipt is None:
            raise ReplayGap(f"{archive.receipt_path(span)} was there and is gone")
        yield from archive.segment(receipt).batches(tail.cut(at, span.end), span.end, ROW_GROUP_RECORDS)
        at = span.end
