"""A filled mature world with the arguments of a run, its processes, and windows of what they did."""

from __future__ import annotations

import argparse
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from benchmarks.delaying_proxy import delayed
from benchmarks.load import load, post
from benchmarks.mature_processes import (
    SERVER,
    Gauges,
    Meter,
    Pace,
    Producers,
    archiver,
    named,
    producing,
    projector,
    wait_until_applied,
)
from benchmarks.mature_world import FILL_RECORDS, MatureWorld, Population, append, mature_profile, questions
from benchmarks.servers import plane_app, service
from benchmarks.world import fresh_database
from ofp_platform.online.plane import Plane
from ofp_platform.online.projecting.projector import Projector
from ofp_platform.storage.embedded import start_embedded
from ofp_platform.storage.schema import migrate
from ofp_platform.vocabulary.profile import Profile

NAME = "mature"
PATH = "/v0/get_features"
LIVE, ORDINARY, HOT_MERCHANT, HOT_DEVICE = "as they come", "ordinary payments", "the hot merchant", "the hot device"
_CACHE_BYTES = 256 << 20


@dataclass
class Rig:
    """A filled world and the arguments of the run. `dsn`: what the processes use, behind the proxy where there is one.

    `raw`: the raw results so far.
    """

    arguments: argparse.Namespace
    folder: Path
    direct_dsn: str
    dsn: str
    profile: Profile
    world: MatureWorld
    plane: Plane
    projection_id: int
    postmaster: int
    proxies: list[int] = field(default_factory=list)
    raw: dict[str, Any] = field(default_factory=dict)

    @property
    def behind(self) -> str:
        """The network of the run in words; none, no words."""
        return f", behind {self.arguments.delay_ms:g} ms of network each way" if self.proxies else ""

    def pace(self, seconds: float, **settings: Any) -> Pace:
        """The pace of producers that go on where the log ends."""
        row = self.plane.row(self.projection_id)
        first = sum(int(part.offset) for part in self.plane.log.ends().partitions)
        return Pace(first, (row.watermark or 0) + self.world.gap, self.world.gap, seconds, **settings)

    def meter(self, connection: psycopg.Connection[Any], **pids: list[int]) -> Meter:
        """A meter of the processes; the proxy among them."""
        return Meter(connection, self.projection_id, self.profile.stream_name, self.postmaster, {"proxy": self.proxies, **pids})

    @contextmanager
    def serving(self) -> Iterator[tuple[int, int]]:
        """The server: its port and its process id."""
        factory = partial(plane_app, self.profile, named(self.dsn, SERVER), _CACHE_BYTES)
        with service(factory) as standing:
            yield standing

    @contextmanager
    def together(self) -> Iterator[Together]:
        """Server, archiver and projector at work, and producers that wait for their pace."""
        with ExitStack() as standing:
            port, server_pid = standing.enter_context(self.serving())
            archiver_pid = standing.enter_context(archiver(self.profile, self.dsn, self.folder))
            connection = standing.enter_context(psycopg.connect(self.direct_dsn, autocommit=True))
            projector_pid = standing.enter_context(projector(self.profile, self.dsn, self.folder))
            producers = standing.enter_context(producing(self.arguments.producers, self.world, self.profile, self.dsn))
            pids = {"projector": [projector_pid], "server": [server_pid], "archiver": [archiver_pid], "producers": producers.pids}
            together = Together(port, producers, connection, self.meter(connection, **pids))
            self.settle()
            yield together

    def settle(self) -> None:
        """Wait until the projector, at work, has all that is there, and one commit more."""
        self.append_live(1, 100)
        wait_until_applied(self.plane, self.projection_id, 600)

    def bodies(self, count: int, seed: int, kind: str = LIVE) -> list[bytes]:
        """Requests for the keys of payments at the watermark: as they come, or ordinary ones, or with one hot key."""
        rng = np.random.default_rng([self.arguments.seed, seed])
        population = self.world.population
        members = (population.live_members if kind == LIVE else population.ordinary_members)(rng, count)
        if kind == HOT_MERCHANT:
            members.merchant[:] = population.hot
        if kind == HOT_DEVICE:
            members.device[:] = population.hot
        watermark = self.plane.row(self.projection_id).watermark or 0
        return [post(PATH, body) for body in questions(members, watermark)]

    def append_live(self, commits: int, records: int) -> None:
        """Append so many commits of so many live events each."""
        pace = self.pace(0)
        for number in range(commits):
            ts = pace.start + (number * records + np.arange(records)) * pace.gap
            append(self.plane, self.world.live(pace.first + number * records, ts))

    def append_hot(self, count: int) -> None:
        """Append so many events at the hot merchant, within the time of twenty hours."""
        gap = max(20 * 3_600_000_000 // count, 1)
        pace = self.pace(0)
        for begin in range(0, count, FILL_RECORDS):
            numbers = np.arange(begin, min(begin + FILL_RECORDS, count))
            append(self.plane, self.world.hot(pace.first + begin, pace.start + numbers * gap))

    def projector(self) -> Projector:
        """A projector in this process."""
        return self.plane.projector(self.plane.row(self.projection_id))

    def drain(self) -> None:
        """Apply all that the log holds, in large commits."""
        applying = self.projector()
        while applying.apply_available(max_records=FILL_RECORDS) is not None:
            pass


@dataclass
class Together:
    """All processes at work: the server's port, the producers, a connection of one's own, and the meter of them all."""

    port: int
    producers: Producers
    connection: psycopg.Connection[Any]
    meter: Meter

    def wait_for_commits(self, count: int) -> None:
        """Wait until the projector has made so many commits more."""
        first = self.meter.read().version
        wait_for(lambda: self.meter.read().version >= first + count, "the projector does not commit")


@contextmanager
def opened(arguments: argparse.Namespace, folder: Path, delay: float = 0.0) -> Iterator[Rig]:
    """The world of the folder, filled where it is new, and caught up; `delay` of the network, seconds each way."""
    name = f"mature_{arguments.keys}_{arguments.partitions}"
    server = start_embedded(folder / "postgres")
    dsn = server.replace("/ofp?", f"/{name}?")
    with psycopg.connect(server, autocommit=True) as connection:
        is_new = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone() is None
    if is_new:
        dsn = fresh_database(folder, name)
    migrate(dsn)  # a kept world may be older than the program
    world = MatureWorld(Population(arguments.keys, arguments.zipf), arguments.events_per_key, arguments.seed)
    own_folder = folder / name
    own_folder.mkdir(exist_ok=True)
    profile = mature_profile(NAME, own_folder, partitions=arguments.partitions, commit_records=arguments.commit_records)
    postmaster = int((folder / "postgres" / "postmaster.pid").read_text().split("\n", 1)[0])
    with ExitStack() as standing:
        plane = standing.enter_context(Plane.open(profile, dsn))
        began = time.perf_counter()
        row = world.fill(plane) if is_new else plane.ensure_live()
        rig = Rig(arguments, own_folder, dsn, dsn, profile, world, plane, row.projection_id, postmaster)
        if is_new:
            rig.raw["filled"] = {"records": world.history_records, "seconds": round(time.perf_counter() - began, 1)}
        if delay:
            rig.dsn, proxy = standing.enter_context(delayed(dsn, delay))
            rig.proxies.append(proxy)
        rig.drain()
        yield rig


Window = tuple[Gauges, Gauges]


def window_of(meter: Meter, seconds: float) -> Window:
    """The gauges before and after so many seconds."""
    before = meter.read()
    time.sleep(seconds)
    return before, meter.read()


def rate_of(window: Window) -> float:
    """Applied records a second."""
    before, after = window
    return (after.records - before.records) / (after.at - before.at)


def cpu_each(window: Window) -> dict[str, float]:
    """Microseconds of CPU an applied event, by process."""
    before, after = window
    records = max(after.records - before.records, 1)
    return {name: (seconds - before.cpu.get(name, 0.0)) / records * 1e6 for name, seconds in after.cpu.items()}


def wal_each(window: Window) -> float:
    """Bytes of WAL an applied event."""
    before, after = window
    return (after.wal - before.wal) / max(after.records - before.records, 1)


def raw_window(window: Window) -> dict[str, Any]:
    """A window for the raw results: the differences of its gauges."""
    before, after = window
    return {
        "seconds": round(after.at - before.at, 3),
        "records": after.records - before.records,
        "commits": after.version - before.version,
        "wal": after.wal - before.wal,
        "full_pages": after.full_pages - before.full_pages,
        "chunk_rows": after.chunk_rows - before.chunk_rows,
        "cpu": {name: round(value - before.cpu.get(name, 0.0), 3) for name, value in after.cpu.items()},
    }


def wait_for(reached: Callable[[], bool], words: str, seconds: float = 120.0) -> None:
    """Wait until something is so.

    Raises:
        SystemExit: it takes longer; `words` say what.
    """
    until = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > until:
            raise SystemExit(words)
        time.sleep(0.02)


@contextmanager
def asked_now_and_then(port: int, requests: list[bytes]) -> Iterator[None]:
    """A server that is asked ten times in each fifth of a second."""
    stop = threading.Event()

    def ask() -> None:
        place = 0
        while not stop.wait(0.2):
            load(port, [requests[(place + step) % len(requests)] for step in range(10)], 1)
            place += 10

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield
    finally:
        stop.set()
        asking.join()


def at_least(value: float, aim: float, unit: str = "") -> tuple[str, bool]:
    """Aim and verdict of a row."""
    return f">= {aim:,g}{unit}", value >= aim


def at_most(value: float, aim: float, unit: str = "") -> tuple[str, bool]:
    """Aim and verdict of a row."""
    return f"<= {aim:,g}{unit}", value <= aim
