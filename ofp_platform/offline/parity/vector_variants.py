"""Vectors of recorded decisions as they would have been: with what is known later, read causally, or under another pack.

A decision is first rebuilt at its recorded basis; only where that gives the recorded hash is it said what would have been
otherwise. Each kind of change can be made alone: late events, amendments and links of what is known later; the events that a
causal read of the decision's own event would have held; the definitions of the other pack.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import orjson

from ofp_platform.kernel.accumulate import EARLIEST
from ofp_platform.kernel.amendments import is_amendment
from ofp_platform.kernel.entity_events import ResolvedEvents
from ofp_platform.offline.parity.correction_ledger import differs
from ofp_platform.offline.parity.other_pack import OtherPack
from ofp_platform.offline.parity.parity import Comparer, ParityRuns, RunKey, resolution_of
from ofp_platform.offline.parity.parity_anchor import NotComparable, ParityAnchor, ServedSnapshot
from ofp_platform.offline.parity.rebuilding import EvaluatedQuestions, QuestionAt, Rebuilder
from ofp_platform.vocabulary.canonical import sha256_hex
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.loop.flip_cause import Cause, NotRebuilt
from ofp_platform.vocabulary.position import Basis
from ofp_platform.vocabulary.serving import GraphVersion

Int64s = npt.NDArray[np.int64]
Causes = frozenset[Cause]
_NOTHING: Causes = frozenset()
_FEATURE: Causes = frozenset({Cause.FEATURE})
KNOWN_LATER: Causes = frozenset({Cause.DATA_LATE_EVENT, Cause.DATA_AMENDMENT, Cause.DATA_LINK, Cause.CAUSAL_READ})


@dataclass(frozen=True)
class Otherwise:
    """The changes. `later`: what is known instead of the recorded basis, and `later_graph` of links; `other_pack`: the run
    under the pack that defines the features instead. None: as it is recorded."""

    later: Basis | None = None
    later_graph: GraphVersion | None = None
    other_pack: RunKey | None = None


class Reach(NamedTuple):
    """How far three kinds of knowledge reach, int64[P] each (see `Knowledge.bounds`): the recorded basis, the same with the
    decision's own event in it, and all that is known later."""

    recorded: Int64s
    causal: Int64s
    later: Int64s


class Side(NamedTuple):
    """The question of a decision under one pack, resolved as recorded and by later links, and how far knowledge reaches there."""

    rebuilder: Rebuilder
    question: QuestionAt
    later_question: QuestionAt
    reach: Reach

    def hashed_bytes(self, chosen_changes: Causes) -> bytes | None:
        """The bytes of the answer with these changes of what is known; None: a value cannot be served."""
        asked_question = self.later_question if Cause.DATA_LINK in chosen_changes else self.question
        keys: list[Int64s | ResolvedEvents] = []
        for key in asked_question.question.keys:
            own_events = self._events(asked_question, key[0], (key[1],), chosen_changes)
            members = asked_question.members_of(key)
            keys.append(
                ResolvedEvents(own_events, self._events(asked_question, key[0], members, chosen_changes))
                if members
                else own_events
            )
        try:
            # no watermark: it is in the freshness alone, by which nobody decides
            return self.rebuilder.maker.hashed(
                asked_question.question, asked_question.basis_text, None, keys, asked_question.resolution
            )
        except ContractError:
            return None

    def _events(self, asked_question: QuestionAt, key_type: str, ids: tuple[str, ...], chosen_changes: Causes) -> Int64s:
        as_of = asked_question.question.as_of
        after = as_of - max(group.reach for group in asked_question.question.groups_of[key_type])
        interval = np.array([max(after, EARLIEST)], np.int64), np.array([as_of], np.int64)
        events = self.rebuilder.index.entity_events(key_type, [ids], *interval)
        recorded_events, causal_events, later_events = (events.is_known(bounds) for bounds in self.reach)
        amends = is_amendment(events.matrix) if events.amendable else np.zeros(len(recorded_events), np.bool_)
        kept_events = recorded_events
        if Cause.CAUSAL_READ in chosen_changes:
            kept_events = kept_events | causal_events
        if Cause.DATA_LATE_EVENT in chosen_changes:
            kept_events = kept_events | (later_events & ~causal_events & ~amends)
        if Cause.DATA_AMENDMENT in chosen_changes:
            kept_events = kept_events | (later_events & ~causal_events & amends)
        return np.ascontiguousarray(events.matrix[:, kept_events])


