"""A log in memory whose shards split and merge as those of Kinesis do: sparse offsets, parents to read first, shards that end.

It stands in for Kinesis where a hundred thousand logs are needed; `log/test_conformance` holds the real one to the same port.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from ofp_platform.log.incarnations import ONE_HISTORY, LogHistory
from ofp_platform.log.port import (
    AdmissionClock,
    AppendReceipt,
    Candidate,
    PartitionInfo,
    RecordBatch,
    checked_start,
    readable_partitions,
)
from ofp_platform.vocabulary.columns import EventColumns, Int64
from ofp_platform.vocabulary.position import SEQUENCE_TOKENS, Basis, PartitionBasis, make_basis, order
from ofp_platform_tests.oracle.fold import Record
from ofp_platform_tests.oracle.record_columns import record_batch


@dataclass(frozen=True)
class Shard:
    """One shard: its name, those that it came out of, and whether it ended."""

    name: str
    parents: tuple[str, ...]
    ended: bool


class ShardLog:
    """The records of one world in its shards. The offset of a record is `tokens[shard][ordinal]`."""

    position_kind = SEQUENCE_TOKENS
    poll_seconds = 0.0

    def __init__(
        self, stream_name: str, shards: Sequence[Shard], records: Sequence[Record], tokens: Mapping[str, Sequence[str]]
    ) -> None:
        self.stream_name = stream_name
        self._shards = {shard.name: shard for shard in shards}
        self._tokens = tokens
        self._records: dict[str, list[Record]] = {shard.name: [] for shard in shards}
        for record in records:
            self._records[record.partition_id].append(record)

    def partitions(self) -> list[PartitionInfo]:
        """See `EventLog`."""
        return [PartitionInfo(name, shard.parents, shard.ended) for name, shard in sorted(self._shards.items())]

    def read(self, partition_id: str, basis: PartitionBasis | None, max_records: int) -> RecordBatch:
        """See `EventLog`."""
        checked_start(partition_id, basis, self.position_kind.offset_kind, max_records)
        start = 0 if basis is None else self.ordinal(basis)
        own = self._records[partition_id][start : start + max_records]
        tokens = self._tokens[partition_id]
        return record_batch(own, [tokens[one.offset] for one in own], self.at(partition_id, start + len(own)))

    def at(self, partition_id: str, count: int) -> PartitionBasis:
        """The basis of a shard with that many records in it."""
        token = self._tokens[partition_id][count - 1] if count else ""
        closed = self._shards[partition_id].ended and count == len(self._records[partition_id])
        return self.position_kind.basis(partition_id, token, closed=closed)

    def ordinal(self, part: PartitionBasis) -> int:
        """How many records of its shard a basis holds."""
        return sum(1 for token in self._tokens[part.partition_id] if order(token) <= order(part.offset))

    def ends(self) -> Basis:
        """See `EventLog`."""
        return make_basis(self.stream_name, {name: self.at(name, len(own)) for name, own in self._records.items()})

    def retention_floor(self) -> Basis:
        """See `EventLog`."""
        return make_basis(self.stream_name, {name: self.at(name, 0) for name in self._records})

    def ordinal_lag(self, basis: Basis) -> dict[str, int]:
        """See `EventLog`."""
        known = basis.by_partition()
        return {name: len(own) - (self.ordinal(known[name]) if name in known else 0) for name, own in self._records.items()}

    def demand(self, basis: Basis) -> None:
        """See `EventLog`."""
        for name in readable_partitions(self.partitions(), basis):
            self.read(name, basis.by_partition().get(name, self.position_kind.start(name)), 1)

    def accepted_ends(self) -> dict[str, PartitionBasis]:
        """See `EventLog.accepted_ends`."""
        return {}

    @property
    def history(self) -> LogHistory:
        """See `EventLog`."""
        return ONE_HISTORY

    def demand_settled(self) -> None:
        """See `EventLog`."""

    def retention_used(self, basis: Basis) -> dict[str, float]:
        """See `EventLog.retention_used`."""
        return {}

    def wait(self, basis: Basis, timeout_seconds: float) -> bool:
        """Whether anything is behind the basis: nothing is ever appended while somebody waits."""
        return any(self.ordinal_lag(basis).values())

    def append(self, envelopes: Sequence[Candidate], clock: AdmissionClock | None = None) -> AppendReceipt:
        """Refused."""
        raise NotImplementedError("a ShardLog is made with its records")

    def append_columns(self, columns: EventColumns, admitted_at: Int64) -> AppendReceipt:
        """Refused."""
        raise NotImplementedError("a ShardLog is made with its records")

    def seen_lag(self) -> dict[str, int] | None:
        """See `EventLog.seen_lag`: it is asked for."""
        return None

    @contextmanager
    def pauses_end_with(self, stop: threading.Event) -> Iterator[None]:
        """See `EventLog.pauses_end_with`: it has none."""
        yield

    def close(self) -> None:
        """Nothing to give back."""
