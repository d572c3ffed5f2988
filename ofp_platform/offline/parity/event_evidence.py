"""Which events of a key explain a value: those whose presence or absence would have given it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import orjson

from ofp_platform.kernel.accumulate import EARLIEST
from ofp_platform.offline.parity.rebuilding import QuestionAt, Rebuilder
from ofp_platform.offline.replay.event_index import KeyEvents
from ofp_platform.registry.layout import CompiledGroup
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


@dataclass(frozen=True, eq=False)
class KeyHistory:
    """All events that the replay has of one key in a span of time. `known` bool[n]: those that the basis holds."""

    rebuilder: Rebuilder
    asked: QuestionAt
    key: tuple[str, str]
    group: CompiledGroup
    events: KeyEvents
    known: Mask

    @classmethod
    def in_windows(cls, rebuilder: Rebuilder, asked: QuestionAt, key: tuple[str, str], group: CompiledGroup) -> KeyHistory:
        """The events that any window of the group can hold."""
        return cls._between(rebuilder, asked, key, group, asked.question.as_of - group.reach)

    @classmethod
    def at_times(
        cls, rebuilder: Rebuilder, asked: QuestionAt, key: tuple[str, str], group: CompiledGroup, times: set[int]
    ) -> KeyHistory:
        """The events of the group at exactly these times, known or not."""
        found = cls._between(rebuilder, asked, key, group, min(times, default=asked.question.as_of) - 1)
        mask = (found.events.matrix[1] & group.mask) != 0
        chosen = np.flatnonzero(np.isin(found.events.matrix[0], sorted(times)) & mask)
        return cls(rebuilder, asked, key, group, _taken(found.events, chosen), found.known[chosen])

    @classmethod
    def _between(
        cls, rebuilder: Rebuilder, asked: QuestionAt, key: tuple[str, str], group: CompiledGroup, after: int
    ) -> KeyHistory:
        span = np.array([max(after, EARLIEST)], np.int64), np.array([asked.question.as_of], np.int64)
        events = rebuilder.index.events(key[0], [key[1]], *span)
        known = events.known(rebuilder.run.knowledge.bounds([asked.basis])[0])
        return cls(rebuilder, asked, key, group, events, known)

    def explain(self, feature: str, served: Value) -> Explanation:
        """Which events, taken away or added, give the served value; otherwise those of the windows."""
        count = len(self.known)
        if count <= MOST_TRIED:
            for changed, words in self._changes():
                mask = self.known.copy()
                mask[changed] ^= True
                if self.value(feature, mask) == served:
                    return Explanation(self.rebuilder.names.refs(self.events, changed), words)
        return self.listed("in the windows of the group, and none of them alone explains the served value")

    def listed(self, where: str) -> Explanation:
        """The known events (without any: all that there are), up to a bound."""
        chosen = np.flatnonzero(self.known) if self.known.any() else np.arange(len(self.known))
        words = f"{len(chosen)} {'known' if self.known.any() else 'unknown'} events of the key are {where}"
        if len(chosen) > MOST_LISTED:
            words, chosen = f"{words}; the newest {MOST_LISTED} are named", chosen[-MOST_LISTED:]
        return Explanation(self.rebuilder.names.refs(self.events, chosen), words)

    def value(self, feature: str, chosen: Mask) -> object:
        """The wire value of a feature over some of the events."""
        whole, maker = self.asked.question, self.rebuilder.maker
        question = Question(
            whole.request, whole.as_of, (self.key,), (self.group,), {self.group.key_type: (self.group,)}, whole.context
        )
        matrix = np.ascontiguousarray(self.events.matrix[:, chosen])
        try:
            hashed = maker.hashed(question, self.asked.text, None, [matrix])
        except ContractError:
            return _UNSERVABLE
        return orjson.loads(hashed)["values"][0]["by_group"][0]["features"].get(feature, _UNSERVABLE)

    def _changes(self) -> Iterator[tuple[Int64s, str]]:
        """What to try: one event away, one event more, then the newest or next ones in the order of the log."""
        known, unknown = np.flatnonzero(self.known), np.flatnonzero(~self.known)
        for one in known[::-1]:
            yield np.array([one]), "it was served as if this event, which the basis holds, were not known"
        for one in unknown:
            yield np.array([one]), "it was served as if this event, which the basis does not hold, were known"
        place = np.full(len(self.known), np.iinfo(np.int64).max)
        np.minimum.at(place, self.events.copies[:, 0], self.events.copies[:, 2])
        newest = known[np.argsort(place[known], kind="stable")][::-1]
        for size in range(2, len(newest) + 1):
            yield newest[:size], f"it was served as if these {size} events, which the basis holds, were not known"
        following = unknown[np.argsort(place[unknown], kind="stable")]
        for size in range(2, len(following) + 1):
            yield following[:size], f"it was served as if these {size} events, which the basis does not hold, were known"


def _taken(events: KeyEvents, chosen: Int64s) -> KeyEvents:
    """Some of the events of one key."""
    names = np.full(events.matrix.shape[1], -1, np.int64)
    names[chosen] = np.arange(len(chosen))
    copies = events.copies[np.isin(events.copies[:, 0], chosen)].copy()
    copies[:, 0] = names[copies[:, 0]]
    return KeyEvents(events.matrix[:, chosen], np.zeros(1, np.int64), np.array([len(chosen)], np.int64), copies)
