"""The records of one span of a partition out of a log, exactly these and all of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace

from ofp_platform.log.port import EventLog, PositionTrimmed, PositionUnknown, RecordBatch, empty_batch
from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan
from ofp_platform.vocabulary.position import PartitionBasis, order, place, record_limit

PAGE_BYTES = 32_000_000  # of payload: pages shrink where records are large
_FIRST_PAGE = 256


class ReplayGap(Exception):
    """Positions that neither the archive nor the log has; the text names the partition and the positions."""


def log_batches(log: EventLog, span: PartitionSpan, max_records: int) -> Iterator[RecordBatch]:
    """The records of the span in order, at most `max_records` a batch; the last batch is followed by `span.end`.

    Raises:
        ReplayGap: the log lost records of the span, ends inside it, or does not give all the records it says it has.
    """
    at, page = log.history.with_incarnation(span.first), min(max_records, _FIRST_PAGE)
    while place(at) < place(span.end):
        batch = _read(log, span, at, page)
        if place(batch.next) == place(at):
            raise ReplayGap(f"{_where(log, span)}: the log ends at {_text(at)}, before the end of {span.text}")
        batch = up_to(batch, span.end)
        if place(batch.next) == place(span.end):
            batch = replace(batch, next=_of_history(batch, span.end))  # that the partition ended there may have shown later
        _check(log, span, at, batch)
        at = batch.next
        size = sum(map(len, batch.payloads)) // max(len(batch), 1)
        page = min(max_records, max(PAGE_BYTES // max(size, 1), 1))
        yield batch


def up_to(batch: RecordBatch, end: PartitionBasis) -> RecordBatch:
    """The part of the batch that is in the basis `end`. A batch that goes on behind it is followed by `end` then.

    So nothing of a cut batch, readable or not, is given out behind the basis that follows it.
    """
    last = place(end)
    if place(batch.next) <= last:
        return batch
    end = _of_history(batch, end)
    count = bisect_right(batch.offsets, last, key=order)
    unreadable = tuple(record for record in batch.unreadable if order(record.offset) <= last)
    if not count:
        return empty_batch(end, unreadable)
    return RecordBatch(
        batch.partition_id,
        batch.offsets[:count],
        batch.admitted_at[:count],
        batch.event_ids[:count],
        batch.event_types[:count],
        batch.schema_versions[:count],
        batch.ts[:count],
        batch.emitted_at[:count],
        batch.pins,
        batch.pins_index[:count],
        batch.payload_hashes[:count],
        batch.payloads[:count],
        batch.amends[:count],
        end,
        unreadable,
    )


def _of_history(batch: RecordBatch, end: PartitionBasis) -> PartitionBasis:
    """A basis that ends inside a batch, or with it, with the incarnation of its records."""
    if end.incarnation == batch.next.incarnation:
        return end
    return end.model_copy(update={"incarnation": batch.next.incarnation})


def _read(log: EventLog, span: PartitionSpan, at: PartitionBasis, page: int) -> RecordBatch:
    limit = record_limit(at, span.end)
    page = page if limit is None else min(page, limit)
    try:
        return log.read(span.partition_id, at, page)
    except (PositionTrimmed, PositionUnknown, ValueError) as error:  # a ValueError: what the log stores cannot be decoded
        missing = span.model_copy(update={"start": at.offset})
        raise ReplayGap(f"{_where(log, span)}: the log does not have all of {missing.text}: {error}") from error


def _check(log: EventLog, span: PartitionSpan, at: PartitionBasis, batch: RecordBatch) -> None:
    """A log that lost a part of itself shows here: columns of different lengths, or positions that are not in order."""
    columns = (batch.event_ids, batch.payloads, batch.payload_hashes, batch.amends, batch.admitted_at, batch.ts, batch.pins_index)
    positions: list[int]
    positions = batch.offsets if span.offset_kind.is_integer else list(map(order, batch.offsets))  # type: ignore[assignment]
    if batch.unreadable:
        positions = sorted([*positions, *(order(record.offset) for record in batch.unreadable)])
    if not log.position_kind.is_run(at, batch.next, positions) or any(len(column) != len(batch) for column in columns):
        part = span.model_copy(update={"start": at.offset, "next": batch.next.offset})
        raise ReplayGap(f"{_where(log, span)}: the log does not give every record of {part.text}; it is damaged there")


def _where(log: EventLog, span: PartitionSpan) -> str:
    return f"partition {span.partition_id} of {log.stream_name}"


def _text(at: PartitionBasis) -> str:
    return str(at.offset) or "its start"
