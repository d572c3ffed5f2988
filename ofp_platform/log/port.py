"""The event log as the rest of the plane sees it: append, read by partition, ends, floor, wait."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any, Protocol, runtime_checkable

import numpy as np
import orjson
from numpy.typing import NDArray

from ofp_platform.log.incarnations import LogHistory
from ofp_platform.vocabulary.columns import EventColumns, Int64
from ofp_platform.vocabulary.envelope import Envelope, read_amends
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import Basis, OffsetKind, PartitionBasis, Position, PositionKind
from ofp_platform.vocabulary.times import format_time

_ACCEPT = "`ofp log accept {} --reason TEXT`"
AdmissionClock = Callable[[Envelope], int]
Candidate = Envelope | Mapping[str, Any]


class LogError(Exception):
    """Something about a log that the caller has to know."""


class StreamNotFound(LogError):
    """There is no stream of that name."""


class PartitionNotFound(LogError):
    """The stream has no partition of that id."""


class LogRefused(LogError):
    """Reading cannot go on without a gap, or possibly with one; another attempt changes nothing, an operator does."""


class PositionTrimmed(LogRefused):
    """The position is behind the retention floor: records between it and the floor are gone from this log."""


class PartitionVanished(LogRefused):
    """A partition that is known, and not read to its end, is listed no more: what followed in it is a gap, not an end."""


class PositionUnknown(LogRefused):
    """The position is past the head: it belongs to another log, or this one lost records."""


class LogTailLost(LogRefused):
    """The log ends before what a basis, a reader or the archive has seen of it: a recovery lost its newest records."""


class LogMisconfigured(LogRefused):
    """Settings of the log could lose records unseen or change them, or lead to no log; an operator mends them."""


class LogUnavailable(LogError):
    """The log does not answer; the same call may be made again. After an append it is not known whether it counted."""


class LogUnsettled(LogUnavailable):
    """A recovery may have taken records from the log, and nobody has settled that yet: nothing is appended before."""


class RefusalReason(StrEnum):
    """Why a record was not appended, from a closed list. Only LOG_UNAVAILABLE is worth another attempt."""

    INVALID_ENVELOPE = "INVALID_ENVELOPE"
    INVALID_TIME = "INVALID_TIME"
    NOT_I_JSON = "NOT_I_JSON"
    RAW_IDENTIFIER = "RAW_IDENTIFIER"
    RECORD_TOO_LARGE = "RECORD_TOO_LARGE"
    MISSING_PARTITION_KEY = "MISSING_PARTITION_KEY"
    AGGREGATED_RECORD = "AGGREGATED_RECORD"
    LOG_UNAVAILABLE = "LOG_UNAVAILABLE"


@dataclass(frozen=True, slots=True)
class RecordRefusal:
    """One record that was not appended: its index in the batch, why, and which field. Never a value."""

    index: int
    reason: RefusalReason
    message: str


@dataclass(frozen=True)
class AppendReceipt:
    """Outcome of each record of one append, in the order of the batch.

    `placed` holds `(partition_id, offset)` or the refusal; the records that were placed are of `incarnation`.
    """

    stream_name: str
    placed: Sequence[tuple[str, int | str] | RecordRefusal]
    incarnation: str | None = None

    @cached_property
    def outcomes(self) -> list[Position | RecordRefusal]:
        """A position or a refusal for each record."""
        return [
            item
            if isinstance(item, RecordRefusal)
            else Position(stream_name=self.stream_name, partition_id=item[0], offset=item[1], incarnation=self.incarnation)
            for item in self.placed
        ]

    @cached_property
    def refusals(self) -> list[RecordRefusal]:
        """The refusals only."""
        return [item for item in self.placed if isinstance(item, RecordRefusal)]

    @property
    def appended(self) -> int:
        """How many records were appended."""
        return len(self.placed) - len(self.refusals)


@dataclass(frozen=True, slots=True)
class PartitionInfo:
    """One partition. `parents` must be read to their end first; `closed`: nothing is appended any more.

    `unlisted_parents` are those that the log lists no more: who did not read them to their end lacks their records.
    """

    partition_id: str
    parents: tuple[str, ...] = ()
    closed: bool = False
    unlisted_parents: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class UnreadableRecord:
    """A record that somebody else put into the log and that is no envelope: an apply failure, never a gap."""

    offset: int | str
    reason: RefusalReason
    message: str


@dataclass(frozen=True, eq=False, slots=True)
class RecordBatch:
    """Records of one partition in offset order, in columns of equal length n.

    Times are int64 microseconds; `payload_hashes` are 32 bytes each, `payloads` the RFC 8785 bytes, `amends` those of what an
    amendment amends (None: the record is none); the pins of record i are `pins[pins_index[i]]`. `next` is the basis after this
    batch and after `unreadable`, whose records are not in the columns: a batch of length 0 may still move the basis.
    """

    partition_id: str
    offsets: list[int | str]
    admitted_at: NDArray[np.int64]
    event_ids: list[str]
    event_types: list[str]
    schema_versions: list[str]
    ts: NDArray[np.int64]
    emitted_at: list[int | None]
    pins: list[ContextPins]
    pins_index: NDArray[np.int32]
    payload_hashes: list[bytes]
    payloads: list[bytes]
    amends: list[bytes | None]
    next: PartitionBasis
    unreadable: tuple[UnreadableRecord, ...] = ()

    def __len__(self) -> int:
        return len(self.offsets)

    def envelope(self, index: int) -> Envelope:
        """The envelope of one record, as it was admitted."""
        emitted, amends = self.emitted_at[index], self.amends[index]
        return Envelope(
            event_id=self.event_ids[index],
            event_type=self.event_types[index],
            schema_version=self.schema_versions[index],
            ts_utc=format_time(int(self.ts[index])),
            emitted_at_utc=None if emitted is None else format_time(emitted),
            amends=None if amends is None else read_amends(amends),
            payload=orjson.loads(self.payloads[index]),
            **dict(self.pins[self.pins_index[index]]),
        )


def empty_batch(at: PartitionBasis, unreadable: tuple[UnreadableRecord, ...] = ()) -> RecordBatch:
    """No records, and `at` as the basis after them."""
    none = np.empty(0, np.int64)
    return RecordBatch(
        at.partition_id, [], none, [], [], [], none.copy(), [], [], np.empty(0, np.int32), [], [], [], at, unreadable
    )


class EventLog(Protocol):
    """One stream. Every method may raise `LogUnavailable`."""

    @property
    def stream_name(self) -> str:
        """Its name."""

    @property
    def position_kind(self) -> PositionKind:
        """How it numbers its records."""

    @property
    def history(self) -> LogHistory:
        """Its incarnations, as they were last seen."""

    def demand_settled(self) -> None:
        """Refuse a log that a recovery may have taken records from, and of which nobody has settled that yet.

        Raises:
            LogTailLost: see there.
        """

    @property
    def poll_seconds(self) -> float:
        """Pause of a reader that has read all, between two questions. 0: asking costs nobody, and appends wake who waits."""

    def partitions(self) -> list[PartitionInfo]:
        """All partitions that can be read, in the order of their ids."""

    def append(self, envelopes: Sequence[Candidate], clock: AdmissionClock | None = None) -> AppendReceipt:
        """Validate and append; every record ends appended or refused with a reason.

        `clock` gives the admission time (microseconds) of an envelope; None is the broker's own time.
        """

    def append_columns(self, columns: EventColumns, admitted_at: Int64) -> AppendReceipt:
        """Validate and append many records at once; admitted_at is int64[n], microseconds, the admission time of each.

        The log is left as `append(list(columns.records()), clock)` leaves it, with a clock that tells those times, and the
        receipt is the same.

        Raises:
            ValueError: the times are not one for each record, or lie outside the years 1 to 9999; nothing was appended.
        """

    def read(self, partition_id: str, basis: PartitionBasis | None, max_records: int) -> RecordBatch:
        """At most `max_records` from the basis on. At the head: none, and `next == basis`.

        None reads from the oldest record that is kept; the basis before the first record reads from the first that ever was.
        The records of one batch are of one incarnation, that of `next`.

        Raises:
            PositionTrimmed | PositionUnknown | PartitionNotFound: see there.
            ValueError: a basis of another partition or offset kind, or `max_records` < 1.
        """

    def ends(self) -> Basis:
        """The head of every partition: all that is in the log now."""

    def retention_floor(self) -> Basis:
        """The oldest position of every partition that can still be read from."""

    def ordinal_lag(self, basis: Basis) -> dict[str, int]:
        """Records behind the basis, per partition (Kinesis: at least, Kafka: at most). A partition not in it counts whole."""

    def demand(self, basis: Basis) -> None:
        """Refuse a basis that the log does not lead on from: where reading on would skip records, or could.

        Raises:
            PositionTrimmed | PositionUnknown | LogTailLost | PartitionVanished: see there; the text names the partition.
        """

    def accepted_ends(self) -> dict[str, PartitionBasis]:
        """The ends of partitions that are listed no more and that an operator decided have ended there."""

    def retention_used(self, basis: Basis) -> dict[str, float]:
        """Per partition, the age of the oldest record behind the basis as a part of the retention; 0: nothing is behind it.

        Empty where the log keeps everything until somebody trims it.
        """

    def wait(self, basis: Basis, timeout_seconds: float) -> bool:
        """True as soon as a record is behind the basis; False when none came in time."""

    def seen_lag(self) -> dict[str, int] | None:
        """Records behind the basis of the last `wait`, per partition, as that saw them; None: it does not know."""

    def pauses_end_with(self, stop: threading.Event) -> AbstractContextManager[None]:
        """Inside the block, pauses between questions and attempts end when `stop` is set: with LogUnavailable."""

    def close(self) -> None:
        """Give back the connections that are this log's alone; it is not used afterwards."""


