"""The decider: reads traffic in the order of the log, decides on each event by what is in force, and records each decision once.

What a step decided, its messages on the stream of decisions and the decider's place in the log are one transaction, which holds
posture and bundles as they are: a change that is committed before it makes the step decide again.
"""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any, Protocol

from psycopg import Connection

from ofp_platform.decisions.deciding import ReadyBundle
from ofp_platform.decisions.event_reader import EventReader, ReadEvent, ReadPage, moved
from ofp_platform.decisions.in_force import InForce
from ofp_platform.decisions.loop_records import Circumstances, loop_record
from ofp_platform.decisions.lowering import Decided, VectorSource, decide_lowering
from ofp_platform.ingress.own_streams import Message, append_messages
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.storage.bundle_events import BundleDamaged
from ofp_platform.storage.crash_points import crash_point
from ofp_platform.storage.decider_places import begin_places, move_place, read_places
from ofp_platform.storage.decision_records import append_decisions, events_decided
from ofp_platform.storage.postgres import Pool
from ofp_platform.telemetry.event_spans import Interval, event_spans
from ofp_platform.telemetry.trace_ids import Stage
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.bundle import BundleInForce, BundleRef, Slot
from ofp_platform.vocabulary.loop.decision_record import DECISION, DecidedUnder, DecisionRecord
from ofp_platform.vocabulary.loop.outcome import Outcome
from ofp_platform.vocabulary.loop.posture import PostureInForce
from ofp_platform.vocabulary.position import Basis, PartitionBasis
from ofp_platform.vocabulary.serving import GetFeaturesRequest

_MOST_CHANGES = 100
MOST_RECORDS = 200
"""Records of one step, of all partitions together."""
_BEGIN_SECONDS = 4.0
logger = logging.getLogger(__name__)


class HeldInForce(Protocol):
    """Reads what is in force; `InForceReader` does."""

    def read(self, connection: Connection[Any]) -> InForce:
        """As it is now."""
        ...

    def hold(self, connection: Connection[Any]) -> InForce:
        """As it stays until the caller's transaction ends."""
        ...


class PostureUnsteady(Exception):
    """Posture or bundles changed again and again while one step was decided; nothing of it is recorded."""


class _ChangedMeanwhile(Exception):
    """Something else is in force than a step was decided under: its transaction ends without a trace."""


class _StepTooLong(Exception):
    """Some events of a step were not begun with in time; nothing of it is recorded. `begun`: the others, the first ones."""

    def __init__(self, begun: int) -> None:
        super().__init__(f"{begun} events of a step were begun with in time")
        self.begun = begun


@dataclass
class DeciderTally:
    """Outcome of steps: decisions by outcome (of the ACTIVE slot), `shadow` ones beside, `known`: events decided on before, or
    delivered again; `lowered`: by reason."""

    outcomes: Counter[Outcome] = field(default_factory=Counter)
    shadow: int = 0
    known_events: int = 0
    lowering: Counter[str] = field(default_factory=Counter)

    def add(self, other: DeciderTally) -> None:
        """Count another one in."""
        self.outcomes += other.outcomes
        self.shadow += other.shadow
        self.known_events += other.known_events
        self.lowering += other.lowering


@dataclass(frozen=True)
class DeciderPolicy:
    """`fail_closed`: the outcome of FAIL_CLOSED; `deadline_seconds`: of a question to the plane; `connections`: asked at once."""

    policy_rev: str
    fail_closed: str
    deadline_seconds: float
    connections: int = 8


@dataclass
class StepSize:
    """How many records a step takes. Many share the price of a step; but whoever decides has to answer challenges, too, and where
    vectors are late, many take long. So one that is too long is made again with as many as it has begun with, and each one that
    is not lets the next take twice as many.
    """

    records: int = MOST_RECORDS

    def note_long(self, begun: int, fewest: int) -> None:
        """A step was too long: so many events of it were begun with. `fewest`: take no long time, whatever becomes of them."""
        self.records = max(begun, fewest)

    def note_done(self) -> None:
        """A step was recorded."""
        self.records = min(MOST_RECORDS, 2 * self.records)


