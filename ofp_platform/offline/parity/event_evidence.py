"""The events of a key that explain a value: those whose presence or absence would have given it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import orjson

from ofp_platform.kernel.accumulate import EARLIEST
from ofp_platform.offline.parity.rebuilding import QuestionAt, Rebuilder
from ofp_platform.offline.replay.event_index import KeyEvents
from ofp_platform.offline.replay.key_shards import COPY_EVENT, COPY_POSITION
from ofp_platform.registry.layout import MASK_ROW, TIME_ROW, CompiledGroup
from ofp_platform.registry.question import Question
from ofp_platform.vocabulary.errors import ContractError
from ofp_platform.vocabulary.offline.parity_record import EventRef
from ofp_platform.vocabulary.serving import Value

Int64s = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
MOST_TRIED = 2_000
MOST_LISTED = 100
_UNSERVABLE = object()


@dataclass(frozen=True)
class Explanation:
    """Events, and what they have to do with the difference."""

    events: tuple[EventRef, ...]
    words: str


def is_same(value: object, other: object) -> bool:
    """Whether two parts of snapshots are the same JSON: `true` is not `1`."""
    if value is _UNSERVABLE or other is _UNSERVABLE:
        return value is other
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS) == orjson.dumps(other, option=orjson.OPT_SORT_KEYS)


@dataclass(frozen=True, eq=False)
class KeyHistory:
    """All events that the replay has of one key in a span of time. `known_mask` bool[n]: those that the basis holds."""

    rebuilder: Rebuilder
    question_at: QuestionAt
    key: tuple[str, str]
    group: CompiledGroup
    events: KeyEvents
    known_mask: Mask

    @classmethod
    def in_windows(cls, rebuilder: Rebuilder, question: QuestionAt, key: tuple[str, str], group: CompiledGroup) -> KeyHistory:
        """The events that any window of the group can hold."""
        return cls._between(rebuilder, question, key, group, question.question.as_of - group.reach)

    @classmethod
    def at_times(
        cls, rebuilder: Rebuilder, question: QuestionAt, key: tuple[str, str], group: CompiledGroup, times: set[int]
    ) -> KeyHistory:
        """The events of the group at exactly these times, known or not."""
        history = cls._between(rebuilder, question, key, group, min(times, default=question.question.as_of) - 1)
        mask = (history.events.matrix[MASK_ROW] & group.mask) != 0
        selected_events = np.flatnonzero(np.isin(history.events.matrix[TIME_ROW], sorted(times)) & mask)
        return cls(
            rebuilder, question, key, group, _select_events(history.events, selected_events), history.known_mask[selected_events]
        )

    @classmethod
    def _between(
        cls, rebuilder: Rebuilder, question: QuestionAt, key: tuple[str, str], group: CompiledGroup, after: int
    ) -> KeyHistory:
        interval = np.array([max(after, EARLIEST)], np.int64), np.array([question.question.as_of], np.int64)
        events = rebuilder.index.entity_events(key[0], [question.ids_of(key, group)], *interval)
        known_mask = events.is_known(rebuilder.run.knowledge.bounds([question.basis])[0])
        return cls(rebuilder, question, key, group, events, known_mask)

    def explain(self, feature: str, served_value: Value) -> Explanation:
        """Find the events that, taken away or added, give the served value; otherwise those of the windows."""
        count = len(self.known_mask)
        if count <= MOST_TRIED:
            for flipped_events, words in self._changes():
                mask = self.known_mask.copy()
                mask[flipped_events] ^= True
                if is_same(self.value(feature, mask), served_value):
                    return Explanation(self.rebuilder.names.refs(self.events, flipped_events), words)
        return self.list_known("in the windows of the group, and none of them alone explains the served value")

    def list_known(self, where: str) -> Explanation:
        """List the known events (where there are none: all events), up to a bound."""
        selected_events = np.flatnonzero(self.known_mask) if self.known_mask.any() else np.arange(len(self.known_mask))
        words = f"{len(selected_events)} {'known' if self.known_mask.any() else 'unknown'} events of the key are {where}"
        if len(selected_events) > MOST_LISTED:
            words, selected_events = f"{words}; the newest {MOST_LISTED} are named", selected_events[-MOST_LISTED:]
        return Explanation(self.rebuilder.names.refs(self.events, selected_events), words)

    def value(self, feature: str, event_mask: Mask) -> object:
        """The wire value of a feature over some of the events."""
        whole_question, maker = self.question_at.question, self.rebuilder.maker
        question = Question(
            whole_question.request,
            whole_question.as_of,
            (self.key,),
            (self.group,),
            {self.group.key_type: (self.group,)},
            whole_question.context,
        )
        matrix = np.ascontiguousarray(self.events.matrix[:, event_mask])
        try:
            hashed_bytes = maker.hashed(question, self.question_at.basis_text, None, [matrix])
        except ContractError:
            return _UNSERVABLE
        return orjson.loads(hashed_bytes)["values"][0]["by_group"][0]["features"].get(feature, _UNSERVABLE)

    def _changes(self) -> Iterator[tuple[Int64s, str]]:
        """Sets of events to flip: one event away, one event more, then the newest or next ones in the order of the log."""
        known_events, unknown_events = np.flatnonzero(self.known_mask), np.flatnonzero(~self.known_mask)
        for event in known_events[::-1]:
            yield np.array([event]), "it was served as if this event, which the basis holds, were not known"
        for event in unknown_events:
            yield np.array([event]), "it was served as if this event, which the basis does not hold, were known"
        first_rank = np.full(len(self.known_mask), np.iinfo(np.int64).max)
        np.minimum.at(first_rank, self.events.copies[:, COPY_EVENT], self.events.copies[:, COPY_POSITION])
        newest_events = known_events[np.argsort(first_rank[known_events], kind="stable")][::-1]
        for size in range(2, len(newest_events) + 1):
            yield newest_events[:size], f"it was served as if these {size} events, which the basis holds, were not known"
        next_events = unknown_events[np.argsort(first_rank[unknown_events], kind="stable")]
        for size in range(2, len(next_events) + 1):
            yield next_events[:size], f"it was served as if these {size} events, which the basis does not hold, were known"


def _select_events(events: KeyEvents, selected_events: Int64s) -> KeyEvents:
    """The selected events of one key, numbered again."""
    new_codes = np.full(events.matrix.shape[1], -1, np.int64)
    new_codes[selected_events] = np.arange(len(selected_events))
    copies = events.copies[np.isin(events.copies[:, COPY_EVENT], selected_events)].copy()
    copies[:, COPY_EVENT] = new_codes[copies[:, COPY_EVENT]]
    starts, ends = np.zeros(1, np.int64), np.array([len(selected_events)], np.int64)
    return KeyEvents(
        events.matrix[:, selected_events], starts, ends, copies, events.admitted_at[selected_events], events.amendable
    )
