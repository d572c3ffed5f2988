"""Verifying the archive by itself: every byte, every digest, every payload hash, and that segments join and agree."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ofp_platform.log.archive import ArchiveConflict
from ofp_platform.log.archive_ledger import missing_receipts, note_receipts, unarchived
from ofp_platform.log.archive_segment import ROW_GROUP_RECORDS, SegmentDamaged
from ofp_platform.log.archive_store import Archive, ReceiptDamaged, SegmentMissing
from ofp_platform.log.port import RecordBatch
from ofp_platform.log.ranges import OffsetRanges
from ofp_platform.log.span_records import ReplayGap
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.columns import are_moments, time_texts
from ofp_platform.vocabulary.envelope import hash_of_parts
from ofp_platform.vocabulary.offline.archive_receipt import ArchiveReceipt
from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan
from ofp_platform.vocabulary.position import OffsetKind, place
from ofp_platform.vocabulary.times import format_time, parse_time


@dataclass(frozen=True)
class ArchiveProblem:
    """One thing that is wrong: the object (or the folder of the receipts), the name of the error, and its text."""

    path: str
    error: str
    message: str


@dataclass(frozen=True)
class PartitionVerification:
    """The verification of one partition; `contiguous` is how far its segments join from the start, None: nowhere."""

    partition_id: str
    segments: int
    records: int
    contiguous: PartitionSpan | None
    problems: tuple[ArchiveProblem, ...]


def verify_segment(archive: Archive, receipt: ArchiveReceipt) -> None:
    """Compute everything that the receipt says anew from its segment, and the payload hash of every record.

    Raises:
        SegmentMissing | SegmentDamaged: see there.
    """
    segment = archive.segment(receipt)
    facts = segment.facts(archive.stream_name, receipt.span)
    least = None if facts.admitted_min is None else format_time(facts.admitted_min)
    greatest = None if facts.admitted_max is None else format_time(facts.admitted_max)
    computed_facts = (facts.records, facts.unreadable, least, greatest, facts.content_digest)
    stated_facts = (receipt.records, receipt.unreadable, receipt.admitted_min, receipt.admitted_max, receipt.content_digest)
    if computed_facts != stated_facts:
        raise SegmentDamaged(f"{receipt.segment_path} holds {computed_facts}, its receipt says {stated_facts}")
    stated_maximum = None if receipt.event_time_max is None else parse_time(receipt.event_time_max)
    if receipt.proves_event_times and facts.event_time_max != stated_maximum:
        raise SegmentDamaged(f"{receipt.segment_path} has another greatest event time than its receipt says")
    for batch in segment.batches(receipt.span, receipt.span.end, ROW_GROUP_RECORDS):
        for index in _wrong_hashes(batch):
            raise SegmentDamaged(f"{receipt.segment_path}: the payload hash of record {batch.offsets[index]} is not its own")


def verify_partition(archive: Archive, partition_id: str, kind: OffsetKind) -> PartitionVerification:
    """Verify all segments of a partition, that they join from its first record on, and that overlapping ones agree.

    Raises:
        ObjectStoreUnavailable: the same call may be made again.
    """
    problems: list[ArchiveProblem] = []
    folder = archive.receipt_folder(partition_id)
    try:
        spans = archive.spans(partition_id, kind)
    except ReceiptDamaged as error:
        return PartitionVerification(partition_id, 0, 0, None, (_problem(folder, error),))
    good: list[ArchiveReceipt] = []
    for span in spans:
        try:
            receipt = archive.receipt(span)
            if receipt is not None:
                verify_segment(archive, receipt)
                good.append(receipt)
        except (ReceiptDamaged, SegmentDamaged, SegmentMissing) as error:
            path = archive.receipt_path(span) if isinstance(error, ReceiptDamaged) else archive.segment_path(span)
            problems.append(_problem(path, error))
    problems += [_problem(path, error) for path, error in _conflicts(archive, good)]
    whole: PartitionSpan | None = None
    if spans:
        farthest = max((span.end for span in spans), key=place)
        every = PartitionSpan.whole(farthest)
        joined_spans = every.covered_by([receipt.span for receipt in good])
        whole = every.up_to(joined_spans[-1].end) if joined_spans else None
        after = every.first if whole is None else whole.end
        if place(after) < place(farthest):
            text = f"partition {partition_id} of {archive.stream_name}: {every.cut(after, farthest).text} is not all archived"
            problems.append(_problem(folder, ReplayGap(text)))
    chosen_spans = whole.covered_by([receipt.span for receipt in good]) if whole is not None else []
    record_counts = {(receipt.first, receipt.next): receipt.records for receipt in good}
    records = sum(record_counts[span.start, span.next] for span in chosen_spans)
    return PartitionVerification(partition_id, len(spans), records, whole, tuple(problems))


def absences(ranges: OffsetRanges, archive: Archive, verifications: Sequence[PartitionVerification]) -> list[str]:
    """List in words what must be in the archive and is not; receipts of partitions that were proven are noted as such.

    Raises:
        ReceiptDamaged: an object among the receipts changed meanwhile. ObjectStoreUnavailable | LogUnavailable: see there.
    """
    kind = ranges.log.position_kind.offset_kind
    proven_names = [one.partition_id for one in verifications if not one.problems]
    present = [receipt for name in proven_names for receipt in archive.receipts(name, kind)]
    words = missing_receipts(ranges.pool, archive, present)
    note_receipts(ranges.pool, archive, present)
    return words + unarchived(ranges.log, ranges.closed(), {one.partition_id: one.contiguous for one in verifications})


def _conflicts(archive: Archive, receipts: list[ArchiveReceipt]) -> Iterator[tuple[str, ArchiveConflict]]:
    for index, receipt in enumerate(receipts):
        for other in receipts[index + 1 :]:
            part = receipt.span.shared(other.span)
            if part is None:
                break  # they are in the order of their starts
            if archive.segment(receipt).hashes(part) != archive.segment(other).hashes(part):
                text = f"{receipt.segment_path} and {other.segment_path} hold other records at {part.text}"
                yield other.segment_path, ArchiveConflict(text)


def _wrong_hashes(batch: RecordBatch) -> Iterator[int]:
    if not are_moments(batch.ts).all():
        yield int(are_moments(batch.ts).argmin())
        return
    pins = [canonical_bytes(run_pins.wire()) for run_pins in batch.pins]
    columns = zip(
        batch.event_types,
        batch.schema_versions,
        time_texts(batch.ts),
        batch.pins_index.tolist(),
        batch.payloads,
        batch.amends,
        batch.payload_hashes,
        strict=True,
    )
    for index, (event_type, version, ts, pins_index, payload, amends, expected_hash) in enumerate(columns):
        if hash_of_parts(event_type, version, ts, pins[pins_index], payload, amends) != expected_hash:
            yield index


def _problem(path: str, error: Exception) -> ArchiveProblem:
    return ArchiveProblem(path, type(error).__name__, str(error))
