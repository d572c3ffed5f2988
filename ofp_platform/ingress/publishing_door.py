"""The door to a log that somebody else keeps: nothing is sent that was not noted, and nothing twice that may be in the log.

A batch is noted as in flight, with the heads of its streams, and that is committed; it is sent; its receipts are committed, and
the note is gone. What happens between leaves it ambiguous: `settlement` reads the log and says what came of it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import psycopg

from ofp_platform.ingress.admission_rows import JudgedBatches, add_receipts, answered_before, known_events
from ofp_platform.ingress.admission_spans import tell_admission
from ofp_platform.ingress.batches import BatchReceipt, NotTogether, SentBatch, declared_times
from ofp_platform.ingress.door import ATTEMPTS, Door, columns_of
from ofp_platform.ingress.gate import Passed
from ofp_platform.ingress.publish_rows import (
    IN_FLIGHT,
    PublishUnsettled,
    demand_key_free,
    forget_batch,
    hold_batch,
    mark_ambiguous,
    note_batch,
)
from ofp_platform.ingress.receipt_block import PlacedAt
from ofp_platform.ingress.settlement import Settler, found_part
from ofp_platform.ingress.verdicts import Verdict, without_copies
from ofp_platform.log.port import LogUnavailable
from ofp_platform.log.postgres import log_answering
from ofp_platform.log.publishing import NotTaken, PublishingLog
from ofp_platform.storage.crash_points import crash_point
from ofp_platform.telemetry.event_spans import Interval
from ofp_platform.vocabulary.position import Basis, PartitionBasis, make_basis, order
from ofp_platform.vocabulary.scenario import RunState

_UNSETTLED = "records of the batch are on their way, and whether they are in the log is not settled yet"


HEADS_SECONDS = 600.0
"""How long heads are taken for those of a stream: retention takes the record that the head of an idle partition names."""


class Heads:
    """How far streams are known to reach: whatever is sent from now on stands behind. Safe for threads. `clock` gives seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._parts: dict[bool, dict[str, PartitionBasis]] = {}
        self._asked_at: dict[bool, float] = {}

    def of(self, log: PublishingLog, *, is_context: bool) -> Basis:
        """Of a stream; it is asked once in a while, what this process has appended tells the rest.

        Raises:
            LogUnavailable: it does not answer.
        """
        with self._lock:
            now = self._clock()
            if now - self._asked_at.get(is_context, float("-inf")) > HEADS_SECONDS:
                self._parts[is_context] = log.ends().by_partition()
                self._asked_at[is_context] = now
            return make_basis(log.stream_name, self._parts[is_context])

    def reach(self, log: PublishingLog, positions: Mapping[int, PlacedAt]) -> None:
        """Note where records stand."""
        with self._lock:
            for at in positions.values():
                parts = self._parts.setdefault(at.is_context, {})
                part = parts.get(at.partition_id)
                if part is None or order(part.offset) <= order(at.offset):
                    behind = log.position_kind.start(at.partition_id).after(at.offset)
                    parts[at.partition_id] = behind.model_copy(update={"incarnation": at.incarnation})


class _LookAgain(Exception):
    """Another door admitted a record of the batch meanwhile."""


@dataclass(frozen=True)
class _Sending:
    """A batch that is noted."""

    publish_id: int
    judgement: JudgedBatches
    new: dict[int, Passed]
    admitted_at: list[int] | None


