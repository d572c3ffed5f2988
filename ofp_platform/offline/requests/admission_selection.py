"""The selection of offsets by admission time: the span of a partition that was admitted in [from, to).

`start` is the first record that was admitted at `from` or later, `next` stands behind the last one that was admitted before
`to`. Where a broker's times are not in order, records between the two may lie outside the range; they are in the span,
since a span has no holes.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ofp_platform.log.archived_tail import demand_topic
from ofp_platform.log.port import RecordBatch
from ofp_platform.log.span_records import ReplayGap
from ofp_platform.offline.sources.stream_records import StreamRecords
from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan
from ofp_platform.vocabulary.position import PartitionBasis, place, shared
from ofp_platform.vocabulary.times import parse_time

_PAGE = 16_384


def select_admitted(stream_records: StreamRecords, partition_id: str, from_us: int, to_us: int) -> PartitionSpan:
    """The span of the records of one partition that were admitted in [from_us, to_us), microseconds; empty without any.

    Archive segments are read only where a bound may lie inside them. The span is the same wherever its records are read from.

    Raises:
        ReplayGap: records that were admitted in the range may have been lost.
        as `ReplayReader.batches`.
    """
    whole = _readable_span(stream_records, stream_records.whole(partition_id))
    search = _Search(from_us, to_us, whole.first)
    if place(whole.first) > place(stream_records.whole(partition_id).first) and search.lost_before(stream_records, whole):
        raise ReplayGap(
            f"partition {partition_id} of {stream_records.log.stream_name}: the records before {whole.text} are in no"
            " complete archive segment and no longer in the log, and some of them may have been admitted in the range"
        )
    reached = whole.first
    for archived_span in stream_records.archived_spans(whole):
        receipt = stream_records.archive.receipt(archived_span)
        if receipt is not None:
            demand_topic(stream_records.log, receipt)
        end = shared(archived_span.end, whole.end)
        least = None if receipt is None or receipt.admitted_min is None else parse_time(receipt.admitted_min)
        greatest = None if receipt is None or receipt.admitted_max is None else parse_time(receipt.admitted_max)
        if not search.settled_without(least, greatest):
            _read(stream_records, whole.cut(reached, end), search)
        reached = end
    if place(reached) < place(whole.end):
        _read(stream_records, whole.rest(reached), search)
    span = search.span(whole)
    end = stream_records.log.history.with_incarnation(span.end)
    return span if end.incarnation == span.incarnation else span.model_copy(update={"incarnation": end.incarnation})


def _readable_span(stream_records: StreamRecords, whole: PartitionSpan) -> PartitionSpan:
    """The part of a partition without a gap, up to its end: from the first position on, or from the retention floor."""
    try:
        stream_records.demand(whole)
    except ReplayGap:
        floor = stream_records.log.retention_floor().by_partition().get(whole.partition_id)
        if floor is None or not whole.offset_kind.start_is_first or place(floor) <= place(whole.first):
            raise
        begin = floor
        for archived_span in reversed(stream_records.archive.spans(whole.partition_id, whole.offset_kind)):
            if place(archived_span.first) < place(begin) <= place(archived_span.end):
                begin = archived_span.first
        readable_span = whole.rest(begin)
        stream_records.demand(readable_span)
        return readable_span
    return whole


def _read(stream_records: StreamRecords, span: PartitionSpan, search: _Search) -> None:
    before = span.first
    for batch in stream_records.reader.batches(span, _PAGE):
        search.look(batch, before)
        before = batch.next


@dataclass
class _Search:
    """The search for the two bounds of the span."""

    from_us: int
    to_us: int
    behind: PartitionBasis  # behind the last record before `to`
    start: PartitionBasis | None = None

    def settled_without(self, least: int | None, greatest: int | None) -> bool:
        """Whether no bound can lie in the next records, whose readable ones were admitted from `least` to `greatest`."""
        if self.start is None:
            return greatest is not None and greatest < self.from_us
        return least is not None and least >= self.to_us

    def look(self, batch: RecordBatch, before: PartitionBasis) -> None:
        """Take the next records; `before` is the basis in front of them."""
        if not len(batch):
            return
        if self.start is None:
            late = batch.admitted_at >= self.from_us
            if late.any():
                self.start = before.before(batch.offsets, int(np.argmax(late)))
        early = np.flatnonzero(batch.admitted_at < self.to_us)
        if len(early):
            self.behind = batch.next.after(batch.offsets[int(early[-1])])

    def lost_before(self, stream_records: StreamRecords, whole: PartitionSpan) -> bool:
        """Whether the first record that is held does not prove that what was lost lies before the range."""
        for batch in stream_records.reader.batches(whole, 1):
            if len(batch):
                return int(batch.admitted_at[0]) >= self.from_us
        return True

    def span(self, whole: PartitionSpan) -> PartitionSpan:
        """The selected span."""
        start = self.start or whole.end
        end = max(self.behind, start, key=place)
        selected_span = whole.cut(start, end)
        return selected_span.model_copy(update={"closed": whole.closed and place(end) == place(whole.end)})
