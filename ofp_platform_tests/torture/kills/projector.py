"""Projectors that are killed: the plain apply, the continuous driver, the Dagster driver, all of one projection.

The functions that children run come first; `Projectors` orders them, one after the other, while the log is folded.
"""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from random import Random
from typing import Any

from psycopg import Connection

from ofp_platform.log.ranges import range_name
from ofp_platform.online.plane import Plane
from ofp_platform.online.projecting.apply_until import apply_until
from ofp_platform.online.projecting.continuous import run_continuous
from ofp_platform.online.projecting.epoch_barrier import EpochBarrier
from ofp_platform.online.projecting.epoch_sequencer import EpochSequencer
from ofp_platform.online.projecting.projector import ApplyReceipt, Projector
from ofp_platform.online.projecting.shard_projector import ShardProjector
from ofp_platform.online.state.epochs import read_epoch
from ofp_platform.online.state.key_shards import KeyShard, reshard
from ofp_platform.online.state.projection import ProjectionConflict, read_projection
from ofp_platform.storage.crash_points import CRASH_POINTS
from ofp_platform.vocabulary.profile import Profile
from ofp_platform_tests.torture.kills.check import Checked, check_projection
from ofp_platform_tests.torture.kills.victim_pool import Kill, VictimPool, seldom_hit
from ofp_platform_tests.torture.kills.world import World, opened_projection, projector_of, registry, settings_of

TWIN = "f" * 64
"""Tells the projection that nobody kills from the one that is killed; what the two serve is under one policy."""
APPLY, CONTINUOUS, DAGSTER, SHARDED = "apply", "continuous", "Dagster", "key shards"
_PROJECTOR = tuple(name for name in CRASH_POINTS if name.startswith("projector."))
_CONTINUOUS = (*_PROJECTOR, *(name for name in CRASH_POINTS if name.startswith("continuous.")))
_SHARDED = (*_PROJECTOR, *(name for name in CRASH_POINTS if name.startswith(("sequencer.", "shard."))))
_SHARD_COUNTS = (2, 3)
_SHARD_SECONDS = 30.0
_COMMITS = 6
_IDLE_SECONDS = 2.0
_BATCH = 20_000
_QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}


class TornProjector(Projector):
    """A projector without its guard, for the negative control: chunks are committed before the basis is, not with it."""

    def _record(self, connection: Connection[Any], version: int, work: Any) -> None:
        connection.execute("COMMIT AND CHAIN")
        super()._record(connection, version, work)


# ---- what children do ----------------------------------------------------------------------------------------------------


def apply(profile: Profile, dsn: str, projection_id: int, batch_records: int, commits: int, torn: bool = False) -> int:
    """Some commits of a projector that has just started; how many records they took."""
    with Plane.open(profile, dsn, max_connections=2) as plane:
        projector = projector_of(plane, projection_id, TornProjector if torn else Projector)
        taken = 0
        for _ in range(commits):
            try:
                receipt = projector.apply_available(max_records=batch_records)
            except ProjectionConflict:  # the commit of one that was killed came through after its death
                continue
            if receipt is None:
                break
            taken += receipt.records
        return taken


def drive(profile: Profile, dsn: str, projection_id: int, batch_records: int, commits: int) -> int:
    """The continuous driver, stopped in good order after some commits or when nothing comes any more."""
    stop = threading.Event()
    taken: list[int] = []

    def note(receipt: ApplyReceipt) -> None:
        taken.append(receipt.records)
        if len(taken) == commits:
            stop.set()

    idle = threading.Timer(_IDLE_SECONDS, stop.set)
    idle.daemon = True
    idle.start()
    smaller = profile.model_copy(update={"batch_records": batch_records})
    with Plane.open(smaller, dsn, max_connections=2) as plane:
        row = plane.row(projection_id)
        run_continuous(
            lambda: plane.projector(row),
            plane.log,
            plane.dsn,
            projection_id,
            batch_records=batch_records,
            stop=stop,
            on_commit=note,
        )
    idle.cancel()
    return sum(taken)


