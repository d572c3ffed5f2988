"""The partitions that an archive knows, held against those that its log lists: one that did not end and is gone is a gap."""

from __future__ import annotations

from ofp_platform.log.archive_store import Archive
from ofp_platform.log.port import EventLog, demand_listed
from ofp_platform.vocabulary.position import PartitionBasis, place


def demand_archived_listed(log: EventLog, archive: Archive) -> None:
    """Refuse a log that lists a partition no more which the archive does not have to its end.

    Raises:
        PartitionVanished: it names the first of them; ReceiptDamaged | ObjectStoreUnavailable | LogUnavailable: see there.
    """
    infos = log.partitions()
    names = {info.partition_id for info in infos}
    known_ends: dict[str, PartitionBasis] = {}
    for name in archive.partition_ids():
        known_ends[name] = log.position_kind.start(name) if name in names else archived_end(log, archive, name)
    demand_listed(log.stream_name, infos, {**known_ends, **log.accepted_ends()})


def archived_end(log: EventLog, archive: Archive, partition_id: str) -> PartitionBasis:
    """How far the archive knows a partition, and whether that is its end.

    Raises:
        ReceiptDamaged | ObjectStoreUnavailable: see there.
    """
    spans = archive.spans(partition_id, log.position_kind.offset_kind)
    if not spans:
        return log.position_kind.start(partition_id)
    receipts = [archive.receipt(span) for span in spans if place(span.end) == max(place(span.end) for span in spans)]
    ends = [receipt.span.end for receipt in receipts if receipt is not None]
    return max(ends, key=lambda end: end.closed, default=spans[-1].end)
