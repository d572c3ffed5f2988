"""Holding the archive against the log where both have a position: the payload hashes must be the same.

A conflict is recorded in `ofp.archive_conflict` and stays there, and is a governance fact; a training build refuses a span that
has one.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from ofp_platform.log.archive import ArchiveConflict
from ofp_platform.log.archive_segment import ROW_GROUP_RECORDS
from ofp_platform.log.archive_store import Archive
from ofp_platform.log.archived_tail import demand_topic
from ofp_platform.log.governance_log import append_facts_with
from ofp_platform.log.port import EventLog, PositionTrimmed
from ofp_platform.log.span_records import ReplayGap, log_batches
from ofp_platform.storage.governance_facts import role_of
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.offline.archive_receipt import ArchiveReceipt
from ofp_platform.vocabulary.offline.governance_fact import ArchiveConflictFound
from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan
from ofp_platform.vocabulary.position import order, place, shared

_INSERT = """
    INSERT INTO ofp.archive_conflict
        (stream_name, partition_id, position, log_payload_hash, archive_payload_hash, segment_path)
    VALUES (%s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING"""
_SELECT = """
    SELECT position, log_payload_hash, archive_payload_hash, segment_path FROM ofp.archive_conflict
    WHERE (stream_name, partition_id) = (%s, %s)"""

_MOST_POSITIONS = 5


@dataclass(frozen=True)
class PositionConflict:
    """One position with two contents; a hash (32 bytes) is empty where that side has no readable record there."""

    partition_id: str
    offset: int | str
    log_payload_hash: bytes
    archive_payload_hash: bytes
    segment_path: str


@dataclass(frozen=True)
class CrossCheck:
    """`compared` positions are in both; `conflicts` are those that differ, in the order of the log."""

    stream_name: str
    span: PartitionSpan
    compared: int
    conflicts: tuple[PositionConflict, ...]

    def demand_agreement(self) -> None:
        """Refuse a span with a conflict.

        Raises:
            ArchiveConflict: it names the first of them.
        """
        if self.conflicts:
            first = self.conflicts[0]
            raise ArchiveConflict(
                f"partition {self.span.partition_id} of {self.stream_name}: in {self.span.text} the log and the archive have "
                f"another payload hash at {len(self.conflicts)} positions, the first is {first.offset} in {first.segment_path}"
            )


def cross_check(log: EventLog, archive: Archive, pool: Pool, span: PartitionSpan) -> CrossCheck:
    """Compare the payload hashes of the span wherever log and archive both have it, and record every conflict.

    What is in one of them only (not archived yet, or behind the log's retention) is not compared. Conflicts of the span that
    were recorded earlier count, also where the log has been trimmed since.

    Raises:
        SegmentMissing | SegmentDamaged | ReceiptDamaged: the archive is damaged.
        ReplayGap: the log does not give what it should have. LogTailLost: the archive is of another topic.
    """
    compared = 0
    conflicts: list[PositionConflict] = []
    for archived_span in span.covered_by(archive.spans(span.partition_id, span.offset_kind)):
        receipt = archive.receipt(archived_span)
        if receipt is not None:
            demand_topic(log, receipt)
        part = _kept(log, span).shared(archived_span)
        if receipt is None or part is None:
            continue
        count, of_segment = _compare(log, archive, receipt, part)
        compared += count
        conflicts += of_segment
    with pool.connection() as connection, connection.transaction():
        if conflicts:
            _record(connection, log.stream_name, conflicts)
        rows = connection.execute(_SELECT, (log.stream_name, span.partition_id)).fetchall()
    recorded_conflicts = [PositionConflict(span.partition_id, span.offset_kind.parse(row[0]), *row[1:]) for row in rows]
    inside = [conflict for conflict in recorded_conflicts if span.contains(conflict.offset)]
    return CrossCheck(log.stream_name, span, compared, tuple(sorted(inside, key=lambda conflict: order(conflict.offset))))


def _record(connection: Connection[Any], stream_name: str, conflicts: Sequence[PositionConflict]) -> None:
    """Keep conflicts that were not known, with a governance fact for each segment."""
    new_offsets: dict[tuple[str, str], list[str]] = {}
    for c in conflicts:
        offset = str(c.offset)
        row = (stream_name, c.partition_id, offset, c.log_payload_hash, c.archive_payload_hash, c.segment_path)
        if connection.execute(_INSERT, row).rowcount:
            new_offsets.setdefault((c.partition_id, c.segment_path), []).append(offset)
    facts = [
        ArchiveConflictFound(
            stream_name=stream_name,
            partition_id=partition_id,
            segment_path=segment_path,
            positions=tuple(offsets[:_MOST_POSITIONS]),
            position_count=len(offsets),
            actor=role_of(connection),
        )
        for (partition_id, segment_path), offsets in new_offsets.items()
    ]
    append_facts_with(connection, facts)


def _kept(log: EventLog, span: PartitionSpan) -> PartitionSpan:
    """The part of the span that is not behind the log's retention floor (in a sparse log that shows when reading)."""
    floor = log.retention_floor().by_partition().get(span.partition_id, span.first)
    return span.rest(shared(max(span.first, floor, key=place), span.end))


def _compare(log: EventLog, archive: Archive, receipt: ArchiveReceipt, part: PartitionSpan) -> tuple[int, list[PositionConflict]]:
    in_log: dict[int | str, bytes] = {}
    try:
        for batch in log_batches(log, part, ROW_GROUP_RECORDS):
            in_log.update(zip(batch.offsets, batch.payload_hashes, strict=True))
            in_log.update((record.offset, b"") for record in batch.unreadable)
    except ReplayGap as error:
        if isinstance(error.__cause__, PositionTrimmed):
            return 0, []
        raise
    segment = archive.segment(receipt)
    in_archive = segment.hashes(part)
    in_archive.update((record.offset, b"") for record in segment.unreadable if part.contains(record.offset))
    if part.first.is_at_start and not part.offset_kind.start_is_first:
        # such a log reads from the oldest record that it keeps: what the archive has before it was trimmed
        oldest = min(map(order, in_log), default=place(part.end) + 1)
        in_archive = {offset: value for offset, value in in_archive.items() if order(offset) >= oldest}
    if in_log == in_archive:
        return len(in_log), []
    return len(in_log.keys() & in_archive.keys()), list(_differences(in_log, in_archive, receipt))


def _differences(
    in_log: dict[int | str, bytes], in_archive: dict[int | str, bytes], receipt: ArchiveReceipt
) -> Iterator[PositionConflict]:
    for offset in sorted(in_log.keys() | in_archive.keys(), key=order):
        log_hash, archive_hash = in_log.get(offset, b""), in_archive.get(offset, b"")
        if log_hash != archive_hash or (offset in in_log) is not (offset in in_archive):
            yield PositionConflict(receipt.partition_id, offset, log_hash, archive_hash, receipt.segment_path)
