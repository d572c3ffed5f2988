"""Deciding on one event in the mode in force, or in the next lower one while something is missing; nothing is from HOLD on.

A group that fails is not asked for again in the lower mode: what is late would be late once more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from ofp_platform.client import AnswerNotTrusted, ReceivedFeatures, ServiceUnreachable
from ofp_platform.decisions.deciding import Evidence, ReadyBundle, Verdict, decide, features_of
from ofp_platform.decisions.event_reader import ReadEvent
from ofp_platform.decisions.loop_records import checked_answer
from ofp_platform.decisions.vector_request import vector_request
from ofp_platform.scoring.inputs import InputUnfit
from ofp_platform.telemetry.event_spans import Interval, event_spans
from ofp_platform.telemetry.trace_ids import Stage
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.decision_record import Lowering
from ofp_platform.vocabulary.loop.posture import Mode
from ofp_platform.vocabulary.serving import FeatureGroupRef, GetFeaturesRequest

Groups = tuple[FeatureGroupRef, ...]


@dataclass(frozen=True)
class Decided:
    """A verdict, the mode that it was reached in, why that is a lower one, and the vector; None: without one."""

    verdict: Verdict
    mode: Mode
    lowering: Lowering | None
    answer: ReceivedFeatures | None


@dataclass
class VectorSource:
    """The vectors of one event, each asked for once. `ask` gives the answer to a request; `deadline_seconds`: for each."""

    ask: Callable[[GetFeaturesRequest], Awaitable[ReceivedFeatures]]
    pins: ContextPins
    deadline_seconds: float
    _outcomes: dict[tuple[str, Groups], ReceivedFeatures | Lowering] = field(default_factory=dict, init=False)

    async def vector(self, ready: ReadyBundle, groups: Groups, event: ReadEvent) -> ReceivedFeatures | Lowering:
        """The vector of these groups, or why there is none."""
        key = (ready.ref.digest, groups)
        if key not in self._outcomes:
            self._outcomes[key] = await self._ask_once(ready, groups, event)
        return self._outcomes[key]

    async def _ask_once(self, ready: ReadyBundle, groups: Groups, event: ReadEvent) -> ReceivedFeatures | Lowering:
        request = vector_request(ready.bundle, groups, event, self.pins)
        if request is None:
            return Lowering.INPUT_UNFIT
        outcome = await self._answer(request, event, interval := Interval())
        if (spans := event_spans()) is not None:
            name = outcome.value if isinstance(outcome, Lowering) else "OK"
            spans.tell(Stage.GET_FEATURES, event.event_id, interval, {"ofp.outcome": name})
        return outcome

    async def _answer(self, request: GetFeaturesRequest, event: ReadEvent, interval: Interval) -> ReceivedFeatures | Lowering:
        try:
            with interval:
                async with asyncio.timeout(self.deadline_seconds):
                    return checked_answer(await self.ask(request), event)
        except AnswerNotTrusted:
            return Lowering.VECTOR_CORRUPT
        except (TimeoutError, ServiceUnreachable):
            return Lowering.FEATURES_LATE
        except ContractError as error:
            return Lowering.FEATURES_LATE if error.retryable else Lowering.FEATURES_REFUSED


async def decide_lowering(
    ready: ReadyBundle | None, in_force: Mode, event: ReadEvent, source: VectorSource, fail_closed: str
) -> Decided:
    """Decide in the mode in force or below it. `ready`: None where no bundle is in force: then the lowest mode decides."""
    mode = in_force
    lowering: Lowering | None = None
    if ready is None and mode is not Mode.FAIL_CLOSED:
        mode, lowering = Mode.FAIL_CLOSED, Lowering.NO_BUNDLE
    while True:  # each turn is one mode lower, and from HOLD on nothing is missing
        groups = () if ready is None else ready.groups_under(mode)
        answer: ReceivedFeatures | None = None
        missing: Lowering | None = None
        if ready is not None and groups:
            outcome = await source.vector(ready, groups, event)
            if isinstance(outcome, Lowering):
                missing = outcome
            else:
                answer = outcome
        if missing is None:
            features = {} if answer is None else features_of(answer.snapshot.by_key, groups)
            try:
                verdict = decide(ready, mode, Evidence(features, event.payload, event.ts), fail_closed)
                return Decided(verdict, mode, lowering, answer)
            except InputUnfit:
                missing = Lowering.INPUT_UNFIT
        mode, lowering = mode.below(), lowering or missing
