"""The receipt of an archive segment: it names the segment and proves it, and only a complete segment ever gets one."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from ofp_platform.vocabulary.canonical import canonical_bytes, digest_of
from ofp_platform.vocabulary.model import Digest, Identifier, Model, Time
from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan
from ofp_platform.vocabulary.position import Incarnation, Offset, OffsetKind, StreamName, record_limit


class ArchiveReceipt(Model):
    """One segment: the records of `[first, next)` of one partition, all of them, as they were in the log.

    `records` are in the segment; `unreadable` positions held no envelope and are in it by position and reason. The range
    `range_number` of `range_size` records begins at `first`; a trailing segment ends before its range does. A receipt of
    contract version v0 has no `event_time_max`, and proves nothing about event times; one of v2 is of a log of integers with
    gaps, where a range may have fewer records than positions, and names the topic as its incarnation.
    """

    kind: Literal["ofs_archive_receipt"] = "ofs_archive_receipt"
    contract_version: Literal["v0", "v1", "v2"] = "v0"
    stream_name: StreamName
    partition_id: Identifier
    offset_kind: OffsetKind = Field(strict=False)
    first: Offset
    next: Offset
    closed: bool = Field(description="the partition ended, and `next` is its end")
    range_number: int = Field(ge=0)
    range_size: int = Field(ge=1)
    records: int = Field(ge=0)
    unreadable: int = Field(ge=0)
    admitted_min: Time | None = Field(description="null where no record is readable")
    admitted_max: Time | None
    event_time_max: Time | None = Field(
        default=None, description="greatest ts_utc of the records, those of other runs included; null where none is readable"
    )
    schema_version: Literal[1] = Field(default=1, description="of the columns of the segment")
    segment_path: str = Field(min_length=1)
    segment_bytes: int = Field(ge=1)
    segment_digest: Digest = Field(description="SHA-256 of the bytes of the segment object")
    content_digest: Digest = Field(description="over positions, times, payload hashes and records; the same from any engine")
    incarnation: Incarnation = None
    complete: Literal[True] = Field(default=True, description="no position of the range is missing; nothing else is written")
    receipt_digest: Digest = Field(description="SHA-256 over the canonical bytes of all other fields")

    @classmethod
    def sealed(cls, **fields: Any) -> ArchiveReceipt:
        """A receipt of those fields, with its digest."""
        unsealed = cls.model_construct(**fields)
        return cls(**fields, receipt_digest=_digest(unsealed))

    @model_validator(mode="after")
    def _proven(self) -> Self:
        span = self.span  # refuses a reversed range
        if self.receipt_digest != _digest(self):
            raise ValueError("receipt_digest is not the digest of the receipt: it was changed after it was written")
        states_event_time = "event_time_max" in self.model_fields_set
        if states_event_time is not self.proves_event_times:
            raise ValueError(f"event_time_max belongs to contract version v1 and later, and this is {self.contract_version}")
        if states_event_time and (self.event_time_max is None) is not (self.records == 0):
            raise ValueError("event_time_max is null where no record is readable, and nowhere else")
        if self.records + self.unreadable > self.range_size:
            raise ValueError(f"{self.records} + {self.unreadable} records are more than a range of {self.range_size}")
        length = record_limit(span.first, span.end)
        if self.incarnation is not None and not self.has_gaps:
            raise ValueError(f"incarnation belongs to contract version v2, and this is {self.contract_version}")
        if self.has_gaps and length is None:
            raise ValueError("contract version v2 is of integers with gaps, and these offsets are no integers")
        if length is not None and not (0 if self.has_gaps else length) <= self.records + self.unreadable <= length:
            raise ValueError(f"{self.records} + {self.unreadable} records do not fill [{self.first}, {self.next})")
        return self

    @property
    def span(self) -> PartitionSpan:
        """The span that the segment holds."""
        return PartitionSpan(
            partition_id=self.partition_id,
            offset_kind=self.offset_kind,
            start=self.first,
            next=self.next,
            closed=self.closed,
        )

    @property
    def has_gaps(self) -> bool:
        """Whether positions of the span may have no record."""
        return self.contract_version == "v2"

    @property
    def proves_event_times(self) -> bool:
        """Whether `event_time_max` bounds the event times of the records."""
        return self.contract_version != "v0"

    def wire_bytes(self) -> bytes:
        """The RFC 8785 bytes of the receipt, which are the bytes of its object."""
        return canonical_bytes(_wire(self))


def _wire(receipt: ArchiveReceipt) -> dict[str, Any]:
    return receipt.model_dump(mode="json", exclude=set() if receipt.proves_event_times else {"event_time_max"})


def _digest(receipt: ArchiveReceipt) -> str:
    content = _wire(receipt)
    content.pop("receipt_digest", None)
    return digest_of(content)
