"""The history of a replay: the records before its spans, which are not folded, and may lie in no window of any row.

The greatest event time of what was left out is proved by archive receipts; nothing else proves it. A row at T is whole where
that time is not after T - max(window + delay). A record whose event time lies past its admission by more than the clock skew is
never applied, so that a segment's events end with its admissions at the latest.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from ofp_platform.log.archived_tail import demand_topic
from ofp_platform.offline.sources.replay_reading import replaying
from ofp_platform.offline.sources.stream_records import StreamRecords
from ofp_platform.registry.layout import CompiledGroup
from ofp_platform.vocabulary.offline.build_intent import PerEntity, PerEvent, PerGrid, PerTable
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan, ReplayBasis
from ofp_platform.vocabulary.position import place
from ofp_platform.vocabulary.times import format_time, parse_time

_ADVICE = "begin the replay at the first record of each partition, and choose the rows by scope.from_utc and scope.to_utc"


def newest_before(basis: ReplayBasis, stream_records: StreamRecords, clock_skew_us: int) -> int | None:
    """A bound on the event times that can be applied before the spans of a replay (microseconds), as archive receipts prove it;
    None: the replay begins at the first record of each partition, or nothing before it is readable.

    Raises:
        BuildRefused: HISTORY_TOO_SHORT, no receipt proves it; ARCHIVE_DAMAGED, STORE_UNAVAILABLE.
    """
    with replaying():
        spans = [PartitionSpan.whole(span.first) for span in basis.partitions]
        times = [_newest_in(span, stream_records, clock_skew_us) for span in spans if not span.is_empty]
    return max((time for time in times if time is not None), default=None)


def check_history(newest_us: int | None, oldest_row_us: int, groups: Iterable[CompiledGroup]) -> None:
    """Refuse rows of which the oldest has a window that reaches behind the replay. Times in microseconds.

    Raises:
        BuildRefused: HISTORY_TOO_SHORT.
    """
    reach = max((group.reach for group in groups), default=0)
    if newest_us is None or newest_us <= oldest_row_us - reach:
        return
    _refuse(
        f"the oldest row is of {format_time(oldest_row_us)} and its windows reach {reach // 1_000_000} s back, but records with"
        f" event times up to {format_time(newest_us)} stand before the replay: {_ADVICE}"
    )


def oldest_time(scope: PerEvent | PerEntity | PerGrid | PerTable) -> int | None:
    """The oldest as-of of a scope's rows, microseconds, where the scope says it; one of events or of a table does not."""
    match scope:
        case PerEvent() | PerTable():
            return None
        case PerEntity():
            return min(parse_time(row.as_of_time_utc) for row in scope.rows)
        case PerGrid():
            return parse_time(scope.from_utc)


def _newest_in(before: PartitionSpan, stream_records: StreamRecords, clock_skew_us: int) -> int | None:
    archived_spans = stream_records.archive.spans(before.partition_id, before.offset_kind)
    # those that end with it say more than one that reaches into the replay
    spans = before.covered_by(span for span in archived_spans if place(span.end) <= place(before.end))
    if not spans or place(spans[-1].end) < place(before.end):
        spans = before.covered_by(archived_spans)
    if not spans or place(spans[-1].end) < place(before.end):
        _refuse(
            f"the replay of partition {before.partition_id} begins behind {before.text}, and no complete archive segments prove"
            f" the event times there: archive the stream, or {_ADVICE}"
        )
    newest: int | None = None
    for span in spans:
        receipt = stream_records.archive.receipt(span)
        if receipt is not None:
            demand_topic(stream_records.log, receipt)
        if receipt is None or not receipt.proves_event_times:
            _refuse(
                f"the replay of partition {before.partition_id} begins behind {before.text}, and the archive receipt of"
                f" {span.text} states no event time: {_ADVICE}"
            )
        if receipt.event_time_max is not None and receipt.admitted_max is not None:
            greatest = min(parse_time(receipt.event_time_max), parse_time(receipt.admitted_max) + clock_skew_us)
            newest = greatest if newest is None else max(newest, greatest)
    return newest


def _refuse(message: str) -> NoReturn:
    raise BuildRefused(BuildReason.HISTORY_TOO_SHORT, message, "replay")
