"""The records of one stream in archive and log together: the end of each partition, and its newest record."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from ofp_platform.log.archive_reader import ReplayReader
from ofp_platform.log.archive_store import Archive
from ofp_platform.log.archived_partitions import archived_end, demand_archived_listed
from ofp_platform.log.archived_tail import demand_tail
from ofp_platform.log.port import EventLog
from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan
from ofp_platform.vocabulary.position import PartitionBasis, place

_PAGE = 16_384
_NEAR = 64  # records: how far the last readable one stands from the end at most, as a rule


@dataclass(frozen=True)
class StreamRecords:
    """Archive and log of one stream, as they are on first use."""

    log: EventLog
    archive: Archive

    @cached_property
    def reader(self) -> ReplayReader:
        """The reader of spans of the stream."""
        return ReplayReader(self.log, self.archive)

    @cached_property
    def ends(self) -> dict[str, PartitionBasis]:
        """Partition id to its end: that of the log, or that of the archive where the log lists the partition no more.

        Raises:
            PartitionVanished: it did not end there, as far as anybody knows. LogTailLost: the log ends before the archive.
        """
        demand_archived_listed(self.log, self.archive)
        demand_tail(self.log, self.archive)
        self.log.demand_settled()
        ends = self.log.ends().by_partition()
        for partition_id in self.archive.partition_ids():
            if partition_id not in ends:
                end = archived_end(self.log, self.archive, partition_id)
                end = max(end, self.log.accepted_ends().get(partition_id, end), key=place)
                ends[partition_id] = end.model_copy(update={"closed": True})
        return dict(sorted(ends.items()))

    def whole(self, partition_id: str) -> PartitionSpan:
        """The whole partition, from its first record on, whether or not it is still stored."""
        return PartitionSpan.whole(self.ends[partition_id])

    def archived_spans(self, span: PartitionSpan) -> list[PartitionSpan]:
        """The archived spans that are read for `span`, one after the other."""
        return span.covered_by(self.archive.spans(span.partition_id, span.offset_kind))

    def demand(self, span: PartitionSpan) -> PartitionBasis:
        """The basis at which reading the span switches from the archive to the log, which has the first record behind it.

        Raises:
            ReplayGap: neither has it. ReceiptDamaged | ObjectStoreUnavailable | LogUnavailable: see there.
        """
        cut_over = self.reader.cut_over(span)
        rest = span.rest(cut_over)
        if not rest.is_empty:
            next(self.reader.batches(rest, 1, rest.first), None)
        return cut_over

    def last_admitted(self, span: PartitionSpan) -> int | None:
        """When the last readable record of the span was admitted, microseconds; None without one.

        Raises:
            as `ReplayReader.batches`.
        """
        for start in self._starts(span):
            admitted_at = None
            for batch in self.reader.batches(span.rest(start), _PAGE):
                if len(batch):
                    admitted_at = int(batch.admitted_at[-1])
            if admitted_at is not None:
                return admitted_at
        return None

    def _starts(self, span: PartitionSpan) -> Iterator[PartitionBasis]:
        """Starting points of the search for the last record, near the end first."""
        if span.is_empty:
            return
        near_starts = [span.end.back(records) for records in (1, _NEAR)]
        yield from (start for start in near_starts if start is not None and place(start) > place(span.first))
        if None in near_starts:
            for archived_span in reversed(self.archived_spans(span)):
                if place(archived_span.end) < place(span.end):
                    yield archived_span.end
                if place(archived_span.first) > place(span.first):
                    yield archived_span.first
        yield span.first
