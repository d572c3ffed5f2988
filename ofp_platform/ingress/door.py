"""The door of a run: what every way into a log does with a batch before and behind the append."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import psycopg

from ofp_platform.ingress.admission_rows import (
    AsideRecord,
    JudgedBatches,
    NewRecord,
    Sender,
    known_events,
)
from ofp_platform.ingress.batches import BatchReceipt, IdempotencyKey, SentBatch, begins, demand_batch
from ofp_platform.ingress.class_map import ClassMap
from ofp_platform.ingress.gate import Gate, Passed, Sent
from ofp_platform.ingress.quarantine_objects import keep_in_quarantine
from ofp_platform.ingress.receipt_block import RecordOutcome
from ofp_platform.ingress.verdicts import Verdict, of_inactive_run, outcomes_of
from ofp_platform.log.admitted import AdmittedColumns
from ofp_platform.log.port import EventLog, RecordRefusal
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import Pool
from ofp_platform.storage.run_states import admitting_state
from ofp_platform.vocabulary.admission_receipt import AdmissionOutcome
from ofp_platform.vocabulary.scenario import RunState

ATTEMPTS = 5
"""Looks at a batch, where other doors admit records of it meanwhile."""


def class_map_path(digest: str) -> str:
    """Where a class map is kept."""
    return f"ingress/class_maps/{digest}.json"


@dataclass(frozen=True)
class Door(ABC):
    """Of one run. The pool stays the caller's; safe for threads. `needs_ready`: records are admitted while control says READY."""

    pool: Pool
    traffic: EventLog
    context: EventLog | None
    objects: ObjectStore
    gate: Gate
    run_number: int
    needs_ready: bool = False

    @property
    def streams(self) -> tuple[str, str | None]:
        """The names of the streams of traffic and of context."""
        return self.traffic.stream_name, None if self.context is None else self.context.stream_name

    @property
    def class_map(self) -> ClassMap:
        """The event types that it takes."""
        return self.gate.class_map

    def admit(
        self,
        records_sent: Sequence[Sent],
        producer: str,
        admitted_at: Sequence[int] | None = None,
        idempotency_key: IdempotencyKey | None = None,
    ) -> BatchReceipt:
        """Admit a batch of 1 to MOST_RECORDS records. `producer`: who sent it. `admitted_at`: of a simulation or a history, the
        declared time of admission of each, microseconds; None: the broker's own.

        Raises:
            IngressRefused: no record, too many, not one time for each, or a producer without a name. KeyReused: see there.
            LogUnavailable | ObjectStoreUnavailable: nothing is known about the batch; send it again, as it is.
        """
        (receipt,) = self.admit_group([SentBatch(records_sent, producer, admitted_at, idempotency_key)])
        return receipt

    def examine(self, batch: SentBatch) -> SentBatch:
        """The batch with the verdicts of the gate, for `admit_group`: nobody is asked, other batches may be admitted meanwhile.

        Raises:
            IngressRefused: as `admit`.
        """
        demand_batch(batch)
        return replace(batch, verdicts=self.gate.examine(batch.records_sent))

    @abstractmethod
    def admit_group(self, batches: Sequence[SentBatch]) -> list[BatchReceipt]:
        """Admit batches as if each came behind the one before it; all or none.

        Raises:
            as `admit`, for any of them. NotTogether: they must be admitted one after the other.
        """

    @abstractmethod
    def settle(self) -> None:
        """Settle what publishers left behind of which nobody knows whether it was appended."""

    def _while_ready(self, connection: psycopg.Connection[Any], verdicts: list[Verdict]) -> list[Verdict]:
        """The verdicts where the run is READY, which it stays until the transaction ends; else nothing passes."""
        state = self._state(connection)
        if state is RunState.READY:
            return verdicts
        words = "nobody asked for it" if state is None else f"it is {state}"
        return [of_inactive_run(verdict, f"pins: of a run that is not READY: {words}") for verdict in verdicts]

    def _state(self, connection: psycopg.Connection[Any]) -> RunState | None:
        return admitting_state(connection, self.gate.pins) if self.needs_ready else RunState.READY

    def _judge(
        self, connection: psycopg.Connection[Any], batches: Sequence[SentBatch], verdicts: Sequence[Verdict]
    ) -> tuple[JudgedBatches, dict[int, Passed]]:
        """Say what becomes of each record of all batches; and those to be appended, by their place. What is set aside is kept:
        no row of the log is locked while the object store is asked.
        """
        records_sent = [record for batch in batches for record in batch.records_sent]
        keys = [verdict.event_key for verdict in verdicts if isinstance(verdict, Passed)]
        outcomes, firsts = outcomes_of(verdicts, known_events(connection, self.run_number, keys))
        places_aside = [place for place, outcome in enumerate(outcomes) if outcome.outcome is AdmissionOutcome.QUARANTINE]
        paths = keep_in_quarantine(
            self.objects, self.gate.pins, [(records_sent[place], outcomes[place].reason) for place in places_aside]
        )
        new = {
            place: verdict
            for place, (verdict, outcome) in enumerate(zip(verdicts, outcomes, strict=True))
            if isinstance(verdict, Passed) and outcome.outcome is AdmissionOutcome.ADMIT
        }
        senders = [
            Sender(batch.producer, batch.idempotency_key, begin, begin + len(batch.records_sent))
            for batch, begin in zip(batches, begins(batches), strict=True)
        ]
        aside = {
            place: AsideRecord(_event_type(records_sent[place], outcomes[place]), path)
            for place, path in zip(places_aside, paths, strict=True)
        }
        new_records = {place: NewRecord(verdict.event_key, verdict.is_context) for place, verdict in new.items()}
        return JudgedBatches(senders, outcomes, firsts, new_records, aside), new


def columns_of(
    new: dict[int, Passed], admitted_at: Sequence[int] | None, *, is_context: bool
) -> tuple[list[int], AdmittedColumns, list[int] | None]:
    """Of records to be appended, those of one stream: their places, the records, and their declared times."""
    places = [place for place, verdict in new.items() if verdict.is_context is is_context]
    records = AdmittedColumns()
    rows: list[int] = []
    columns: AdmittedColumns | None = None
    for place in places:
        verdict = new[place]
        if verdict.columns is not columns:
            if columns is not None:
                records.extend(columns.take(rows))
            columns, rows = verdict.columns, []
        rows.append(verdict.row)
    if columns is not None:
        records.extend(columns if len(rows) == len(columns) else columns.take(rows))
    return places, records, None if admitted_at is None else [admitted_at[place] for place in places]


def _event_type(record: Sent, outcome: RecordOutcome) -> str | None:
    """The type of an envelope; of what is none nothing is shown."""
    return str(record["event_type"]) if outcome.event_id is not None and not isinstance(record, RecordRefusal) else None
