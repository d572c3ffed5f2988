"""The tail that an archive holds and its log does not: a log of integers never ends before what was archived of it.

Only a recovery that lost records, or another log of the same name, shows that.
"""

from __future__ import annotations

from ofp_platform.log.archive_store import Archive
from ofp_platform.log.port import EventLog, LogTailLost
from ofp_platform.vocabulary.offline.archive_receipt import ArchiveReceipt
from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan
from ofp_platform.vocabulary.position import order, place


def lost_tails(log: EventLog, archive: Archive) -> list[PartitionSpan]:
    """The spans that the archive holds behind the head of each partition of the log, from the names of its receipts alone.

    Empty for a log whose places are no integers: such a log gives no place twice. A partition that the log does not
    list is not looked at: see `archived_partitions`.

    Raises:
        ReceiptDamaged | ObjectStoreUnavailable | LogUnavailable: see there.
    """
    if not log.position_kind.offset_kind.is_integer:
        return []
    heads, kind, tails = log.ends().by_partition(), log.position_kind, []
    for name in archive.partition_ids():
        head = heads.get(name)
        if head is None:
            continue
        spans = archive.spans(name, kind.offset_kind)
        farthest = max((span.end for span in spans), key=place, default=head)
        if place(farthest) > place(head):
            tails.append(PartitionSpan(partition_id=name, offset_kind=kind.offset_kind, start=head.offset, next=farthest.offset))
    return tails


def demand_tail(log: EventLog, archive: Archive) -> None:
    """Refuse a log that ends before its archive.

    Raises:
        LogTailLost: it names every partition. ReceiptDamaged | ObjectStoreUnavailable | LogUnavailable: see there.
    """
    tails = lost_tails(log, archive)
    if tails:
        raise LogTailLost(
            "\n".join(
                lost_words(log.stream_name, tail.partition_id, order(tail.start), f"the archive has it up to {tail.next}")
                for tail in tails
            )
        )


def demand_topic(log: EventLog, receipt: ArchiveReceipt) -> None:
    """Refuse to read what was archived of another topic as if it were of the log.

    Raises:
        LogTailLost: see there.
    """
    if is_of_another_topic(log, receipt):
        raise LogTailLost(
            f"partition {receipt.partition_id!r} of {log.stream_name!r}: the archive is of topic {receipt.incarnation}, and the"
            f" log is {log.history.current}: it was deleted and made again. Use another stream name (docs/kafka.md)"
        )


def is_of_another_topic(log: EventLog, receipt: ArchiveReceipt) -> bool:
    """Whether a receipt names a topic, and the log is another one; a log whose places are given once has receipts without."""
    return receipt.incarnation is not None and receipt.incarnation != log.history.current


def lost_words(stream_name: str, partition_id: str, head: int, witness: str) -> str:
    """The words of the refusal: which partition, how far it goes, and who has seen more."""
    return (
        f"partition {partition_id!r} of {stream_name!r} ends at {head}, and {witness}: a recovery lost records, or it is"
        " another log. Put back what is archived: `ofp archive restore --dry-run` (docs/runbook.md, A failover)"
    )
