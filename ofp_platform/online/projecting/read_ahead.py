"""Records of a commit, read from the log and routed; where the log holds more, the next commit's while this one is written.

A commit waits for the database; a projector that is behind reads and routes meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace

from ofp_platform.log.port import EventLog, RecordBatch, readable_partitions
from ofp_platform.log.span_records import up_to
from ofp_platform.online.projecting.record_intake import RecordIntake, RoutedRecords
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import Basis, place

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

    Partitions that `until` does not name are left alone.
    """
    known_parts = request.basis.by_partition()
    names = readable_partitions(log.partitions(), request.basis)
    bounds = None if request.until is None else request.until.by_partition()
    batches = []
    more = False
    records_left = request.max_records
    for number, name in enumerate(names):
        share = max(1, records_left // (len(names) - number))
        bound = None if bounds is None else bounds.get(name)
        if records_left <= 0 or (bounds is not None and bound is None):
            continue
        part = known_parts.get(name, log.position_kind.start(name))  # the first record that ever was, not the oldest kept
        batch = log.read(name, part, share)
        more = more or len(batch) == share
        if bound is not None:
            batch = up_to(batch, bound)
        if place(batch.next) > place(part) or batch.next.closed:
            batches.append(batch)
            records_left -= len(batch)
    return batches, more