@dataclass(frozen=True)
class Decider:
    """Decides on the events that `reader` reads. `ask` answers questions to the plane; `bundle_of` loads a bundle by its name;
    `record_more` runs in the transaction of a step, with its decisions; `clock`: microseconds; `monotonic`: seconds."""

    pool: Pool
    decisions_log: PostgresLog
    reader: EventReader
    ask: Callable[[GetFeaturesRequest], Any]
    in_force: HeldInForce
    bundle_of: Callable[[BundleRef], ReadyBundle]
    policy: DeciderPolicy
    clock: Callable[[], int]
    record_more: Callable[[Connection[Any], Sequence[DecisionRecord]], None] = lambda connection, records: None
    monotonic: Callable[[], float] = time.monotonic
    _size: StepSize = field(default_factory=StepSize, init=False)

    @property
    def pins(self) -> ContextPins:
        """The run."""
        return self.reader.pins

    def place(self) -> Basis | None:
        """How far it has come; None: nothing is decided on yet."""
        with self.pool.connection() as connection:
            return read_places(connection, self.pins, self.reader.log.stream_name)

    def begin_at(self, basis: Basis) -> None:
        """Let the run begin there, if nobody has begun it: what lies before is never decided on."""
        with self.pool.connection() as connection, connection.transaction():
            begin_places(connection, self.pins, basis)

    async def decide_available(self, *, records: int = MOST_RECORDS, enough: Callable[[], bool] = lambda: False) -> DeciderTally:
        """Decide on what the log holds behind its place (at first: everything), as it is now; or until it is `enough`, which is
        asked behind each step: where events come without a pause, there is always more.

        Raises:
            PlaceMoved: another decider of the run is at work. PostureUnsteady: see there.
            BundleDamaged: the bundle in force cannot be used; a shadow that cannot is left out, with a line in the log.
            LogError | psycopg.Error: the log or the database has something against it; what was recorded is.
        """
        total, sources = DeciderTally(), dict[str, VectorSource]()
        place = await asyncio.to_thread(self.place)
        ends = False
        while not ends:
            size = min(records, self._size.records)
            for pages in self.reader.turns(place, size):
                try:
                    total.add(await self._step(pages, {} if place is None else place.by_partition(), sources))
                except _StepTooLong as long:
                    self._size.note_long(long.begun, self.policy.connections)
                    break
                for page in pages:
                    place = moved(place, self.reader.log.stream_name, page.next)
                    for event in page.events:
                        sources.pop(event.event_id, None)
                self._size.note_done()
                if enough():
                    return total
                if size < min(records, self._size.records):
                    break
            else:
                ends = True
        return total

    async def _step(
        self, pages: Sequence[ReadPage], before: Mapping[str, PartitionBasis], sources: dict[str, VectorSource]
    ) -> DeciderTally:
        """Decide on one page of each of some partitions, and record all of it. `sources`: vectors that are there already, by
        event; those of this step are added.

        Raises:
            _StepTooLong: see there; `sources` has what came.
        """
        with Interval() as deciding:
            records, known_events = await self._decide_on(pages, before, sources)
        _tell(deciding, records)
        return _tally(records, known_events)

    async def _decide_on(
        self, pages: Sequence[ReadPage], before: Mapping[str, PartitionBasis], sources: dict[str, VectorSource]
    ) -> tuple[list[DecisionRecord], int]:
        """The decisions on these pages, recorded; and how many of their events had one."""
        # the first of each page, then the second of each: a smaller step begins with the same
        together = zip_longest(*(page.events for page in pages))
        read_events = [event for one_of_each in together for event in one_of_each if event is not None]
        events, known_events = await asyncio.to_thread(self._undecided_events, read_events)
        for event in events:
            sources.setdefault(event.event_id, VectorSource(self.ask, self.pins, self.policy.deadline_seconds))
        in_force = await asyncio.to_thread(self._read_in_force)
        for _ in range(_MOST_CHANGES):
            records = await self._records(events, in_force, sources)
            other_in_force = await asyncio.to_thread(self._commit, pages, before, in_force, records)
            if other_in_force is None:
                return records, known_events
            in_force = other_in_force
        raise PostureUnsteady(f"posture or bundles changed {_MOST_CHANGES} times while {len(events)} events were decided on")

    def _read_in_force(self) -> InForce:
        with self.pool.connection() as connection:
            return self.in_force.read(connection)

    def _undecided_events(self, events: Sequence[ReadEvent]) -> tuple[list[ReadEvent], int]:
        """The events that nobody decided on, each once, and how many are left out."""
        by_id: dict[str, ReadEvent] = {}
        for event in events:
            by_id.setdefault(event.event_id, event)
        with self.pool.connection() as connection:
            decided_ids = events_decided(connection, self.pins, self.reader.event_type, list(by_id))
        undecided_events = [event for name, event in by_id.items() if name not in decided_ids]
        return undecided_events, len(events) - len(undecided_events)

    async def _records(
        self, events: Sequence[ReadEvent], in_force: InForce, sources: dict[str, VectorSource]
    ) -> list[DecisionRecord]:
        turns = asyncio.Semaphore(self.policy.connections)
        active, shadow = in_force.bundle(Slot.ACTIVE), in_force.bundle(Slot.SHADOW)
        slots: list[tuple[Slot, BundleInForce | None]] = [(Slot.ACTIVE, active)]
        if active is not None and shadow is not None and shadow.bundle != active.bundle:  # of one bundle it would be one decision
            slots.append((Slot.SHADOW, shadow))
        ready_bundles: dict[Slot, ReadyBundle] = {}
        for slot, bundle in slots if events else ():
            if bundle is None:
                continue
            try:
                ready_bundles[slot] = await asyncio.to_thread(self.bundle_of, bundle.bundle)
            except BundleDamaged as damaged:
                if slot is Slot.ACTIVE:
                    raise
                # who decides nothing stops nobody who does; what it would have decided is never made up for
                logger.warning("the shadow does not decide on %d events: %s", len(events), damaged)
        slots = [(slot, bundle) for slot, bundle in slots if slot is Slot.ACTIVE or slot in ready_bundles]

        begin_by = self.monotonic() + _BEGIN_SECONDS if self._size.records > self.policy.connections else math.inf

        async def decide(slot: Slot, bundle: BundleInForce | None, event: ReadEvent) -> DecisionRecord | None:
            async with turns:
                if self.monotonic() > begin_by:
                    return None
                ready = ready_bundles.get(slot)
                outcomes = await decide_lowering(
                    ready, in_force.posture.mode, event, sources[event.event_id], self.policy.fail_closed
                )
            return self._record(slot, bundle, in_force.posture, event, outcomes)

        async with asyncio.TaskGroup() as group:
            tasks = [[group.create_task(decide(slot, bundle, event)) for slot, bundle in slots] for event in events]
        by_event = [[task.result() for task in of_event] for of_event in tasks]
        whole = [[record for record in of_event if record is not None] for of_event in by_event if None not in of_event]
        if len(whole) < len(events):
            raise _StepTooLong(len(whole))
        return [of_event[number] for number in range(len(slots)) for of_event in whole]

    def _record(
        self, slot: Slot, bundle: BundleInForce | None, posture: PostureInForce, event: ReadEvent, outcomes: Decided
    ) -> DecisionRecord:
        circumstances = Circumstances(self.pins, self.reader.event_type, self.policy.policy_rev, slot, bundle)
        under = DecidedUnder(
            in_force=posture, applied_mode=outcomes.mode, lowering=outcomes.lowering, fail_closed=Outcome(self.policy.fail_closed)
        )
        return loop_record(event, circumstances, under, outcomes.answer, outcomes.verdict, self.clock())

    def _commit(
        self,
        pages: Sequence[ReadPage],
        before: Mapping[str, PartitionBasis],
        in_force: InForce,
        records: Sequence[DecisionRecord],
    ) -> InForce | None:
        """Record a step; or what is in force now, if that is something else: then nothing is recorded."""
        messages = [Message(DECISION, record.decision_id, self.pins, record.decided_at_utc, record) for record in records]
        with self.pool.connection() as connection:
            try:
                with connection.transaction():
                    for part in (page.next for page in pages):
                        move_place(connection, self.pins, self.reader.log.stream_name, before.get(part.partition_id), part)
                    crash_point("decision.placed")
                    append_messages(connection, self.decisions_log, messages)
                    append_decisions(connection, records)
                    self.record_more(connection, records)
                    # last, for it is held to the commit, and nothing but the commit is left to wait for
                    held_in_force = self.in_force.hold(connection)
                    if held_in_force != in_force:
                        raise _ChangedMeanwhile
                    crash_point("decision.recorded")
            except _ChangedMeanwhile:
                return held_in_force
            crash_point("decision.after_commit")
            if messages:
                self.decisions_log.tell(connection)
        return None


def _tell(deciding: Interval, records: Sequence[DecisionRecord]) -> None:
    """The span of each decision: from the look at its page to the commit."""
    spans = event_spans()
    if spans is None:
        return
    for record in records:
        attributes = {
            "ofp.decision_id": record.decision_id,
            "ofp.slot": Slot.ACTIVE.value if record.slot is None else record.slot.value,
            "ofp.outcome": record.outcome.value,
            "ofp.partition_id": record.event_position.partition_id,
            "ofp.offset": record.event_position.offset,
        }
        spans.tell(Stage.DECIDE, record.event_id, deciding, attributes, is_first=record.slot is Slot.ACTIVE)


def _tally(records: Sequence[DecisionRecord], known_events: int) -> DeciderTally:
    active = [record for record in records if record.slot is Slot.ACTIVE]
    return DeciderTally(
        outcomes=Counter(record.outcome for record in active),
        shadow=len(records) - len(active),
        known_events=known_events,
        lowering=Counter(
            record.posture.lowering.value
            for record in active
            if record.posture is not None and record.posture.lowering is not None
        ),
    )
