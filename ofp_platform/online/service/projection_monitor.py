"""The monitor of a projection: observes it at intervals, judges its posture, exports its figures as metrics."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from ofp_platform.log.archive_store import ReceiptDamaged
from ofp_platform.log.port import LogError, LogRefused, LogTailLost, LogUnavailable
from ofp_platform.log.postgres import clock_behind_us
from ofp_platform.online.plane import Plane
from ofp_platform.online.projecting.continuous import driver_died, lag_of_driver
from ofp_platform.online.projecting.epoch_barrier import holding_shards
from ofp_platform.online.service.counters import Counters
from ofp_platform.online.service.graph_watch import GraphHealth, GraphWatch
from ofp_platform.online.service.totals_watch import TotalsWatch
from ofp_platform.online.serving.posture import (
    LOG_DOWN,
    NO_PROJECTION,
    OBJECT_STORE_DOWN,
    REFUSALS,
    STORE_DOWN,
    Observation,
    Trouble,
    posture_of,
)
from ofp_platform.online.state.progress import read_progress
from ofp_platform.online.state.projection import ProjectionRow, UnknownProjection, read_projection
from ofp_platform.storage.objects import ObjectStoreUnavailable
from ofp_platform.storage.postgres import connect, takes_writes
from ofp_platform.storage.run_states import RunNotReady
from ofp_platform.storage.transient import is_transient
from ofp_platform.vocabulary.profile import Thresholds
from ofp_platform.vocabulary.serving import PostureState
from ofp_platform.vocabulary.times import MICROS_PER_SECOND

logger = logging.getLogger(__name__)
MONITOR_SECONDS = 1.0  # between two observations
_ARCHIVE_SECONDS = 60.0  # between two looks at what is archived
_ARCHIVE_AGAIN_SECONDS = 5.0  # where the object store did not answer
_DEMAND_SECONDS = 5.0  # between two looks whether the log still leads on from the basis
_OBSERVATION_SECONDS = 3.0  # a store that takes longer to report its health does not answer
_POSTURE_VALUES = {PostureState.GREEN: 0, PostureState.AMBER: 1, PostureState.RED: 2}


class ProjectionMonitor:
    """Keeps the posture of the served projection current.

    `observation` is the last one; None: the store or the log did not answer, or it could not be made for another reason.
    `posture` is the judgement of it and of the `trouble` that is known besides; an old one is none. `graph`: the health of the
    identity graph then.
    """

    def __init__(
        self,
        plane: Plane,
        row: ProjectionRow | None,
        thresholds: Thresholds,
        counters: Counters,
        *,
        trouble: Callable[[], Trouble] = Trouble,
        replica_dsn: str | None = None,
        wall_clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._plane = plane
        self._projection_id = None if row is None else row.projection_id
        self._thresholds = thresholds
        self._counters = counters
        self._trouble = trouble
        self._wall_clock = wall_clock
        self._monotonic = monotonic
        self._reading: asyncio.Task[Observation] | None = None
        self._moved_at = 0.0
        self._driven_at = self._unheld_at = monotonic()
        self._seen_version = -1
        self._replica_dsn = replica_dsn
        self._owed_version = -1
        self._replica_at = monotonic()
        self._demanded_at = -_DEMAND_SECONDS
        self._refusal: str | None = None
        self._archive_seen_at = -_ARCHIVE_SECONDS
        self._archive_lag: float | None = None
        self._objects_down = False
        self._totals_watch = TotalsWatch(plane, counters)
        self._graph_watch = GraphWatch(plane, thresholds, monotonic())
        self.graph = GraphHealth()
        self._awaited = STORE_DOWN  # the reason, should what is read now not answer
        self.observation: Observation | None = None
        self._failure = STORE_DOWN
        self._judged_at = monotonic()
        self._judgement: dict[str, Any] = {"state": "AMBER", "reasons": ["STARTING"], "lag_records": None}

    @property
    def posture(self) -> dict[str, Any]:
        """The part of a response's posture that depends on the moment."""
        bound = self._thresholds.observed_seconds_red
        if self._monotonic() - self._judged_at > bound:
            trouble = replace(self._trouble(), failure=f"NOT_OBSERVED_SECONDS>{bound}")
            return posture_of(None, self._thresholds, trouble)
        return self._judgement

    def watch(self, row: ProjectionRow) -> None:
        """Observe this projection from now on."""
        self._projection_id = row.projection_id

    async def run(self, before_each: Callable[[], None]) -> None:
        """Observe every second until cancelled; `before_each` is called before each observation."""
        while True:
            await asyncio.sleep(MONITOR_SECONDS)
            before_each()
            await self.observe()

    async def observe(self) -> None:
        """Observe once, judge and export. What cannot be observed, for whatever reason, makes the posture RED."""
        try:
            self.observation = await self._read_in_time()
        except Exception as error:
            self.observation = None
            if isinstance(error, UnknownProjection):
                self._failure = NO_PROJECTION
            elif isinstance(error, LogUnavailable | ObjectStoreUnavailable) or is_transient(error):
                self._failure = self._awaited
                logger.warning("health: %s: %s", self._failure, type(error).__name__)
            else:
                self._failure = f"NOT_OBSERVED:{type(error).__name__}"
                logger.error("health: the projection cannot be observed", exc_info=error)
        self.judge()

    def judge(self) -> None:
        """Judge the last observation again, with what is known by now of background tasks, and export."""
        trouble = replace(self._trouble(), failure=self._failure)
        if self._objects_down and OBJECT_STORE_DOWN not in (*trouble.warnings, trouble.failure):
            trouble = replace(trouble, warnings=(*trouble.warnings, OBJECT_STORE_DOWN))
        if self.graph.warnings:
            trouble = replace(trouble, warnings=(*trouble.warnings, *self.graph.warnings))
        self._judgement, self._judged_at = posture_of(self.observation, self._thresholds, trouble), self._monotonic()
        self._export()

    def close(self) -> None:
        """Give up an observation that is still being read."""
        if self._reading is not None:
            self._reading.cancel()

    def read_observation(self) -> Observation:
        """Read the health inputs from store and log; blocks.

        Raises:
            UnknownProjection: nothing of the run was projected here. Everything that store and log have against it.
        """
        self._awaited = STORE_DOWN
        if self._projection_id is None:
            raise UnknownProjection("there is no live projection of this run yet")
        try:
            self._plane.demand_ready()
        except RunNotReady as error:
            raise UnknownProjection(str(error)) from None
        row = self._plane.row(self._projection_id)
        with self._plane.pool.connection() as connection:
            totals = read_progress(connection, row.projection_id)
            read_only = not takes_writes(connection)
            held_by = holding_shards(connection, row)
        now = self._monotonic()
        if not held_by:
            self._unheld_at = now
        lag, refusal = self._read_log(row, now)
        self._awaited = STORE_DOWN
        if row.version != self._seen_version or not sum(lag.values()):
            self._seen_version, self._moved_at = row.version, now
        if not driver_died(self._plane.pool, row.projection_id):
            self._driven_at = now
        stalled_seconds, driverless_seconds = now - self._moved_at, now - self._driven_at
        archive_lag = self._read_archive_lag(now)
        self._awaited = STORE_DOWN
        replica_seconds = self._read_replica(row, now)
        self.graph = self._graph_watch.look(row, now)
        self._totals_watch.look(row.projection_id, now)
        clock_behind_seconds = clock_behind_us(self._plane.pool, row.stream_name) / MICROS_PER_SECOND
        self._counters.clock_behind.set(clock_behind_seconds)
        return Observation(
            row,
            totals,
            lag,
            stalled_seconds,
            read_only,
            refusal,
            archive_lag,
            driverless_seconds,
            replica_seconds,
            clock_behind_seconds,
            held_by,
            now - self._unheld_at,
        )

    @property
    def _log_reason(self) -> str:
        """The reason when the log does not answer."""
        return STORE_DOWN if self._plane.profile.log_kind == "postgres" else LOG_DOWN

    def _read_replica(self, row: ProjectionRow, now: float) -> float:
        """Seconds since when the replica lacks a commit that was there; one that does not answer is a store that does not."""
        if self._replica_dsn is None:
            return 0.0
        with connect(self._replica_dsn, autocommit=True) as connection:
            replica_version = read_projection(connection, row.projection_id).version
        if replica_version >= self._owed_version:
            self._owed_version, self._replica_at = row.version, now
        return now - self._replica_at

    def _read_archive_lag(self, now: float) -> float | None:
        """How much of the log's retention is not archived. Where log or archive do not answer to that, it is as it was."""
        if now - self._archive_seen_at >= (_ARCHIVE_AGAIN_SECONDS if self._objects_down else _ARCHIVE_SECONDS):
            self._archive_seen_at = now
            self._awaited = self._log_reason  # the object store is given up sooner than this look, and says so
            try:
                self._archive_lag = self._plane.archived_log.archive_lag()
                self._plane.archived_log.demand_tail()
                self._objects_down = False
            except LogTailLost:
                self._demanded_at = -_DEMAND_SECONDS  # told by the next look at the log
                self._objects_down = False
            except ObjectStoreUnavailable as error:
                self._objects_down = True
                logger.warning("health: whether the log is archived could not be read: %s", error)
            except (LogError, ReceiptDamaged) as error:
                logger.warning("health: whether the log is archived could not be read: %s", error)
        return self._archive_lag

    def _read_log(self, row: ProjectionRow, now: float) -> tuple[dict[str, int], str | None]:
        """Records behind the basis, and why reading cannot go on from it; a state that is whole is served whatever that says."""
        try:
            if self._plane.log.poll_seconds and self._refusal is None:
                # who drives the projection asks the log, and is refused where a service would be
                lag = lag_of_driver(self._plane.pool, row.projection_id)
                if lag is not None:
                    return lag, None
            self._awaited = self._log_reason
            if self._refusal is not None or now - self._demanded_at >= _DEMAND_SECONDS:
                self._plane.archived_log.demand(row.basis)
                self._demanded_at, self._refusal = now, None
            return self._plane.log.ordinal_lag(row.basis), None
        except ObjectStoreUnavailable:
            self._awaited = OBJECT_STORE_DOWN
            raise
        except LogRefused as error:
            if self._refusal != str(error):
                logger.error("health: reading cannot go on: %s", error)
            self._refusal = str(error)
            return {}, REFUSALS[type(error)]

    async def _read_in_time(self) -> Observation:
        # a read that hangs in a silent store is waited for again, not joined by another
        reading = self._reading
        if reading is None:
            reading = self._reading = asyncio.create_task(asyncio.to_thread(self.read_observation))
        async with asyncio.timeout(_OBSERVATION_SECONDS):
            await asyncio.wait([reading])
        self._reading = None
        return reading.result()

    def _export(self) -> None:
        counters = self._counters
        counters.posture.set(_POSTURE_VALUES[PostureState(self._judgement["state"])])
        if self.observation is None:
            return
        totals = self.observation.totals.counters()
        counters.events_applied.set(totals["events_applied"])
        counters.duplicates.set(totals["duplicates"])
        counters.late_events.set(totals["late_events"])
        counters.anomalies.set(totals["anomalies"])
        for reason, count in self.observation.totals.all_failures.items():
            counters.apply_failures.labels(reason).set(count)
        for number in range(self.observation.row.shards):
            counters.shard_holds_epoch.labels(str(number)).set(number in self.observation.holding_shards)
        for partition, lag in self.observation.lag.items():
            counters.lag_records.labels(partition).set(lag)
        watermark = self.observation.row.watermark
        if watermark is not None:
            counters.watermark_age_seconds.set(self._wall_clock() - watermark / MICROS_PER_SECOND)