@dataclass(frozen=True, slots=True)
class PartitionRequest:
    """Request for at most `max_records` of a partition from the basis on."""

    basis: PartitionBasis
    max_records: int


@runtime_checkable
class ManyReader(Protocol):
    """A log that reads many partitions for the price of one."""

    @property
    def reads_many(self) -> bool:
        """Whether it does; a log in front of another one does as that one does."""

    def read_many(self, requests: Sequence[PartitionRequest]) -> list[RecordBatch]:
        """`EventLog.read` of each request, no two of one partition, in their order; all or an error of one of them."""


def checked_start(partition_id: str, basis: PartitionBasis | None, kind: OffsetKind, max_records: int) -> None:
    """Refuse arguments of `read` that cannot mean anything on this log.

    Raises:
        ValueError: see `EventLog.read`.
    """
    if max_records < 1:
        raise ValueError(f"max_records must be at least 1, not {max_records}")
    if basis is None:
        return
    if basis.partition_id != partition_id:
        raise ValueError(f"the basis is of partition {basis.partition_id!r}, not {partition_id!r}")
    if basis.offset_kind is not kind or not kind.matches(basis.offset):
        raise ValueError(f"the basis of partition {partition_id!r} is not of offset kind {kind.value!r}")


def readable_partitions(partitions: Iterable[PartitionInfo], basis: Basis) -> list[str]:
    """The partitions to read now: not read to their end, and with every parent read to its end.

    A key moves from a parent to its children when a shard splits: a child read earlier would be read out of order.

    Raises:
        PartitionVanished: see `demand_listed`.
    """
    infos = list(partitions)
    known_parts = basis.by_partition()
    demand_listed(basis.stream_name, infos, known_parts)
    ended_ids = {name for name, part in known_parts.items() if part.closed}
    return [
        info.partition_id
        for info in infos
        if info.partition_id not in ended_ids and all(name in ended_ids for name in info.parents)
    ]


def demand_listed(stream_name: str, infos: Sequence[PartitionInfo], known_parts: Mapping[str, PartitionBasis]) -> None:
    """Refuse a log that lists a partition no more that has not been read to its end.

    Known partitions are those of a basis (or of an archive), and the parents of what is listed and not begun.

    Raises:
        PartitionVanished: it names the first of them.
    """
    names = {info.partition_id for info in infos}
    for name, part in sorted(known_parts.items()):
        if name not in names and not part.closed:
            raise PartitionVanished(
                f"partition {name!r} of {stream_name!r} is known up to {part.offset or 'its start'}, did not end there, and is"
                " listed no more: what followed in it is lost here, and whether anything did cannot be told. The archive may"
                f" hold it; else an operator who knows says so: {_ACCEPT.format(name)}"
            )
    for info in infos:
        for parent in info.unlisted_parents:
            # of a partition that is being read they were settled when that began
            if parent not in names and parent not in known_parts and info.partition_id not in known_parts:
                raise PartitionVanished(
                    f"partition {info.partition_id!r} of {stream_name!r} came out of {parent!r}, which is listed no more and was"
                    " never read: its records are lost here. The archive may hold them; else an operator who knows says so:"
                    f" {_ACCEPT.format(parent)}"
                )
