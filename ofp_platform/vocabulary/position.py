"""Positions in a log and the basis: for each partition the first position that is not in it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated

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


class OffsetKind(StrEnum):
    """How a basis token is read."""

    EXCLUSIVE_NEXT = "exclusive_next"
    AFTER_SEQUENCE_NUMBER = "after_sequence_number"


class Position(Model):
    """Where one record stands."""

    stream_name: StreamName
    partition_id: Identifier
    offset: Offset


class PartitionBasis(Model):
    """How much of one partition is known. `closed`: the partition ended and all of it is known."""

    partition_id: Identifier
    offset_kind: OffsetKind = Field(strict=False)
    offset: Offset
    closed: bool = False

    def counts_like(self, position: Position) -> bool:
        """Whether the offset of a position is of the kind that this partition counts in."""
        return isinstance(position.offset, int) is (self.offset_kind is OffsetKind.EXCLUSIVE_NEXT)


class Basis(Model):
    """A prefix of every partition of one stream, partitions in the order of their ids."""

    stream_name: StreamName
    partitions: tuple[PartitionBasis, ...] = Field(strict=False)

    def by_partition(self) -> dict[str, PartitionBasis]:
        """Partition id to its part of the basis."""
        return {part.partition_id: part for part in self.partitions}

    def contains(self, position: Position) -> bool:
        """Whether the record at `position` is in this basis."""
        part = self.by_partition().get(position.partition_id)
        if part is None or position.stream_name != self.stream_name or not part.counts_like(position):
            return False
        if part.offset_kind is OffsetKind.EXCLUSIVE_NEXT:
            return order(part.offset) > order(position.offset)
        return order(part.offset) >= order(position.offset)


def order(offset: int | str) -> int:
    """A number that orders offsets of one partition ('' stands before everything)."""
    if isinstance(offset, int):
        return offset
    return int(offset) if offset else -1


def make_basis(stream_name: str, parts: Mapping[str, PartitionBasis]) -> Basis:
    """A basis with its partitions in canonical order."""
    return Basis(stream_name=stream_name, partitions=tuple(parts[name] for name in sorted(parts)))


def basis_text(basis: Basis) -> str:
    """The canonical text of a basis, as stored and as hashed."""
    return canonical_bytes(basis.model_dump(mode="json")).decode()