@dataclass(frozen=True, eq=False)
class VectorVariant:
    """The vector of one decision. `changes`: those that there are in it: of what is known later, only where all of it gives other
    values (a late event that was voided since is no change); `own`: under its pack, `other`: under the other one,
    if there is one; `known_bytes`: hashed bytes that were computed already, by changes."""

    changes: Causes
    own: Side
    other: Side | None
    known_bytes: dict[Causes, bytes | None] = field(repr=False)
    _values: dict[Causes, list[dict[str, Any]] | None] = field(default_factory=dict, init=False, repr=False)

    def values(self, chosen_changes: Causes) -> list[dict[str, Any]] | None:
        """The values by key with these changes, some of `changes`; None: one cannot be served."""
        if chosen_changes not in self._values:
            if chosen_changes not in self.known_bytes:
                side = self.other if self.other is not None and Cause.FEATURE in chosen_changes else self.own
                self.known_bytes[chosen_changes] = side.hashed_bytes(chosen_changes)
            self._values[chosen_changes] = _values(self.known_bytes[chosen_changes])
        return self._values[chosen_changes]


class _Encoded(NamedTuple):
    """The hashed bytes of an answer with what was known, and with what is known later; None: a value cannot be served."""

    recorded: bytes | None
    later: bytes | None

    @property
    def is_other_later(self) -> bool:
        """Whether the values are others later: freshness is not looked at."""
        if self.recorded is self.later:
            return False
        return _values(self.recorded) != _values(self.later)


def _values(hashed_bytes: bytes | None) -> list[dict[str, Any]] | None:
    return None if hashed_bytes is None else orjson.loads(hashed_bytes)["values"]


class _Asked(NamedTuple):
    """A decision whose question can be asked again: its number, the recorded hash, and the question under each pack."""

    number: int
    snapshot_hash: str
    event_position: Mapping[str, Any]
    question: QuestionAt
    other_question: QuestionAt | None


