"""Writing the archive: one segment for each offset range of a partition, the segment first and its receipt last.

Both are put if absent, so a writer that dies leaves at most a segment without a receipt, and whoever comes next writes or
adopts the same. A trailing range, which is not full yet, can be archived up to a basis; the full range follows as a segment
of its own.

A run lists the receipts of a partition twice, before it writes and behind it, however many ranges it archives. What is archived
already is not read again, but for one segment of each partition: the last one before a writer goes on, and whatever another
writer adds meanwhile, must be what the log has. So a log that was made anew, or is another of the same name,
adds nothing to what it does not continue.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import accumulate, chain

from ofp_platform.log.archive_content import SegmentFacts
from ofp_platform.log.archive_ledger import note_receipts
from ofp_platform.log.archive_segment import ROW_GROUP_RECORDS, SegmentFile, SegmentWriter
from ofp_platform.log.archive_store import Archive, SegmentMissing
from ofp_platform.log.archived_partitions import demand_archived_listed
from ofp_platform.log.archived_tail import is_of_another_topic
from ofp_platform.log.port import EventLog, PositionTrimmed
from ofp_platform.log.ranges import ClosedRanges, OffsetRanges, RangeBounds
from ofp_platform.log.span_records import ReplayGap, log_batches
from ofp_platform.storage.crash_points import crash_point
from ofp_platform.vocabulary.canonical import sha256_hex
from ofp_platform.vocabulary.offline.archive_receipt import ArchiveReceipt
from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan, ReplayBasis
from ofp_platform.vocabulary.position import Basis, place
from ofp_platform.vocabulary.times import format_time

OnReceipt = Callable[[ArchiveReceipt], None]


class ArchiveConflict(Exception):
    """The same positions with other records: in the log and in the archive, or in two objects of the archive."""


@dataclass(frozen=True)
class _Task:
    """One segment to be; `records`: how many its range has, None where that is not known beforehand."""

    span: PartitionSpan
    number: int
    records: int | None


class ArchivedSpans:
    """The spans of one partition as one listing showed them."""

    def __init__(self, spans: Sequence[PartitionSpan]) -> None:
        self._spans = sorted(spans, key=lambda span: place(span.first))
        self._names = {(span.start, span.next) for span in spans}
        self._firsts = [place(span.first) for span in self._spans]
        self._reach = list(accumulate((place(span.end) for span in self._spans), max))

    def has(self, span: PartitionSpan) -> bool:
        """Whether this very span is among them."""
        return (span.start, span.next) in self._names

    def overlapping(self, span: PartitionSpan) -> list[PartitionSpan]:
        """Those that share a position with it; the others are not looked at, but for those between."""
        first, end = place(span.first), place(span.end)
        index, found = bisect_left(self._firsts, end), []
        while index and self._reach[index - 1] > first:
            index -= 1
            if place(self._spans[index].end) > first:
                found.append(self._spans[index])
        return found[::-1]


def archive_range(ranges: OffsetRanges, archive: Archive, partition_id: str, number: int) -> ArchiveReceipt:
    """Archive one closed range; its receipt, also where it was archived before.

    Raises:
        RangeOpen: it is not closed yet.
        ReplayGap: the log has not all of it; nothing is written.
        PartitionVanished: the log lists a partition no more that is not archived to its end.
        ArchiveConflict: the archive has other records at these positions.
        SegmentMissing | SegmentDamaged | ReceiptDamaged: what the archive has of these positions is damaged.
        ObjectStoreUnavailable | LogUnavailable: the same call may be made again.
    """
    task = _task(ranges.bounds(partition_id, number), ranges.closed()[partition_id])
    archived_receipt = _archived(archive, task.span)
    return _archive_all(ranges, archive, [task], 1, lambda receipt: None)[0] if archived_receipt is None else archived_receipt


def archive_new_ranges(ranges: OffsetRanges, archive: Archive) -> list[ArchiveReceipt]:
    """Archive every closed range that has no receipt; their receipts, by partition and range. Raises as `archive_range`."""
    kind = ranges.log.position_kind.offset_kind
    new_tasks: list[_Task] = []
    for partition_id, tasks in _closed_tasks(ranges).items():
        archived_spans = {(span.start, span.next) for span in archive.spans(partition_id, kind)} if tasks else set()
        new_tasks += [task for task in tasks if (task.span.start, task.span.next) not in archived_spans]
    return _archive_all(ranges, archive, new_tasks, 1, lambda receipt: None) if new_tasks else []


def archive_closed_ranges(
    ranges: OffsetRanges, archive: Archive, workers: int = 1, on_receipt: OnReceipt = lambda receipt: None
) -> list[ArchiveReceipt]:
    """Archive every closed range of every partition; the receipts of all, by partition and range.

    `workers` threads write at once, each holds one segment. `on_receipt` hears of each segment that is archived, in that
    order. Raises as `archive_range`; what was written until then stays.
    """
    return _archive_all(ranges, archive, list(chain.from_iterable(_closed_tasks(ranges).values())), workers, on_receipt)


def archive_up_to(
    ranges: OffsetRanges,
    archive: Archive,
    basis: Basis,
    workers: int = 1,
    on_receipt: OnReceipt = lambda receipt: None,
) -> list[ArchiveReceipt]:
    """Archive everything that is in the basis: the closed ranges, and what is left of each partition as a trailing segment.

    `workers` and `on_receipt` as in `archive_closed_ranges`.

    Raises:
        ValueError: the basis is of another stream.
        ReplayGap: the basis is ahead of the log, or the log has not all of it.
        as `archive_range`.
    """
    if basis.stream_name != ranges.log.stream_name:
        raise ValueError(f"the basis is of stream {basis.stream_name!r}, the log is {ranges.log.stream_name!r}")
    closed_tasks = _closed_tasks(ranges)
    tasks: list[_Task] = []
    for whole in ReplayBasis.up_to(basis).partitions if basis.partitions else ():
        inside = [task for task in closed_tasks.get(whole.partition_id, ()) if place(task.span.end) <= place(whole.end)]
        tasks += inside
        start = inside[-1].span.end if inside else whole.first
        if place(start) < place(whole.end):
            tasks.append(_Task(whole.rest(start), len(inside), None))
    return _archive_all(ranges, archive, tasks, workers, on_receipt)


def _closed_tasks(ranges: OffsetRanges) -> dict[str, list[_Task]]:
    """The closed ranges of every partition, by its id and their number."""
    return {
        partition_id: [_task(bounds, closed_ranges) for bounds in ranges.closed_bounds(partition_id, closed_ranges)]
        for partition_id, closed_ranges in sorted(ranges.closed().items())
    }


def _task(bounds: RangeBounds, closed_ranges: ClosedRanges) -> _Task:
    span = PartitionSpan(
        partition_id=bounds.partition_id,
        offset_kind=bounds.end.offset_kind,
        start=bounds.start.offset,
        next=bounds.end.offset,
        closed=closed_ranges.ended and bounds.number == closed_ranges.count - 1,
    )
    return _Task(span, bounds.number, bounds.records)


def _archive_all(
    ranges: OffsetRanges, archive: Archive, tasks: Sequence[_Task], workers: int, on_receipt: OnReceipt
) -> list[ArchiveReceipt]:
    receipts = []
    demand_archived_listed(ranges.log, archive)
    before = {
        partition_id: _continued(ranges.log, archive, last)
        for partition_id, last in sorted({task.span.partition_id: task.span for task in tasks}.items())  # the last one of each
    }

    def write(task: _Task) -> ArchiveReceipt:
        receipt = _archive(ranges, archive, task, before[task.span.partition_id])
        note_receipts(ranges.pool, archive, [receipt])
        return receipt

    if workers == 1:
        for task in tasks:
            receipts.append(write(task))
            on_receipt(receipts[-1])
    else:
        with ThreadPoolExecutor(workers) as executor:
            futures = [executor.submit(write, task) for task in tasks]
            try:
                for future in futures:
                    receipts.append(future.result())
                    on_receipt(receipts[-1])
            finally:
                executor.shutdown(cancel_futures=True)  # after an error nothing further is begun
    _hold_newcomers(ranges.log, archive, tasks, before)
    return receipts


def _continued(log: EventLog, archive: Archive, last: PartitionSpan) -> ArchivedSpans:
    """The spans of a partition that are archived already; the last one up to where the tasks end is held against the log."""
    spans = archive.spans(last.partition_id, last.offset_kind)
    before = [span for span in spans if place(span.end) <= place(last.end)]
    receipt = _archived(archive, max(before, key=lambda span: place(span.end))) if before else None
    if receipt is not None:
        _hold(log, archive, receipt)
    return ArchivedSpans(spans)


def _hold_newcomers(log: EventLog, archive: Archive, tasks: Sequence[_Task], before: Mapping[str, ArchivedSpans]) -> None:
    """Hold against the log what other writers archived meanwhile of positions that were archived here, in segments of others.

    A segment of the very same span has one writer, and is settled where it is written.
    """
    written: dict[str, list[PartitionSpan]] = {}
    for task in tasks:
        if not before[task.span.partition_id].has(task.span):
            written.setdefault(task.span.partition_id, []).append(task.span)
    for partition_id, spans in written.items():
        own_spans = ArchivedSpans(spans)
        for span in archive.spans(partition_id, spans[0].offset_kind):
            if before[partition_id].has(span) or own_spans.has(span) or not own_spans.overlapping(span):
                continue
            receipt = _archived(archive, span)
            if receipt is not None:
                _hold(log, archive, receipt)


def _hold(log: EventLog, archive: Archive, receipt: ArchiveReceipt) -> None:
    """Refuse a log that has other records than were archived; what it does not keep any more is not compared."""
    span = receipt.span
    if is_of_another_topic(log, receipt):
        raise ArchiveConflict(
            f"partition {span.partition_id} of {log.stream_name}: {receipt.segment_path} in {archive.store.url} is of topic"
            f" {receipt.incarnation}, and the log is {log.history.current}: it was made again, use another stream name"
        )
    if span.start == "":
        return  # a sparse log reads from the oldest record that it keeps
    try:
        _, facts = _read(log, span)
    except ReplayGap as error:
        if isinstance(error.__cause__, PositionTrimmed):
            return
        raise
    if facts.content_digest != receipt.content_digest:
        raise ArchiveConflict(
            f"partition {span.partition_id} of {log.stream_name}: the log has other records at {span.text} than"
            f" {receipt.segment_path} in {archive.store.url}: it is not the log that was archived there"
        )


def _archived(archive: Archive, span: PartitionSpan) -> ArchiveReceipt | None:
    """The receipt of a span that is archived, its segment too."""
    archived_receipt = archive.receipt(span)
    return archived_receipt if archived_receipt is not None and archive.store.exists(archived_receipt.segment_path) else None


def _archive(ranges: OffsetRanges, archive: Archive, task: _Task, before: ArchivedSpans) -> ArchiveReceipt:
    """Archive one range; `before`: what of its partition was archived when this writer began."""
    log, span = ranges.log, task.span
    archived_receipt = archive.receipt(span)
    if archived_receipt is not None and archive.store.exists(archived_receipt.segment_path):
        # another writer was here meanwhile
        if not before.has(span):
            _hold(log, archive, archived_receipt)
        return archived_receipt
    data, facts = _read(log, span)
    if task.records is not None and facts.records + facts.unreadable != task.records:
        record_count = facts.records + facts.unreadable
        where = f"partition {span.partition_id} of {log.stream_name}"
        raise ReplayGap(f"{where}: {span.text} has {record_count} records, not {task.records}")
    if archived_receipt is not None:
        return _restored(archive, archived_receipt, data)
    _agree(archive, span, data, before)
    crash_point("archive.segment_read")
    data = _settled(archive, span, data, facts)
    crash_point("archive.segment_put")
    receipt = ArchiveReceipt.sealed(
        contract_version="v2" if _has_gaps(log) else "v1",
        stream_name=log.stream_name,
        partition_id=span.partition_id,
        offset_kind=span.offset_kind,
        first=span.start,
        next=span.next,
        closed=span.closed,
        range_number=task.number,
        range_size=ranges.size,
        records=facts.records,
        unreadable=facts.unreadable,
        admitted_min=None if facts.admitted_min is None else format_time(facts.admitted_min),
        admitted_max=None if facts.admitted_max is None else format_time(facts.admitted_max),
        event_time_max=None if facts.event_time_max is None else format_time(facts.event_time_max),
        segment_path=archive.segment_path(span),
        segment_bytes=len(data),
        segment_digest=sha256_hex(data),
        content_digest=facts.content_digest,
        **({"incarnation": log.history.current} if _has_gaps(log) else {}),
    )
    if archive.store.put_if_absent(archive.receipt_path(span), receipt.wire_bytes()):
        crash_point("archive.receipt_put")
        return receipt
    winner = archive.receipt(span)
    if winner is None or winner.content_digest != receipt.content_digest:
        raise ArchiveConflict(f"{archive.receipt_path(span)} in {archive.store.url} is the receipt of other records")
    return winner


def _has_gaps(log: EventLog) -> bool:
    """Whether integers that the log gives as positions may have no record."""
    kind = log.position_kind
    return kind.offset_kind.is_integer and kind.has_gaps


def _read(log: EventLog, span: PartitionSpan) -> tuple[bytes, SegmentFacts]:
    writer = SegmentWriter(log.stream_name, span)
    for batch in log_batches(log, span, ROW_GROUP_RECORDS):
        writer.add(batch)
    return writer.finish()


def _settled(archive: Archive, span: PartitionSpan, data: bytes, facts: SegmentFacts) -> bytes:
    """Create the segment; the bytes that it has, which are another writer's where that one came first."""
    path = archive.segment_path(span)
    if archive.store.put_if_absent(path, data):
        return data
    winner = archive.store.get(path)
    if winner != data:
        # the same records may have other bytes, from another release of the Parquet writer
        winner_facts = SegmentFile(winner, path, span.offset_kind).facts(archive.stream_name, span)
        if winner_facts.content_digest != facts.content_digest:
            raise ArchiveConflict(f"{path} in {archive.store.url} holds other records than the log has at these positions")
    return winner


def _restored(archive: Archive, receipt: ArchiveReceipt, data: bytes) -> ArchiveReceipt:
    """Write a segment anew that was lost, where the log still gives exactly what its receipt says."""
    path = receipt.segment_path
    if sha256_hex(data) != receipt.segment_digest:
        raise SegmentMissing(f"{path} is missing in {archive.store.url}, and the log no longer gives the same bytes: restore it")
    archive.store.put_if_absent(path, data)
    archive.segment(receipt)
    return receipt


def _agree(archive: Archive, span: PartitionSpan, data: bytes, before: ArchivedSpans) -> None:
    """Refuse a segment that says something else than an archived one about a position that both hold."""
    for other in before.overlapping(span):
        part = span.shared(other)
        if part is None or (other.start, other.next) == (span.start, span.next):
            continue
        receipt = archive.receipt(other)
        ours = SegmentFile(data, archive.segment_path(span), span.offset_kind).hashes(part)
        if receipt is not None and ours != archive.segment(receipt).hashes(part):
            raise ArchiveConflict(
                f"partition {span.partition_id} of {archive.stream_name}: the log has other records at {part.text} "
                f"than {receipt.segment_path} in {archive.store.url}"
            )
