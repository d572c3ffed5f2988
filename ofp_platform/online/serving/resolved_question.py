"""A question whose groups resolve identities: which keys are read for it, and whose events become whose."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ofp_platform.identity.entities import MOST_MEMBERS, TooManyMembers, entities_of
from ofp_platform.identity.graph_state import GraphReading
from ofp_platform.identity.queries import too_many, usable
from ofp_platform.kernel.entity_events import ResolvedEvents, merged_in_time
from ofp_platform.kernel.native import Int64Array
from ofp_platform.kernel.snapshot import Answer, Resolution
from ofp_platform.kernel.windows import KeyEvents, Segments
from ofp_platform.online.serving.evaluation import Evaluator, KeyState, StoredState
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.question import Question
from ofp_platform.vocabulary.errors import Reason, unavailable
from ofp_platform.vocabulary.identity import ContextPins


@dataclass(frozen=True)
class Graph:
    """Where the graph is that questions are resolved by. `stream_name`: None, the deployment has none."""

    stream_name: str | None
    most_members: int

    def demand(self, pins: ContextPins) -> str:
        """The name of the context stream.

        Raises:
            ContractError: UNAVAILABLE / IEG_DOWN: there is none.
        """
        if self.stream_name is None:
            text = "a requested group resolves identities, and the profile names no context_stream"
            raise unavailable(Reason.IEG_DOWN, text, pins)
        return self.stream_name


NO_GRAPH = Graph(None, MOST_MEMBERS)
"""Of a deployment without a context stream."""


@dataclass(frozen=True)
class ResolvedQuestion:
    """`reading`: the question with the keys of all members, of which the state is read; `resolution`: what the graph said."""

    question: Question
    reading: Question
    resolution: Resolution

    @classmethod
    def of(cls, question: Question, graph: Graph, links: GraphReading | None, pins: ContextPins) -> ResolvedQuestion:
        """Resolve the keys of a question by what the graph says of them.

        Raises:
            ContractError: IEG_DOWN, TOO_MANY_MEMBERS.
        """
        reading = usable(links, graph.demand(pins), pins)
        try:
            entities = entities_of(reading.links, question.keys_to_resolve, question.as_of, graph.most_members)
        except TooManyMembers as error:
            raise too_many(error, pins) from None
        resolution = Resolution.of(reading.graph_version, entities)
        whole_keys = frozenset((key[0], member) for key in entities for member in resolution.members_of(key))
        keys = tuple(sorted({*question.keys, *whole_keys}))
        return cls(question, replace(question, keys=keys, whole_keys=whole_keys), resolution)

    def answer(self, evaluator: Evaluator, state: StoredState, posture: Mapping[str, Any]) -> Answer:
        """Evaluate and encode, from the state of `reading`.

        Raises:
            ContractError: see `SnapshotMaker.snapshot`.
        """
        chunks_of_keys = [[chunk for chunk in chunks if not chunk.is_mark] for chunks in state.chunks]
        states = [evaluator.key_state(key[0], chunks) for key, chunks in zip(self.reading.keys, chunks_of_keys, strict=True)]
        events = self._events(states, evaluator.registry)
        return evaluator.snapshot(self.question, state.basis, state.watermark, events, posture, resolution=self.resolution)

    def _events(self, states: Sequence[KeyState], registry: CompiledRegistry) -> list[KeyEvents | ResolvedEvents]:
        """The events of the question's keys, from the states of all that were read."""
        by_key = {key: state.events for key, state in zip(self.reading.keys, states, strict=True)}
        events: list[KeyEvents | ResolvedEvents] = []
        for key in self.question.keys:
            members = self.resolution.members_of(key)
            if not members:
                events.append(by_key[key])
                continue
            parts = [_matrix(by_key[key[0], member]) for member in members]
            events.append(ResolvedEvents(by_key[key], merged_in_time(parts, ties=registry.layouts[key[0]].ties)))
        return events


def _matrix(events: KeyEvents) -> Int64Array:
    """All events of a state of which every event was read."""
    if isinstance(events, Segments):
        if len(events.starts) and int(events.starts.min()) < 0:
            raise ValueError("the state of a member was not read whole")
        return events.matrix
    if not isinstance(events, np.ndarray):
        raise TypeError("a member's state is a matrix or segments")
    return events
