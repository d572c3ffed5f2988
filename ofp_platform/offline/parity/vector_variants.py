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
from ofp_platform.offline.parity.rebuilding import QuestionAt, Rebuilder
from ofp_platform.vocabulary.canonical import sha256_hex
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.loop.flip_cause import Cause, NotRebuilt
from ofp_platform.vocabulary.position import Basis
from ofp_platform.vocabulary.serving import GraphVersion

Int64s = npt.NDArray[np.int64]
Causes = frozenset[Cause]
KNOWN_LATER: Causes = frozenset({Cause.DATA_LATE_EVENT, Cause.DATA_AMENDMENT, Cause.DATA_LINK, Cause.CAUSAL_READ})


@dataclass(frozen=True)
class Otherwise:
    """What is otherwise. `later`: what is known instead of the recorded basis, and `later_graph` of links; `other_pack`: the run
    under the pack that defines the features instead. None: as it is recorded."""

    later: Basis | None = None
    later_graph: GraphVersion | None = None
    other_pack: RunKey | None = None

    @property
    def causes(self) -> Causes:
        """The changes that it can make in a vector."""
        of_pack: Causes = frozenset() if self.other_pack is None else frozenset({Cause.FEATURE})
        return of_pack | (frozenset() if self.later is None else KNOWN_LATER)


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

    def hashed_bytes(self, changed: Causes) -> bytes | None:
        """The bytes of the answer with these changes of what is known; None: a value cannot be served."""
        asked = self.later_question if Cause.DATA_LINK in changed else self.question
        keys: list[Int64s | ResolvedEvents] = []
        for key in asked.question.keys:
            own = self._events(asked, key[0], (key[1],), changed)
            members = asked.members_of(key)
            keys.append(ResolvedEvents(own, self._events(asked, key[0], members, changed)) if members else own)
        try:
            # no watermark: it is in the freshness alone, by which nobody decides
            return self.rebuilder.maker.hashed(asked.question, asked.basis_text, None, keys, asked.resolution)
        except ContractError:
            return None

    def _events(self, asked: QuestionAt, key_type: str, ids: tuple[str, ...], changed: Causes) -> Int64s:
        as_of = asked.question.as_of
        after = as_of - max(group.reach for group in asked.question.groups_of[key_type])
        interval = np.array([max(after, EARLIEST)], np.int64), np.array([as_of], np.int64)
        events = self.rebuilder.index.entity_events(key_type, [ids], *interval)
        recorded, causal, later = (events.is_known(bounds) for bounds in self.reach)
        amends = is_amendment(events.matrix) if events.amendable else np.zeros(len(recorded), np.bool_)
        kept = recorded
        if Cause.CAUSAL_READ in changed:
            kept = kept | causal
        if Cause.DATA_LATE_EVENT in changed:
            kept = kept | (later & ~causal & ~amends)
        if Cause.DATA_AMENDMENT in changed:
            kept = kept | (later & ~causal & amends)
        return np.ascontiguousarray(events.matrix[:, kept])


@dataclass(frozen=True, eq=False)
class VectorVariant:
    """The vector of one decision. `changes`: those that there may be in it; `own`: under its pack, `other`: under the other one,
    if there is one; `known`: hashed bytes that were computed already, by changes."""

    changes: Causes
    own: Side
    other: Side | None
    known: dict[Causes, bytes | None] = field(repr=False)
    _values: dict[Causes, list[dict[str, Any]] | None] = field(default_factory=dict, init=False, repr=False)

    def values(self, changed: Causes) -> list[dict[str, Any]] | None:
        """The values by key with these changes, some of `changes`; None: one cannot be served."""
        if changed not in self._values:
            if changed not in self.known:
                side = self.other if self.other is not None and Cause.FEATURE in changed else self.own
                self.known[changed] = side.hashed_bytes(changed)
            hashed_bytes = self.known[changed]
            self._values[changed] = None if hashed_bytes is None else orjson.loads(hashed_bytes)["values"]
        return self._values[changed]


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
                run_key, asked = self._ask(number, text)
            except NotComparable as error:
                vectors[number] = NotRebuilt(error.reason.value, error.detail)
                continue
            asked_by_run.setdefault(run_key, []).append(asked)
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
        then = rebuilder.evaluate([side.question for side in own_sides], np.stack([side.reach.recorded for side in own_sides]))
        recorded_bytes = rebuilder.encode([side.question for side in own_sides], then)
        other_sides: list[Side] | None = None
        if self.otherwise.other_pack is None:
            whole_sides, whole_rebuilder = own_sides, rebuilder
        else:
            whole_rebuilder = self._comparer.rebuilder(self.otherwise.other_pack)
            other_questions = [item.other_question for item in items if item.other_question is not None]
            whole_sides = other_sides = self._sides(whole_rebuilder, other_questions, items)
        whole_questions = [side.later_question for side in whole_sides]
        later = whole_rebuilder.evaluate(whole_questions, np.stack([side.reach.later for side in whole_sides]))
        whole_bytes = whole_rebuilder.encode(whole_questions, later)
        for place, item in enumerate(items):
            before, after = recorded_bytes[place], whole_bytes[place]
            if not isinstance(before, bytes) or sha256_hex(before) != item.snapshot_hash:
                yield NotRebuilt("REBUILD_DIFFERS", "the log does not give the recorded hash: `ofp parity run`")
                continue
            is_same = other_sides is None and not differs(then, later, place, len(item.question.question.keys))
            changes: Causes = frozenset() if is_same else self.otherwise.causes
            known: dict[Causes, bytes | None] = {frozenset(): before}
            if changes:
                known[changes] = after if isinstance(after, bytes) else None
            yield VectorVariant(changes, own_sides[place], None if other_sides is None else other_sides[place], known)

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
