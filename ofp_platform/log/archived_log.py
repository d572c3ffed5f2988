"""The log of one stream with its archive in front: what the log holds no more is read from the archive, once and in order.

A fold over it begins at the first record of each partition and goes on from any basis, also where the log was trimmed past
it. Positions are the same in both, so the change from one to the other is a position like every other. What neither has, and
what no operator decided about, is refused.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import cached_property

from ofp_platform.log.archive_segment import SegmentFile
from ofp_platform.log.archive_store import Archive, ReceiptDamaged
from ofp_platform.log.archived_partitions import archived_end
from ofp_platform.log.archived_tail import demand_tail, demand_topic, lost_words
from ofp_platform.log.incarnations import ONE_HISTORY, LogHistory
from ofp_platform.log.port import (
    AdmissionClock,
    AppendReceipt,
    Candidate,
    EventLog,
    LogRefused,
    LogTailLost,
    ManyReader,
    PartitionInfo,
    PartitionNotFound,
    PartitionRequest,
    PartitionVanished,
    PositionTrimmed,
    RecordBatch,
    checked_start,
    empty_batch,
    readable_partitions,
)
from ofp_platform.vocabulary.columns import EventColumns, Int64
from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan
from ofp_platform.vocabulary.position import Basis, PartitionBasis, make_basis, place

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _OpenSegment:
    """The segment that is being read of a partition."""

    span: PartitionSpan
    file: SegmentFile


class ArchivedLog:
    """An `EventLog`; see the module. Safe to share between threads."""

    def __init__(self, log: EventLog, open_archive: Callable[[], Archive]) -> None:
        """`open_archive` gives the archive of the log's stream; it is called when the archive is needed."""
        self._log = log
        self._open_archive = open_archive
        self._lock = threading.Lock()
        self._open: dict[str, _OpenSegment] = {}
        self._spans: dict[str, list[PartitionSpan]] = {}
        self._begun_in_log: set[str] = set()
        self._tail_seen = False
        self._history = ONE_HISTORY
        self._heads: dict[str, int] = {}
        self._archived_ids: tuple[frozenset[str], frozenset[str]] = frozenset(), frozenset()
        self.stream_name = log.stream_name
        self.position_kind = log.position_kind

    @cached_property
    def _archive(self) -> Archive:
        return self._open_archive()

    def partitions(self) -> list[PartitionInfo]:
        """Those of the log, and where it may have lost some, those that the archive or an operator knows to their end."""
        infos = self._log.partitions()
        if self.position_kind.offset_kind.start_is_first:
            return infos  # such a log names its partitions once, for good
        names = frozenset(info.partition_id for info in infos)
        unlisted_ids = {
            *self._archived_partitions(names),
            *self._log.accepted_ends(),
        }
        return sorted(
            [*infos, *(PartitionInfo(name, closed=True) for name in unlisted_ids - names)], key=lambda info: info.partition_id
        )

    def _archived_partitions(self, listed_ids: frozenset[str]) -> frozenset[str]:
        """The partitions that the archive knows. A partition enters it while it is listed: others come when the list changes."""
        with self._lock:
            known_ids, archive_ids = self._archived_ids
        if known_ids != listed_ids:
            archive_ids = frozenset(self._archive.partition_ids())
            with self._lock:
                self._archived_ids = listed_ids, archive_ids
        return archive_ids

    def read(self, partition_id: str, basis: PartitionBasis | None, max_records: int) -> RecordBatch:
        """See `EventLog.read`; None reads from the first record that ever was.

        Raises:
            SegmentMissing | SegmentDamaged | ReceiptDamaged: what the archive should have is gone or was changed.
            ObjectStoreUnavailable: the same call may be made again.
        """
        start = basis or self.position_kind.start(partition_id)
        checked_start(partition_id, start, self.position_kind.offset_kind, max_records)
        begins = start.is_at_start and not start.offset_kind.start_is_first
        if begins and partition_id not in self._begun_in_log:
            # such a log hardly tells what it trimmed; the archive proves what came first
            archived_batch = self._read_archive(start, max_records)
            if archived_batch is not None:
                return archived_batch
        try:
            batch = self._log.read(partition_id, start, max_records)
            if begins:
                self._begun_in_log.add(partition_id)
            return batch
        except (PositionTrimmed, PartitionNotFound) as error:
            archived_batch = self._read_archive(start, max_records)
            if archived_batch is not None:
                return archived_batch
            if isinstance(error, PartitionNotFound):
                return self._end_of_unlisted(start, error)
            raise

    @property
    def reads_many(self) -> bool:
        """See `ManyReader`: as the log behind it does, where the log itself knows what came first."""
        return isinstance(self._log, ManyReader) and self._log.reads_many and self.position_kind.offset_kind.start_is_first

    def read_many(self, requests: Sequence[PartitionRequest]) -> list[RecordBatch]:
        """See `ManyReader`. Where one of the partitions was trimmed, each is read by itself."""
        if self.reads_many and isinstance(self._log, ManyReader):
            try:
                return self._log.read_many(requests)
            except (PositionTrimmed, PartitionNotFound):
                pass
        return [self.read(request.basis.partition_id, request.basis, request.max_records) for request in requests]

    def _read_archive(self, start: PartitionBasis, max_records: int) -> RecordBatch | None:
        """The next records out of the archive; None where it does not go on from there."""
        segment = self._segment(start)
        if segment is None:
            return None
        span, history = segment.span.rest(start), self._log.history
        following = history.next_start(start.partition_id, int(span.start)) if history.later else None
        if following is not None and following < int(span.next):
            span = span.up_to(start.moved(following))
        for batch in segment.file.batches(span, span.end, max_records):
            return replace(batch, next=history.with_incarnation(batch.next))
        return empty_batch(history.with_incarnation(span.end))

    def _segment(self, start: PartitionBasis) -> _OpenSegment | None:
        name = start.partition_id
        with self._lock:
            segment = self._open.get(name)
        if segment is not None and place(segment.span.first) <= place(start) < place(segment.span.end):
            return segment
        following = self._following(start)
        if not following:
            with self._lock:
                self._open.pop(name, None)
            return None
        span = max(following, key=lambda span: place(span.end))
        receipt = self._archive.receipt(span)
        if receipt is None:
            raise ReceiptDamaged(f"{self._archive.receipt_path(span)} was there and is gone")
        demand_topic(self._log, receipt)
        segment = _OpenSegment(receipt.span, self._archive.segment(receipt))
        with self._lock:
            self._open[name] = segment
        return segment

    def _following(self, start: PartitionBasis) -> list[PartitionSpan]:
        """The archived spans that lead on from there. What is archived stays: it is listed anew only where none is known."""

        def leading(spans: Sequence[PartitionSpan]) -> list[PartitionSpan]:
            return [span for span in spans if place(span.first) <= place(start) < place(span.end)]

        with self._lock:
            known_spans = self._spans.get(start.partition_id, [])
        if following := leading(known_spans):
            return following
        spans = self._archive.spans(start.partition_id, start.offset_kind)
        with self._lock:
            self._spans[start.partition_id] = spans
        return leading(spans)

    def _end_of_unlisted(self, start: PartitionBasis, error: PartitionNotFound) -> RecordBatch:
        """The end of a partition that the log lists no more: where the archive, or an operator's decision, says that it ended.

        Raises:
            PartitionVanished: neither does.
        """
        name = start.partition_id
        archive_end = archived_end(self._log, self._archive, name)
        decided_end = self._log.accepted_ends().get(name)
        is_end = archive_end.closed and place(archive_end) == place(start)
        if is_end or (decided_end is not None and place(decided_end) == place(start)):
            return empty_batch(start.model_copy(update={"closed": True}))
        raise PartitionVanished(
            f"{error}; log and archive do not go on behind {start.offset or 'its start'}, and nothing says that it ended there:"
            f" what followed is lost. An operator who knows that nothing did says so: `ofp log accept {name} --reason TEXT`"
        ) from error

    def demand(self, basis: Basis) -> None:
        """See `EventLog.demand`: neither the log nor the archive leads on from the basis.

        Raises:
            ReceiptDamaged | ObjectStoreUnavailable: see there.
        """
        self.demand_heads(basis)
        try:
            self._log.demand(basis)
            return
        except LogTailLost:
            raise
        except LogRefused as error:
            logger.debug("the log alone does not lead on: %s", error)  # the archive may
        known_parts = basis.by_partition()
        names = readable_partitions(self.partitions(), basis)
        listed_ids = {info.partition_id for info in self._log.partitions()}
        for name in names:
            part = known_parts.get(name, self.position_kind.start(name))
            if name not in listed_ids:
                unlisted = PartitionNotFound(f"stream {self.stream_name!r} has no partition {name!r}")
                self._end_of_unlisted(self.archived_end(part), unlisted)
                continue
            try:
                self._demand_alone(part)
            except PositionTrimmed:
                end = self.archived_end(part)
                if place(end) <= place(part):
                    raise
                self._demand_alone(self.history.with_incarnation(end))

    def demand_heads(self, basis: Basis) -> None:
        """Refuse a log that ends before what was seen of it: by a basis, in the archive when this object began, and since.

        Raises:
            LogTailLost: see there. ReceiptDamaged | ObjectStoreUnavailable | LogUnavailable: see there.
        """
        if not self.position_kind.offset_kind.is_integer:
            return
        try:
            self._log.demand_settled()
        except LogTailLost:
            self.demand_tail()  # it says what is lost, where it can
            raise
        history, heads = self._log.history, self._log.ends().by_partition()
        if not self._tail_seen:
            self.demand_tail()
        for name, last_head in self._heads.items():
            now = int(heads[name].offset) if name in heads else 0
            if now < last_head and self._history is history:
                raise LogTailLost(lost_words(self.stream_name, name, now, f"this process has seen it up to {last_head}"))
        for part in basis.partitions:
            head = heads.get(part.partition_id, part.start())
            if place(head) < place(part):
                witness = f"the projection has applied it up to {part.offset}"
                raise LogTailLost(lost_words(self.stream_name, part.partition_id, int(head.offset), witness))
        self._history, self._heads = history, {name: int(part.offset) for name, part in heads.items()}

    def demand_tail(self) -> None:
        """Refuse a log that ends before its archive.

        Raises:
            LogTailLost: see there. ReceiptDamaged | ObjectStoreUnavailable | LogUnavailable: see there.
        """
        self._tail_seen = False
        demand_tail(self._log, self._archive)
        self._tail_seen = True

    def _demand_alone(self, part: PartitionBasis) -> None:
        if not part.closed:
            # the other partitions count as read to their end: only this one is asked for
            others = {
                info.partition_id: self.position_kind.basis(
                    info.partition_id, self.position_kind.offset_kind.start_offset, closed=True
                )
                for info in self._log.partitions()
            }
            self._log.demand(make_basis(self.stream_name, {**others, part.partition_id: part}))

    def archived_end(self, start: PartitionBasis) -> PartitionBasis:
        """How far the archive leads on from there."""
        spans = self._archive.spans(start.partition_id, start.offset_kind)
        if not spans:
            return start
        farthest = max((span.end for span in spans), key=place)
        if place(farthest) <= place(start):
            return start
        joined_spans = PartitionSpan.whole(farthest).rest(start).covered_by(spans)
        return joined_spans[-1].end if joined_spans else start

    @property
    def history(self) -> LogHistory:
        """See `EventLog.history`."""
        return self._log.history

    def demand_settled(self) -> None:
        """See `EventLog.demand_settled`."""
        self._log.demand_settled()

    # ---- as the log does it ----------------------------------------------------------------------------------------

    def append(self, envelopes: Sequence[Candidate], clock: AdmissionClock | None = None) -> AppendReceipt:
        """See `EventLog.append`."""
        return self._log.append(envelopes, clock)

    def append_columns(self, columns: EventColumns, admitted_at: Int64) -> AppendReceipt:
        """See `EventLog.append_columns`."""
        return self._log.append_columns(columns, admitted_at)

    def ends(self) -> Basis:
        """See `EventLog.ends`."""
        return self._log.ends()

    def retention_floor(self) -> Basis:
        """See `EventLog.retention_floor`: that of the log."""
        return self._log.retention_floor()

    def ordinal_lag(self, basis: Basis) -> dict[str, int]:
        """See `EventLog.ordinal_lag`."""
        return self._log.ordinal_lag(basis)

    def archive_lag(self) -> float | None:
        """The age of the oldest record that is not archived, as a part of the log's retention; None: it keeps everything.

        Raises:
            ReceiptDamaged | ObjectStoreUnavailable | LogUnavailable: see there.
        """
        if self.position_kind.offset_kind.start_is_first:
            return None
        starts = [self.position_kind.start(info.partition_id) for info in self._log.partitions()]
        archived_basis = make_basis(self.stream_name, {start.partition_id: self.archived_end(start) for start in starts})
        return max(self._log.retention_used(archived_basis).values(), default=0.0)

    def accepted_ends(self) -> dict[str, PartitionBasis]:
        """See `EventLog.accepted_ends`."""
        return self._log.accepted_ends()

    def retention_used(self, basis: Basis) -> dict[str, float]:
        """See `EventLog.retention_used`."""
        return self._log.retention_used(basis)

    def wait(self, basis: Basis, timeout_seconds: float) -> bool:
        """See `EventLog.wait`."""
        return self._log.wait(basis, timeout_seconds)

    @property
    def poll_seconds(self) -> float:
        """See `EventLog.poll_seconds`."""
        return self._log.poll_seconds

    def seen_lag(self) -> dict[str, int] | None:
        """See `EventLog.seen_lag`."""
        return self._log.seen_lag()

    def pauses_end_with(self, stop: threading.Event) -> AbstractContextManager[None]:
        """See `EventLog.pauses_end_with`."""
        return self._log.pauses_end_with(stop)

    def close(self) -> None:
        """See `EventLog.close`."""
        self._log.close()
