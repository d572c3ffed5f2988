"""The streamer: sends the events of a sealed world to the door of a run, output by output in their order, paced by event time.

All outputs go on together: the one whose next event is the earliest is next. After each batch its place is kept, so a streamer
that was cut off sends again what followed; what of it was admitted is a DUPLICATE. Times are the world's own, never rewritten.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import orjson
import pyarrow as pa

from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.columns import time_texts
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.times import MICROS_PER_SECOND
from ofp_platform.vocabulary.world import OutputRole
from ofp_platform.world.world_rows import WorldFault, moments
from ofp_platform.world.world_store import World

BATCH_RECORDS = 1_000
_BATCH_SECONDS = 0.1
"""How much of its paced time a batch may hold back."""
_ABSENT = int(np.iinfo(np.int64).min)
_PLACE = "SELECT rows_sent FROM ofp.stream_checkpoint WHERE (pins_digest, manifest_digest, output) = (%s, %s, %s)"
_KEEP = """
    INSERT INTO ofp.stream_checkpoint (pins_digest, manifest_digest, output, rows_sent) VALUES (%s, %s, %s, %s)
    ON CONFLICT (pins_digest, manifest_digest, output) DO UPDATE SET rows_sent = excluded.rows_sent"""


class Send(Protocol):
    """Sends a batch of envelopes with their declared times of admission (None: the broker's own); counts by outcome."""

    def __call__(self, envelopes: Sequence[Mapping[str, Any]], admitted_at: Sequence[int] | None) -> Mapping[str, int]:
        """Returns when the batch is durable; raises where nothing is known about it, or where it is refused."""


@dataclass(frozen=True)
class SentBatch:
    """Rows of an output as a door takes them. `times`: what they are ordered and paced by, microseconds; `arrived_at`: the times
    of admission that are declared, if any are.
    """

    output: str
    first_row: int
    envelopes: list[dict[str, Any]]
    times: list[int]
    arrived_at: list[int] | None


@dataclass
class StreamTally:
    """Counts of rows. `resumed_rows`: those that were sent before; `outcomes` counts what became of the others."""

    rows: int = 0
    resumed_rows: int = 0
    sent_rows: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Pace:
    """Event time over `speedup`; 0: as fast as it goes. `clock` gives seconds, `sleep` waits so many."""

    speedup: float
    clock: Callable[[], float]
    sleep: Callable[[float], None]

    @property
    def batch_us(self) -> int | None:
        """The event time that one batch may span, microseconds; None: any."""
        return max(1, int(_BATCH_SECONDS * self.speedup * MICROS_PER_SECOND)) if self.speedup else None

    def waits(self) -> Callable[[int], None]:
        """A function that waits until an event time (microseconds) is due, counted from the first that it is called with."""
        first: list[tuple[int, float]] = []

        def wait(ts: int) -> None:
            if not self.speedup:
                return
            if not first:
                first.append((ts, self.clock()))
            due = first[0][1] + (ts - first[0][0]) / MICROS_PER_SECOND / self.speedup
            if (left_seconds := due - self.clock()) > 0:
                self.sleep(left_seconds)

        return wait


@dataclass(frozen=True)
class Streamer:
    """Of one world to the door of one run.

    `as_arrived`: records come in the order in which they arrived in the simulation or history, and are declared to be admitted
    then; all events of an output are in memory. Else in that of their event time, admitted when they come. `batch_records`: sent
    together, at most.
    """

    world: World
    pins: ContextPins
    pool: Pool
    send: Send
    pace: Pace
    as_arrived: bool
    only_outputs: Sequence[str] | None = None
    batch_records: int = BATCH_RECORDS

    def outputs(self) -> list[str]:
        """The outputs that are streamed: those of `only_outputs`, or all; truth never is.

        Raises:
            WorldFault: there is none.
        """
        names = [item.output for item in self.world.manifest.outputs if item.role is not OutputRole.TRUTH]
        if self.only_outputs is not None:
            names = [name for name in names if name in self.only_outputs]
        if not names:
            raise WorldFault(f"world {self.world.manifest.world} holds nothing that is streamed")
        return names

    def run(self, tally: StreamTally | None = None, advance: Callable[[int], None] = lambda _: None) -> StreamTally:
        """Send everything that is not sent yet. `tally` counts also when it is interrupted.

        Raises:
            WorldFault: the world is not as it was sealed, or has no arrivals to declare. What `send` raises: the place is kept.
        """
        tally = StreamTally() if tally is None else tally
        waits = self.pace.waits()
        queues: dict[str, Iterator[SentBatch]] = {}
        heads: dict[str, SentBatch] = {}
        for output in self.outputs():
            rows_sent = self._place(output)
            tally.resumed_rows += rows_sent
            advance(rows_sent)
            queues[output] = self._batches(output, rows_sent)
            if (batch := next(queues[output], None)) is not None:
                heads[output] = batch
        while heads:
            batch = min(heads.values(), key=lambda head: (head.times[0], head.output))
            waits(batch.times[-1])
            tally.outcomes.update(self.send(batch.envelopes, batch.arrived_at))
            self._keep(batch.output, batch.first_row + len(batch.times))
            tally.sent_rows += len(batch.times)
            advance(len(batch.times))
            following = next(queues[batch.output], None)
            if following is None:
                del heads[batch.output]
            else:
                heads[batch.output] = following
        tally.rows = tally.resumed_rows + tally.sent_rows
        return tally

    def _batches(self, output: str, skipped_rows: int) -> Iterator[SentBatch]:
        own_pins, row = self.pins.wire(), 0
        for table in self._tables(output):
            if row + len(table) > skipped_rows:
                times = np.asarray(_moments(table, "arrived_at_utc" if self.as_arrived else "ts_utc"), np.int64)
                begin = max(skipped_rows - row, 0)
                while begin < len(table):
                    end = begin + self.batch_records
                    if (span := self.pace.batch_us) is not None:
                        end = min(end, int(np.searchsorted(times, times[begin] + span, side="right")))
                    yield self._batch(output, row + begin, table.slice(begin, end - begin), own_pins)
                    begin = end
            row += len(table)

    def _tables(self, output: str) -> Iterator[pa.Table]:
        """The rows of an output in the order in which they are sent."""
        if not self.as_arrived:
            yield from self.world.events(output)
            return
        parts = list(self.world.events(output))
        if not parts:
            return
        table = pa.concat_tables(parts)
        arrived_at = np.asarray(_moments(table, "arrived_at_utc"), np.int64)
        if (without := np.flatnonzero(arrived_at == _ABSENT)).size:
            row = f"row {without[0]} of {output} does not say when it arrived"
            raise WorldFault(f"world {self.world.manifest.world}: {row}: stream it by event time")
        yield table.take(pa.array(np.argsort(arrived_at, kind="stable")))

    def _batch(self, output: str, first_row: int, table: pa.Table, own_pins: Mapping[str, Any]) -> SentBatch:
        ts = moments(table)
        columns = table.select(["event_id", "event_type", "schema_version", "other_run", "amends", "payload"]).to_pydict()
        emitted_at = _moments(table, "emitted_at_utc")
        arrived_at = _moments(table, "arrived_at_utc") if self.as_arrived else None
        ts_texts = time_texts(ts)
        emitted_texts = time_texts(np.array([0 if moment == _ABSENT else moment for moment in emitted_at], np.int64))
        envelopes = []
        for index in range(len(table)):
            other_run, amends = columns["other_run"][index], columns["amends"][index]
            envelope = {
                "event_id": columns["event_id"][index],
                "event_type": columns["event_type"][index],
                "schema_version": columns["schema_version"][index],
                "ts_utc": ts_texts[index],
                **(own_pins if other_run is None else orjson.loads(other_run)),
                "payload": orjson.loads(columns["payload"][index]),
            }
            if emitted_at[index] != _ABSENT:
                envelope["emitted_at_utc"] = emitted_texts[index]
            if amends is not None:
                envelope["amends"] = orjson.loads(amends)
            envelopes.append(envelope)
        return SentBatch(output, first_row, envelopes, ts.tolist() if arrived_at is None else arrived_at, arrived_at)

    def _place(self, output: str) -> int:
        with self.pool.connection() as connection:
            row = connection.execute(_PLACE, (*self._name(), self._way(output))).fetchone()
        return 0 if row is None else int(row[0])

    def _keep(self, output: str, rows_sent: int) -> None:
        with self.pool.connection() as connection:
            connection.execute(_KEEP, (*self._name(), self._way(output), rows_sent))

    def _name(self) -> tuple[str, str]:
        return pins_digest(self.pins), self.world.seal.manifest_digest

    def _way(self, output: str) -> str:
        """The output and the order of its rows: a place is one in that order."""
        return f"{output}@arrival" if self.as_arrived else output


def _moments(table: pa.Table, name: str) -> list[int]:
    """Microseconds; `_ABSENT` where there is none."""
    column = table.column(name).cast(pa.int64()).fill_null(_ABSENT)
    moments_of_rows: list[int] = column.to_pylist()
    return moments_of_rows
