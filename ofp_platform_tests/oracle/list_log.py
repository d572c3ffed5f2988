"""A log that is a list: one partition, dense or sparse, with records that can be lost, changed or unreadable on demand."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import numpy as np
from hypothesis import strategies as st

from ofp_platform.log.incarnations import ONE_HISTORY, LogHistory
from ofp_platform.log.port import (
    AdmissionClock,
    AppendReceipt,
    Candidate,
    PartitionInfo,
    PositionTrimmed,
    PositionUnknown,
    RecordBatch,
    RefusalReason,
    UnreadableRecord,
    checked_start,
    readable_partitions,
)
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.columns import FIRST_MOMENT, LAST_MOMENT, EventColumns, Int64, time_texts
from ofp_platform.vocabulary.envelope import hash_of_parts, ijson_bytes
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.replay_basis import PartitionSpan
from ofp_platform.vocabulary.position import (
    Basis,
    OffsetKind,
    PartitionBasis,
    PositionKind,
    make_basis,
    order,
    place,
)

PARTITION = "shard:0/a"  # an id with everything that a path has to stand
STREAM = "a-stream"
RUNS = [
    ContextPins(scenario_id="one", run_id="r", manifest_fingerprint="ab" * 32, parameter_hash="cd" * 32, seed=1),
    ContextPins(scenario_id="two", run_id="r", manifest_fingerprint="ab" * 32, parameter_hash="cd" * 32),
]


AMENDS = tuple(
    b'{"event_class":"card","event_id":"e-1","kind":"%b","ts_utc":"2024-05-01T10:00:00Z"}' % kind
    for kind in (b"void", b"replace")
)


@dataclass(frozen=True)
class ListedRecord:
    """One record; times in microseconds, `pins` an index into RUNS, `amends` RFC 8785 bytes. Not `readable`: no envelope."""

    event_id: str
    event_type: str = "card_authorisation"
    schema_version: str = "v1"
    ts: int = 1_714_557_600_000_000
    admitted_at: int = 1_714_557_601_000_000
    emitted_at: int | None = None
    pins: int = 0
    payload: bytes = b"{}"
    amends: bytes | None = None
    readable: bool = True

    @property
    def payload_hash(self) -> bytes:
        """As the envelope would have it."""
        ts_text = time_texts(np.array([self.ts], np.int64))[0]
        pins = canonical_bytes(RUNS[self.pins].wire())
        return hash_of_parts(self.event_type, self.schema_version, ts_text, pins, self.payload, self.amends)


@dataclass
class ListLog:
    """See the module; `floor` and `ended` may be set, `steps` is how far apart sparse offsets are."""

    records: list[ListedRecord]
    offset_kind: OffsetKind = OffsetKind.EXCLUSIVE_NEXT
    floor: int = 0
    ended: bool = False
    steps: int = 1_000_003
    stream_name: str = STREAM
    reads: list[int | str] = field(default_factory=list)
    has_gaps: bool = False  # of integers

    poll_seconds = 0.0

    @property
    def position_kind(self) -> PositionKind:
        """The log's kind of positions."""
        return PositionKind(self.offset_kind, has_gaps=self.has_gaps or not self.offset_kind.is_integer)

    @property
    def is_dense(self) -> bool:
        return self.position_kind.is_countable

    def offset(self, ordinal: int) -> int | str:
        """Of the record of that ordinal."""
        number = 95 + ordinal * self.steps  # one number is shorter: text order is another
        return ordinal if self.is_dense else self.offset_kind.parse(str(number))

    def at(self, ordinal: int) -> PartitionBasis:
        """The basis with that many records in it."""
        start = self.position_kind.start(PARTITION)
        return start.after(self.offset(ordinal - 1)) if ordinal else start

    def span(self, first: int, following: int) -> PartitionSpan:
        """The records of the ordinals [first, following)."""
        ends = self.at(first).offset, self.at(following).offset
        return PartitionSpan(partition_id=PARTITION, offset_kind=self.offset_kind, start=ends[0], next=ends[1])

    def change(self, ordinal: int, **fields: object) -> None:
        """Make another record of one."""
        self.records[ordinal] = replace(self.records[ordinal], **fields)  # type: ignore[arg-type]

    @property
    def history(self) -> LogHistory:
        """See `EventLog`."""
        return ONE_HISTORY

    def demand_settled(self) -> None:
        """See `EventLog`."""

    def partitions(self) -> list[PartitionInfo]:
        return [PartitionInfo(PARTITION, closed=self.ended)]

    def append(self, envelopes: Sequence[Candidate], clock: AdmissionClock | None = None) -> AppendReceipt:
        raise NotImplementedError("a ListLog is made with its records")

    def append_columns(self, columns: EventColumns, admitted_at: Int64) -> AppendReceipt:
        raise NotImplementedError("a ListLog is made with its records")

    def seen_lag(self) -> dict[str, int] | None:
        """See `EventLog.seen_lag`: it is asked for."""
        return None

    @contextmanager
    def pauses_end_with(self, stop: threading.Event) -> Iterator[None]:
        """See `EventLog.pauses_end_with`: it has none."""
        yield

    def close(self) -> None:
        pass

    def read(self, partition_id: str, basis: PartitionBasis | None, max_records: int) -> RecordBatch:
        checked_start(partition_id, basis, self.offset_kind, max_records)
        start = self.floor if basis is None or basis.offset == "" else self._ordinal(basis)
        self.reads.append(self.at(start).offset)
        if start < self.floor:
            raise PositionTrimmed(f"{start} is gone")
        if start > len(self.records):
            raise PositionUnknown(f"{start} is ahead")
        stop = min(start + max_records, len(self.records))
        after = self.at(stop).model_copy(update={"closed": self.ended and stop == len(self.records)})
        numbered = [(self.offset(n), self.records[n]) for n in range(start, stop)]
        unreadable = tuple(
            UnreadableRecord(offset, RefusalReason.NOT_I_JSON, f"no envelope at {offset}")
            for offset, record in numbered
            if not record.readable
        )
        return batch_of([(offset, record) for offset, record in numbered if record.readable], after, unreadable)

    def _ordinal(self, basis: PartitionBasis) -> int:
        if self.is_dense:
            return order(basis.offset)
        return next((n for n in range(len(self.records)) if order(self.offset(n)) > place(basis)), len(self.records))

    def ends(self) -> Basis:
        end = self.at(len(self.records)).model_copy(update={"closed": self.ended})
        return make_basis(self.stream_name, {PARTITION: end})

    def retention_floor(self) -> Basis:
        return make_basis(self.stream_name, {PARTITION: self.at(self.floor if self.is_dense else 0)})

    def ordinal_lag(self, basis: Basis) -> dict[str, int]:
        raise NotImplementedError("nobody waits for a ListLog")

    def demand(self, basis: Basis) -> None:
        """See `EventLog`."""
        for name in readable_partitions(self.partitions(), basis):
            self.read(name, basis.by_partition().get(name, self.position_kind.start(name)), 1)

    def accepted_ends(self) -> dict[str, PartitionBasis]:
        """See `EventLog.accepted_ends`."""
        return {}

    def retention_used(self, basis: Basis) -> dict[str, float]:
        """See `EventLog.retention_used`."""
        return {}

    def wait(self, basis: Basis, timeout_seconds: float) -> bool:
        raise NotImplementedError("nobody waits for a ListLog")