@dataclass(frozen=True)
class PublishingDoor(Door):
    """See Door. `late_seconds`: how long a request that was given up can still come through; None: as the log says."""

    traffic: PublishingLog
    context: PublishingLog | None
    late_seconds: float | None = None
    heads: Heads = field(default_factory=Heads)

    @property
    def settler(self) -> Settler:
        """Who settles what this door, or another one of the run, left behind."""
        late_seconds = self.traffic.late_seconds if self.late_seconds is None else self.late_seconds
        return Settler(self.pool, self.traffic, self.context, self.gate.pins, self.run_number, late_seconds)

    def settle(self) -> None:
        """See `Door.settle`."""
        self.settler.settle(at_once=False)

    def admit_group(self, batches: Sequence[SentBatch]) -> list[BatchReceipt]:
        """See `Door.admit_group`; a batch at a time.

        Raises:
            PublishUnsettled: it is not known what of the batch is in the log: send it again, as it is. See there for the others.
        """
        if len(batches) != 1:
            raise NotTogether
        appending = Interval()
        with Interval() as admitting:
            receipts = [self._admit(batches[0], appending)]
        tell_admission(admitting, appending, batches, receipts)
        return receipts

    def _admit(self, batch: SentBatch, appending: Interval) -> BatchReceipt:
        batch = self.examine(batch) if batch.verdicts is None else batch
        verdicts = without_copies(batch.verdicts or ())
        for _ in range(ATTEMPTS):
            self.settle()
            try:
                with log_answering(), self.pool.connection() as connection:
                    noted_batch = self._note(connection, batch, verdicts)
                    if isinstance(noted_batch, BatchReceipt):
                        return noted_batch
                    crash_point("publish.in_flight")
                    receipt = self._publish(connection, noted_batch, appending)
                    if receipt is not None:
                        return receipt
            except (psycopg.errors.UniqueViolation, _LookAgain):
                continue
        raise PublishUnsettled(_UNSETTLED)

    def _note(self, connection: psycopg.Connection[Any], batch: SentBatch, verdicts: list[Verdict]) -> BatchReceipt | _Sending:
        """Note what is to be sent; or the receipt of a batch of which nothing is."""
        heads = (
            self.heads.of(self.traffic, is_context=False),
            None if self.context is None else self.heads.of(self.context, is_context=True),
        )
        with connection.transaction():
            earlier_receipt = answered_before(connection, self.run_number, batch.producer, batch.idempotency_key)
            if earlier_receipt is not None:
                return earlier_receipt
            demand_key_free(connection, self.run_number, batch)
            judgement, new = self._judge(connection, [batch], self._while_ready(connection, verdicts))
            if not new:
                [receipt] = add_receipts(connection, self.run_number, self.class_map.digest, judgement, {})
                return receipt
            event_types = {place: verdict.event_type for place, verdict in new.items()}
            publish_id = note_batch(connection, self.run_number, self.class_map.digest, judgement, event_types, heads)
            # who had noted one of them may have settled it since it was looked for
            if known_events(connection, self.run_number, [verdict.event_key for verdict in new.values()]):
                raise _LookAgain
        return _Sending(publish_id, judgement, new, declared_times([batch]))

    def _publish(self, connection: psycopg.Connection[Any], sending: _Sending, appending: Interval) -> BatchReceipt | None:
        """Send what is noted; None where the run takes nothing any more, and nothing was sent.

        Raises:
            LogUnavailable: not all was taken. PublishUnsettled: nobody knows what was.
        """
        with connection.transaction():
            if hold_batch(connection, sending.publish_id) != IN_FLIGHT:
                raise PublishUnsettled(_UNSETTLED)
            if self._state(connection) is not RunState.READY:
                forget_batch(connection, sending.publish_id)
                return None
            with appending:
                positions, refusal, is_known = self._send(sending)
            crash_point("publish.sent")
            receipt: BatchReceipt | None = None
            if not is_known:
                mark_ambiguous(connection, sending.publish_id)
            else:
                judgement, by_place = found_part(sending.judgement, positions)
                if by_place:
                    [receipt] = add_receipts(connection, self.run_number, self.class_map.digest, judgement, by_place)
                forget_batch(connection, sending.publish_id)
            crash_point("publish.recorded")
        crash_point("publish.after_commit")
        if not is_known:
            raise PublishUnsettled(_UNSETTLED)
        if refusal is not None:
            raise LogUnavailable(f"the log did not take all of the batch: {refusal.why}")
        return receipt

    def _send(self, sending: _Sending) -> tuple[dict[int, PlacedAt], NotTaken | None, bool]:
        """Where records stand, by their place; why one was not taken; and whether the fate of each is known."""
        positions: dict[int, PlacedAt] = {}
        refusal: NotTaken | None = None
        is_known = True
        for is_context, log in ((False, self.traffic), (True, self.context)):
            places, records, times = columns_of(sending.new, sending.admitted_at, is_context=is_context)
            if not places or log is None:
                continue
            if refusal is not None or not is_known:
                refusal = refusal or NotTaken("was not sent, as records of another stream were not taken")
                continue
            receipt = log.publish(records, times)
            own_positions: dict[int, PlacedAt] = {}
            for place, fate in zip(places, receipt.fates, strict=True):
                if fate is None:
                    is_known = False
                elif isinstance(fate, NotTaken):
                    refusal = fate
                else:
                    own_positions[place] = PlacedAt(is_context, *fate, receipt.incarnation)
            self.heads.reach(log, own_positions)
            positions |= own_positions
        return positions, refusal, is_known
