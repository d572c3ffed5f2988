"""The newest records of a replay, cut into short stops: the demo projects up to one, decides on its events, and goes on.

So decisions are made as they are in service: while their event is fresh, each on the basis that the plane had just then.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ofp_platform.cli.online.newest_events import near_the_end
from ofp_platform.decisions.event_reader import EventReader, ReadEvent
from ofp_platform.vocabulary.position import Basis, PartitionBasis, make_basis, order, place

_PAGE = 20_000


@dataclass(frozen=True)
class Stop:
    """Up to here it is projected, then these events are decided on."""

    basis: Basis
    events: list[ReadEvent]


@dataclass(frozen=True)
class _Tail:
    """The last records of one partition before its end: offsets, and admission times that never fall (int64[n])."""

    before: PartitionBasis
    end: PartitionBasis
    offsets: list[int | str]
    admitted: npt.NDArray[np.int64]

    def at(self, moment: int) -> PartitionBasis:
        """Count the records admitted before that time (microseconds)."""
        count = int(np.searchsorted(self.admitted, moment))
        if count == len(self.offsets):
            return self.end
        return self.before.before(self.offsets, count)


def find_stops(reader: EventReader, ends: Basis, records: int, stops: int, longest: int) -> tuple[Basis, list[Stop]]:
    """Where the last part of about the last `records` records before `ends` begins, and its stops, in order.

    About `stops` of them; more where one would span more than `longest` microseconds of admission.
    """
    after = near_the_end(ends, records)
    tails = [_tail(reader, end, after) for end in ends.partitions]
    admission_times = np.sort(np.concatenate([tail.admitted for tail in tails]))[-records:]
    moments = _moments(admission_times, max(1, len(admission_times) // stops), longest)
    history = reader.log.history
    bases = [
        make_basis(ends.stream_name, {tail.end.partition_id: history.with_incarnation(tail.at(moment)) for tail in tails})
        for moment in moments
    ]
    begin, bases = bases[0], [*bases[1:], ends]
    of_stop: list[list[ReadEvent]] = [[] for _ in bases]
    stop_offsets = {
        part.partition_id: [place(basis.by_partition()[part.partition_id]) for basis in bases] for part in ends.partitions
    }
    for page in reader.pages(begin):
        for event in page.events:
            at = bisect_left(stop_offsets.get(event.position.partition_id, []), order(event.position.offset))
            if at < len(bases):
                of_stop[at].append(event)
    return begin, [Stop(basis, events) for basis, events in zip(bases, of_stop, strict=True)]


def _moments(admission_times: npt.NDArray[np.int64], step: int, longest: int) -> list[int]:
    """The first admission of the last part, and of each stop behind it."""
    if not len(admission_times):
        return [0]
    moments = [int(admission_times[0])]
    at = 0
    while True:
        too_late = int(np.searchsorted(admission_times, moments[-1] + longest, side="right"))
        at = max(at + 1, min(at + step, too_late))
        if at >= len(admission_times):
            return moments
        if int(admission_times[at]) > moments[-1]:
            moments.append(int(admission_times[at]))


def _tail(reader: EventReader, end: PartitionBasis, after: Basis | None) -> _Tail:
    before = end.start() if after is None else after.by_partition()[end.partition_id]
    offsets: list[int | str] = []
    admission_times: list[npt.NDArray[np.int64]] = []
    at = before if after is not None else None
    while True:
        batch = reader.log.read(end.partition_id, at, _PAGE)
        count = bisect_right(batch.offsets, place(end), key=order)
        offsets += batch.offsets[:count]
        admission_times.append(batch.admitted_at[:count])
        if count < len(batch) or batch.next == at:  # a batch without envelopes may still move on
            break
        at = batch.next
    times = np.concatenate(admission_times) if admission_times else np.empty(0, np.int64)
    return _Tail(before, end, offsets, np.maximum.accumulate(times) if len(times) else times)
