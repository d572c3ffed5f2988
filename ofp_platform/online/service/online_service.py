"""The plane behind the HTTP service: an async reader, the served log, a monitor that keeps the posture current."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

import asyncpg
import psycopg
from prometheus_client import generate_latest
from psycopg_pool import PoolTimeout

from ofp_platform.kernel.snapshot import Answer
from ofp_platform.log.port import LogUnavailable
from ofp_platform.online.plane import Plane
from ofp_platform.online.service.counters import Counters
from ofp_platform.online.serving.async_reader import AsyncReader
from ofp_platform.online.serving.posture import Observation, health_of, judge, posture_of
from ofp_platform.online.serving.served_log import ServedLog
from ofp_platform.online.serving.snapshot_store import SnapshotStore
from ofp_platform.online.state.progress import read_progress
from ofp_platform.online.state.projection import ProjectionRow
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import asyncpg_arguments
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.errors import ContractError, ErrorCode, Reason, unavailable
from ofp_platform.vocabulary.identity import KeyType
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.vocabulary.serving import FeatureDefinitionSet, FeatureGroupInfo, FeatureGroups, Health, PostureState
from ofp_platform.vocabulary.times import MICROS_PER_SECOND

logger = logging.getLogger(__name__)
_MONITOR_SECONDS = 1.0
_LOOK_SECONDS = 3.0  # a store that takes longer to tell of its health does not answer
_OBJECT_SECONDS = 5.0  # snapshots are small
_LISTEN_SECONDS = 3.0  # for each word of the connection that hears of commits
_HEARTBEAT_SECONDS = 5.0  # a server that is gone without a word also says nothing of commits
_POSTURE_VALUES = {PostureState.GREEN: 0, PostureState.AMBER: 1, PostureState.RED: 2}
# Every read is a handful of index probes: a plan made for a small table must not turn into a scan of a large one.
_SETTINGS = {"jit": "off", "enable_seqscan": "off", "plan_cache_mode": "force_generic_plan", "application_name": "ofp-serving"}


async def _keep_session(_connection: Any) -> None:
    """Nothing to reset between requests: each is one statement that leaves no session state. It saves a round trip."""


def _in_words(record: logging.LogRecord) -> bool:
    """The pool tells of every connection that it cannot make with its stack trace: in an outage nothing else is left to read."""
    record.exc_info = None
    return True


class OnlineService:
    """Serves the live projection of a profile; follows a switch to another projection without a restart."""

    def __init__(
        self,
        profile: Profile,
        dsn: str,
        *,
        connections: int = 8,
        cache_bytes: int = 256 << 20,
        log_served: bool = True,
        wall_clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._profile = profile
        self._dsn = dsn
        self._connections = connections
        self._cache_bytes = cache_bytes
        self._listens = False
        self._log_served = log_served
        self._wall_clock = wall_clock
        self._monotonic = monotonic
        self.counters = Counters()
        self._plane: Plane | None = None
        self._pool: asyncpg.Pool | None = None
        self._reader: AsyncReader | None = None
        self._served: ServedLog | None = None
        self._snapshots: SnapshotStore | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._row: ProjectionRow | None = None
        self._observation: Observation | None = None
        self._looking: asyncio.Task[Observation] | None = None
        self._posture: dict[str, Any] = {"state": "AMBER", "reasons": ["STARTING"], "lag_records": None}
        self._moved_at = 0.0
        self._seen_version = -1

    async def open(self) -> None:
        """Connect and begin to monitor."""
        logging.getLogger("asyncpg.pool").addFilter(_in_words)
        self._plane = await asyncio.to_thread(Plane.open, self._profile, self._dsn, max_connections=4)
        row = await asyncio.to_thread(self._plane.ensure_live)
        self._pool = await asyncpg.create_pool(
            **asyncpg_arguments(self._dsn),
            min_size=min(2, self._connections),
            max_size=self._connections,
            command_timeout=5,
            reset=_keep_session,
            server_settings=_SETTINGS,
        )
        await self._follow(row)
        objects = ObjectStore(
            self._profile.object_store_url,
            endpoint=self._profile.object_store_endpoint_url,
            answer_seconds=_OBJECT_SECONDS,
        )
        self._snapshots = SnapshotStore(self._plane.pool, objects)
        self._served = ServedLog(self._snapshots)
        self._served.start()
        await self._observe()
        self._tasks = [asyncio.create_task(self._monitor()), asyncio.create_task(self._listen())]

    async def close(self) -> None:
        """Write the served log out and disconnect."""
        for task in self._tasks:
            task.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        if self._looking is not None:
            self._looking.cancel()
        if self._served is not None:
            await self._served.close()
        if self._pool is not None:
            await self._pool.close()
        if self._plane is not None:
            await asyncio.to_thread(self._plane.close)

    async def answer(self, body: bytes) -> Answer:
        """The answer to the bytes of a request.

        Raises:
            ContractError: every refusal of the contract.
        """
        began = self._monotonic()
        try:
            self._refuse_when_red()
            if self._reader is None:
                raise unavailable(Reason.STORE_DOWN, "the service is not open")
            answer = await self._reader.answer(body)
        except ContractError as error:
            self.counters.snapshot_failures.labels(error.code.value, error.reason.value).inc()
            raise
        except Exception:
            self.counters.snapshot_failures.labels(ErrorCode.UNAVAILABLE.value, Reason.INTERNAL.value).inc()
            raise
        self.counters.get_features_seconds.observe(self._monotonic() - began)
        self.counters.snapshots_built.inc()
        if answer.missing:
            self.counters.missing_features.inc(answer.missing)
        if self._log_served and self._served is not None:
            self._served.offer(answer)
        return answer

    async def snapshot(self, snapshot_hash: str) -> bytes:
        """The verified record of a hash.

        Raises:
            ContractError: UNKNOWN_SNAPSHOT, SNAPSHOT_CORRUPT, STORE_DOWN.
        """
        if self._snapshots is None or self._served is None:
            raise unavailable(Reason.STORE_DOWN, "the service is not open")
        try:
            return await asyncio.to_thread(self._snapshots.load, snapshot_hash)
        except ContractError as error:
            if error.reason is not Reason.UNKNOWN_SNAPSHOT:
                raise
        for _ in range(2):  # it may have been served a moment ago, or just now
            await self._served.flushed()
            try:
                return await asyncio.to_thread(self._snapshots.load, snapshot_hash)
            except ContractError as error:
                # what waits may be another serving of a snapshot that is stored, so looking it up comes first
                if error.reason is not Reason.UNKNOWN_SNAPSHOT or not self._served.holds(snapshot_hash):
                    raise
        raise unavailable(Reason.STORE_DOWN, "the snapshot was served and is not stored yet: its store does not answer")

    async def feature_groups(self) -> bytes:
        """The catalogue of the live registry."""
        if self._reader is None:
            raise unavailable(Reason.STORE_DOWN, "the service is not open")
        registry = self._reader.evaluator.registry
        catalogue = FeatureGroups(
            context_pins=self._reader.evaluator.pins,
            feature_definition_set=FeatureDefinitionSet(
                pack_id=registry.pack.pack_id, revision=registry.pack.revision, digest=registry.digest
            ),
            groups=tuple(
                FeatureGroupInfo(
                    group_name=plan.name,
                    group_version=plan.version,
                    key_type=KeyType(plan.key_type),
                    ttl_seconds=plan.ttl_seconds,
                    features=tuple(sorted([one.name for one in plan.features] + [one.name for one in plan.on_demand])),
                    request_context=dict(plan.request_fields),
                )
                for _, plan in sorted(registry.groups.items())
            ),
        )
        body = catalogue.model_dump(mode="json")
        body["context_pins"] = self._reader.evaluator.pins.wire()
        return canonical_bytes(body)

    async def health(self) -> Health:
        """The health document, from the last observation (at most a second old)."""
        counters = {
            "snapshots_built": int(self.counters.snapshots_built._value.get()),
            "snapshot_failures": sum(
                int(sample.value)
                for metric in self.counters.snapshot_failures.collect()
                for sample in metric.samples
                if sample.name.endswith("_total")
            ),
            "stale_graph_version": int(self.counters.stale_graph_version._value.get()),
            "missing_features": int(self.counters.missing_features._value.get()),
            "served_log_dropped": 0 if self._served is None else self._served.dropped,
        }
        now = int(self._wall_clock() * MICROS_PER_SECOND)
        return health_of(self._observation, self._profile.thresholds, counters, now)

    def metrics(self) -> bytes:
        """Prometheus text."""
        dropped = self.counters.served_log_dropped
        dropped.inc((0 if self._served is None else self._served.dropped) - dropped._value.get())
        return generate_latest(self.counters.registry)

    # ---- following the projection ------------------------------------------------------------------------------------

    def _refuse_when_red(self) -> None:
        if not self._profile.thresholds.refuse_when_red or self._posture["state"] != PostureState.RED.value:
            return
        reasons = self._posture["reasons"]
        if "STORE_DOWN" in reasons:
            raise unavailable(Reason.STORE_DOWN, "the state store does not answer")
        if any(reason.startswith("STALLED") for reason in reasons):
            raise unavailable(Reason.PROJECTION_STALLED, "records wait and the projection does not move")
        raise unavailable(Reason.PROJECTION_BEHIND, f"{self._posture['lag_records']} records behind the log")

    async def _follow(self, row: ProjectionRow) -> None:
        """Serve this projection from now on."""
        assert self._plane is not None
        evaluator = await asyncio.to_thread(self._plane.evaluator, row)
        before = self._reader
        self._reader = AsyncReader(
            self._pool,
            row.projection_id,
            evaluator,
            self._profile.limits,
            posture=lambda: self._posture,
            cache_bytes=self._cache_bytes,
            partitions=self._plane.partition_ids,
        )
        if before is not None:
            before.deaf()
        if self._listens:
            self._reader.listening()
        self._row = row

    async def _monitor(self) -> None:
        while True:
            await asyncio.sleep(_MONITOR_SECONDS)
            if self._reader is not None:
                self._reader.follow()  # also the way back after a statement that failed
            await self._observe()

    async def _observe(self) -> None:
        try:
            self._observation = await self._looked()
        except (psycopg.Error, PoolTimeout, LogUnavailable, TimeoutError) as error:
            logger.warning("health: the store or the log does not answer: %s", type(error).__name__)
            self._observation = None
        self._posture = posture_of(self._observation, self._profile.thresholds)
        self._export()

    async def _looked(self) -> Observation:
        # a look that hangs in a silent store is waited for again, not joined by another
        looking = self._looking
        if looking is None:
            looking = self._looking = asyncio.create_task(asyncio.to_thread(self._look))
        async with asyncio.timeout(_LOOK_SECONDS):
            await asyncio.wait([looking])
        self._looking = None
        return looking.result()

    def _look(self) -> Observation:
        assert self._plane is not None
        assert self._row is not None
        row = self._plane.row(self._row.projection_id)
        with self._plane.pool.connection() as connection:
            totals = read_progress(connection, row.projection_id)
        lag = self._plane.log.ordinal_lag(row.basis)
        now = self._monotonic()
        if row.version != self._seen_version or not sum(lag.values()):
            self._seen_version, self._moved_at = row.version, now
        return Observation(row, totals, lag, now - self._moved_at)

    def _export(self) -> None:
        state, _ = judge(self._observation, self._profile.thresholds)
        self.counters.posture.set(_POSTURE_VALUES[state])
        if self._observation is None:
            return
        totals = self._observation.totals.counters()
        self.counters.events_applied.set(totals["events_applied"])
        self.counters.duplicates.set(totals["duplicates"])
        self.counters.late_events.set(totals["late_events"])
        self.counters.anomalies.set(totals["anomalies"])
        for reason, count in self._observation.totals.failures.items():
            self.counters.apply_failures.labels(reason).set(count)
        for partition, lag in self._observation.lag.items():
            self.counters.lag_records.labels(partition).set(lag)
        watermark = self._observation.row.watermark
        if watermark is not None:
            self.counters.watermark_age_seconds.set(self._wall_clock() - watermark / MICROS_PER_SECOND)

    async def _listen(self) -> None:
        """Tell the reader of commits; follow a switch. A lost connection is made again."""
        while True:
            try:
                await self._listen_once()
            except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, psycopg.Error, PoolTimeout):
                await asyncio.sleep(_MONITOR_SECONDS)

    async def _listen_once(self) -> None:
        """Listen until the connection ends."""
        assert self._plane is not None
        changed, closed = asyncio.Event(), asyncio.Event()
        changed.set()  # a switch may have come while nobody listened

        def heard(_connection: Any, _pid: int, _channel: str, payload: str) -> None:
            if payload == "switch":
                changed.set()
            elif self._reader is not None:
                self._reader.moved()

        def ended(_connection: Any) -> None:
            # at once, not when the task below comes to run: until then requests would be answered from what cannot be followed
            self._set_listening(False)
            closed.set()
            changed.set()

        bounds = {"timeout": _LISTEN_SECONDS, "command_timeout": _LISTEN_SECONDS}
        connection = await asyncpg.connect(**asyncpg_arguments(self._dsn), **bounds)
        try:
            connection.add_termination_listener(ended)
            await connection.add_listener("ofp_projection", heard)
            self._set_listening(True)
            while not closed.is_set():
                try:
                    async with asyncio.timeout(_HEARTBEAT_SECONDS):
                        await changed.wait()
                except TimeoutError:
                    await connection.execute("SELECT 1")
                    continue
                changed.clear()
                if not closed.is_set():
                    live = await asyncio.to_thread(self._plane.live)
                    if live is not None and (self._row is None or live.projection_id != self._row.projection_id):
                        await self._follow(live)
        finally:
            self._set_listening(False)
            with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                await connection.close(timeout=_LISTEN_SECONDS)

    def _set_listening(self, listens: bool) -> None:
        self._listens = listens
        if self._reader is not None:
            if listens:
                self._reader.listening()
            else:
                self._reader.deaf()
