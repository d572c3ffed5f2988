"""The loop of a decision service: read events, ask for their features, decide, record. Many requests at once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Protocol

from ofp_platform.client import ReceivedFeatures
from ofp_platform.decisions.decision_point import DecisionPoint
from ofp_platform.decisions.event_reader import EventReader, ReadEvent, moved
from ofp_platform.decisions.recorder import DecisionRecorder, record_of
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord, decision_id
from ofp_platform.vocabulary.position import Basis
from ofp_platform.vocabulary.serving import GetFeaturesRequest

_BATCH = 500


class FeatureClient(Protocol):
    """The part of a client that a decision service needs: `AsyncOfpClient`, or `OfpClient` in threads."""

    async def ask(self, request: GetFeaturesRequest) -> ReceivedFeatures:
        """The answer to a request; see `AsyncOfpClient.ask`."""
        ...


@dataclass
class Tally:
    """Outcome of a run over events: `recorded` decisions; `known`: decided before, or by somebody else meanwhile, or another
    delivery of the same event; `unusable`: the payload lacks a key; `refused` for good, by reason; `outcomes` of what was
    decided here."""

    recorded: int = 0
    known: int = 0
    unusable: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    outcomes: Counter[str] = field(default_factory=Counter)

    @property
    def events(self) -> int:
        """All of them."""
        return self.recorded + self.known + self.unusable + self.refused.total()


@dataclass(frozen=True)
class DecisionService:
    """Decides on events of one run. `clock` gives the time of a decision, microseconds; `connections` requests run at once.
    `policy_rev`: the policy of the deployment, which records name."""

    client: FeatureClient
    recorder: DecisionRecorder
    point: DecisionPoint
    pins: ContextPins
    clock: Callable[[], int]
    connections: int = 8
    policy_rev: str | None = None

    async def decide(self, events: Sequence[ReadEvent]) -> Tally:
        """Decide on each event that is not decided on yet; decisions are recorded in batches.

        Raises:
            ContractError | ServiceUnreachable | AnswerNotTrusted: the plane cannot answer now (after the client's retries),
                cannot be asked, or cannot be believed. Nothing of this batch is recorded; batches before it are.
        """
        tally = Tally()
        if events:  # before any decision names it
            await asyncio.to_thread(self.recorder.keep_rule, self.point.rule)
        for start in range(0, len(events), _BATCH):
            await self._decide_batch(events[start : start + _BATCH], tally)
        return tally

    async def run(self, reader: EventReader, after: Basis | None = None, limit: int | None = None) -> tuple[Tally, Basis | None]:
        """Decide on what the log holds behind `after`, at most `limit` events. The tally, and the basis to go on from.

        Nothing is lost between two calls: a basis is only returned once everything before it is decided on.
        """
        total = Tally()
        for page in reader.pages(after):
            events_left = None if limit is None else limit - total.events
            if events_left is not None and len(page.events) > events_left:
                _add(total, await self.decide(list(islice(page.events, events_left))))
                break
            _add(total, await self.decide(page.events))
            after = moved(after, reader.log.stream_name, page.next)
        return total, after

    async def _decide_batch(self, events: Sequence[ReadEvent], tally: Tally) -> None:
        by_id: dict[str, ReadEvent] = {}
        for event in events:
            by_id.setdefault(decision_id(self.pins, self.point.event_type, event.event_id), event)
        tally.known += len(events) - len(by_id)
        undecided_ids = await asyncio.to_thread(self.recorder.undecided, list(by_id))
        tally.known += len(by_id) - len(undecided_ids)
        turns = asyncio.Semaphore(self.connections)

        async def decide(event: ReadEvent) -> DecisionRecord | None:
            async with turns:
                return await self._decide_one(event, tally)

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(decide(event)) for name, event in by_id.items() if name in undecided_ids]
        except ExceptionGroup as several:
            raise several.exceptions[0] from None
        records = [record for task in tasks if (record := task.result()) is not None]
        new = await asyncio.to_thread(self.recorder.append_first, records)
        tally.recorded += new
        tally.known += len(records) - new
        tally.outcomes.update(record.outcome.value for record in records)

    async def _decide_one(self, event: ReadEvent, tally: Tally) -> DecisionRecord | None:
        request = self.point.request(event, self.pins)
        if request is None:
            tally.unusable += 1
            return None
        try:
            answer = await self.client.ask(request)
        except ContractError as error:
            if error.retryable:  # the plane is not there now: these events are still to be decided on
                raise
            tally.refused[error.reason.value] += 1
            return None
        return record_of(answer, event, self.point.event_type, self.point.rule, self.clock(), self.policy_rev)


def _add(total: Tally, part: Tally) -> None:
    total.recorded += part.recorded
    total.known += part.known
    total.unusable += part.unusable
    total.refused += part.refused
    total.outcomes += part.outcomes
