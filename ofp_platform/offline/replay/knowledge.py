"""Knowledge at a basis: how far it reaches in each partition of a replay, its watermark, and which events it holds.

Bases that follow each other form a chain; along a chain, "the basis holds the event" is a comparison of two ranks: that of
the first basis of the chain which holds it, and the basis' own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from ofp_platform.kernel.accumulate import EARLIEST
from ofp_platform.offline.replay.key_shards import COPY_EVENT, COPY_PARTITION, COPY_POSITION
from ofp_platform.offline.replay.known_events import FoldedReplay
from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis
from ofp_platform.vocabulary.position import Basis, place

Int64s = npt.NDArray[np.int64]
NEVER_KNOWN = 2**62
MAXIMUM_POSITION, MAXIMUM_TIME = range(2)


@dataclass(frozen=True)
class Knowledge:
    """A folded replay and the spans that it was folded from."""

    folded_replay: FoldedReplay
    replay_basis: ReplayBasis

    def lacks(self, basis: Basis) -> str | None:
        """Why the replay does not hold everything that the basis knows, in words; None when it does."""
        for span in self.replay_basis.partitions:
            if place(span.first) != place(None):
                return (
                    f"the replay of partition {span.partition_id} begins behind its first record; what came before is not in it"
                )
        if basis.stream_name != self.replay_basis.stream_name:
            return f"the basis is of stream {basis.stream_name}, the replay of {self.replay_basis.stream_name}"
        if not self.replay_basis.contains_end(basis):
            spans = self.replay_basis.by_partition()
            for part in basis.partitions:
                replayed_span = spans.get(part.partition_id)
                if place(part) > (place(None) if replayed_span is None else place(replayed_span.end)):
                    end = "does not have it" if replayed_span is None else f"ends at {replayed_span.next or 'its start'}"
                    return f"the basis knows partition {part.partition_id} up to {part.offset}; the replay {end}"
        return None

    def bounds(self, bases: Sequence[Basis]) -> Int64s:
        """int64[n, P]: per basis and partition number the position (see `EventShard`) that its records come before."""
        parts = [basis.by_partition() for basis in bases]
        bounds = np.zeros((len(bases), len(self.folded_replay.partitions)), np.int64)
        for number, name in enumerate(self.folded_replay.partitions):
            bounds[:, number] = self.folded_replay.bounds(number, [parts_by_partition.get(name) for parts_by_partition in parts])
        return bounds

    def watermarks(self, bounds: Int64s) -> list[int | None]:
        """The greatest event time among the applied records of each basis (int64[n, P] as of `bounds`), microseconds."""
        greatest = np.full(len(bounds), EARLIEST, np.int64)
        for number, maxima in enumerate(self._maxima):
            last_rise = np.searchsorted(maxima[:, MAXIMUM_POSITION], bounds[:, number], side="left") - 1
            has_events = last_rise >= 0
            greatest[has_events] = np.maximum(greatest[has_events], maxima[last_rise[has_events], MAXIMUM_TIME])
        return [None if watermark == EARLIEST else watermark for watermark in greatest.tolist()]

    @cached_property
    def _maxima(self) -> list[Int64s]:
        return [np.asfortranarray(self.folded_replay.maxima(number)) for number in range(len(self.folded_replay.partitions))]


@dataclass(frozen=True, eq=False)
class Chains:
    """Bases in chains. `chains`: int64[L, P] each, ascending; `chain` and `rank` int64[n]: those of each basis."""

    chains: tuple[Int64s, ...]
    chain: Int64s
    rank: Int64s


def chains_of(bounds: Int64s) -> Chains:
    """Put bases (int64[n, P]) into chains: each is appended to the first chain whose last basis it includes."""
    distinct, inverse = np.unique(bounds, axis=0, return_inverse=True)
    members: list[list[int]] = []
    place_of = np.empty((len(distinct), 2), np.int64)
    for index in np.argsort(distinct.sum(axis=1), kind="stable").tolist():
        bound = distinct[index]
        number = next((number for number, chain in enumerate(members) if (distinct[chain[-1]] <= bound).all()), len(members))
        if number == len(members):
            members.append([])
        place_of[index] = number, len(members[number])
        members[number].append(index)
    positions = place_of[inverse.reshape(-1)]
    return Chains(tuple(distinct[chain] for chain in members), positions[:, 0], positions[:, 1])


def known_from(chain: Int64s, events: int, copies: Int64s) -> Int64s:
    """int64[events]: the rank in a chain of the first basis that holds each event, NEVER_KNOWN when none does.

    `copies` int64[m, 3]: (event, partition number, position) of every record that is a copy of one.
    """
    first_ranks = np.full(events, NEVER_KNOWN, np.int64)
    for partition in range(chain.shape[1]):
        partition_copies = copies[copies[:, COPY_PARTITION] == partition]
        ranks = np.searchsorted(chain[:, partition], partition_copies[:, COPY_POSITION], side="right").astype(np.int64)
        ranks[ranks == len(chain)] = NEVER_KNOWN
        np.minimum.at(first_ranks, partition_copies[:, COPY_EVENT], ranks)
    return first_ranks
