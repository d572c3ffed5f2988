"""The plane behind the HTTP service: opens its parts, answers requests, looks snapshots up, closes."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg
import psycopg
from prometheus_client import generate_latest
from psycopg_pool import PoolTimeout

from ofp_platform.kernel.native import load_loops
from ofp_platform.kernel.snapshot import Answer
from ofp_platform.online.plane import NoContextStream, Plane, profile_pack, unknown_run
from ofp_platform.online.service.commit_listener import CommitListener
from ofp_platform.online.service.counters import Counters
from ofp_platform.online.service.projection_monitor import ProjectionMonitor
from ofp_platform.online.serving.async_reader import AsyncReader, ReadSettings
from ofp_platform.online.serving.posture import (
    LOG_DOWN,
    LOG_TAIL_LOST,
    NO_PROJECTION,
    OBJECT_STORE_DOWN,
    STORE_DOWN,
    Trouble,
    health_of,
    posture_of,
)
from ofp_platform.online.serving.request import parse_request
from ofp_platform.online.serving.served_log import WAITS, ServedLog
from ofp_platform.online.serving.snapshot_store import MayRead, SnapshotStore
from ofp_platform.online.serving.state_statement import READ_SETTINGS
from ofp_platform.online.state.projection import ProjectionRow
from ofp_platform.registry.catalogue import catalogue
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.models import Pack
from ofp_platform.registry.pack_text import PackErrors
from ofp_platform.registry.question import refuse_run
from ofp_platform.storage.feature_readers import FeatureReaders, TooManyReaders
from ofp_platform.storage.objects import ObjectStoreUnavailable, open_objects
from ofp_platform.storage.postgres import DatabaseUnavailable, asyncpg_arguments
from ofp_platform.storage.transient import is_transient
from ofp_platform.vocabulary.background_tasks import BackgroundTasks, EndedTask, EndedTasks
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.catalogue import CatalogueReader
from ofp_platform.vocabulary.errors import ContractError, ErrorCode, Reason, unavailable
from ofp_platform.vocabulary.identity import FeatureKey, KeyType
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.vocabulary.serving import FeatureDefinitionSet, FeatureGroupInfo, FeatureGroups, Health, PostureState
from ofp_platform.vocabulary.times import MICROS_PER_SECOND

MONITOR, LISTENER = "projection monitor", "commit listener"
_OBJECT_SECONDS = 5.0  # snapshots are small
_HEALTH_OBJECT_SECONDS = 2.0  # a look at the archive: less than an observation may take
_SETTINGS = {**READ_SETTINGS, "application_name": "ofp-serving"}


async def _keep_session(_connection: Any) -> None:
    """Nothing to reset between requests: each is one statement that leaves no session state. It saves a round trip."""


def _in_words(record: logging.LogRecord) -> bool:
    """The pool tells of every connection that it cannot make with its stack trace: in an outage nothing else is left to read."""
    record.exc_info = None
    return True


class OnlineService:
    """Serves the live projection of a profile; follows a switch to another projection, or the first one, without a restart.

    It creates none: until somebody has, the run is not known here. State is read by `read_dsn`, which may be a replica; all
    else, what is written among it, by `dsn`.
    """

    def __init__(
        self,
        profile: Profile,
        dsn: str,
        *,
        connections: int = 8,
        cache_bytes: int = 256 << 20,
        log_served: bool = True,
        ended: EndedTasks | None = None,
        read_dsn: str | None = None,
        wall_clock: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._profile = profile
        self._dsn = dsn
        self._read_dsn = read_dsn
        self._connections = connections
        self._cache_bytes = cache_bytes
        self._log_served = log_served
        self._wall_clock = wall_clock
        self._monotonic = monotonic
        self.counters = Counters()
        self._plane: Plane | None = None
        self._pool: asyncpg.Pool | None = None
        self.reader: AsyncReader | None = None
        self.served_log: ServedLog | None = None
        self._snapshots: SnapshotStore | None = None
        self._readers: FeatureReaders | None = None
        self.tasks = BackgroundTasks(ended, self._on_task_end)
        self.monitor: ProjectionMonitor | None = None
        self._listener: CommitListener | None = None

    async def open(self) -> None:
        """Connect and begin to monitor."""
        load_loops()  # or the first request of each kind would wait for its own
        logging.getLogger("asyncpg.pool").addFilter(_in_words)
        # a whole state is served whether or not the log can be read; and who serves creates no stream
        self._plane = await asyncio.to_thread(Plane.open_without_log, self._profile, self._dsn, max_connections=4)
        self._plane.object_seconds = _HEALTH_OBJECT_SECONDS
        row = await asyncio.to_thread(self._plane.live)
        self._pool = await asyncpg.create_pool(
            **asyncpg_arguments(self._read_dsn or self._dsn, _SETTINGS),
            min_size=min(2, self._connections),
            max_size=self._connections,
            command_timeout=5,
            reset=_keep_session,
        )
        self.monitor = ProjectionMonitor(
            self._plane,
            row,
            self._profile.thresholds,
            self.counters,
            trouble=self._trouble,
            replica_dsn=self._read_dsn,
            wall_clock=self._wall_clock,
            monotonic=self._monotonic,
        )
        self._listener = CommitListener(self._dsn, self._plane.live, self._follow)
        if row is not None:
            await self._follow(row)
        objects = open_objects(self._profile, answer_seconds=_OBJECT_SECONDS)
        self._snapshots = SnapshotStore(self._plane.pool, objects)
        self._readers = FeatureReaders(objects, self._plane.pool, self._profile.context_pins)
        capacity_bytes = self._profile.served_log_mb << 20
        self.served_log = ServedLog(self._snapshots, capacity_bytes=capacity_bytes, tasks=self.tasks)
        self.served_log.start()
        await self.monitor.observe()
        self.tasks.start(MONITOR, self.monitor.run(before_each=self._catch_up))
        self.tasks.start(LISTENER, self._listener.run())

    async def close(self) -> None:
        """Write the served log out and disconnect."""
        await self.tasks.stop(MONITOR, LISTENER)
        if self.monitor is not None:
            self.monitor.close()
        if self.served_log is not None:
            await self.served_log.close()
        if self._pool is not None:
            await self._pool.close()
        if self._plane is not None:
            await asyncio.to_thread(self._plane.close)

    def answer(self, body: bytes) -> Answer | Awaitable[Answer]:
        """The answer to the bytes of a request: at once where the cache holds its keys, else awaited from the store.

        Raises:
            ContractError: every refusal of the contract; the awaitable raises it too.
        """
        began = self._monotonic()
        try:
            self._refuse_when_red()
            if self.reader is None:
                parse_request(body, self._profile.limits)  # a request that is no request is told so first
                raise self._without_projection()
            answer = self.reader.answer(body)
        except Exception as error:
            self._count_failure(error)
            raise
        if isinstance(answer, Answer):
            self._count(answer, began)
            return answer
        return self._await_answer(answer, began)

    def refuse_run(self, body: bytes) -> ContractError:
        """The refusal of a request by somebody who may not read the run that is served here: as if it were not.

        Raises:
            ContractError: it would be refused whatever the run.
        """
        return refuse_run(parse_request(body, self._profile.limits), self._profile.limits)

    async def _await_answer(self, waiting: Awaitable[Answer], began: float) -> Answer:
        try:
            answer = await waiting
        except Exception as error:
            self._count_failure(error)
            raise
        self._count(answer, began)
        return answer

    def _count(self, answer: Answer, began: float) -> None:
        self.counters.get_features_seconds.observe(self._monotonic() - began)
        self.counters.snapshots_built.counts[()] += 1
        if answer.graph is not None and self.monitor is not None and self.monitor.graph.lag != 0:
            self.counters.stale_graph_version.inc()
        if answer.missing:
            self.counters.missing_features.inc(answer.missing)
        if self._log_served and self.served_log is not None:
            self.served_log.offer(answer)

    def _count_failure(self, error: Exception) -> None:
        code, reason = ErrorCode.UNAVAILABLE, Reason.INTERNAL
        if isinstance(error, ContractError):
            code, reason = error.code, error.reason
        self.counters.snapshot_failures.labels(code.value, reason.value).inc()

    async def snapshot(self, snapshot_hash: str, may_read: MayRead) -> bytes:
        """The verified record of a hash; one of a run that may not be read is unknown, on the same way.

        Raises:
            ContractError: UNKNOWN_SNAPSHOT, SNAPSHOT_CORRUPT, STORE_DOWN.
        """
        if self._snapshots is None or self.served_log is None:
            raise unavailable(Reason.STORE_DOWN, "the service is not open")
        try:
            return await asyncio.to_thread(self._snapshots.load, snapshot_hash, may_read)
        except ContractError as error:
            if error.reason is not Reason.UNKNOWN_SNAPSHOT:
                raise
        for _ in range(2):  # it may have been served a moment ago, or just now
            await self.served_log.flushed()
            try:
                return await asyncio.to_thread(self._snapshots.load, snapshot_hash, may_read)
            except ContractError as error:
                # what waits may be another serving of a snapshot that is stored, so looking it up comes first
                is_own = may_read(self._profile.context_pins)  # so is all that waits
                if error.reason is not Reason.UNKNOWN_SNAPSHOT or not is_own or not self.served_log.holds(snapshot_hash):
                    raise
        raise unavailable(Reason.STORE_DOWN, "the snapshot was served and is not stored yet: its store does not answer")

    async def rebuilt_snapshot(self, snapshot_hash: str, may_read: MayRead) -> bytes:
        """The verified rebuild with a hash; one of a run that may not be read is unknown.

        Raises:
            ContractError: UNKNOWN_SNAPSHOT, SNAPSHOT_CORRUPT, STORE_DOWN.
        """
        if self._snapshots is None:
            raise unavailable(Reason.STORE_DOWN, "the service is not open")
        return await asyncio.to_thread(self._snapshots.load_rebuilt, snapshot_hash, may_read)

    def pack(self) -> Pack:
        """The pack that is served.

        Raises:
            ContractError: UNKNOWN_RUN, nothing is projected yet; STORE_DOWN.
        """
        if self.reader is None:
            raise self._without_projection()
        return self.reader.evaluator.registry.pack

    async def feature_groups(self) -> bytes:
        """The catalogue of the live registry."""
        if self.reader is None:
            raise self._without_projection()
        registry = self.reader.evaluator.registry
        groups = FeatureGroups(
            context_pins=self.reader.evaluator.pins,
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
        body = groups.model_dump(mode="json")
        body["context_pins"] = self.reader.evaluator.pins.wire()
        return canonical_bytes(body)

    async def catalogue(self) -> bytes:
        """Definitions of the live registry, in the words of the profile's pack, and who reads them.

        Raises:
            ContractError: UNKNOWN_RUN, STORE_DOWN.
        """
        if self.reader is None or self._readers is None:
            raise self._without_projection()
        return await asyncio.to_thread(self._catalogue, self.reader.evaluator.registry, self._readers)

    def _catalogue(self, registry: CompiledRegistry, feature_readers: FeatureReaders) -> bytes:
        pins = self._profile.context_pins
        words: Pack | None = None
        with contextlib.suppress(PackErrors):  # a file that is being edited: the words as they were published
            words = profile_pack(self._profile)
        readers: dict[tuple[str, str], list[CatalogueReader]] | None = None
        try:
            readers = feature_readers.of_groups(registry.digest)
        except TooManyReaders:
            pass  # said in the answer
        except (ObjectStoreUnavailable, DatabaseUnavailable) as error:
            raise unavailable(Reason.STORE_DOWN, "the stores of datasets and decisions do not answer") from error
        body = catalogue(registry, pins, readers, words).model_dump(mode="json", exclude_none=True)
        return canonical_bytes({**body, "context_pins": pins.wire()})

    async def entity(self, key: FeatureKey, as_of: int) -> bytes:
        """The entity of a key at a time, microseconds, by the newest version of the graph.

        Raises:
            ContractError: IEG_DOWN, there is no graph; TOO_MANY_MEMBERS; STORE_DOWN.
        """
        if self._plane is None:
            raise unavailable(Reason.STORE_DOWN, "the service is not open")
        try:
            known = await asyncio.to_thread(self._plane.graph_reader().profile, key, as_of)
        except NoContextStream as error:
            raise unavailable(Reason.IEG_DOWN, str(error), self._profile.context_pins) from None
        except (psycopg.Error, PoolTimeout) as error:
            if isinstance(error, psycopg.Error) and not is_transient(error):
                raise
            raise unavailable(Reason.STORE_DOWN, "the store of the graph does not answer", self._profile.context_pins) from None
        body = known.model_dump(mode="json")
        body["context_pins"] = self._profile.context_pins.wire()
        return canonical_bytes(body)

    async def health(self) -> Health:
        """The health document, from the last observation (at most a second old)."""
        counters = {
            "snapshots_built": self.counters.total("snapshots_built"),
            "snapshot_failures": self.counters.total("snapshot_failures"),
            "stale_graph_version": self.counters.total("stale_graph_version"),
            "missing_features": self.counters.total("missing_features"),
            "served_log_dropped": 0 if self.served_log is None else self.served_log.dropped,
        }
        now = int(self._wall_clock() * MICROS_PER_SECOND)
        if self.monitor is None:
            return health_of(None, posture_of(None, self._profile.thresholds), counters, now)
        return health_of(self.monitor.observation, self.monitor.posture, counters, now)

    def metrics(self) -> bytes:
        """Prometheus text."""
        dropped = 0 if self.served_log is None else self.served_log.dropped
        self.counters.served_log_bytes.set(0 if self.served_log is None else self.served_log.waiting_bytes)
        self.counters.served_log_dropped.inc(dropped - self.counters.total("served_log_dropped"))
        for name, is_up in self.tasks.running().items():
            self.counters.background_task_up.labels(name).set(is_up)
        return generate_latest(self.counters.registry)

    def _without_projection(self) -> ContractError:
        if self._plane is None:
            return unavailable(Reason.STORE_DOWN, "the service is not open")
        return unknown_run(self._profile)

    def _refuse_when_red(self) -> None:
        if self.monitor is not None and LOG_TAIL_LOST in self.monitor.posture["reasons"]:
            raise unavailable(Reason.LOG_TAIL_LOST, "the log lost records in a recovery: an operator puts them back first")
        if self.monitor is not None and self._is_withdrawn(self.monitor):
            raise unknown_run(self._profile)
        if self._log_served and self.served_log is not None and self.served_log.is_full:
            raise unavailable(Reason.SERVED_LOG_FULL, "what was served cannot be stored, and no more is served until it is")
        if self.monitor is None or not self._profile.thresholds.refuse_when_red:
            return
        posture = self.monitor.posture
        if posture["state"] != PostureState.RED.value:
            return
        reasons = posture["reasons"]
        if NO_PROJECTION in reasons:
            return  # that is NOT_FOUND, and says so
        if STORE_DOWN in reasons:
            raise unavailable(Reason.STORE_DOWN, "the state store does not answer")
        if LOG_DOWN in reasons:
            raise unavailable(Reason.PROJECTION_BEHIND, "the log does not answer: how far the state is behind it is not known")
        if any(reason.startswith("STALLED") for reason in reasons):
            raise unavailable(Reason.PROJECTION_STALLED, "records wait and the projection does not move")
        raise unavailable(Reason.PROJECTION_BEHIND, f"{posture['lag_records']} records behind the log")

    def _is_withdrawn(self, monitor: ProjectionMonitor) -> bool:
        """Whether the run was cancelled while it was served."""
        return self._profile.control_stream is not None and NO_PROJECTION in monitor.posture["reasons"]

    async def _follow(self, row: ProjectionRow) -> None:
        """Serve this projection from now on."""
        plane, monitor, listener = self._plane, self.monitor, self._listener
        assert plane is not None
        assert monitor is not None
        assert listener is not None
        evaluator = await asyncio.to_thread(plane.evaluator, row)
        self.reader = AsyncReader(
            self._pool,
            row.projection_id,
            evaluator,
            self._profile.limits,
            posture=lambda: monitor.posture,
            partitions=plane.partition_ids,
            incarnations=plane.incarnations,
            graph=plane.graph,
            settings=ReadSettings(cache_bytes=self._cache_bytes),
        )
        listener.attach(row, self.reader)
        monitor.watch(row)

    def _trouble(self) -> Trouble:
        """Reasons of the posture besides those that are observed."""
        reason = None if self.served_log is None else self.served_log.trouble
        reasons = () if reason is None else (reason,)
        ended, warnings = self.tasks.ended.all(), tuple(self.tasks.ended.warnings())
        if self.served_log is not None and self.served_log.objects_down:
            warnings = (*warnings, OBJECT_STORE_DOWN)
        if reason == WAITS:
            return Trouble(ended=ended, warnings=(*warnings, *reasons))
        return Trouble(ended=ended, warnings=warnings, defects=reasons)

    def _on_task_end(self, _task: EndedTask) -> None:
        if self.monitor is not None:
            self.monitor.judge()  # now: it may be the monitor itself that would do it

    def _catch_up(self) -> None:
        """Bring the reader's cache to the store's head; also the way back after a statement that failed."""
        if self.reader is not None:
            self.reader.follow()
