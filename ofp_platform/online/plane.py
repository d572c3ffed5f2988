"""One deployment put together: profile, database, log, registry, projection. What the CLI, Dagster and the service start from."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from ofp_platform.identity.graph_projector import GraphProjector
from ofp_platform.identity.queries import GraphReader
from ofp_platform.log.archive_store import Archive
from ofp_platform.log.archived_log import ArchivedLog
from ofp_platform.log.archived_tail import demand_tail
from ofp_platform.log.connect import LogKind, connect_log
from ofp_platform.log.port import EventLog, LogRefused, StreamNotFound
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.log.ranges import OffsetRanges
from ofp_platform.online.serving.causal_read import Incarnations
from ofp_platform.online.serving.evaluation import Evaluator
from ofp_platform.online.serving.reader import UNOBSERVED, Reader
from ofp_platform.online.serving.resolved_question import Graph
from ofp_platform.online.serving.state_statement import READ_SETTINGS
from ofp_platform.online.state.key_shards import KeyShard
from ofp_platform.online.state.projection import (
    ProjectionRow,
    UnknownProjection,
    list_projections,
    load_registry,
    open_projection,
    read_projection,
)
from ofp_platform.registry.compile import CompiledRegistry, compile_pack
from ofp_platform.registry.models import Pack
from ofp_platform.registry.pack import SHIPPED_PACKS, load_pack_file, shipped_pack
from ofp_platform.storage.objects import ObjectStore, open_objects
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.storage.run_states import demand_readable, run_state
from ofp_platform.vocabulary.errors import ContractError, Reason, not_found
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import Basis
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.vocabulary.scenario import READABLE_STATES

if TYPE_CHECKING:  # who reads, or builds, does not load what projects
    from ofp_platform.online.projecting.projector import Projector
    from ofp_platform.online.projecting.projector_settings import ProjectorSettings
    from ofp_platform.online.projecting.shard_projector import ShardProjector

CONTEXT_PARTITIONS = 1
CONTEXT_PARTITION_KEY = "payload.member"
"""Of a context stream that the plane makes."""
CONTROL_PARTITIONS = 1
CONTROL_PARTITION_KEY = "payload.scenario_run_id"
"""Of a control stream."""
DECISIONS_PARTITIONS = 1
DECISIONS_PARTITION_KEY = "event_id"
"""Of a stream of decisions: one partition, so that all of it has one order."""


class NoContextStream(Exception):
    """The profile names no stream of identity links."""


class NoControlStream(Exception):
    """The profile names no stream of control."""


class NoDecisionsStream(Exception):
    """The profile names no stream of decisions."""


@dataclass(frozen=True)
class ArchivedStream:
    """One stream of a plane: its log, its archive, the ranges that are archived, and the log with its archive in front."""

    log: EventLog
    archive: Archive
    ranges: OffsetRanges
    archived_log: ArchivedLog


def profile_pack(profile: Profile) -> Pack:
    """The pack that a profile names: a shipped one, or a file.

    Raises:
        PackErrors: the file is not a valid pack.
    """
    return shipped_pack(profile.pack) if profile.pack in SHIPPED_PACKS else load_pack_file(Path(profile.pack))


def unknown_run(profile: Profile) -> ContractError:
    """The refusal of a question about a run that nothing was projected of here."""
    return not_found(
        Reason.UNKNOWN_RUN,
        f"run {profile.context_pins.run_id!r} of stream {profile.stream_name!r} has no live projection here: whoever projects it"
        " makes one (`ofp projector run`, `ofp up`)"
        + ("" if profile.control_stream is None else ", once the run is READY (`ofp run show`)"),
        profile.context_pins,
    )


@dataclass
class Plane:
    """The online plane of one profile on one database. A context manager: closes its pool and log.

    `opened_log`: None where the stream is opened when it is first needed. `object_seconds`: how long a request to the object
    store may take; None: as long as the largest object needs.
    """

    profile: Profile
    dsn: str
    pool: Pool
    opened_log: EventLog | None
    object_seconds: float | None = None
    opened_context_log: EventLog | None = None
    opened_control_log: PostgresLog | None = None
    opened_decisions_log: PostgresLog | None = None

    @classmethod
    def open(cls, profile: Profile, dsn: str, *, max_connections: int = 8, create_stream: bool = True) -> Plane:
        """Connect. The schema must be there (`migrate`); the stream is created when it is not, or else refused.

        Raises:
            DatabaseUnavailable | LogUnavailable: what does not answer. StreamNotFound: see there.
        """
        plane = cls.open_without_log(profile, dsn, max_connections=max_connections)
        try:
            plane.opened_log = plane._connect(create=create_stream)
        except BaseException:
            plane.pool.close()
            raise
        return plane

    @classmethod
    def open_without_log(cls, profile: Profile, dsn: str, *, max_connections: int = 8) -> Plane:
        """Connect to the database alone. The stream need not be there, or answer, and is never created.

        Raises:
            DatabaseUnavailable: it does not answer.
        """
        return cls(profile, dsn, open_pool(dsn, max_size=max_connections), None)

    @property
    def log(self) -> EventLog:
        """The stream of the profile.

        Raises:
            StreamNotFound | LogUnavailable: it could not be opened yet.
        """
        if self.opened_log is None:
            self.opened_log = self._connect(create=False)
        return self.opened_log

    def _connect(self, *, create: bool) -> EventLog:
        profile = self.profile
        log = self._connect_stream(profile.stream_name, profile.partitions, profile.partition_key, create=create)
        if create:
            self._settle(log)
        return log

    def _connect_stream(
        self, stream_name: str, partitions: int, partition_key: str, *, create: bool, kind: LogKind | None = None
    ) -> EventLog:
        profile = self.profile
        return connect_log(
            self.pool,
            kind=kind or profile.log_kind,
            stream_name=stream_name,
            partitions=partitions,
            partition_key=partition_key,
            kinesis_endpoint_url=profile.kinesis_endpoint_url,
            kinesis_retention_hours=profile.kinesis_retention_hours,
            kafka_retention_ms=profile.kafka_retention_ms,
            create=create,
            is_archived=lambda: bool(self._archive_of(stream_name).partition_ids()),
        )

    def context_log(self, *, create: bool = False) -> EventLog:
        """The stream of identity links; `create`: it is made where there is none.

        Raises:
            NoContextStream: the profile names none. StreamNotFound | LogUnavailable: it could not be opened.
        """
        name = self._context_stream()
        if self.opened_context_log is None:
            log = self._connect_stream(name, CONTEXT_PARTITIONS, CONTEXT_PARTITION_KEY, create=create)
            self.opened_context_log = log
        if create:
            self._settle(self.opened_context_log)
        return self.opened_context_log

    def control_log(self, *, create: bool = False) -> PostgresLog:
        """The stream of what control says of runs, in PostgreSQL whatever the log is; `create`: it is made where there is none.

        Raises:
            NoControlStream: the profile names none. StreamNotFound | LogUnavailable: it could not be opened.
        """
        name = self.profile.control_stream
        if name is None:
            raise NoControlStream("the profile names no control_stream, so its run needs no READY and none can be asked for")
        if self.opened_control_log is None:
            self.opened_control_log = self._connect_own_stream(name, CONTROL_PARTITIONS, CONTROL_PARTITION_KEY, create=create)
        if create:
            self._settle(self.opened_control_log)
        return self.opened_control_log

    def decisions_log(self, *, create: bool = False) -> PostgresLog:
        """The stream of decisions, intents and outcomes, in PostgreSQL whatever the log is; `create`: as for `control_log`.

        Raises:
            NoDecisionsStream: the profile names none. StreamNotFound | LogUnavailable: it could not be opened.
        """
        name = self.profile.decisions_stream
        if name is None:
            raise NoDecisionsStream("the profile names no decisions_stream, so the plane itself decides nothing")
        if self.opened_decisions_log is None:
            self.opened_decisions_log = self._connect_own_stream(
                name, DECISIONS_PARTITIONS, DECISIONS_PARTITION_KEY, create=create
            )
        if create:
            self._settle(self.opened_decisions_log)
        return self.opened_decisions_log

    def _connect_own_stream(self, name: str, partitions: int, partition_key: str, *, create: bool) -> PostgresLog:
        log = self._connect_stream(name, partitions, partition_key, create=create, kind="postgres")
        assert isinstance(log, PostgresLog)
        return log

    def demand_ready(self) -> None:
        """Refuse a run that may not be served or built from, where the profile has a stream of control.

        Raises:
            RunNotReady: see there.
        """
        if self.profile.control_stream is not None:
            with self.pool.connection() as connection:
                demand_readable(connection, self.profile.context_pins)

    def archived_context_log(self, *, create: bool = False) -> ArchivedLog:
        """The stream of identity links with its archive in front: what graphs are folded from; raises as `context_log`."""
        return ArchivedLog(self.context_log(create=create), lambda: self._archive_of(self._context_stream()))

    def known_context_log(self) -> ArchivedLog | None:
        """The stream of identity links, for those who read; None: the profile names none, or it is not made yet.

        Raises:
            LogUnavailable: it could not be opened.
        """
        if self.profile.context_stream is None:
            return None
        try:
            return self.archived_context_log()
        except StreamNotFound:
            return None

    def stream(self, *, context: bool = False) -> ArchivedStream:
        """The stream of traffic, or that of identity links.

        Raises:
            StreamNotFound | LogUnavailable: it could not be opened. NoContextStream: the profile names none.
            ObjectStoreUnavailable: the store does not work.
        """
        if not context:
            return ArchivedStream(self.log, self.archive, self.ranges, self.archived_log)
        log, archive = self.context_log(), self._archive_of(self._context_stream())
        ranges = OffsetRanges(self.pool, log, self.profile.range_size)
        return ArchivedStream(log, archive, ranges, self.archived_context_log())

    def graph_reader(self) -> GraphReader:
        """A reader of the graph of the profile's run.

        Raises:
            NoContextStream: the profile names none.
        """
        return GraphReader(self.pool, self._context_stream(), self.profile.context_pins, self.profile.limits.max_members)

    def _context_stream(self) -> str:
        name = self.profile.context_stream
        if name is None:
            raise NoContextStream("the profile names no context_stream, so there is no graph of identities")
        return name

    def graph_projector(self) -> GraphProjector:
        """A projector of the context stream, which is made where there is none.

        Raises:
            as `context_log`.
        """
        log = self.archived_context_log(create=True)
        return GraphProjector(self.pool, log, self.profile.context_pins, self.profile.clock_skew_us)

    def settle(self) -> None:
        """Let the logs begin another incarnation where their server was promoted or put back and nothing archived is lost.

        Raises:
            LogTailLost: the archive has records that a log lost. LogUnavailable | ObjectStoreUnavailable: see there.
        """
        self._settle(self.log)
        if self.known_context_log() is not None:
            self._settle(self.context_log())
        if self.profile.control_stream is not None:
            with suppress(StreamNotFound):  # nobody asked for a run yet
                self._settle(self.control_log())
        if self.profile.decisions_stream is not None:
            with suppress(StreamNotFound):  # nothing was decided yet
                self._settle(self.decisions_log())

    def _settle(self, log: EventLog) -> None:
        if isinstance(log, PostgresLog) and not log.is_settled():
            demand_tail(log, self._archive_of(log.stream_name))
            log.begin_incarnation("its server was promoted or put back; the archive holds nothing that the log lacks")

    def _archive_of(self, stream_name: str) -> Archive:
        return Archive(self.objects, stream_name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_exception: object) -> None:
        self.close()

    @cached_property
    def objects(self) -> ObjectStore:
        """The profile's object store.

        Raises:
            ObjectStoreUnavailable: it does not work.
        """
        return open_objects(self.profile, answer_seconds=self.object_seconds)

    @cached_property
    def archive(self) -> Archive:
        """The archive of the log's stream, in the profile's object store.

        Raises:
            ObjectStoreUnavailable: the store does not work.
        """
        return self._archive_of(self.log.stream_name)

    @cached_property
    def archived_log(self) -> ArchivedLog:
        """The log with its archive in front: what projections are folded from."""
        return ArchivedLog(self.log, lambda: self.archive)

    def close(self) -> None:
        """Give the connections back."""
        for log in (self.opened_log, self.opened_context_log, self.opened_control_log, self.opened_decisions_log):
            if log is not None:
                log.close()
        if "reading_pool" in vars(self):
            self.reading_pool.close()
        self.pool.close()

    @cached_property
    def reading_pool(self) -> Pool:
        """Connections for nothing but reading state, set for it; opened when they are first needed.

        Raises:
            DatabaseUnavailable: it does not answer.
        """
        return open_pool(self.dsn, max_size=self.pool.max_size, settings=READ_SETTINGS)

    @property
    def ranges(self) -> OffsetRanges:
        """The offset ranges of the log, of the profile's size."""
        return OffsetRanges(self.pool, self.log, self.profile.range_size)

    def ensure_live(self) -> ProjectionRow:
        """The live projection of the profile's run; created from the profile's pack when the run has none yet.

        A live projection of another registry stays live: `open_beside` builds the next one.

        Raises:
            RunNotReady: see `demand_ready`. RegistryRefused: the pack redefines a published group version.
        """
        self.demand_ready()
        live = self.live()
        if live is not None:
            return live
        registry = compile_pack(profile_pack(self.profile))
        with self.pool.connection() as connection:
            return open_projection(
                connection,
                self.profile.stream_name,
                self.profile.context_pins,
                registry,
                self.profile.run_config_digest,
                status="live",
            )

    def known_live(self) -> ProjectionRow:
        """The live projection of the profile's run, for those who read: nothing is created by asking.

        Raises:
            ContractError: NOT_FOUND / UNKNOWN_RUN: there is none.
        """
        live = self.live()
        if live is None:
            raise unknown_run(self.profile)
        return live

    def known_registry(self) -> CompiledRegistry:
        """The registry of the live projection; where there is none yet, that of the profile's pack, published nowhere."""
        live = self.live()
        return compile_pack(profile_pack(self.profile)) if live is None else self.registry_of(live)

    def open_beside(self) -> ProjectionRow:
        """The projection of the profile's pack, built beside the live one (or the live one itself when nothing changed).

        Raises:
            RunNotReady: see `demand_ready`.
        """
        self.demand_ready()
        registry = compile_pack(profile_pack(self.profile))
        with self.pool.connection() as connection:
            return open_projection(
                connection,
                self.profile.stream_name,
                self.profile.context_pins,
                registry,
                self.profile.run_config_digest,
            )

    def live(self) -> ProjectionRow | None:
        """The live projection of the profile's run, or None; a run that is not READY, or was cancelled, has none for anybody."""
        with self.pool.connection() as connection:
            if self.profile.control_stream is not None:
                state = run_state(connection, self.profile.context_pins)
                if state not in READABLE_STATES:
                    return None
            for row in list_projections(connection, status="live"):
                if row.stream_name == self.profile.stream_name and row.pins == self.profile.context_pins:
                    return row
        return None

    def is_own(self, pins: ContextPins) -> bool:
        """Whether pins are those of the profile's run: what another one served is not there for whoever asks this plane."""
        return pins == self.profile.context_pins

    def row(self, projection_id: int) -> ProjectionRow:
        """One projection as the store has it now.

        Raises:
            UnknownProjection: there is none.
        """
        with self.pool.connection() as connection:
            return read_projection(connection, projection_id)

    def reading_refusal(self, basis: Basis) -> str | None:
        """Why log and archive do not lead on from a basis, in words; None where they do.

        Raises:
            LogUnavailable | ObjectStoreUnavailable: what does not answer.
        """
        try:
            self.archived_log.demand_tail()
            self.archived_log.demand(basis)
        except LogRefused as error:
            return str(error)
        return None

    def tail_refusal(self) -> str | None:
        """Why the log is not to be read or appended to, whatever is projected of it, in words; None where it is.

        Raises:
            LogUnavailable | ObjectStoreUnavailable | ReceiptDamaged: see there.
        """
        try:
            self.archived_log.demand_tail()
            self.log.demand_settled()
        except LogRefused as error:
            return str(error)
        return None

    def partition_ids(self) -> frozenset[str]:
        """The partitions of the log now.

        Raises:
            LogUnavailable: the log does not answer.
        """
        return frozenset(info.partition_id for info in self.log.partitions())

    def registry_of(self, row: ProjectionRow) -> CompiledRegistry:
        """The registry that a projection was made for."""
        with self.pool.connection() as connection:
            return load_registry(connection, row.registry_digest)

    def projector(self, row: ProjectionRow) -> Projector:
        """A projector of that projection, of a log that has all of it, and all that is archived.

        It applies to all key shards together.

        Raises:
            LogRefused: it has not. LogUnavailable | ObjectStoreUnavailable: see there.
            UnknownProjection: the projection was made under another policy than this profile's.
        """
        from ofp_platform.online.projecting.projector import Projector

        self._demand(row)
        return Projector(*self._parts(row))

    def sequencer(self, row: ProjectionRow, shard: KeyShard) -> Projector:
        """The projector of shard 0, which lays the epochs down for the others; where it is the only one, a usual one.

        Raises:
            ShardRefused: the projection has another number of shards. As `projector`.
        """
        from ofp_platform.online.projecting.epoch_barrier import EpochBarrier
        from ofp_platform.online.projecting.epoch_sequencer import EpochSequencer

        shard.demand(row)
        if shard.count == 1:
            return self.projector(row)
        self._demand(row)
        barrier = EpochBarrier(self.dsn, row.projection_id, shard)
        return EpochSequencer(*self._parts(row), barrier=barrier)

    def shard_projector(self, row: ProjectionRow, shard: KeyShard) -> ShardProjector:
        """The projector of a shard other than shard 0.

        Raises:
            ShardRefused: the projection has another number of shards. As `projector`.
        """
        from ofp_platform.online.projecting.epoch_barrier import EpochBarrier
        from ofp_platform.online.projecting.shard_projector import ShardProjector

        shard.demand(row)
        self._demand(row)
        return ShardProjector(*self._parts(row), barrier=EpochBarrier(self.dsn, row.projection_id, shard))

    def _demand(self, row: ProjectionRow) -> None:
        """Refuse what no projector may apply to."""
        if row.run_config_digest != self.profile.run_config_digest:
            raise UnknownProjection(
                f"projection {row.projection_id} was made under run config {row.run_config_digest[:12]}, this profile says"
                f" {self.profile.run_config_digest[:12]}: clock_skew and allowed_lateness are part of every value"
            )
        self._settle(self.log)
        self.archived_log.demand_heads(row.basis)

    def _parts(self, row: ProjectionRow) -> tuple[Pool, EventLog, CompiledRegistry, int, ProjectorSettings]:
        from ofp_platform.online.projecting.projector_settings import ProjectorSettings
        from ofp_platform.online.state.known_identities import IdentityPolicy

        settings = ProjectorSettings(
            self.profile.clock_skew_us,
            self.profile.allowed_lateness_us,
            identities=IdentityPolicy(self.profile.known_events_recent, filter_bytes=self.profile.known_events_filter_mb << 20),
        )
        return self.pool, self.archived_log, self.registry_of(row), row.projection_id, settings

    def evaluator(self, row: ProjectionRow, *, as_sent: bool = False) -> Evaluator:
        """An evaluator of questions about that projection; `as_sent`: no group resolves identities."""
        registry = self.registry_of(row)
        if as_sent:
            registry = replace(registry, resolves=False)
        return Evaluator(registry, row.pins, row.run_config_digest, self.profile.allowed_lateness_us)

    @property
    def graph(self) -> Graph:
        """Where questions are resolved."""
        return Graph(self.profile.context_stream, self.profile.limits.max_members)

    def reader(self, row: ProjectionRow, posture: Mapping[str, Any] = UNOBSERVED) -> Reader:
        """`get_features` as a library call; every answer carries this posture."""
        return Reader(
            self.reading_pool,
            row.projection_id,
            self.evaluator(row),
            self.profile.limits,
            lambda: posture,
            self.partition_ids,
            self.incarnations,
            graph=self.graph,
        )

    @cached_property
    def incarnations(self) -> Incarnations:
        """Which history of the log a position is of."""
        return Incarnations(lambda: self.log)
