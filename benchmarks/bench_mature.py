"""The mature world: card payments, five keys an event, full windows, Zipf keys, small commits, all processes together.

`python -m benchmarks.bench_mature --keys 200000`: projector, server, archiver and producers run together as real processes.
`--world FOLDER` keeps the filled world there for the next run; `--parts sustained commits` measures some of it.

sustained: producers keep the log ahead of the projector, which commits as it can; a server is asked and an archiver archives
beside it. commits: the projector alone, right after a checkpoint (every page is written whole once) and later.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psycopg

from benchmarks.delaying_proxy import delayed
from benchmarks.figures import Figures, Row
from benchmarks.load import load, post
from benchmarks.mature_processes import SERVER as SERVER_NAME
from benchmarks.mature_processes import (
    Gauges,
    Meter,
    Pace,
    archiver,
    named,
    producing,
    projector,
)
from benchmarks.mature_world import HOT_PER_CENT, MatureWorld, Population, append, mature_profile, questions
from benchmarks.servers import plane_app, service
from benchmarks.world import fresh_database
from ofp_platform.online.plane import Plane
from ofp_platform.storage.embedded import start_embedded, stop_embedded
from ofp_platform.vocabulary.profile import Profile

NAME = "mature"
AIM_SUSTAINED, AIM_WAL = 30_000, 600
_CACHE_BYTES = 256 << 20
_PATH = "/v0/get_features"
_PAUSE_SECONDS = 1.5
"""The statistics of the server are at most a second old after it."""


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

    def pace(self, seconds: float, **settings: Any) -> Pace:
        """The pace of producers that go on where the log ends."""
        row = self.plane.row(self.projection_id)
        first = sum(int(part.offset) for part in self.plane.log.ends().partitions)
        return Pace(first, (row.watermark or 0) + 1_000_000, seconds, **settings)

    def meter(self, connection: psycopg.Connection[Any], **pids: list[int]) -> Meter:
        """A meter of the processes; the proxy among them."""
        return Meter(connection, self.projection_id, self.profile.stream_name, self.postmaster, {"proxy": self.proxies, **pids})

    @contextmanager
    def serving(self) -> Iterator[tuple[int, int]]:
        """The server: its port and its process id."""
        factory = partial(plane_app, self.profile, named(self.dsn, SERVER_NAME), _CACHE_BYTES)
        with service(factory) as standing:
            yield standing

    def bodies(self, count: int, seed: int, *, hot: bool = False, ordinary: bool = False) -> list[bytes]:
        """Requests for the keys of payments as they come, at the watermark."""
        rng = np.random.default_rng([self.arguments.seed, seed])
        population = self.world.population
        members = (population.ordinary_members if ordinary or hot else population.live_members)(rng, count)
        if hot:
            members.merchant[:] = population.hot
        watermark = self.plane.row(self.projection_id).watermark or 0
        return [post(_PATH, body) for body in questions(members, watermark)]


@contextmanager
def opened(arguments: argparse.Namespace, folder: Path, delay: float = 0.0) -> Iterator[Rig]:
    """The world of the folder, filled where it is new, and caught up."""
    name = f"mature_{arguments.keys}_{arguments.partitions}"
    server = start_embedded(folder / "postgres")
    dsn = server.replace("/ofp?", f"/{name}?")
    with psycopg.connect(server, autocommit=True) as connection:
        is_new = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,)).fetchone() is None
    if is_new:
        dsn = fresh_database(folder, name)
    world = MatureWorld(Population(arguments.keys, arguments.zipf), arguments.events_per_key, arguments.seed)
    profile = mature_profile(NAME, folder, partitions=arguments.partitions, commit_records=arguments.commit_records)
    postmaster = int((folder / "postgres" / "postmaster.pid").read_text().split("\n", 1)[0])
    with ExitStack() as standing:
        plane = standing.enter_context(Plane.open(profile, dsn))
        began = time.perf_counter()
        row = world.fill(plane) if is_new else plane.ensure_live()
        rig = Rig(arguments, folder, dsn, dsn, profile, world, plane, row.projection_id, postmaster)
        if is_new:
            rig.raw["filled"] = {"records": world.history_records, "seconds": round(time.perf_counter() - began, 1)}
        if delay:
            rig.dsn, proxy = standing.enter_context(delayed(dsn, delay))
            rig.proxies.append(proxy)
        _apply_rest(plane, row.projection_id)
        yield rig


def _apply_rest(plane: Plane, projection_id: int) -> None:
    applying = plane.projector(plane.row(projection_id))
    while applying.apply_available(max_records=250_000) is not None:
        pass


# ---- sustained -------------------------------------------------------------------------------------------------------


def sustained(rig: Rig) -> list[Row]:
    """All processes together, the log always ahead of the projector."""
    arguments = rig.arguments
    seconds = arguments.seconds
    pace = rig.pace(seconds * 3 + 120, ahead=12 * arguments.commit_records)
    with ExitStack() as standing:
        port, server_pid = standing.enter_context(rig.serving())
        archiver_pid = standing.enter_context(archiver(rig.profile, rig.dsn, rig.folder))
        producers = standing.enter_context(producing(arguments.producers, pace, rig.world, rig.profile, rig.dsn))
        _wait_for_lag(rig, 4 * arguments.commit_records)
        projector_pid = standing.enter_context(projector(rig.profile, rig.dsn, rig.folder))
        connection = standing.enter_context(psycopg.connect(rig.direct_dsn, autocommit=True))
        meter = rig.meter(
            connection, projector=[projector_pid], server=[server_pid], archiver=[archiver_pid], producers=producers.pids
        )
        asking = standing.enter_context(_asked_now_and_then(port, rig.bodies(500, 1)))
        _wait_for_commits(meter, 10)
        connection.execute("CHECKPOINT")
        fresh = _window(meter, seconds)  # every page that it touches first is written whole
        window = _window(meter, seconds)
        asking.set()
        lags = window[1].appended - window[1].records
        producers.stop()
    before, after = window
    claim = "sustained" + _behind(rig)
    rate, part_cpu = _rate(window), _cpu_each(window)
    rig.raw["sustained" + _behind(rig)] = {
        "windows": [_raw_window(fresh), _raw_window(window)],
        "records behind at the end": lags,
    }
    own_us, backend_us = part_cpu["projector"], part_cpu["postgres for bench-projector"]
    fresh_rate = _rate(fresh)
    return [
        Row(f"{claim}, commits of at most {arguments.commit_records:,}", f"{rate:,.0f} events/s", *_least(rate, AIM_SUSTAINED)),
        Row(f"{claim}, right after a checkpoint", f"{fresh_rate:,.0f} events/s"),
        Row(f"{claim}, records a commit", f"{(after.records - before.records) / max(after.version - before.version, 1):,.0f}"),
        Row(
            f"{claim}, CPU an event: projector",
            f"{own_us + backend_us:,.0f} us ({own_us:,.0f} itself, {backend_us:,.0f} its backend)",
        ),
        Row(f"{claim}, CPU an event: the others", ", ".join(_others(part_cpu))),
        Row(f"{claim}, WAL an event of all together", f"{_wal_each(window):,.0f} B"),
    ]


def _least(value: float, aim: float) -> tuple[str, bool]:
    return f">= {aim:,.0f}", value >= aim


def _most(value: float, aim: float, unit: str) -> tuple[str, bool]:
    return f"<= {aim:,.0f}{unit}", value <= aim


def _behind(rig: Rig) -> str:
    return f", behind {rig.arguments.delay_ms:g} ms of network each way" if rig.proxies else ""


def _others(part_cpu: Counter[str]) -> list[str]:
    hidden = ("projector", "postgres for bench-projector")
    return [f"{name.replace('bench-', '')} {us:,.0f} us" for name, us in part_cpu.most_common() if us >= 1 and name not in hidden]


def _rate(window: tuple[Gauges, Gauges]) -> float:
    before, after = window
    return (after.records - before.records) / (after.at - before.at)


def _cpu_each(window: tuple[Gauges, Gauges]) -> Counter[str]:
    """Microseconds an applied event, by process."""
    before, after = window
    records = max(after.records - before.records, 1)
    return Counter({name: (seconds - before.cpu[name]) / records * 1e6 for name, seconds in after.cpu.items()})


def _wal_each(window: tuple[Gauges, Gauges]) -> float:
    before, after = window
    return (after.wal - before.wal) / max(after.records - before.records, 1)


def _raw_window(window: tuple[Gauges, Gauges]) -> dict[str, Any]:
    before, after = window
    return {
        "seconds": round(after.at - before.at, 3),
        "records": after.records - before.records,
        "commits": after.version - before.version,
        "wal": after.wal - before.wal,
        "full_pages": after.full_pages - before.full_pages,
        "chunk_rows": after.chunk_rows - before.chunk_rows,
        "cpu": {name: round(value - before.cpu[name], 3) for name, value in after.cpu.items()},
    }


def _window(meter: Meter, seconds: float) -> tuple[Gauges, Gauges]:
    before = meter.read()
    time.sleep(seconds)
    return before, meter.read()


def _wait_for(reached: Callable[[], bool], words: str, seconds: float = 120.0) -> None:
    until = time.monotonic() + seconds
    while not reached():
        if time.monotonic() > until:
            raise SystemExit(words)
        time.sleep(0.02)


def _wait_for_lag(rig: Rig, records: int) -> None:
    basis = rig.plane.row(rig.projection_id).basis
    _wait_for(lambda: sum(rig.plane.log.ordinal_lag(basis).values()) >= records, "the producers do not produce")


def _wait_for_commits(meter: Meter, count: int) -> None:
    first = meter.read().version
    _wait_for(lambda: meter.read().version >= first + count, "the projector does not commit")


@contextmanager
def _asked_now_and_then(port: int, requests: list[bytes]) -> Iterator[threading.Event]:
    """A server that is asked ten times in each fifth of a second, until the event is set."""
    stop = threading.Event()

    def ask() -> None:
        place = 0
        while not stop.wait(0.2):
            load(port, [requests[(place + step) % len(requests)] for step in range(10)], 1)
            place += 10

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        yield stop
    finally:
        stop.set()
        asking.join()


# ---- commits alone ---------------------------------------------------------------------------------------------------


def commits(rig: Rig) -> list[Row]:
    """The projector's commits with nothing beside them: WAL, rows and time, right after a checkpoint and later."""
    arguments = rig.arguments
    count = arguments.commits
    size = arguments.commit_records
    rows = []
    with psycopg.connect(rig.direct_dsn, autocommit=True) as connection:
        meter = rig.meter(connection)
        applying = rig.plane.projector(rig.plane.row(rig.projection_id))
        for name in ("right after a checkpoint", "later"):
            pace = rig.pace(0)
            for number in range(count):
                ts = pace.start + (number * size + np.arange(size)) * 100
                append(rig.plane, rig.world.live(pace.first + number * size, ts))
            applying.apply_available(max_records=size)  # reads what it has to know
            if name != "later":
                connection.execute("CHECKPOINT")
            time.sleep(_PAUSE_SECONDS)
            before = meter.read()
            records = 0
            cpu = time.process_time()
            began = time.perf_counter()
            while (receipt := applying.apply_available(max_records=size)) is not None:
                records += receipt.records
            seconds, cpu = time.perf_counter() - began, time.process_time() - cpu
            time.sleep(_PAUSE_SECONDS)
            after = meter.read()
            wal = (after.wal - before.wal) / records
            pages = (after.full_pages - before.full_pages) / records
            chunk_rows = (after.chunk_rows - before.chunk_rows) / records
            rig.raw[f"commits, {name}"] = {
                **_raw_window((before, after)),
                "records": records,
                "seconds": seconds,
                "projector_cpu": cpu,
            }
            aim = _most(wal, AIM_WAL, " B") if name == "later" else ("", None)
            rows.append(Row(f"WAL an event, commits alone, {name}", f"{wal:,.0f} B, {pages:.2f} whole pages", *aim))
        rows.append(Row("chunk rows written an event", f"{chunk_rows:.2f}"))
        rows.append(
            Row(
                "commits alone", f"{records / seconds:,.0f} events/s, {cpu / records * 1e6:,.0f} us CPU of the projector an event"
            )
        )
    return rows


