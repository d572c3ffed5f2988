"""The records of an open epoch, read again from the log, exactly these and in the same order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ofp_platform.log.port import EventLog, RecordBatch, empty_batch
from ofp_platform.log.span_records import log_batches
from ofp_platform.online.state.epochs import Epoch
from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan
from ofp_platform.vocabulary.position import Basis, place

_PAGE = 50_000


class EpochDiffers(Exception):
    """The log gives other records for an epoch, or they have other fates, than when it was laid down; the text says which."""


def epoch_batches(log: EventLog, before: Basis, epoch: Epoch) -> Iterator[RecordBatch]:
    """The records between the basis `before` and the epoch's, partition by partition, in one batch or several each.

    Raises:
        EpochDiffers: the log gives another number of them. ReplayGap: it does not give all of them any more.
    """
    known_parts, ends = before.by_partition(), epoch.basis.by_partition()
    records: Counter[str] = Counter()
    for name in epoch.fates:
        end = ends[name]
        start = known_parts.get(name, end.start())
        span = PartitionSpan(
            partition_id=name,
            offset_kind=end.offset_kind,
            start=start.offset,
            next=end.offset,
            closed=end.closed,
            incarnation=end.incarnation,
        )
        if place(start) == place(end):
            yield empty_batch(end)  # it ended, without another record
        for batch in log_batches(log, span, _PAGE):
            records[name] += len(batch)
            yield batch
    for name, fates in epoch.fates.items():
        if records[name] != fates.records:
            raise EpochDiffers(
                f"epoch {epoch.version}: partition {name} of {log.stream_name} has {records[name]} records up to"
                f" {ends[name].offset}, there were {fates.records} when the epoch was laid down"
            )