def apply_sharded(profile: Profile, dsn: str, projection_id: int, batch_records: int, commits: int) -> int:
    """Some epochs of all key shards of a projection, a thread and a barrier each; how many records they took."""
    with Plane.open(profile, dsn, max_connections=8) as plane, ExitStack() as stack:
        count = plane.row(projection_id).shards
        stop = threading.Event()
        errors: list[Exception] = []
        shards = [_shard_of(plane, projection_id, KeyShard(number, count)) for number in range(1, count)]
        barrier = EpochBarrier(dsn, projection_id, KeyShard(0, count), wait_seconds=_SHARD_SECONDS)
        sequencer = stack.enter_context(
            EpochSequencer(plane.pool, plane.log, registry(), projection_id, settings_of(profile), barrier=barrier)
        )

        def run(shard: ShardProjector) -> None:
            try:
                while not stop.is_set():
                    try:
                        if shard.apply_next() is None:
                            shard.wait(0.05)
                    except ProjectionConflict:
                        continue
            except Exception as error:
                errors.append(error)
                stop.set()

        threads = [threading.Thread(target=run, args=(shard,)) for shard in shards]
        for shard, thread in zip(shards, threads, strict=True):
            stack.callback(shard.close)
            thread.start()
        taken = 0
        try:
            for _ in range(commits):
                try:
                    receipt = sequencer.apply_available(max_records=batch_records)
                except ProjectionConflict:  # the commit of one that was killed came through after its death
                    continue
                if receipt is None or stop.is_set():
                    break
                taken += receipt.records
        finally:
            stop.set()
            for thread in threads:
                thread.join()
        if errors:
            raise errors[0]
        return taken


def _shard_of(plane: Plane, projection_id: int, shard: KeyShard) -> ShardProjector:
    barrier = EpochBarrier(plane.dsn, projection_id, shard, wait_seconds=_SHARD_SECONDS)
    return ShardProjector(plane.pool, plane.log, registry(), projection_id, settings_of(plane.profile), barrier=barrier)


def run_dagster(profile_path: str, dsn: str, partition_id: str, number: int | None) -> bool:
    """A run of the job that applies one range of a partition, or (None) of the one that catches up with it."""
    import dagster as dg

    from ofp_platform.orchestration.code_location import code_location
    from ofp_platform.orchestration.partitions import OFFSET_RANGE, range_key
    from ofp_platform.orchestration.resources import PlaneResource

    resource = PlaneResource(profile_source=profile_path, database_url=dsn)
    location = code_location(resource.load_profile(), resource)
    with dg.DagsterInstance.ephemeral() as instance:
        job, key = "catch_up", partition_id
        if number is not None:
            instance.add_dynamic_partitions(str(OFFSET_RANGE.name), [range_name(one) for one in range(number + 1)])
            job, key = "replay_ranges", range_key(partition_id, number)
        return location.resolve_job_def(job).execute_in_process(_QUIET, instance=instance, partition_key=key).success


# ---- who orders them -----------------------------------------------------------------------------------------------------


