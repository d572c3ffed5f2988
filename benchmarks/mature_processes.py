"""The processes of the mature world: projector, archiver and producers, each as it runs in earnest, and what they cost.

Each names itself to PostgreSQL, so that the time and the WAL of its backends can be told from those of the others.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import psycopg

from benchmarks.bench_freshness import Placed
from benchmarks.mature_world import MatureWorld, append
from ofp_platform.cli.offline.archive_commands import KEEPING
from ofp_platform.cli.online.projector_commands import READY
from ofp_platform.online.plane import Plane
from ofp_platform.vocabulary.profile import Profile

PROJECTOR, ARCHIVER, PRODUCERS, SERVER = "bench-projector", "bench-archiver", "bench-producers", "bench-server"
POSTGRES_REST = "postgres, its own processes"
_WAIT_SECONDS = 120.0
_PRODUCER_NUMBERS = 1 << 40
"""The events of a producer are numbered apart from those of the next one."""
_FEED_RECORDS = 1_000
_LAG = """
    SELECT (SELECT coalesce(sum(next_offset), 0) FROM ofp.log_head WHERE stream_name = %(stream)s)
        - (SELECT coalesce(sum(records), 0) FROM ofp.projection_partition WHERE projection_id = %(projection)s)"""


def named(dsn: str, name: str) -> str:
    """The DSN for a process of that name."""
    return f"{dsn}&application_name={name}"


@contextmanager
def command(words: Sequence[str], profile: Profile, dsn: str, name: str, folder: Path, ready: str) -> Iterator[int]:
    """`ofp WORDS` in a process of its own, once it has said that it is ready; its process id."""
    settings = folder / f"{profile.profile_name}.yaml"
    settings.write_text(profile.model_dump_json(exclude_none=True))  # JSON is YAML
    (folder / "home").mkdir(exist_ok=True)
    line = [
        sys.executable,
        "-u",
        "-m",
        "ofp_platform.cli.main",
        *words,
        "--home",
        str(folder / "home"),
        "--profile",
        str(settings),
    ]
    environment = {**os.environ, "OFP_DATABASE_URL": named(dsn, name)}
    process = subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    reading = threading.Thread(target=process.stdout.read, daemon=True)  # its words, so that its pipe never fills
    try:
        if ready not in process.stdout.readline():
            raise SystemExit(f"ofp {' '.join(words)} did not start")
        reading.start()
        yield process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_WAIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        if reading.ident is not None:
            reading.join()
        process.stdout.close()


@contextmanager
def projector(profile: Profile, dsn: str, folder: Path) -> Iterator[int]:
    """`ofp projector run`; its process id."""
    with command(["projector", "run"], profile, dsn, PROJECTOR, folder, READY) as pid:
        yield pid


@contextmanager
def archiver(profile: Profile, dsn: str, folder: Path) -> Iterator[int]:
    """`ofp archive keep`, a round every five seconds; its process id."""
    with command(["archive", "keep", "--every", "5"], profile, dsn, ARCHIVER, folder, KEEPING) as pid:
        yield pid


@dataclass(frozen=True)
class Pace:
    """What the producers do together: `rate` events a second in ticks of so many seconds, for so long; or, without a rate,
    as many as keep the log `ahead` records before the projection.

    `first`: the number of their first event; `start`: its time, and `gap` from one event to the next, microseconds.
    """

    first: int
    start: int
    gap: int
    seconds: float
    rate: int = 0
    tick: float = 0.05
    ahead: int = 0


@dataclass(frozen=True)
class Production:
    """What producers appended: (due, partition, offset) of each event, seconds of each append, seconds by which one was late."""

    placed: Placed
    append_seconds: list[float]
    latest: float


def _produce(number: int, producers: int, world: MatureWorld, profile: Profile, dsn: str, pipe: Connection, stop: Any) -> None:
    """One producer: says that it is ready; then, for each pace that comes, sends what it appended; None ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with Plane.open(profile, named(dsn, PRODUCERS), max_connections=2) as plane:
        row = plane.known_live()
        world.live(0, np.arange(8))  # its tables
        pipe.send(None)
        pace: Pace | None
        while (pace := pipe.recv()) is not None:
            first = pace.first + number * _PRODUCER_NUMBERS
            if pace.rate:
                pipe.send(_by_schedule(plane, world, pace, first, producers, stop))
            else:
                pipe.send(_ahead(plane, world, pace, first, producers, row.projection_id, stop))


def _by_schedule(plane: Plane, world: MatureWorld, pace: Pace, first: int, producers: int, stop: Any) -> Production:
    each = max(1, round(pace.rate * pace.tick / producers))
    production = Production([], [], 0.0)
    latest = 0.0
    began = time.perf_counter()
    for tick in range(round(pace.seconds / pace.tick)):
        ts = pace.start + (tick * each + np.arange(each)) * pace.gap * producers
        columns = world.live(first + tick * each, ts)
        due = began + tick * pace.tick
        if (early := due - time.perf_counter()) > 0:
            time.sleep(early)
        if stop.is_set():
            break
        call_time = time.perf_counter()
        latest = max(latest, call_time - due)
        places = append(plane, columns)
        production.append_seconds.append(time.perf_counter() - call_time)
        # behind, an event counts from when it was due
        since = due if call_time > due + pace.tick else call_time
        production.placed.extend((since, *place) for place in places)
    return Production(production.placed, production.append_seconds, latest)


