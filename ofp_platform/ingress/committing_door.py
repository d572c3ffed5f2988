"""The door to the log in PostgreSQL: admits batches of records, and leaves a receipt for each, in one transaction.

The records, what identifies them, their receipts and the list of what is in quarantine are committed together or not at all, so
it is never unknown whether a record was admitted. A batch that was cut off is sent again: what of it is there is a DUPLICATE.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import psycopg

from ofp_platform.ingress.admission_rows import add_receipts, answered_before
from ofp_platform.ingress.admission_spans import tell_admission
from ofp_platform.ingress.batches import BatchReceipt, SentBatch, declared_times, demand_together
from ofp_platform.ingress.door import ATTEMPTS, Door, columns_of
from ofp_platform.ingress.gate import Passed
from ofp_platform.ingress.receipt_block import PlacedAt
from ofp_platform.ingress.verdicts import Verdict, without_copies
from ofp_platform.log.postgres import PostgresLog, log_answering
from ofp_platform.storage.crash_points import crash_point
from ofp_platform.telemetry.event_spans import Interval


@dataclass(frozen=True)
class CommittingDoor(Door):
    """See Door."""

    traffic: PostgresLog
    context: PostgresLog | None

    def admit_group(self, batches: Sequence[SentBatch]) -> list[BatchReceipt]:
        """See `Door.admit_group`: in one transaction."""
        appending = Interval()
        with Interval() as admitting:
            receipts = self._admit_group(batches, appending)
        tell_admission(admitting, appending, batches, receipts)
        return receipts

    def _admit_group(self, batches: Sequence[SentBatch], appending: Interval) -> list[BatchReceipt]:
        batches = [self.examine(batch) if batch.verdicts is None else batch for batch in batches]
        for attempt in range(ATTEMPTS):
            try:
                with log_answering(), self.pool.connection() as connection:
                    with connection.transaction():
                        receipts = [
                            answered_before(connection, self.run_number, batch.producer, batch.idempotency_key)
                            for batch in batches
                        ]
                        new_batches = [index for index, receipt in enumerate(receipts) if receipt is None]
                        if not new_batches:
                            return cast(list[BatchReceipt], receipts)
                        own_batches = [batches[index] for index in new_batches]
                        demand_together(own_batches)
                        verdicts = [verdict for batch in own_batches for verdict in batch.verdicts or ()]
                        open_verdicts = self._while_ready(connection, without_copies(verdicts))
                        new_receipts = self._admit(connection, own_batches, open_verdicts, appending)
                        for index, receipt in zip(new_batches, new_receipts, strict=True):
                            receipts[index] = receipt
                    crash_point("ingress.after_commit")
                    for log in (self.traffic, self.context):
                        if log is not None:
                            log.tell(connection)
                    return cast(list[BatchReceipt], receipts)
            except psycopg.errors.UniqueViolation:  # another door admitted one of them meanwhile: look again
                if attempt == ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def settle(self) -> None:
        """See `Door.settle`: what is in the log has its receipt, and nothing else is."""

    def _admit(
        self,
        connection: psycopg.Connection[Any],
        batches: Sequence[SentBatch],
        verdicts: Sequence[Verdict],
        appending: Interval,
    ) -> list[BatchReceipt]:
        judgement, new = self._judge(connection, batches, verdicts)
        with appending:
            positions = self._append(connection, new, declared_times(batches))
        crash_point("ingress.appended")
        receipts = add_receipts(connection, self.run_number, self.class_map.digest, judgement, positions)
        crash_point("ingress.recorded")
        return receipts

    def _append(
        self, connection: psycopg.Connection[Any], new: dict[int, Passed], admitted_at: Sequence[int] | None
    ) -> dict[int, PlacedAt]:
        """Append the records to their streams; where each stands, by its place in the batch."""
        positions: dict[int, PlacedAt] = {}
        for is_context, log in ((False, self.traffic), (True, self.context)):
            places, records, times = columns_of(new, admitted_at, is_context=is_context)
            if not places or log is None:
                continue
            placements, incarnation = log.append_within(connection, records, times)
            for place, where in zip(places, placements, strict=True):
                positions[place] = PlacedAt(is_context, *where, incarnation)
        return positions
