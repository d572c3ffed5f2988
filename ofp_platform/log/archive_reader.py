"""Replay: the records of a span out of the archive as far as it reaches, and behind it out of the log."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ofp_platform.log.archive_store import Archive, ReceiptDamaged
from ofp_platform.log.archived_tail import demand_topic
from ofp_platform.log.port import EventLog, LogTailLost, RecordBatch
from ofp_platform.log.span_records import ReplayGap, log_batches
from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan
from ofp_platform.vocabulary.position import PartitionBasis, order, place, shared


class ReplayReader:
    """Reads spans of one stream. Holds one segment's bytes and one row group at a time; safe to share between threads."""

    def __init__(self, log: EventLog, archive: Archive) -> None:
        """Raises ValueError: the two are of different streams."""
        if log.stream_name != archive.stream_name:
            raise ValueError(f"the log is of stream {log.stream_name!r}, the archive of {archive.stream_name!r}")
        self._log = log
        self._archive = archive

    def cut_over(self, span: PartitionSpan) -> PartitionBasis:
        """Where reading the span goes over from the archive to the log now: `span.first` = all of it is in the log.

        The archive is read as far as complete segments join, also where the log still has the records.

        Raises:
            ReceiptDamaged: see there.
        """
        return self._cut_over(span, self._archived(span))

    def batches(self, span: PartitionSpan, max_records: int, cut_over: PartitionBasis | None = None) -> Iterator[RecordBatch]:
        """All records of the span in order, at most `max_records` a batch; the last batch is followed by `span.end`.

        `cut_over` is that of a plan; None: as `cut_over` says now. An empty span has no batch.

        Raises:
            ReplayGap: positions that neither has; it names them.
            LogTailLost: the span, or what is archived of it, is of another history than the log.
            SegmentMissing | SegmentDamaged | ReceiptDamaged: what the archive should have is gone or was changed.
            ValueError: `max_records` < 1, or a `cut_over` that lies outside the span.
            ObjectStoreUnavailable | LogUnavailable: the same call may be made again.
        """
        if max_records < 1:
            raise ValueError(f"max_records must be at least 1, not {max_records}")
        self._demand_history(span)
        archived = self._archived(span)
        now = self._cut_over(span, archived)
        at = now if cut_over is None else cut_over
        if at.partition_id != span.partition_id or not place(span.first) <= place(at) <= place(span.end):
            raise ValueError(f"the cut-over {at.offset!r} of partition {at.partition_id} lies outside {span.text}")
        if place(at) > place(now):
            missing = span.cut(now, at)
            raise ReplayGap(f"{self._where(span)}: no complete archive segment holds {missing.text}")
        yield from self._from_archive(span.up_to(at), archived, max_records)
        rest = span.rest(at)
        if not rest.is_empty:
            self._demand_log(rest)
            yield from log_batches(self._log, rest, max_records)

    def _archived(self, span: PartitionSpan) -> list[PartitionSpan]:
        return self._archive.spans(span.partition_id, span.offset_kind)

    def _cut_over(self, span: PartitionSpan, archived: Sequence[PartitionSpan]) -> PartitionBasis:
        covering_spans = span.covered_by(archived)
        return shared(covering_spans[-1].end, span.end) if covering_spans else span.first

    def _from_archive(self, span: PartitionSpan, archived: Sequence[PartitionSpan], max_records: int) -> Iterator[RecordBatch]:
        at = span.first
        for archived_span in span.covered_by(archived):
            receipt = self._archive.receipt(archived_span)
            if receipt is None:
                raise ReceiptDamaged(f"{self._archive.receipt_path(archived_span)} was there and is gone")
            demand_topic(self._log, receipt)
            end = span.end if place(archived_span.end) >= place(span.end) else archived_span.end
            segment, history = self._archive.segment(receipt), self._log.history
            while place(at) < place(end):
                following = history.next_start(span.partition_id, order(at.offset)) if history.later else None
                until = end if following is None or following >= order(end.offset) else at.moved(following)
                for batch in segment.batches(span.cut(at, until), until, max_records):
                    yield replace(batch, next=history.with_incarnation(batch.next)) if history.later else batch
                at = until

    def _demand_history(self, span: PartitionSpan) -> None:
        """Refuse a span that names another history than the log's, as a plan does that was made before a topic was made again."""
        if span.incarnation is not None and not self._log.history.is_of(span.end):
            raise LogTailLost(
                f"{self._where(span)}: {span.text} is of history {span.incarnation}, and the log has another one there: what is"
                " read now would be other records (docs/runbook.md, A failover)"
            )

    def _demand_log(self, rest: PartitionSpan) -> None:
        """Refuse what the log has lost, and name what is missing."""
        if not rest.offset_kind.start_is_first:
            # the start is the oldest record that the log keeps; if the archive has segments, the partition began before that
            if rest.first.is_at_start and self._archived(rest):
                raise ReplayGap(f"{self._where(rest)}: no complete archive segment holds its start")
            return
        floor = self._log.retention_floor().by_partition().get(rest.partition_id)
        if floor is not None and place(floor) > place(rest.first):
            following = [
                archived_span.first for archived_span in self._archived(rest) if place(archived_span.first) > place(rest.first)
            ]
            until = min([floor, rest.end, *following], key=place)
            raise ReplayGap(
                f"{self._where(rest)}: {rest.up_to(until).text} are in no complete archive segment, "
                f"and the log is kept from {floor.offset} on"
            )

    def _where(self, span: PartitionSpan) -> str:
        return f"partition {span.partition_id} of {self._log.stream_name}"