@dataclass(frozen=True)
class VectorVariants:
    """Rebuilds vectors of decisions from the replays of a run. Not safe for threads."""

    parity: ParityRuns
    otherwise: Otherwise

    @cached_property
    def _comparer(self) -> Comparer:
        return Comparer(self.parity)

    @cached_property
    def _other_pack(self) -> OtherPack | None:
        key = self.otherwise.other_pack
        return None if key is None else OtherPack(self._comparer.rebuilder(key).registry)

    def rebuild(self, stored_decisions: Sequence[str]) -> list[VectorVariant | NotRebuilt]:
        """The vectors of decisions that were made on one, from the stored texts of these; in their order."""
        vectors: list[VectorVariant | NotRebuilt] = [NotRebuilt("", "")] * len(stored_decisions)
        asked_by_run: dict[RunKey, list[_Asked]] = {}
        for number, text in enumerate(stored_decisions):
            try:
                run_key, asked_question = self._ask(number, text)
            except NotComparable as error:
                vectors[number] = NotRebuilt(error.reason.value, error.detail)
                continue
            asked_by_run.setdefault(run_key, []).append(asked_question)
        for run_key, items in asked_by_run.items():
            for item, vector in zip(items, self._rebuild(self._comparer.rebuilder(run_key), items), strict=True):
                vectors[item.number] = vector
        return vectors

    def _ask(self, number: int, text: str) -> tuple[RunKey, _Asked]:
        content = orjson.loads(text)
        snapshot_hash = content["feature_snapshot_hash"]
        served_snapshot = self._comparer.reader.read(ParityAnchor(snapshot_hash, text.encode(), content["decision_id"]))
        run_key, question = self._comparer.question(served_snapshot)
        question_at = self._comparer.question_at(served_snapshot, question)
        other_question = self._ask_other(served_snapshot)
        return run_key, _Asked(number, snapshot_hash, content["event_position"], question_at, other_question)

    def _ask_other(self, served_snapshot: ServedSnapshot) -> QuestionAt | None:
        if self._other_pack is None:
            return None
        question = self._other_pack.question(served_snapshot, self.parity.pins)
        version = served_snapshot.graph_version if question.keys_to_resolve else None
        resolution = resolution_of(question, version, self.parity.context)
        return QuestionAt(question, served_snapshot.basis, served_snapshot.basis_text, resolution)

    def _rebuild(self, rebuilder: Rebuilder, items: Sequence[_Asked]) -> Iterable[VectorVariant | NotRebuilt]:
        """The vectors of decisions of one pack."""
        own_sides = self._sides(rebuilder, [item.question for item in items], items)
        own_bytes = self._encode(rebuilder, own_sides)
        other_sides: Sequence[Side | None] = [None] * len(items)
        other_bytes: Sequence[_Encoded | None] = [None] * len(items)
        if self.otherwise.other_pack is not None:
            other_rebuilder = self._comparer.rebuilder(self.otherwise.other_pack)
            other_questions = [item.other_question for item in items if item.other_question is not None]
            other_sides = sides = self._sides(other_rebuilder, other_questions, items)
            other_bytes = self._encode(other_rebuilder, sides)
        for item, own_side, own_pair, other_side, other_pair in zip(
            items, own_sides, own_bytes, other_sides, other_bytes, strict=True
        ):
            if own_pair.recorded is None or sha256_hex(own_pair.recorded) != item.snapshot_hash:
                yield NotRebuilt("REBUILD_DIFFERS", "the log does not give the recorded hash: `ofp parity run`")
                continue
            known_bytes = {_NOTHING: own_pair.recorded, **({} if other_pair is None else {_FEATURE: other_pair.recorded})}
            if own_pair.is_other_later or (other_pair is not None and other_pair.is_other_later):
                known_bytes |= {
                    KNOWN_LATER: own_pair.later,
                    **({} if other_pair is None else {KNOWN_LATER | _FEATURE: other_pair.later}),
                }
            yield VectorVariant(frozenset().union(*known_bytes), own_side, other_side, known_bytes)

    def _encode(self, rebuilder: Rebuilder, sides: Sequence[Side]) -> list[_Encoded]:
        """The bytes of each question with what was known, and with what is known later."""
        questions = [side.question for side in sides]
        then = rebuilder.evaluate(questions, np.stack([side.reach.recorded for side in sides]))
        recorded_bytes = rebuilder.encode(questions, then)
        later_bytes = list(recorded_bytes)
        if self.otherwise.later is not None:
            later_questions = [side.later_question for side in sides]
            later = rebuilder.evaluate(later_questions, np.stack([side.reach.later for side in sides]))
            numbers = [
                number for number, question in enumerate(questions) if differs(then, later, number, len(question.question.keys))
            ]
            differing = EvaluatedQuestions(
                [later.rows[number] for number in numbers],
                [later.entity_rows[number] for number in numbers],
                [later.watermarks[number] for number in numbers],
            )
            differing_bytes = rebuilder.encode([later_questions[number] for number in numbers], differing)
            for number, answer_bytes in zip(numbers, differing_bytes, strict=True):
                later_bytes[number] = answer_bytes
        return [
            _Encoded(*(answer_bytes if isinstance(answer_bytes, bytes) else None for answer_bytes in pair))
            for pair in zip(recorded_bytes, later_bytes, strict=True)
        ]

    def _sides(self, rebuilder: Rebuilder, questions: Sequence[QuestionAt], items: Sequence[_Asked]) -> list[Side]:
        knowledge = rebuilder.run.knowledge
        recorded = knowledge.bounds([question.basis for question in questions])
        if self.otherwise.later is None:
            causal = later = recorded
        else:
            causal = np.maximum(recorded, self._behind_events(rebuilder, items))
            later = np.maximum(causal, knowledge.bounds([self.otherwise.later])[0])
        return [
            Side(rebuilder, question, self._with_later_links(question), Reach(*reach))
            for question, *reach in zip(questions, recorded, causal, later, strict=True)
        ]

    def _behind_events(self, rebuilder: Rebuilder, items: Sequence[_Asked]) -> Int64s:
        """int64[n, P]: right behind the event of each decision in its partition, 0 in the others."""
        folded_replay = rebuilder.run.knowledge.folded_replay
        ends = {end.partition_id: (number, end) for number, end in enumerate(folded_replay.ends)}
        bounds = np.zeros((len(items), len(folded_replay.partitions)), np.int64)
        for place, item in enumerate(items):
            at = ends.get(item.event_position["partition_id"])
            if at is not None:
                number, end = at
                bounds[place, number] = folded_replay.bound(end.after(item.event_position["offset"]))
        return bounds

    def _with_later_links(self, question: QuestionAt) -> QuestionAt:
        """The question as it would have been resolved, had all links been known."""
        if question.resolution is None or self.otherwise.later_graph is None:
            return question
        return replace(question, resolution=resolution_of(question.question, self.otherwise.later_graph, self.parity.context))
