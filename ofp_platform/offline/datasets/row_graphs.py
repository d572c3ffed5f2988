"""Versions of the identity graph that the rows of a dataset know: each is numbered when a row first knows it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ofp_platform.identity.context_replay import ContextReplay, GraphUnknown
from ofp_platform.identity.graph_knowledge import GraphKnowledge
from ofp_platform.offline.replay.decision_basis import DecisionRow
from ofp_platform.vocabulary.offline.build_intent import AsOfBasis
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.serving import GraphVersion

Int64s = npt.NDArray[np.int64]


class RowGraphs:
    """The versions that rows know, for groups that resolve identities.

    Args:
        context: the links of the run.
        pinned_version: the version that the build may know, of which a row knows all (`event_time`), or what was admitted by
            when it knows (`ingest_time`); None for rows of decisions, which recorded theirs.

    Raises:
        GraphUnknown: the links do not give the pinned version.
    """

    def __init__(self, context: ContextReplay, pinned_version: GraphVersion | None) -> None:
        self.knowledge = GraphKnowledge(context)
        self.versions: list[GraphVersion] = []
        self._pinned_version = pinned_version
        self._most = None if pinned_version is None else self.knowledge.of_version(pinned_version)
        self._numbers: dict[str, int] = {}
        self._of_counts: dict[tuple[int, ...], int] = {}
        self._counts: list[Int64s] = []

    @property
    def counts(self) -> Int64s:
        """int64[V, P]: how many links each version knows (see `GraphKnowledge`)."""
        return np.stack(self._counts)

    def names(self, numbers: Int64s) -> pa.Array:
        """The names of the versions with these numbers."""
        return pa.array([version.graph_version for version in self.versions], pa.string()).take(pa.array(numbers))

    def of_rows(self, as_of_basis: AsOfBasis, known_until: Int64s) -> Int64s:
        """int64[n]: the numbers of the versions of rows that are of no decision; `known_until` int64[n], microseconds."""
        if self._pinned_version is None or self._most is None:
            raise ValueError("rows that are of no decision know a pinned version")
        if as_of_basis is AsOfBasis.EVENT_TIME:
            return np.full(len(known_until), self._number(self._pinned_version), np.int64)
        counts = np.minimum(self.knowledge.by_admission(known_until), self._most)
        distinct, rows = np.unique(counts, axis=0, return_inverse=True)
        numbers = np.array([self._number_of(tuple(each)) for each in distinct.tolist()], np.int64)
        return numbers[rows.reshape(-1)]

    def of_decisions(self, decisions: Sequence[DecisionRow]) -> Int64s:
        """int64[n]: the numbers of the versions of rows of decisions.

        Raises:
            BuildRefused: REPLAY_INCOMPLETE: a decision recorded none, or one that the links do not give.
        """
        return np.array([self._recorded_number(decision) for decision in decisions], np.int64)

    def _recorded_number(self, decision: DecisionRow) -> int:
        if decision.graph_version is None:
            problem = "records no version of the identity graph, and a group of the dataset resolves identities"
        else:
            try:
                return self._number(decision.graph_version)
            except GraphUnknown as error:
                problem = f"was made by version {decision.graph_version.graph_version} of the identity graph: {error}"
        message = f"decision {decision.decision_id} {problem}"
        raise BuildRefused(BuildReason.REPLAY_INCOMPLETE, message, "as_of_basis")

    def _number_of(self, counts: tuple[int, ...]) -> int:
        number = self._of_counts.get(counts)
        if number is None:
            number = self._of_counts[counts] = self._number(self.knowledge.version(counts), np.array(counts, np.int64))
        return number

    def _number(self, version: GraphVersion, counts: Int64s | None = None) -> int:
        number = self._numbers.get(version.graph_version)
        if number is None:
            self._counts.append(self.knowledge.of_version(version) if counts is None else counts)
            self.versions.append(version)
            number = self._numbers[version.graph_version] = len(self.versions) - 1
        return number
