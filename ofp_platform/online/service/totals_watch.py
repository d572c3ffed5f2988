"""Totals of the run as metrics: builds, datasets, anomalies by event class. Looked at now and then, beside health."""

from __future__ import annotations

import logging
from collections import Counter
from functools import cached_property

import psycopg

from ofp_platform.online.plane import Plane, profile_pack
from ofp_platform.online.service.counters import Counters
from ofp_platform.registry.models import Pack, event_class
from ofp_platform.storage.recorded_totals import RecordedTotals, read_recorded_totals

logger = logging.getLogger(__name__)
LOOK_SECONDS = 15.0  # between two looks


class TotalsWatch:
    """Keeps the totals of a run in `counters`. Nobody is served worse while they cannot be read: then they stay as they were."""

    def __init__(self, plane: Plane, counters: Counters) -> None:
        self._plane = plane
        self._counters = counters
        self._looked_at: float | None = None

    def look(self, projection_id: int, now: float) -> None:
        """Read them, where that was not done for a while; `now`: seconds that never go back. Blocks."""
        if self._looked_at is not None and now - self._looked_at < LOOK_SECONDS:
            return
        self._looked_at = now
        try:
            with self._plane.pool.connection() as connection:
                totals = read_recorded_totals(connection, self._plane.profile.context_pins, projection_id)
        except psycopg.Error as error:
            logger.warning("metrics: builds, datasets and anomalies could not be counted: %s", type(error).__name__)
            return
        self._export(totals)

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
