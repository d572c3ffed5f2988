"""The health of the identity graph: whether it is there, and how far it is behind its stream."""

from __future__ import annotations

from dataclasses import dataclass

from ofp_platform.identity.graph_state import find_graph
from ofp_platform.log.port import LogError
from ofp_platform.online.plane import Plane
from ofp_platform.online.state.projection import ProjectionRow
from ofp_platform.vocabulary.profile import Thresholds

IEG_DOWN = "IEG_DOWN"
"""The reason when a graph is declared or needed and is not there, or its stream does not answer."""


@dataclass(frozen=True)
class GraphHealth:
    """`lag`: records of the context stream that the graph does not know; None: that could not be seen. `warnings`: reasons of the
    posture."""

    lag: int | None = 0
    warnings: tuple[str, ...] = ()


class GraphWatch:
    """Looks at the graph of one plane."""

    def __init__(self, plane: Plane, thresholds: Thresholds, now: float) -> None:
        self._plane = plane
        self._thresholds = thresholds
        self._moved_at = now
        self._seen_version = -1
        self._is_needed: tuple[str, bool] = ("", False)  # by the pack of this digest

    def look(self, row: ProjectionRow, now: float) -> GraphHealth:
        """The health at a moment (seconds of a clock that runs forward). Without a context stream nothing is wrong, unless a
        group of the projection resolves identities.

        Raises:
            psycopg.Error: the store does not answer.
        """
        name = self._plane.profile.context_stream
        if name is None:
            if row.registry_digest != self._is_needed[0]:
                self._is_needed = row.registry_digest, self._plane.registry_of(row).resolves
            return GraphHealth(None, (IEG_DOWN,)) if self._is_needed[1] else GraphHealth()
        with self._plane.pool.connection() as connection:
            graph = find_graph(connection, name, self._plane.profile.context_pins)
        if graph is None:
            return GraphHealth(None, (IEG_DOWN,))
        try:
            lag = sum(self._plane.context_log().ordinal_lag(graph.basis).values())
        except LogError:
            return GraphHealth(None, (IEG_DOWN,))
        if graph.version != self._seen_version or not lag:
            self._seen_version, self._moved_at = graph.version, now
        bound = self._thresholds.stall_seconds_amber
        stalled = now - self._moved_at > bound
        return GraphHealth(lag, (f"IEG_STALLED_SECONDS>{bound}",) if stalled else ())