def _ahead(plane: Plane, world: MatureWorld, pace: Pace, first: int, producers: int, projection_id: int, stop: Any) -> Production:
    production = Production([], [], 0.0)
    arguments = {"stream": plane.profile.stream_name, "projection": projection_id}
    count = 0
    until = time.perf_counter() + pace.seconds
    while not stop.is_set() and time.perf_counter() < until:
        with plane.pool.connection() as connection:
            row = connection.execute(_LAG, arguments).fetchone()
        assert row is not None
        if row[0] >= pace.ahead:
            time.sleep(0.005)
            continue
        ts = pace.start + (count + np.arange(_FEED_RECORDS)) * pace.gap * producers
        call_time = time.perf_counter()
        append(plane, world.live(first + count, ts))
        production.append_seconds.append(time.perf_counter() - call_time)
        count += _FEED_RECORDS
    return production


@dataclass
class Producers:
    """Producers that wait for a pace; `finish` waits until they are through with it, `stop` ends it before its time."""

    processes: list[Any]
    pipes: list[Connection]
    stop_event: Any

    @property
    def pids(self) -> list[int]:
        """Their process ids."""
        return [process.pid for process in self.processes]

    def begin(self, pace: Pace) -> None:
        """Let them work at that pace, all at once."""
        self.stop_event.clear()
        for pipe in self.pipes:
            pipe.send(pace)

    def stop(self) -> list[Production]:
        """End it; what each appended."""
        self.stop_event.set()
        return self.finish()

    def finish(self) -> list[Production]:
        """Wait for its end; what each appended."""
        return [pipe.recv() for pipe in self.pipes]


@contextmanager
def producing(count: int, world: MatureWorld, profile: Profile, dsn: str) -> Iterator[Producers]:
    """So many producers, each in a process of its own, ready to begin."""
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    processes, pipes = [], []
    try:
        for number in range(count):
            own_end, other_end = context.Pipe()
            process = context.Process(target=_produce, args=(number, count, world, profile, dsn, other_end, stop), daemon=True)
            process.start()
            other_end.close()  # whoever waits for a producer that died is told so
            processes.append(process)
            pipes.append(own_end)
        for pipe in pipes:
            pipe.recv()
        yield Producers(processes, pipes, stop)
    finally:
        stop.set()
        for process, pipe in zip(processes, pipes, strict=True):
            with suppress(OSError):
                pipe.send(None)
            process.join(10)
            if process.is_alive():
                process.terminate()
                process.join()
            process.close()
            pipe.close()


@dataclass(frozen=True)
class Gauges:
    """Counters at one time: seconds of the clock, CPU seconds by process, records and commits of the projection, WAL.

    `records`: applied by the projection; `version`: its commits; `appended`: records in the log; `wal`: bytes of the whole
    server; `full_pages`: images of whole pages among it; `chunk_rows`: rows written to the table of chunks.
    """

    at: float
    cpu: dict[str, float]
    records: int
    version: int
    appended: int
    wal: int
    full_pages: int
    chunk_rows: int


@dataclass
class Meter:
    """Reads gauges. `pids`: processes of this machine by the name under which they are told of."""

    connection: psycopg.Connection[Any]
    projection_id: int
    stream: str
    postmaster: int
    pids: dict[str, list[int]] = field(default_factory=dict)

    def read(self) -> Gauges:
        """All counters, now."""
        row = self.connection.execute(
            """
            SELECT (SELECT coalesce(sum(records), 0) FROM ofp.projection_partition WHERE projection_id = %(projection)s),
                (SELECT version FROM ofp.projection WHERE projection_id = %(projection)s),
                (SELECT coalesce(sum(next_offset), 0) FROM ofp.log_head WHERE stream_name = %(stream)s),
                (SELECT pg_current_wal_insert_lsn() - '0/0'), (SELECT wal_fpi FROM pg_stat_wal),
                (SELECT n_tup_ins + n_tup_upd FROM pg_stat_user_tables WHERE relid = 'ofp.chunk'::regclass)
            """,
            {"projection": self.projection_id, "stream": self.stream},
        ).fetchone()
        assert row is not None
        return Gauges(time.perf_counter(), self._cpu(), *map(int, row))

    def _cpu(self) -> dict[str, float]:
        seconds: defaultdict[str, float] = defaultdict(float)
        for name, pids in self.pids.items():
            for pid in pids:
                seconds[name] += _cpu_seconds(pid)
        backends = dict(self.connection.execute("SELECT pid, application_name FROM pg_stat_activity").fetchall())
        for process in psutil.Process(self.postmaster).children():
            name = backends.get(process.pid) or ""
            seconds[f"postgres for {name}" if name else POSTGRES_REST] += _cpu_seconds(process.pid)
        return seconds


def _cpu_seconds(pid: int) -> float:
    try:
        times = psutil.Process(pid).cpu_times()
    except psutil.NoSuchProcess:
        return 0.0
    return float(times.user + times.system)


def resident_bytes(pid: int) -> int:
    """The resident memory of a process."""
    return int(psutil.Process(pid).memory_info().rss)


def peak_bytes(pid: int) -> int:
    """The most resident memory that a process ever had."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise RuntimeError(f"process {pid} does not tell its memory")


def wait_until_applied(plane: Plane, projection_id: int, seconds: float = _WAIT_SECONDS) -> None:
    """Wait until the projection has all that the log holds.

    Raises:
        SystemExit: it takes longer.
    """
    until = time.monotonic() + seconds
    while sum(plane.log.ordinal_lag(plane.row(projection_id).basis).values()):
        if time.monotonic() > until:
            raise SystemExit("the projector does not catch up")
        time.sleep(0.05)