PARTS: dict[str, Callable[[Rig], list[Row]]] = {"sustained": sustained, "commits": commits}
NETWORK_PARTS = ("sustained",)


def measure(folder: Path, arguments: argparse.Namespace) -> tuple[list[Row], dict[str, Any]]:
    """The rows, and the raw results."""
    size = f"{arguments.keys:,} keys, {arguments.events_per_key} events each, {HOT_PER_CENT}"
    rows: list[Row] = []
    raw: dict[str, Any] = {}
    with opened(arguments, folder) as rig:
        filled = rig.raw.get("filled")
        history = f"{rig.world.history_records:,} events"
        rows.append(Row(f"the world: {size}", history + (f", filled in {filled['seconds']:,.0f} s" if filled else "")))
        for name in arguments.parts:
            rows += PARTS[name](rig)
        raw |= rig.raw
    if arguments.delay_ms:
        with opened(arguments, folder, arguments.delay_ms / 1000) as rig:
            for name in NETWORK_PARTS:
                if name in arguments.parts:
                    rows += PARTS[name](rig)
            raw |= rig.raw
    return rows, raw


def parser() -> argparse.ArgumentParser:
    """The arguments of the suite."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--keys", type=int, default=200_000, help="of all five types together; the hot two are beside them")
    arguments.add_argument("--events-per-key", type=int, default=60)
    arguments.add_argument("--zipf", type=float, default=1.0, help="exponent of Zipf's law among the ordinary keys")
    arguments.add_argument("--partitions", type=int, default=4)
    arguments.add_argument("--commit-records", type=int, default=2_000, help="the most records of a commit")
    arguments.add_argument("--commits", type=int, default=40, help="of each measurement of commits alone")
    arguments.add_argument("--producers", type=int, default=2)
    arguments.add_argument("--seconds", type=float, default=10.0, help="of a measurement")
    arguments.add_argument("--delay-ms", type=float, default=0.5, help="of the network, each way; 0: no variant with a network")
    arguments.add_argument("--parts", nargs="+", choices=sorted(PARTS), default=list(PARTS))
    arguments.add_argument("--world", type=Path, help="folder that keeps the filled world; default: none is kept")
    arguments.add_argument("--seed", type=int, default=7)
    return arguments


def main() -> None:
    """Print the table and keep the results."""
    arguments = parser().parse_args()
    # whoever stops a run stops its processes too: without this they would be left standing
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    began = time.perf_counter()
    folder = arguments.world or Path(tempfile.mkdtemp())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        rows, raw = measure(folder, arguments)
    finally:
        stop_embedded(folder / "postgres")
        if arguments.world is None:
            shutil.rmtree(folder)
    seconds = time.perf_counter() - began
    title = "The mature world: five keys an event, full windows, all processes together"
    figures = Figures(NAME, "bench", title, tuple(rows), seconds, {**vars(arguments), "world": bool(arguments.world)}, raw)
    print(figures.table())
    figures.write()


if __name__ == "__main__":
    main()
