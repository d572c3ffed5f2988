"""Positions in a log and the basis: for each partition the first position that is not in it.

All that depends on how a log numbers its records stands here and, for spans, in `offline.replay_basis`. There are three
ways: integers without a gap (PostgreSQL), tokens of digits that only have an order (Kinesis), and integers with gaps
(Kafka). The stored token is an `OffsetKind`; only the log itself knows whether it skips
numbers, see `PositionKind`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import Annotated, assert_never

from pydantic import Field

from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.model import Identifier, Model

StreamName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")]
Offset = Annotated[
    Annotated[int, Field(ge=0, le=2**53 - 1)] | Annotated[str, Field(pattern=r"^[0-9]{0,128}$")],
    Field(
        union_mode="left_to_right",
        description="a dense log: an integer; Kinesis: the sequence number, a string of digits ('' = before the first)",
    ),
]
Incarnation = Annotated[
    Annotated[str, Field(pattern=r"^[0-9a-f]{12}$")] | None,
    Field(
        exclude_if=lambda value: value is None,
        description="the history that the record at the place is of, where a recovery began another one; left out for the first",
    ),
]
"""A log in its first incarnation writes none, so what is stored and hashed of it never had to change."""


class OffsetKind(StrEnum):
    """How a basis token is read."""

    EXCLUSIVE_NEXT = "exclusive_next"
    AFTER_SEQUENCE_NUMBER = "after_sequence_number"

    @property
    def is_integer(self) -> bool:
        """Whether offsets are integers, and a token is the first offset that is not in the basis."""
        return self is OffsetKind.EXCLUSIVE_NEXT

    @property
    def start_offset(self) -> int | str:
        """The token before the first record of a partition."""
        match self:
            case OffsetKind.EXCLUSIVE_NEXT:
                return 0
            case OffsetKind.AFTER_SEQUENCE_NUMBER:
                return ""
            case _:
                assert_never(self)

    @property
    def start_is_first(self) -> bool:
        """Whether the start stands before the first record that ever was; else before the oldest that the log keeps."""
        return self is OffsetKind.EXCLUSIVE_NEXT

    def matches(self, offset: int | str) -> bool:
        """Whether the offset is of this kind."""
        return isinstance(offset, int) is self.is_integer

    def after(self, offset: int | str) -> int | str:
        """The token behind the record at `offset`."""
        return order(offset) + 1 if self.is_integer else offset

    def parse(self, text: str) -> int | str:
        """Read an offset from its text.

        Raises:
            ValueError: no integer, where offsets are integers.
        """
        return int(text) if self.is_integer else text


@dataclass(frozen=True)
class PositionKind:
    """How a log numbers its records: the kind of its offsets, and whether it skips some."""

    offset_kind: OffsetKind
    has_gaps: bool

    @property
    def is_countable(self) -> bool:
        """Whether every integer is a record's offset, so that subtraction counts records."""
        return self.offset_kind.is_integer and not self.has_gaps

    def start(self, partition_id: str) -> PartitionBasis:
        """The basis before the first record of a partition."""
        return self.basis(partition_id, self.offset_kind.start_offset)

    def basis(self, partition_id: str, offset: int | str, *, closed: bool = False) -> PartitionBasis:
        """A basis of a partition of the log."""
        return PartitionBasis(partition_id=partition_id, offset_kind=self.offset_kind, offset=offset, closed=closed)

    def continues(self, part: PartitionBasis, offset: int | str) -> bool:
        """Whether the record at `offset` may be the next one behind the basis: no other can stand between, as far as shows."""
        first = place(part) + 1
        return order(offset) == first if self.is_countable else order(offset) >= first

    def is_run(self, first: PartitionBasis, end: PartitionBasis, offsets: list[int]) -> bool:
        """Whether these may be all records between two bases, in order. Gaps hide a lost record."""
        before, last = place(first), place(end)
        if self.is_countable:
            return offsets == list(range(before + 1, last + 1))
        return all(one < following for one, following in pairwise([before, *offsets, last + 1]))


DENSE = PositionKind(OffsetKind.EXCLUSIVE_NEXT, has_gaps=False)
SEQUENCE_TOKENS = PositionKind(OffsetKind.AFTER_SEQUENCE_NUMBER, has_gaps=True)
INTEGERS_WITH_GAPS = PositionKind(OffsetKind.EXCLUSIVE_NEXT, has_gaps=True)


class Position(Model):
    """Where one record stands."""

    stream_name: StreamName
    partition_id: Identifier
    offset: Offset
    incarnation: Incarnation = None


