"""What archive and log hold of one stream together: how far each partition reaches, and where the newest record stands."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from ofp_platform.log.archive_reader import ReplayReader
from ofp_platform.log.archive_store import Archive, reach
from ofp_platform.log.port import EventLog
from ofp_platform.log.ranges import place
from ofp_platform.log.span_records import cut
from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan, ReplayBasis
from ofp_platform.vocabulary.position import Basis, OffsetKind, PartitionBasis

_PAGE = 16_384
_NEAR = 64  # records: how far the last readable one stands from the end at most, as a rule


@dataclass(frozen=True)
class HeldRecords:
    """Archive and log of one stream, as they are when they are first looked at."""

    log: EventLog
    archive: Archive

    @cached_property
    def reader(self) -> ReplayReader:
        """Reads spans of it."""
        return ReplayReader(self.log, self.archive)

    @cached_property
    def ends(self) -> dict[str, PartitionBasis]:
        """Partition id to its end: that of the log, or that of the archive where the log has lost the whole partition."""
        known = self.log.ends().by_partition()
        for partition_id in self.archive.partition_ids():
            spans = self.archive.spans(partition_id, self.log.offset_kind)
            if partition_id not in known and spans:
                known[partition_id] = max((span.end for span in spans), key=place)
        return dict(sorted(known.items()))

    def whole(self, partition_id: str) -> PartitionSpan:
        """Everything of a partition, from its first record on, whether or not it is still held."""
        end = self.ends[partition_id]
        start: int | str = 0 if end.offset_kind is OffsetKind.EXCLUSIVE_NEXT else ""
        return PartitionSpan(
            partition_id=partition_id, offset_kind=end.offset_kind, start=start, next=end.offset, closed=end.closed
        )

    def archived(self, span: PartitionSpan) -> list[PartitionSpan]:
        """The archived spans that are read for `span`, one after the other."""
        return reach(self.archive.spans(span.partition_id, span.offset_kind), span)

    def demand(self, span: PartitionSpan) -> PartitionBasis:
        """Where reading the span goes over from the archive to the log, which has the first record behind.

        Raises:
            ReplayGap: neither has it. ReceiptDamaged | ObjectStoreUnavailable | LogUnavailable: see there.
        """
        at = self.reader.cut_over(span)
        rest = cut(span, at, span.end)
        if place(rest.first) < place(rest.end):
            next(self.reader.batches(rest, 1, rest.first), None)
        return at

    def last_admitted(self, span: PartitionSpan) -> int | None:
        """When the last readable record of the span was admitted, microseconds; None without one.

        Raises:
            as `ReplayReader.batches`.
        """
        for start in self._starts(span):
            found = None
            for batch in self.reader.batches(cut(span, start, span.end), _PAGE):
                if len(batch):
                    found = int(batch.admitted_at[-1])
            if found is not None:
                return found
        return None

    def _starts(self, span: PartitionSpan) -> Iterator[PartitionBasis]:
        """Where to begin looking for the last record: near the end first. Only a dense log can be counted back in."""
        if place(span.first) == place(span.end):
            return
        if isinstance(span.start, int) and isinstance(span.next, int):
            for back in (1, _NEAR):
                if span.next - back > span.start:
                    yield span.first.model_copy(update={"offset": span.next - back})
        else:
            for one in reversed(self.archived(span)):
                if place(one.end) < place(span.end):
                    yield one.end
                if place(one.first) > place(span.first):
                    yield one.first
        yield span.first


def is_inside(known: Basis, basis: ReplayBasis) -> bool:
    """Whether a basis that was recorded ends inside the replay: in no partition before its start or behind its end.

    A partition that one of the two does not name counts as known up to its very start.
    """
    if known.stream_name != basis.stream_name:
        return False
    parts, spans = known.by_partition(), basis.by_partition()
    for name in parts.keys() | spans.keys():
        span, part = spans.get(name), parts.get(name)
        at = place(part)
        if not (place(span.first) <= at <= place(span.end) if span is not None else at == place(None)):
            return False
    return True
