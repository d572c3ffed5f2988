"""Offset ranges, the unit of backfill: `r0000012` is the records 12*SIZE <= ordinal < 13*SIZE of a partition.

The ordinal of a record is how many records of its partition stand before it: the offset itself where subtraction counts
records; elsewhere the range ledger keeps the position tokens. Ranges are aligned, append-only and shared by all partitions;
a range exists once it is full (or once its partition ended).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ofp_platform.log.port import EventLog, PartitionNotFound
from ofp_platform.log.range_ledger import LedgerEntry, grow_ledger
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.position import Basis, PartitionBasis, order, place

_NAME = re.compile(r"r(\d{7,})", re.ASCII)


class RangeOpen(Exception):
    """The range is not full yet: records are still being appended to it."""


class RangeGap(Exception):
    """The basis stands before the range: what lies between has to be applied first."""


class RangeTrimmed(Exception):
    """Records of the range are behind the log's retention floor: they can be neither applied nor verified from it."""


class RangeUnreadable(Exception):
    """The log does not give the rest of the range now (a parent shard has to be read to its end first)."""


@dataclass(frozen=True)
class RangeBounds:
    """One closed range of one partition: the basis before it, the basis after it, and the records between."""

    partition_id: str
    number: int
    start: PartitionBasis
    end: PartitionBasis
    first_ordinal: int
    records: int

    @property
    def name(self) -> str:
        """As in `r0000012`."""
        return range_name(self.number)

    def until(self, stream_name: str) -> Basis:
        """The basis that bounds an application of this range."""
        return Basis(stream_name=stream_name, partitions=(self.end,))

    def begins_after(self, basis: PartitionBasis | None) -> bool:
        """Whether there is a gap between the basis and this range."""
        return place(basis) < place(self.start)

    def is_inside(self, basis: PartitionBasis | None) -> bool:
        """Whether all of this range is in the basis."""
        return place(basis) >= place(self.end)


@dataclass(frozen=True)
class ClosedRanges:
    """How many ranges of a partition are closed, from number 0 on. `ended`: no more will follow; `empty`: no record."""

    count: int
    ended: bool
    empty: bool


def range_name(number: int) -> str:
    """The name of a range, ordered as text like the numbers (below ten million)."""
    return f"r{number:07d}"


def range_number(name: str) -> int:
    """The inverse.

    Raises:
        ValueError: not the name of a range.
    """
    match = _NAME.fullmatch(name)
    if match is None or range_name(int(match.group(1))) != name:
        raise ValueError(f"{name!r} is not the name of a range: 'r' and its number in seven digits, as in r0000012")
    return int(match.group(1))


def shared_ranges(closed: Mapping[str, ClosedRanges]) -> int:
    """How many ranges are closed in every partition that takes part: neither an empty one nor one that ended holds up."""
    parts = closed.values()
    active = [part.count for part in parts if not part.ended and not part.empty]
    finished_counts = [part.count for part in parts if part.ended]
    return min(active) if active else max(finished_counts, default=0)


@dataclass(frozen=True)
class OffsetRanges:
    """The ranges of `size` records of one log. `pool` holds the ledger of logs whose offsets do not count records."""

    pool: Pool
    log: EventLog
    size: int

    def closed(self) -> dict[str, ClosedRanges]:
        """Per partition, what is closed now. In such a log this reads what was appended since the last call."""
        if self.log.position_kind.is_countable:
            heads = {name: order(part.offset) for name, part in self.log.ends().by_partition().items()}
            return {name: ClosedRanges(head // self.size, False, head == 0) for name, head in heads.items()}
        ranges = {}
        for info in self.log.partitions():
            ledger = grow_ledger(self.pool, self.log, info.partition_id, self.size)
            # an open shard without a whole range may hold records or none: either way it does not hold the others up
            ranges[info.partition_id] = ClosedRanges(len(ledger.entries), ledger.ended, not ledger.entries)
        return ranges

    def bounds(self, partition_id: str, number: int) -> RangeBounds:
        """Where a range begins and ends.

        Raises:
            RangeOpen: it is not closed.
            PartitionNotFound: the stream has no such partition.
            ValueError: a negative number.
        """
        if number < 0:
            raise ValueError(f"ranges are numbered from 0 on, not {number}")
        size = self.size
        if self.log.position_kind.is_countable:
            head = self.log.ends().by_partition().get(partition_id)
            if head is None:
                raise PartitionNotFound(f"stream {self.log.stream_name!r} has no partition {partition_id!r}")
            if order(head.offset) < (number + 1) * size:
                raise RangeOpen(_open(partition_id, number, (number + 1) * size, f"the log ends at {head.offset}"))
            return self._counted(partition_id, number)
        entries = grow_ledger(self.pool, self.log, partition_id, size).entries
        if number >= len(entries):
            raise RangeOpen(_open(partition_id, number, (number + 1) * size, f"{len(entries)} ranges are closed"))
        return self._recorded(partition_id, number, entries)

    def closed_bounds(self, partition_id: str, closed: ClosedRanges) -> list[RangeBounds]:
        """Where each of the closed ranges of a partition begins and ends, by number, from one look at the log or its ledger.

        `closed`: of that partition, as `closed` of this object gave it.
        """
        if self.log.position_kind.is_countable:
            return [self._counted(partition_id, number) for number in range(closed.count)]
        entries = grow_ledger(self.pool, self.log, partition_id, self.size).entries if closed.count else ()
        return [self._recorded(partition_id, number, entries) for number in range(closed.count)]

    def _counted(self, partition_id: str, number: int) -> RangeBounds:
        first, kind = number * self.size, self.log.position_kind
        return RangeBounds(
            partition_id, number, kind.basis(partition_id, first), kind.basis(partition_id, first + self.size), first, self.size
        )

    def _recorded(self, partition_id: str, number: int, entries: Sequence[LedgerEntry]) -> RangeBounds:
        kind = self.log.position_kind

        def end_of(entry: LedgerEntry) -> PartitionBasis:
            return kind.basis(partition_id, kind.offset_kind.parse(entry.end_offset))

        start = end_of(entries[number - 1]) if number else kind.start(partition_id)
        entry = entries[number]
        return RangeBounds(partition_id, number, start, end_of(entry), number * self.size, entry.records)


def _open(partition_id: str, number: int, end: int, now: str) -> str:
    return f"range {range_name(number)} of partition {partition_id} closes at record {end}, {now}: wait, or run catch_up"