class PartitionBasis(Model):
    """How much of one partition is known. `closed`: the partition ended and all of it is known.

    `incarnation` is that of the last record in it: two histories share a basis exactly as far as they share their records.
    """

    partition_id: Identifier
    offset_kind: OffsetKind = Field(strict=False)
    offset: Offset
    closed: bool = False
    incarnation: Incarnation = None

    def counts_like(self, position: Position) -> bool:
        """Whether the offset of a position is of the kind that this partition counts in."""
        return self.offset_kind.matches(position.offset)

    @property
    def is_at_start(self) -> bool:
        """Whether no record is in it."""
        return place(self) == START

    def contains(self, offset: int | str) -> bool:
        """Whether the record of the partition at `offset` is in it."""
        return order(offset) <= place(self)

    def moved(self, offset: int | str) -> PartitionBasis:
        """The basis of the same partition with another token; the partition goes on behind it."""
        incarnation = None if offset == self.offset_kind.start_offset else self.incarnation  # at the start there is no record
        return PartitionBasis(
            partition_id=self.partition_id, offset_kind=self.offset_kind, offset=offset, incarnation=incarnation
        )

    def start(self) -> PartitionBasis:
        """The basis before the first record of the partition."""
        return PartitionBasis(partition_id=self.partition_id, offset_kind=self.offset_kind, offset=self.offset_kind.start_offset)

    def after(self, offset: int | str) -> PartitionBasis:
        """The basis behind the record at `offset`."""
        return self.moved(self.offset_kind.after(offset))

    def before(self, offsets: Sequence[int | str], index: int) -> PartitionBasis:
        """The basis right before record `index` of the records at `offsets`, the first behind this basis."""
        if self.offset_kind.is_integer:
            return self.moved(offsets[index])
        return self.after(offsets[index - 1]) if index else self

    def back(self, records: int) -> PartitionBasis | None:
        """The basis that many offsets earlier, at most that many records; None where offsets are not subtracted."""
        if not self.offset_kind.is_integer:
            return None
        return self.moved(max(0, order(self.offset) - records))


class Basis(Model):
    """A prefix of every partition of one stream, partitions in the order of their ids."""

    stream_name: StreamName
    partitions: tuple[PartitionBasis, ...] = Field(strict=False)

    def by_partition(self) -> dict[str, PartitionBasis]:
        """Partition id to its part of the basis."""
        return {part.partition_id: part for part in self.partitions}

    def contains(self, position: Position) -> bool:
        """Whether the record at `position` is in this basis, as far as the two alone tell: they are of one incarnation."""
        part = self.by_partition().get(position.partition_id)
        return self.reaches(position) and part is not None and part.incarnation == position.incarnation

    def reaches(self, position: Position) -> bool:
        """Whether the place of `position` is in this basis, whichever record stands there."""
        part = self.by_partition().get(position.partition_id)
        if part is None or position.stream_name != self.stream_name or not part.counts_like(position):
            return False
        return part.contains(position.offset)


def order(offset: int | str) -> int:
    """A number that orders offsets of one partition ('' stands before everything)."""
    if isinstance(offset, int):
        return offset
    return int(offset) if offset else -1


def offset_columns(offset: int | str | None) -> tuple[int | None, str | None]:
    """An offset as it is stored in two columns: the integer, or the token; both empty where there is none."""
    return (offset, None) if isinstance(offset, int) else (None, offset)


START = -1
"""The place of every basis that holds nothing."""


def place(part: PartitionBasis | None) -> int:
    """A number that orders the bases of one partition: the greatest offset that may be inside. None stands at the start."""
    if part is None:
        return START
    return order(part.offset) - 1 if part.offset_kind.is_integer else order(part.offset)


def shared(one: PartitionBasis, other: PartitionBasis) -> PartitionBasis:
    """The lower of two bases of one partition: the records that are in both; at one place, the one that is still open."""
    return min(one, other, key=lambda part: (place(part), part.closed))


def record_limit(first: PartitionBasis, end: PartitionBasis) -> int | None:
    """The most records that can stand between two bases; None where offsets do not say. Exact in a countable log."""
    return max(0, place(end) - place(first)) if first.offset_kind.is_integer else None


def make_basis(stream_name: str, parts: Mapping[str, PartitionBasis]) -> Basis:
    """A basis with its partitions in canonical order."""
    return Basis(stream_name=stream_name, partitions=tuple(parts[name] for name in sorted(parts)))


def basis_text(basis: Basis) -> str:
    """The canonical text of a basis, as stored and as hashed."""
    return canonical_bytes(basis.model_dump(mode="json")).decode()
