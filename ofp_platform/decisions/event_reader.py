"""The events of one type out of a log, as a decision service reads them: forward from a basis, each with its position."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from ofp_platform.log.port import EventLog, ManyReader, PartitionRequest, RecordBatch
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import Basis, PartitionBasis, Position, make_basis, order, place

_MOST_PARTITIONS = 16


@dataclass(frozen=True)
class ReadEvent:
    """An event to decide on, and where it stands. `ts` in microseconds."""

    position: Position
    event_id: str
    ts: int
    payload: dict[str, Any]


@dataclass(frozen=True)
class ReadPage:
    """Events of one partition in its order, and the basis of that partition behind them."""

    events: list[ReadEvent]
    next: PartitionBasis


@dataclass(frozen=True)
class EventReader:
    """Reads what `pins` and `event_type` say. Events from the future (more than `clock_skew_us` after their admission)
    are no events for the plane, nor here."""

    log: EventLog
    pins: ContextPins
    event_type: str
    clock_skew_us: int

    def pages(self, after: Basis | None = None, records: int = 2_000) -> Iterator[ReadPage]:
        """Pages of at most `records` records each, from `after` (None: the oldest kept) to the head as it is now; see `turns`.

        Raises:
            LogError: what the log has against it.
        """
        return (page for pages in self.turns(after, records) for page in pages)

    def turns(self, after: Basis | None = None, records: int = 2_000) -> Iterator[list[ReadPage]]:
        """The same pages, those together that the log reads for the price of one: at most `records` records, of each partition
        one page.

        The partitions take turns, so that what is decided on stays near in time.

        Raises:
            LogError: what the log has against it.
        """
        at = dict(after.by_partition()) if after is not None else {}
        waiting = [info.partition_id for info in self.log.partitions()]
        while waiting:
            rest: list[str] = []
            for partition_ids in self._together(waiting, at):
                pages = []
                for batch in self._read(partition_ids, at, records):
                    if batch.next == at.get(batch.partition_id):
                        continue
                    at[batch.partition_id] = batch.next
                    pages.append(ReadPage(self._events(batch), batch.next))
                    if not batch.next.closed:
                        rest.append(batch.partition_id)
                if pages:
                    yield pages
            waiting = rest

    def page(self, partition_id: str, after: PartitionBasis | None, records: int) -> ReadPage | None:
        """The next page of one partition, of at most `records` records; None: it ends there, as it is now.

        Raises:
            LogError: what the log has against it.
        """
        batch = self.log.read(partition_id, after, records)
        return None if batch.next == after else ReadPage(self._events(batch), batch.next)

    def _together(self, partition_ids: list[str], at: Mapping[str, PartitionBasis]) -> list[list[str]]:
        """Partitions by what one read gives: where nothing is known of one yet, that one alone."""
        if not isinstance(self.log, ManyReader) or not self.log.reads_many:
            return [[partition_id] for partition_id in partition_ids]
        known_ids = [partition_id for partition_id in partition_ids if partition_id in at]
        new_ids = [[partition_id] for partition_id in partition_ids if partition_id not in at]
        starts = range(0, len(known_ids), _MOST_PARTITIONS)
        return [*new_ids, *(known_ids[start : start + _MOST_PARTITIONS] for start in starts)]

    def _read(self, partition_ids: Sequence[str], at: Mapping[str, PartitionBasis], records: int) -> Sequence[RecordBatch]:
        if len(partition_ids) == 1:
            return [self.log.read(partition_ids[0], at.get(partition_ids[0]), records)]
        assert isinstance(self.log, ManyReader)
        each = max(1, records // len(partition_ids))
        return self.log.read_many([PartitionRequest(at[partition_id], each) for partition_id in partition_ids])

    def between(self, begin: Basis, end: Basis, records: int = 4_000) -> Iterator[ReadPage]:
        """Pages of the events from one basis up to another, and nothing behind it; a partition that the second does not name, or
        that the log does not list, is left out.

        Raises:
            LogError: what the log has against it.
        """
        begins, ends = begin.by_partition(), {part.partition_id: place(part) for part in end.partitions}
        for partition_id in [info.partition_id for info in self.log.partitions() if info.partition_id in ends]:
            at, last = begins.get(partition_id), ends[partition_id]
            while place(at) < last and (page := self.page(partition_id, at, records)) is not None:
                yield ReadPage([event for event in page.events if order(event.position.offset) <= last], page.next)
                at = page.next

    def ids_between(self, begin: Basis, end: Basis) -> Iterator[str]:
        """The ids of the events from one basis up to another, as often as they stand there.

        Raises:
            LogError: what the log has against it.
        """
        return (event.event_id for page in self.between(begin, end) for event in page.events)

    def _events(self, batch: RecordBatch) -> list[ReadEvent]:
        own_pins = {index for index, pins in enumerate(batch.pins) if pins == self.pins}
        is_from_future = batch.ts > batch.admitted_at + self.clock_skew_us
        return [
            ReadEvent(
                Position(
                    stream_name=self.log.stream_name,
                    partition_id=batch.partition_id,
                    offset=batch.offsets[index],
                    incarnation=batch.next.incarnation,
                ),
                batch.event_ids[index],
                int(batch.ts[index]),
                orjson.loads(batch.payloads[index]),
            )
            for index in np.flatnonzero(~is_from_future).tolist()
            if batch.event_types[index] == self.event_type
            and batch.amends[index] is None
            and int(batch.pins_index[index]) in own_pins
        ]


def moved(basis: Basis | None, stream_name: str, part: PartitionBasis) -> Basis:
    """The basis with one partition moved on."""
    parts = {} if basis is None else basis.by_partition()
    return make_basis(stream_name, {**parts, part.partition_id: part})