@dataclass
class Projectors:
    """The drills of one projection. `kills`: (driver, point or "time") to how often.

    `checked`: what was compared at every checkpoint; `watermarks`: of the projection then, microseconds.
    """

    world: World
    plane: Plane
    victim_pool: VictimPool
    rng: Random
    torn: bool = False
    kills: Counter[tuple[str, str]] = field(default_factory=Counter)
    finished: Counter[str] = field(default_factory=Counter)
    checked: Checked = field(default_factory=Checked)
    watermarks: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.killed = opened_projection(self.plane, self.world.profile.run_config_digest, "live").projection_id
        self.twin = opened_projection(self.plane, TWIN).projection_id
        self._usual = 0.2  # seconds that a child lives
        self._usual_run = 1.0  # and a run of Dagster

    @property
    def total(self) -> int:
        """Kills so far."""
        return sum(self.kills.values())

    def kill_where_nothing_died(self) -> None:
        """The points that chance has left out, as far as there is something left to apply."""
        for driver, points in ((APPLY, _PROJECTOR), (CONTINUOUS, _CONTINUOUS), (SHARDED, _SHARDED)):
            for point in points:
                if not self.hits(driver)[point] and self.left():
                    self._one(driver, Kill(point), 1)

    def hits(self, driver: str) -> Counter[str]:
        """What killed projectors of one driver, and how often."""
        return Counter({by: count for (own, by), count in self.kills.items() if own == driver})

    def left(self) -> int:
        """Records that the killed projection has not taken."""
        return sum(self.plane.log.ordinal_lag(self.plane.row(self.killed).basis).values())

    def kill_some(self, count: int, share: int) -> None:
        """Start and kill `count` projectors, so that they take about one part in `share` of what is left of the log each."""
        for number in range(count):
            expected = self.left() / max(share - number, 1)
            batch = max(1, round(expected * self.rng.uniform(0.1, 1.0)))
            if number % 2:
                driver = self.rng.choice((APPLY, CONTINUOUS, SHARDED))
                # a connection, the state that is read, some commits: anywhere
                kill = Kill(seconds=self.rng.uniform(0.0, 1.5 * self._usual))
            else:
                drivers = ((APPLY, _PROJECTOR), (CONTINUOUS, _CONTINUOUS), (SHARDED, _SHARDED), (SHARDED, _SHARDED))
                driver, points = drivers[number // 2 % 4]
                point = seldom_hit(points, self.hits(driver))
                # a driver comes by there once, by the others with every commit
                kill = Kill(point, 1 if point == "continuous.holding" else self.rng.randint(1, 3))
            self._one(driver, kill, batch)
            self._compare_before_it_forgets()

    def _one(self, driver: str, kill: Kill, batch: int) -> None:
        where = (self.world.profile, self.world.dsn, self.killed, batch, _COMMITS)
        if driver == SHARDED:
            self._reshard()
            death = self.victim_pool.run(apply_sharded, *where, kill=kill)
        elif driver == CONTINUOUS:
            death = self.victim_pool.run(drive, *where, kill=kill)
        else:
            death = self.victim_pool.run(apply, *where, self.torn, kill=kill)
        self._note(driver, death.by)
        if death.by != "time":
            self._usual += 0.1 * (death.seconds - self._usual)

    def _reshard(self) -> None:
        """Give the projection some key shards, or others; one whose epoch a killed sequencer left open keeps what it has."""
        if self.plane.row(self.killed).shards > 1 and self.rng.random() < 0.7:
            return
        with self.plane.pool.connection() as connection:
            try:
                reshard(connection, self.killed, self.rng.choice(_SHARD_COUNTS))
            except ProjectionConflict:
                self.finished["key shards as before, for an epoch is open"] += 1

    def kill_between_commits(self, count: int) -> None:
        """Kill applies where a torn projector has committed its chunks, and not yet the basis; let one go on then.

        All of it is in the first tenth of the log, so that nothing has been forgotten of it.
        """
        batch = max(1, self.left() // (20 * (count + _COMMITS)))
        for _ in range(count):
            self._one(APPLY, Kill("projector.before_commit", 2), batch)
        self._one(APPLY, Kill(), batch)

    def kill_dagster(self, count: int) -> None:
        """Kill runs of Dagster: by turns at a named point and anywhere, of ranges and of catch-ups."""
        for number in range(count):
            lag = self.plane.log.ordinal_lag(self.plane.row(self.killed).basis)
            partition_id = max(lag, key=lambda name: lag[name])
            basis = self.plane.row(self.killed).basis.by_partition().get(partition_id)
            taken = 0 if basis is None else int(basis.offset)
            # a catch-up goes to the head, so it must not get far; a range ends by itself
            ranges = lag[partition_id] >= self.world.profile.range_size and number % 3 != 0
            kill = Kill(self.rng.choice(_PROJECTOR))
            if ranges and number % 2:
                kill = Kill(seconds=self.rng.uniform(0.0, 1.5 * self._usual_run))
            number_of_range = taken // self.world.profile.range_size if ranges else None
            death = self.victim_pool.run(
                run_dagster, str(self.world.profile_path), self.world.dsn, partition_id, number_of_range, kill=kill
            )
            self._note(DAGSTER, death.by)
            if death.by != "time":
                self._usual_run += 0.3 * (death.seconds - self._usual_run)
            self._compare_before_it_forgets()

    def _note(self, driver: str, by: str) -> None:
        if by:
            self.kills[driver, by] += 1
        else:
            self.finished[driver] += 1

    def _compare_before_it_forgets(self) -> None:
        """Compare as soon as half the event time has passed that a projection remembers."""
        last = self.watermarks[-1] if self.watermarks else self.world.start
        remembered = registry().reach + self.world.profile.allowed_lateness_us
        if (self.plane.row(self.killed).watermark or last) - last > remembered // 2:
            self.checkpoint()

    def checkpoint(self) -> None:
        """Bring the projection that nobody kills to the same basis, and compare."""
        with self.plane.pool.connection() as connection:
            is_open = read_epoch(connection, self.killed) is not None
        if is_open:  # some shards have it, others not: to be compared, all have to
            projector_of(self.plane, self.killed).apply_available(max_records=1)
        with self.plane.pool.connection() as connection, connection.transaction():
            # a commit that was on its way when its projector was killed holds the row until it is through
            row = read_projection(connection, self.killed, for_update=True)
        self.watermarks.append(row.watermark or self.world.start)
        apply_until(projector_of(self.plane, self.twin), row.basis, _BATCH)
        before = self.rng.randrange(self.world.profile.allowed_lateness_us)
        self.checked.take(check_projection(self.plane, self.killed, self.twin, before))

    def finish(self) -> None:
        """Let a projector that nobody kills take the rest."""
        while self.left():
            self.victim_pool.run(apply, self.world.profile, self.world.dsn, self.killed, _BATCH, 1, self.torn)
            self._compare_before_it_forgets()
