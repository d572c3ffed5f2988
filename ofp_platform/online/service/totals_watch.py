"""Totals of the run as metrics: builds, datasets, anomalies by event class; and whether signals are watched. Looked at now and
then, beside health.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from functools import cached_property

import psycopg

from ofp_platform.online.plane import Plane, profile_pack
from ofp_platform.online.service.counters import Counters
from ofp_platform.registry.models import Pack, event_class
from ofp_platform.storage.posture_looks import posture_watched
from ofp_platform.storage.recorded_totals import RecordedTotals, read_recorded_totals

logger = logging.getLogger(__name__)
LOOK_SECONDS = 15.0  # between two looks


class TotalsWatch:
    """Keeps the totals of a run in `counters`. Nobody is served worse while they cannot be read: then they stay as they were, but
    that somebody looks at signals is not taken for known.
    """

    def __init__(self, plane: Plane, counters: Counters) -> None:
        self._plane = plane
        self._counters = counters
        self._looked_at: float | None = None
        policy = plane.profile.posture
        # whether anybody looks at signals counts as bad while it is not known
        self._not_known = math.inf if policy is not None and policy.thresholds else 0.0
        counters.signals_unwatched_seconds.set(self._not_known)

    def look(self, projection_id: int, now: float) -> None:
        """Read them, where that was not done for a while; `now`: seconds that never go back. Blocks."""
        if self._looked_at is not None and now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        profile = self._plane.profile
        try:
            with self._plane.pool.connection() as connection:
                totals = read_recorded_totals(connection, profile.context_pins, projection_id)
                watched = posture_watched(connection, profile.context_pins, profile.posture)
        except psycopg.Error as error:
            self._counters.signals_unwatched_seconds.set(self._not_known)
            logger.warning("metrics: builds, datasets and anomalies could not be counted: %s", type(error).__name__)
            return
        self._export(totals)
        last_look_ms = None if watched is None else watched.last_look_ms
        seconds = self._not_known if last_look_ms is None else last_look_ms / 1_000
        self._counters.signals_unwatched_seconds.set(seconds)

    @cached_property
    def _pack(self) -> Pack:
        return profile_pack(self._plane.profile)

    def _export(self, totals: RecordedTotals) -> None:
        counters = self._counters
        counters.build_requested.set(totals.requested)
        counters.build_completed.set(totals.completed)
        counters.datasets_built.set(totals.datasets)
        counters.build_failed.clear()
        for reason, count in totals.failed.items():
            counters.build_failed.labels(reason).set(count)
        by_class: Counter[str] = Counter()
        for event_type, count in totals.anomalies.items():
            by_class[event_class(self._pack.events, event_type)] += count
        for name, count in by_class.items():
            counters.anomalies_by_class.labels(name).set(count)
