"""The incarnations of a log: which history the record at a place is of.

A recovery may lose records that were acknowledged: an asynchronous standby was promoted, a backup was put back. What is appended
then stands at places that other records had. So another incarnation begins there, and a position or basis names the incarnation
of its record: what both histories share has the same positions, bases and hashes, and what they do not share has others.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ofp_platform.vocabulary.position import PartitionBasis, Position, order, place


@dataclass(frozen=True)
class IncarnationStart:
    """An incarnation after the first, and the first offset of it in each partition."""

    incarnation: str
    starts: Mapping[str, int]


@dataclass(frozen=True)
class LogHistory:
    """The incarnations of one log after the first, the oldest first."""

    later: tuple[IncarnationStart, ...] = ()

    @property
    def current(self) -> str | None:
        """The incarnation of what is appended now; None: the first."""
        return self.later[-1].incarnation if self.later else None

    def incarnation_at(self, partition_id: str, offset: int | str) -> str | None:
        """The incarnation of the record at a place; where none is yet, that of the record that would come there now."""
        for start in reversed(self.later):
            if start.starts.get(partition_id, 0) <= order(offset):
                return start.incarnation
        return None

    def with_incarnation(self, part: PartitionBasis) -> PartitionBasis:
        """The basis with the incarnation of its last record."""
        if not self.later and part.incarnation is None:
            return part
        incarnation = None if part.is_at_start else self.incarnation_at(part.partition_id, place(part))
        return part if incarnation == part.incarnation else part.model_copy(update={"incarnation": incarnation})

    def next_start(self, partition_id: str, offset: int) -> int | None:
        """The first place behind `offset` at which another incarnation begins: what is read at once ends before it."""
        starts = (begun.starts.get(partition_id, 0) for begun in self.later)
        return min((start for start in starts if start > offset), default=None)

    def is_of(self, part: PartitionBasis) -> bool:
        """Whether the log has the history that the basis is of, as far as it has these places."""
        return self.with_incarnation(part).incarnation == part.incarnation

    def has_lost(self, position: Position) -> bool:
        """Whether a recovery lost the record that stood there."""
        return self.incarnation_at(position.partition_id, position.offset) != position.incarnation


ONE_HISTORY = LogHistory()
"""That of a log which never gives a place twice."""
