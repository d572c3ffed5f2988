"""One record of the stream by its position, out of the log or its archive, whichever still has it."""

from __future__ import annotations

from dataclasses import dataclass

from ofp_platform.log.archive_store import Archive
from ofp_platform.log.port import EventLog, LogError, RecordBatch, UnreadableRecord
from ofp_platform.vocabulary.envelope import Envelope
from ofp_platform.vocabulary.position import PartitionBasis, order, place
from ofp_platform.vocabulary.times import format_time

_MOST_DIGITS = 18  # of an offset that is counted
_PAGE = 2_000


class NoSuchRecord(LogError):
    """No record stands at the position; the text says where the partition goes on."""


@dataclass(frozen=True)
class StoredRecord:
    """A record as it was admitted. `payload_hash` in hex; `incarnation` of the log, None: the first."""

    envelope: Envelope
    admitted_at_utc: str
    payload_hash: str
    incarnation: str | None


def record_at(log: EventLog, archive: Archive, partition_id: str, offset_text: str) -> StoredRecord | UnreadableRecord:
    """The record at a position, or why the thing that stands there is no envelope.

    `log` is one with its archive in front; `archive` says where reading may begin, where offsets are not counted.

    Raises:
        NoSuchRecord: none stands there. LogRefused | LogUnavailable | ReceiptDamaged | ObjectStoreUnavailable: see there.
    """
    kind = log.position_kind.offset_kind
    if not (offset_text.isascii() and offset_text.isdigit()):
        raise NoSuchRecord(f"{offset_text[:64]!r} is no offset: a position is written PARTITION:OFFSET, as in 0002:51233")
    if kind.is_integer and len(offset_text) > _MOST_DIGITS:
        raise NoSuchRecord(f"partition {partition_id} of stream {log.stream_name} has no record at {offset_text[:64]}")
    offset = kind.parse(offset_text)
    at = _start(log, archive, partition_id, offset)
    while True:
        batch = log.read(partition_id, at, 1 if kind.is_integer else _PAGE)
        for record in batch.unreadable:
            if order(record.offset) == order(offset):
                return record
        for index, one in enumerate(batch.offsets):
            if order(one) == order(offset):
                return _stored(batch, index)
        if place(batch.next) >= order(offset) or place(batch.next) <= place(at):
            raise NoSuchRecord(
                f"partition {partition_id} of stream {log.stream_name} has no record at {offset_text};"
                f" it is read up to {batch.next.offset or 'its start'} there (`ofp log ends` shows where the log ends)"
            )
        at = batch.next


def _start(log: EventLog, archive: Archive, partition_id: str, offset: int | str) -> PartitionBasis:
    """A basis right before the record where offsets are counted; else the last that the archive has before it."""
    position_kind = log.position_kind
    start = position_kind.start(partition_id)
    if position_kind.offset_kind.is_integer:
        return log.history.with_incarnation(start.moved(offset))
    ends = [span.end for span in archive.spans(partition_id, position_kind.offset_kind)]
    before = [end for end in ends if place(end) < order(offset)]
    return start.moved(max(before, key=place).offset) if before else start


def _stored(batch: RecordBatch, index: int) -> StoredRecord:
    return StoredRecord(
        batch.envelope(index),
        format_time(int(batch.admitted_at[index])),
        batch.payload_hashes[index].hex(),
        batch.next.incarnation,
    )