def batch_of(
    numbered: Sequence[tuple[int | str, ListedRecord]], after: PartitionBasis, unreadable: tuple[UnreadableRecord, ...] = ()
) -> RecordBatch:
    """The records as a batch."""
    records = [record for _, record in numbered]
    return RecordBatch(
        after.partition_id,
        [offset for offset, _ in numbered],
        np.array([record.admitted_at for record in records], np.int64),
        [record.event_id for record in records],
        [record.event_type for record in records],
        [record.schema_version for record in records],
        np.array([record.ts for record in records], np.int64),
        [record.emitted_at for record in records],
        RUNS,
        np.array([record.pins for record in records], np.int32),
        [record.payload_hash for record in records],
        [record.payload for record in records],
        [record.amends for record in records],
        after,
        unreadable,
    )


Row = tuple[object, ...]


def rows_of(batches: Sequence[RecordBatch]) -> list[Row]:
    """Everything that batches say about their records and unreadable positions, in the order of the positions."""
    found: list[tuple[int, Row]] = []
    for batch in batches:
        for index, offset in enumerate(batch.offsets):
            row = (
                offset,
                int(batch.admitted_at[index]),
                batch.event_ids[index],
                batch.event_types[index],
                batch.schema_versions[index],
                int(batch.ts[index]),
                batch.emitted_at[index],
                batch.pins[batch.pins_index[index]],
                batch.payload_hashes[index],
                batch.payloads[index],
                batch.amends[index],
            )
            found.append((order(offset), row))
        found += [(order(one.offset), (one.offset, one.reason, one.message)) for one in batch.unreadable]
    return [row for _, row in sorted(found, key=lambda item: item[0])]


_moments = st.integers(FIRST_MOMENT, LAST_MOMENT)
_payloads = st.dictionaries(st.text(max_size=3), st.text(max_size=5) | st.integers(-99, 99) | st.floats(-1, 1), max_size=3)
listed_records = st.builds(
    ListedRecord,
    event_id=st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_.:/-]{0,9}", fullmatch=True),
    event_type=st.sampled_from(["card_authorisation", "refund", "a.b_c"]),
    schema_version=st.sampled_from(["v1", "2.0"]),
    ts=_moments,
    admitted_at=_moments,
    emitted_at=st.none() | _moments,
    pins=st.integers(0, len(RUNS) - 1),
    payload=_payloads.map(ijson_bytes),
    amends=st.sampled_from([None, None, None, *AMENDS]),
    readable=st.sampled_from([True, True, True, False]),
)
list_logs = st.builds(
    ListLog,
    records=st.lists(listed_records, max_size=12),
    offset_kind=st.sampled_from(list(OffsetKind)),
    ended=st.booleans(),
)


def listed(count: int, kind: OffsetKind = OffsetKind.EXCLUSIVE_NEXT, *, unreadable: Sequence[int] = ()) -> ListLog:
    """A log of that many plain records."""
    records = [
        ListedRecord(
            f"txn-{n:06d}",
            ts=1_714_557_600_000_000 + n,
            admitted_at=1_714_557_601_000_000 + n,
            payload=b'{"amount_minor":%d}' % n,
            readable=n not in unreadable,
        )
        for n in range(count)
    ]
    return ListLog(records, kind)
