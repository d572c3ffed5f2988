"""What a basis knows of a replay: how far it reaches in each partition, its watermark, and which events it holds.

Bases that follow each other form a chain; along a chain, "the basis holds the event" is a comparison of two places: that of
the first basis of the chain which holds it, and the basis' own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ofp_platform.kernel.accumulate import EARLIEST
from ofp_platform.log.ranges import place
from ofp_platform.offline.replay.known_events import FoldedReplay
from ofp_platform.offline.sources.held_records import is_inside
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
from ofp_platform.vocabulary.position import Basis

Int64s = npt.NDArray[np.int64]
NEVER_KNOWN = 2**62


@dataclass(frozen=True)
class Knowledge:
    """A folded replay and the spans that it was folded from."""

    folded: FoldedReplay
    replay: ReplayBasis

    def lacks(self, basis: Basis) -> str | None:
        """Why the replay does not hold everything that the basis knows, in words; None when it does."""
        for span in self.replay.partitions:
            if place(span.first) != place(None):
                return (
                    f"the replay of partition {span.partition_id} begins behind its first record; what came before is not in it"
                )
        if basis.stream_name != self.replay.stream_name:
            return f"the basis is of stream {basis.stream_name}, the replay of {self.replay.stream_name}"
        if not is_inside(basis, self.replay):
            spans = self.replay.by_partition()
            for part in basis.partitions:
                own = spans.get(part.partition_id)
                if place(part) > (place(None) if own is None else place(own.end)):
                    end = "does not have it" if own is None else f"ends at {own.next or 'its start'}"
                    return f"the basis knows partition {part.partition_id} up to {part.offset}; the replay {end}"
        return None

    def bounds(self, bases: Sequence[Basis]) -> Int64s:
        """int64[n, P]: per basis and partition number the position (see `EventShard`) that its records come before."""
        parts = [basis.by_partition() for basis in bases]
        found = np.zeros((len(bases), len(self.folded.partitions)), np.int64)
        for number, name in enumerate(self.folded.partitions):
            found[:, number] = self.folded.bounds(number, [one.get(name) for one in parts])
        return found

    def watermarks(self, bounds: Int64s) -> list[int | None]:
        """The greatest event time among the applied records of each basis (int64[n, P] as of `bounds`), microseconds."""
        found = np.full(len(bounds), EARLIEST, np.int64)
        for number, maxima in enumerate(self._maxima):
            reached = np.searchsorted(maxima[:, 0], bounds[:, number], side="left") - 1
            some = reached >= 0
            found[some] = np.maximum(found[some], maxima[reached[some], 1])
        return [None if one == EARLIEST else one for one in found.tolist()]

    @cached_property
    def _maxima(self) -> list[Int64s]:
        return [np.asfortranarray(self.folded.maxima(number)) for number in range(len(self.folded.partitions))]


@dataclass(frozen=True, eq=False)
class Chains:
    """Bases in chains. `chains`: int64[L, P] each, rising; `chain` and `rank` int64[n]: where each basis stands."""

    chains: tuple[Int64s, ...]
    chain: Int64s
    rank: Int64s


def chains_of(bounds: Int64s) -> Chains:
    """Put bases (int64[n, P]) into chains: each goes behind the first chain whose last it holds."""
    distinct, inverse = np.unique(bounds, axis=0, return_inverse=True)
    members: list[list[int]] = []
    where = np.empty((len(distinct), 2), np.int64)
    for one in np.argsort(distinct.sum(axis=1), kind="stable").tolist():
        own = distinct[one]
        number = next((number for number, chain in enumerate(members) if (distinct[chain[-1]] <= own).all()), len(members))
        if number == len(members):
            members.append([])
        where[one] = number, len(members[number])
        members[number].append(one)
    placed = where[inverse.reshape(-1)]
    return Chains(tuple(distinct[chain] for chain in members), placed[:, 0], placed[:, 1])


def known_from(chain: Int64s, events: int, copies: Int64s) -> Int64s:
    """int64[events]: the place in a chain of the first basis that holds each event, NEVER_KNOWN when none does.

    `copies` int64[m, 3]: (event, partition number, position) of every record that is a copy of one.
    """
    found = np.full(events, NEVER_KNOWN, np.int64)
    for partition in range(chain.shape[1]):
        own = copies[copies[:, 1] == partition]
        ranks = np.searchsorted(chain[:, partition], own[:, 2], side="right").astype(np.int64)
        ranks[ranks == len(chain)] = NEVER_KNOWN
        np.minimum.at(found, own[:, 0], ranks)
    return found
