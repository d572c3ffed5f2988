"""The span of a replay: `[start, next)` of every partition of one stream."""

from __future__ import annotations

from typing import Self

from pydantic import Field, model_validator

from ofp_platform.vocabulary.model import Identifier, Model
from ofp_platform.vocabulary.position import Basis, Offset, OffsetKind, PartitionBasis, StreamName, order


class ReversedRange(ValueError):
    """A range whose end does not lie behind its start."""


class PartitionSpan(Model):
    """The records of one partition from `start` on and before `next` (after `start`, up to `next`, in a sparse log)."""

    partition_id: Identifier
    offset_kind: OffsetKind = Field(strict=False)
    start: Offset
    next: Offset
    closed: bool = Field(default=False, description="the partition ended and `next` is its end")

    @model_validator(mode="after")
    def _forward(self) -> Self:
        integer = self.offset_kind is OffsetKind.EXCLUSIVE_NEXT
        if isinstance(self.start, int) is not integer or isinstance(self.next, int) is not integer:
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
        return PartitionBasis(partition_id=self.partition_id, offset_kind=self.offset_kind, offset=self.next, closed=self.closed)


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
        spans = [
            PartitionSpan(
                partition_id=part.partition_id,
                offset_kind=part.offset_kind,
                start=0 if part.offset_kind is OffsetKind.EXCLUSIVE_NEXT else "",
                next=part.offset,
                closed=part.closed,
            )
            for part in basis.partitions
        ]
        return cls(stream_name=basis.stream_name, partitions=tuple(sorted(spans, key=lambda span: span.partition_id)))
