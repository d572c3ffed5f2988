"""Knowledge of links: how many of a run's links a version of the graph knows, and which version a moment of admission gives.

Of each partition a version knows the first so many links. A moment knows a link if the link, and every one before it in its
partition, was admitted by then: never one of tomorrow, whatever clocks did.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ofp_platform.identity.context_events import PlacedLink
from ofp_platform.identity.context_replay import ContextReplay
from ofp_platform.vocabulary.identity_link import graph_version_of
from ofp_platform.vocabulary.position import PartitionBasis, make_basis, order, place
from ofp_platform.vocabulary.serving import GraphVersion

Int64s = npt.NDArray[np.int64]


class GraphKnowledge:
    """The links of a run, numbered in each of the P partitions of their stream.

    Args:
        context: the links, read from their stream.
    """

    def __init__(self, context: ContextReplay) -> None:
        self._context = context
        self._ends: Sequence[PartitionBasis] = context.ends.partitions
        self.partitions = [end.partition_id for end in self._ends]
        self.links: list[list[PlacedLink]] = [
            [link for name, link in context.links if name == end.partition_id] for end in self._ends
        ]
        self._orders = [[order(link.offset) for link in links] for links in self.links]
        self._known_at = [np.maximum.accumulate(np.array([link.admitted_at for link in links], np.int64)) for links in self.links]

    def of_version(self, version: GraphVersion) -> Int64s:
        """int64[P]: how many links a version knows.

        Raises:
            GraphUnknown: see `ContextReplay.basis_of`.
        """
        parts = self._context.basis_of(version).by_partition()
        known_up_to = [place(parts.get(end.partition_id)) for end in self._ends]
        return np.array([bisect_right(*pair) for pair in zip(self._orders, known_up_to, strict=True)], np.int64)

    def by_admission(self, moments: Int64s) -> Int64s:
        """int64[n, P]: how many links are known at moments int64[n], microseconds."""
        counts = np.empty((len(moments), len(self._ends)), np.int64)
        for number, known_at in enumerate(self._known_at):
            counts[:, number] = np.searchsorted(known_at, moments, side="right")
        return counts

    def version(self, counts: Sequence[int]) -> GraphVersion:
        """The version that knows the first `counts` (P of them) links of each partition, and nothing behind."""
        parts = {
            end.partition_id: self._context.history.with_incarnation(end.after(links[count - 1].offset)) if count else end.start()
            for end, links, count in zip(self._ends, self.links, counts, strict=True)
        }
        return graph_version_of(make_basis(self._context.stream_name, parts))

    @property
    def newest(self) -> GraphVersion:
        """The version that knows all links."""
        return self.version([len(links) for links in self.links])

    def version_at(self, moment: int) -> GraphVersion:
        """The version of a moment, microseconds."""
        return self.version(self.by_admission(np.array([moment], np.int64))[0].tolist())
