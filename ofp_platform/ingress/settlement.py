"""Settling what publishers left behind: a log is read from where its head was before anything was sent, and says what came of it.

Nobody sends a record again of which it is not known whether it is in the log. What is found is admitted, with the receipt that
could not be written; what is not there when no request can come through any more is released, and its producer sends it again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from psycopg import Connection

from ofp_platform.ingress.admission_rows import JudgedBatches, NewRecord, Sender, add_receipts
from ofp_platform.ingress.publish_rows import (
    AMBIGUOUS,
    AmbiguousBatch,
    ambiguous_batch,
    count_on_their_way,
    forget_batch,
    hold_batch,
    loose_batches,
)
from ofp_platform.ingress.receipt_block import PlacedAt, RecordOutcome
from ofp_platform.log.port import LogRefused, PositionTrimmed
from ofp_platform.log.postgres import log_answering
from ofp_platform.log.publishing import PublishingLog
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.position import Basis, PartitionBasis, order, place
from ofp_platform.vocabulary.times import MICROS_PER_SECOND

_PAGE = 5_000
_AT_ONCE = 100
LOOK_AGAIN_SECONDS = 1.0
"""Between two looks of doors at one batch; an operator looks at once."""
START_SECONDS = 5.0
"""From when a batch was noted until doors take it that its publisher is gone."""


@dataclass
class Settled:
    """Records by what a look found. `admitted_count`: of those in the log; `released_count`: of those that are not and will not
    be; `ambiguous_count`: may yet come; `in_flight_count`: somebody sends them now. `problems`: why a log could not be read.
    """

    admitted_count: int = 0
    released_count: int = 0
    ambiguous_count: int = 0
    in_flight_count: int = 0
    problems: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Settler:
    """Of one run. `late_seconds`: how long a request that was given up can still come through."""

    pool: Pool
    traffic: PublishingLog
    context: PublishingLog | None
    pins: ContextPins
    run_number: int
    late_seconds: float

    def settle(self, *, at_once: bool = True, release_unread: bool = False) -> Settled:
        """Look at what nobody holds. `at_once`: also at what was noted or looked at right before. `release_unread`: an operator
        decides that what the log does not lead to any more is released; a copy of it is counted once.

        Raises:
            LogUnavailable: a log, or the database, does not answer.
        """
        result = Settled()
        pause = 0 if at_once else int(LOOK_AGAIN_SECONDS * MICROS_PER_SECOND)
        start = 0 if at_once else int(START_SECONDS * MICROS_PER_SECOND)
        with log_answering(), self.pool.connection() as connection:
            after = -1
            while loose := loose_batches(connection, self.run_number, after, pause, start, _AT_ONCE):
                after = loose[-1]
                for publish_id in loose:
                    self._settle(connection, publish_id, result, release_unread=release_unread)
            result.in_flight_count, result.ambiguous_count = count_on_their_way(connection, pins_digest(self.pins))
        return result

    def _settle(self, connection: Connection[Any], publish_id: int, result: Settled, *, release_unread: bool) -> None:
        batch = ambiguous_batch(connection, publish_id)
        if batch is None:
            return
        is_late = batch.ambiguous_us >= self.late_seconds * MICROS_PER_SECOND
        positions, unread = self._find(batch, result.problems)
        missing = [at for at in batch.judgement.new if at not in positions]
        if any(not (release_unread if batch.judgement.new[at].is_context in unread else is_late) for at in missing):
            return
        with connection.transaction():
            if hold_batch(connection, publish_id) != AMBIGUOUS:  # settled meanwhile
                return
            judgement, by_place = found_part(batch.judgement, positions)
            if by_place:
                add_receipts(connection, self.run_number, batch.class_map_digest, judgement, by_place)
            forget_batch(connection, publish_id)
        result.admitted_count += len(positions)
        result.released_count += len(missing)

    def _find(self, batch: AmbiguousBatch, problems: list[str]) -> tuple[dict[int, PlacedAt], set[bool]]:
        """Where records of a batch stand, by their place in it, the first of each; and which of its streams (`is_context`) could
        not be read, of which the problem is told.
        """
        positions: dict[int, PlacedAt] = {}
        unread: set[bool] = set()
        for is_context, log, head in ((False, self.traffic, batch.heads[0]), (True, self.context, batch.heads[1])):
            wanted_records = {
                (batch.event_types[at], batch.judgement.outcomes[at].event_id, batch.judgement.outcomes[at].payload_hash): at
                for at, record in batch.judgement.new.items()
                if record.is_context is is_context
            }
            if not wanted_records:
                continue
            name_of_batch = f"batch {batch.publish_id} of {batch.judgement.senders[0].producer}"
            if log is None or head is None:
                unread.add(is_context)
                problems.append(f"{name_of_batch}: the stream that its records were sent to is not in the profile any more")
                continue
            try:
                for name, where in self._records_behind(log, head, is_context, batch.age_us / MICROS_PER_SECOND):
                    if name in wanted_records:
                        positions.setdefault(wanted_records[name], where)
            except LogRefused as error:
                unread.add(is_context)
                problems.append(f"{name_of_batch}: {error}")
        return positions, unread

    def _records_behind(
        self, log: PublishingLog, head: Basis, is_context: bool, noted_seconds: float
    ) -> Iterator[tuple[tuple[str, str, bytes], PlacedAt]]:
        """Type, id and payload hash of the records of the run behind a head, up to what the log holds now. Where the head is
        gone, all that is kept is read: what was sent a short while ago is in that.
        """
        known_parts = head.by_partition()
        try:
            log.demand(head)
        except PositionTrimmed:
            if noted_seconds > log.kept_seconds / 2:
                raise
            known_parts = {}
        ends = log.ends().by_partition()
        for info in log.partitions():
            at: PartitionBasis | None = known_parts.get(info.partition_id)
            end = ends.get(info.partition_id)
            while end is not None and place(at) < place(end):
                batch = log.read(info.partition_id, at, _PAGE)
                own_runs = {index for index, pins in enumerate(batch.pins) if pins == self.pins}
                for index, offset in enumerate(batch.offsets):
                    if int(batch.pins_index[index]) in own_runs:
                        name = batch.event_types[index], batch.event_ids[index], batch.payload_hashes[index]
                        yield name, PlacedAt(is_context, info.partition_id, offset, batch.next.incarnation)
                if at is not None and order(batch.next.offset) <= order(at.offset):
                    break
                at = batch.next


def found_part(judgement: JudgedBatches, positions: dict[int, PlacedAt]) -> tuple[JudgedBatches, dict[int, PlacedAt]]:
    """Of a batch, what can have receipts, and where it stands: all of it where every new record was found; else the records that
    were, as a batch without a key, for their producer sends all of it again.
    """
    if len(positions) == len(judgement.new):
        return judgement, positions
    old_places = sorted(positions)
    outcomes: list[RecordOutcome] = [judgement.outcomes[old] for old in old_places]
    new: dict[int, NewRecord] = {at: judgement.new[old] for at, old in enumerate(old_places)}
    part = JudgedBatches([Sender(judgement.senders[0].producer, None, 0, len(outcomes))], outcomes, {}, new, {})
    return part, {at: positions[old] for at, old in enumerate(old_places)}
