"""The span of a replay: `[start, next)` of every partition of one stream."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self

from pydantic import Field, model_validator

from ofp_platform.vocabulary.model import Identifier, Model
from ofp_platform.vocabulary.position import (
    START,
    Basis,
    Incarnation,
    Offset,
    OffsetKind,
    PartitionBasis,
    StreamName,
    order,
    place,
)


class ReversedRange(ValueError):
    """A range whose end does not lie behind its start."""


class PartitionSpan(Model):
    """The records of one partition from `start` on and before `next` (after `start`, up to `next`, in a sparse log).

    `incarnation` is that of the last of them.
    """

    partition_id: Identifier
    offset_kind: OffsetKind = Field(strict=False)
    start: Offset
    next: Offset
    closed: bool = Field(default=False, description="the partition ended and `next` is its end")
    incarnation: Incarnation = None

    @model_validator(mode="after")
    def _forward(self) -> Self:
        if not self.offset_kind.matches(self.start) or not self.offset_kind.matches(self.next):
            raise ValueError(f"start and next are not of offset kind {self.offset_kind.value}")
        if order(self.start) > order(self.next):
            raise ReversedRange(f"the range is reversed: start {self.start} lies behind next {self.next}")
        return self

    @property
    def first(self) -> PartitionBasis:
        """The basis before the span."""
        return PartitionBasis(partition_id=self.partition_id, offset_kind=self.offset_kind, offset=self.start)

    @property
    def end(self) -> PartitionBasis:
        """The basis behind the span."""
        return PartitionBasis(
            partition_id=self.partition_id,
            offset_kind=self.offset_kind,
            offset=self.next,
            closed=self.closed,
            incarnation=self.incarnation,
        )

    @property
    def is_empty(self) -> bool:
        """Whether no record can be in it."""
        return place(self.first) == place(self.end)

    @property
    def text(self) -> str:
        """Its positions, for people."""
        if self.offset_kind.is_integer:
            return f"[{self.start}, {self.next})"
        return f"after {self.start or 'the start'} up to {self.next or 'the start'}"

    @classmethod
    def whole(cls, end: PartitionBasis) -> PartitionSpan:
        """Everything of a partition up to a basis, from its first record on."""
        return cls(
            partition_id=end.partition_id,
            offset_kind=end.offset_kind,
            start=end.offset_kind.start_offset,
            next=end.offset,
            closed=end.closed,
            incarnation=end.incarnation,
        )

    def contains(self, offset: int | str) -> bool:
        """Whether the record of the partition at `offset` is in it."""
        return place(self.first) < order(offset) <= place(self.end)

    def cut(self, start: PartitionBasis, end: PartitionBasis) -> PartitionSpan:
        """The part between two of its bases."""
        return PartitionSpan(
            partition_id=self.partition_id,
            offset_kind=self.offset_kind,
            start=start.offset,
            next=end.offset,
            closed=self.closed and end.offset == self.next,
            incarnation=self.incarnation if end.offset == self.next else end.incarnation,
        )

    def up_to(self, end: PartitionBasis) -> PartitionSpan:
        """The part before a basis inside it."""
        return self.cut(self.first, end)

    def rest(self, start: PartitionBasis) -> PartitionSpan:
        """The part behind a basis inside it."""
        return self.cut(start, self.end)

    def shared(self, other: PartitionSpan) -> PartitionSpan | None:
        """The part that another span of the partition has, too; None where no record can be in both."""
        start = max(self.first, other.first, key=place)
        end = min(self.end, other.end, key=place)
        return self.cut(start, end) if place(start) < place(end) else None

    def covered_by(self, spans: Iterable[PartitionSpan]) -> list[PartitionSpan]:
        """The spans to read, one after the other, from the start of this one on as far as they join, at most to its end.

        Where several hold a position, the one that reaches farthest is read.
        """
        ordered = sorted(spans, key=lambda span: place(span.first))
        joined: list[PartitionSpan] = []
        at, index, farthest = self.first, 0, None
        while place(at) < place(self.end):
            while index < len(ordered) and place(ordered[index].first) <= place(at):
                if farthest is None or place(ordered[index].end) > place(farthest.end):
                    farthest = ordered[index]
                index += 1
            if farthest is None or place(farthest.end) <= place(at):
                break
            joined.append(farthest)
            at = farthest.end
        return joined


class ReplayBasis(Model):
    """A span of every partition that is replayed, in the order of their ids."""

    stream_name: StreamName
    partitions: tuple[PartitionSpan, ...] = Field(strict=False, min_length=1)

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        names = [span.partition_id for span in self.partitions]
        if names != sorted(set(names)):
            raise ValueError("partitions must be in the order of their ids, each once")
        return self

    def by_partition(self) -> dict[str, PartitionSpan]:
        """Partition id to its span."""
        return {span.partition_id: span for span in self.partitions}

    @property
    def end(self) -> Basis:
        """The basis behind all spans."""
        return Basis(stream_name=self.stream_name, partitions=tuple(span.end for span in self.partitions))

    @classmethod
    def up_to(cls, basis: Basis) -> ReplayBasis:
        """Everything from the first record on, up to a basis."""
        spans = sorted(map(PartitionSpan.whole, basis.partitions), key=lambda span: span.partition_id)
        return cls(stream_name=basis.stream_name, partitions=tuple(spans))

    def contains_end(self, basis: Basis) -> bool:
        """Whether a basis ends inside the replay: in no partition before its start or behind its end.

        A partition that one of the two does not name counts as known up to its start.
        """
        if basis.stream_name != self.stream_name:
            return False
        parts, spans = basis.by_partition(), self.by_partition()
        for name in parts.keys() | spans.keys():
            span, at = spans.get(name), place(parts.get(name))
            if not (place(span.first) <= at <= place(span.end) if span is not None else at == START):
                return False
        return True
