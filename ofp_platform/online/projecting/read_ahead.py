"""Records of a commit, read from the log and routed; where the log holds more, the next commit's while this one is written.

A commit waits for the database; a projector that is behind reads and routes meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ofp_platform.log.port import EventLog, ManyReader, PartitionRequest, RecordBatch, readable_partitions
from ofp_platform.log.span_records import up_to
from ofp_platform.online.projecting.record_intake import RecordIntake, RoutedRecords
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import Basis, PartitionBasis, place

LEAST_RECORDS = 10_000
"""Of a commit below which nothing is read beside it: a driver that keeps up commits fewer, and stays without a thread."""


@dataclass(frozen=True)
class ReadRequest:
    """Request for a reading: the records behind `basis`, at most `max_records`, in front of `until` where that is given."""

    basis: Basis
    max_records: int
    until: Basis | None = None


@dataclass(frozen=True, eq=False)
class Reading:
    """The records of one commit. `more`: there may be more behind them."""

    request: ReadRequest
    records: list[RoutedRecords]
    more: bool


class ReadAhead:
    """Reads for the projector of one run. Not safe for threads; its own thread ends with the block that began it."""

    def __init__(self, log: EventLog, intake: RecordIntake, pins: ContextPins, least: int = LEAST_RECORDS) -> None:
        self._log = log
        self._intake = intake
        self._pins = pins
        self._least = least
        self._read_ahead: Reading | None = None

    @property
    def is_ahead(self) -> bool:
        """Whether a reading is kept for the next request."""
        return self._read_ahead is not None

    def read(self, request: ReadRequest) -> Reading:
        """Read and route, unless that was done while the commit before was written."""
        reading_ahead, self._read_ahead = self._read_ahead, None
        return reading_ahead if reading_ahead is not None and reading_ahead.request == request else self._read(request)

    @contextmanager
    def beside(self, reading: Reading, after: Basis) -> Iterator[None]:
        """While the block writes `reading`, which ends at `after`, read what the next commit will apply.

        Nothing is kept of a reading that failed or found nothing: whoever reads next meets the same error, or what came since.
        """
        if not reading.more or sum(len(part.batch) for part in reading.records) < self._least:
            yield
            return
        with ThreadPoolExecutor(1) as pool:
            coming = pool.submit(self._read, replace(reading.request, basis=after))
            yield
        if coming.exception() is None and coming.result().records:
            self._read_ahead = coming.result()

    def _read(self, request: ReadRequest) -> Reading:
        batches, more = read_batches(self._log, request)
        return Reading(request, [self._intake.route(self._pins, batch) for batch in batches], more)


def read_batches(log: EventLog, request: ReadRequest) -> tuple[list[RecordBatch], bool]:
    """The records asked for, spread over the partitions; whether any partition may hold more.

    Partitions that `until` does not name are left alone. A log that reads many partitions for the price of one is asked once
    how much each of them holds, and then read once.
    """
    known_parts = request.basis.by_partition()
    bounds = None if request.until is None else request.until.by_partition()
    names = readable_partitions(log.partitions(), request.basis)
    # from the first record that ever was, not the oldest kept
    starts = [known_parts.get(name, log.position_kind.start(name)) for name in names]
    parts = [(part, len(names) - number) for number, part in enumerate(starts) if bounds is None or part.partition_id in bounds]
    reading = _read_many if len(parts) > 1 and isinstance(log, ManyReader) and log.reads_many else _read_in_turn
    batches = []
    more = False
    for part, share, batch in reading(log, request, parts):
        more = more or len(batch) == share
        batch_in_bounds = batch if bounds is None else up_to(batch, bounds[part.partition_id])
        if place(batch_in_bounds.next) > place(part) or batch_in_bounds.next.closed:
            batches.append(batch_in_bounds)
    return batches, more


_Parts = Sequence[tuple[PartitionBasis, int]]  # where to begin, and among how many partitions it shares with those behind it
_SharedBatches = Iterator[tuple[PartitionBasis, int, RecordBatch]]


def _read_in_turn(log: EventLog, request: ReadRequest, parts: _Parts) -> _SharedBatches:
    """Each partition with its share of the records, and what it holds of them: what one leaves over, the next ones share."""
    bounds = None if request.until is None else request.until.by_partition()
    records_left = request.max_records
    for part, sharers in parts:
        if records_left <= 0:
            return
        share = max(1, records_left // sharers)
        batch = log.read(part.partition_id, part, share)
        yield part, share, batch
        records_left -= len(batch if bounds is None else up_to(batch, bounds[part.partition_id]))


def _read_many(log: EventLog, request: ReadRequest, parts: _Parts) -> _SharedBatches:
    """The same of a log with dense positions, whose heads tell beforehand what each partition will leave over."""
    assert isinstance(log, ManyReader)
    ends = log.ends().by_partition()
    if request.until is not None:
        ends = {name: min(ends.get(name, bound), bound, key=place) for name, bound in request.until.by_partition().items()}
    records_left = request.max_records
    requests: list[PartitionRequest] = []
    for part, sharers in parts:
        if records_left <= 0:
            break
        requests.append(PartitionRequest(part, max(1, records_left // sharers)))
        waiting = int(ends[part.partition_id].offset) - int(part.offset) if part.partition_id in ends else 0
        records_left -= min(max(waiting, 0), requests[-1].max_records)
    # also of a partition that seems to hold nothing: a head behind the basis is an error, not an end
    for partition_request, batch in zip(requests, log.read_many(requests), strict=True):
        yield partition_request.basis, partition_request.max_records, batch
