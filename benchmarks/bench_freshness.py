"""From append to servable: how long until an event is in what a request is answered from, with the continuous driver.

`python -m benchmarks.bench_freshness --seconds 5`: 1,000 events a second in appends of ten, a tick of 10 ms each, into a local
log; `ofp projector run` is a process of its own. An event's clock begins when its append is called. A third process listens for
the projector's commits and reads the basis once after each, in a statement of its own, as a request would: the event is servable
when such a read shows a basis behind it. It asks nothing in between, so it takes from nobody. A tick that comes late because
the append before it was slow is not left out: it is made up for, and the clock of its events begins at the time it was due.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import psycopg

from benchmarks.event_columns import events_of
from benchmarks.figures import Figures, Row
from benchmarks.handbook import DAYS, simulated
from benchmarks.world import ACCOUNTS, DAY, MERCHANTS, PINS, START, fresh_database, profile
from ofp_platform.cli.online.projector_commands import READY
from ofp_platform.online.plane import Plane
from ofp_platform.storage.embedded import stop_embedded

AIM_P50, AIM_P99 = 60.0, 250.0
TICK_SECONDS = 0.010
_WAIT_SECONDS = 30.0
_BASIS = "SELECT basis FROM ofp.projection WHERE projection_id = %s"
_PAYLOAD = b'{"amount_minor":%d,"customer_id":"customer-%07d","terminal_id":"terminal-%07d"}'
Seen = list[tuple[float, dict[str, int]]]
Placed = list[tuple[float, str, int]]


@contextmanager
def projector(plane: Plane, folder: Path) -> Iterator[subprocess.Popen[str]]:
    """`ofp projector run` on the plane's profile, ready."""
    settings = folder / "profile.yaml"  # JSON is YAML
    settings.write_text(plane.profile.model_dump_json(exclude_none=True))
    command = [sys.executable, "-u", "-m", "ofp_platform.cli.main", "projector", "run"]
    (folder / "home").mkdir()
    command += ["--home", str(folder / "home"), "--profile", str(settings)]
    environment = {**os.environ, "OFP_DATABASE_URL": plane.dsn}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    reading = threading.Thread(target=process.stdout.read, daemon=True)  # its words, so that its pipe never fills
    try:
        if READY not in process.stdout.readline():
            raise SystemExit("the projector did not start")
        reading.start()
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(_WAIT_SECONDS)
        if reading.is_alive():
            reading.join(_WAIT_SECONDS)
        process.stdout.close()


def watch(dsn: str, key: int | str, ready: Connection, stop: Any, statement: str = _BASIS) -> None:
    """Send every basis that became visible, with the time at which a read had it: that of the one projection of this id, or
    which another statement gives for its key.
    """
    commits_seen: Seen = []
    with psycopg.connect(dsn, autocommit=True) as listening, psycopg.connect(dsn, autocommit=True) as reading:
        listening.execute("LISTEN ofp_projection")
        ready.send(None)
        while not stop.is_set():
            for _ in listening.notifies(timeout=0.2, stop_after=1):
                ((text,),) = reading.execute(statement, (key,)).fetchall()
                basis = orjson.loads(text)
                commits_seen.append(
                    (time.perf_counter(), {part["partition_id"]: int(part["offset"]) for part in basis["partitions"]})
                )
    ready.send(commits_seen)


def append(plane: Plane, seconds: float, rate: int, seed: int, first: int = 0) -> tuple[Placed, list[float], float]:
    """Append events `first` and on at that rate; (due, partition, offset) of each, the seconds of each append, and of all."""
    rng = np.random.default_rng(seed)
    each = max(1, round(rate * TICK_SECONDS))
    ticks = round(seconds / TICK_SECONDS)
    midnight = START + (DAYS + 1) * DAY
    appended_events: Placed = []
    append_seconds: list[float] = []
    began = time.perf_counter()
    for tick in range(ticks):
        due = began + tick * TICK_SECONDS
        if (early := due - time.perf_counter()) > 0:
            time.sleep(early)
        numbers = range(first + tick * each, first + (tick + 1) * each)
        customers, terminals = rng.integers(ACCOUNTS, size=each), rng.integers(MERCHANTS, size=each)
        ts = midnight + np.array(numbers) * (1_000_000 // rate)
        payloads = [
            _PAYLOAD % (1_000 + number % 9_000, customer, terminal)
            for number, customer, terminal in zip(numbers, customers.tolist(), terminals.tolist(), strict=True)
        ]
        columns = events_of("transaction", PINS, [f"fresh-{number}" for number in numbers], ts, payloads)
        call_time = time.perf_counter()
        receipt = plane.log.append_columns(columns, ts)
        append_seconds.append(time.perf_counter() - call_time)
        if receipt.refusals:
            raise SystemExit(f"the log refused: {receipt.refusals[0]}")
        # behind, it counts from when it was due
        since = due if call_time > due + TICK_SECONDS else call_time
        appended_events += [(since, place[0], int(place[1])) for place in receipt.placed if isinstance(place, tuple)]
    return appended_events, append_seconds, time.perf_counter() - began


def latencies(appended_events: Placed, commits_seen: Seen) -> list[float]:
    """Milliseconds of every event until the first basis behind it, ascending."""
    offsets: dict[str, list[int]] = {}
    times: dict[str, list[float]] = {}
    for at, basis in commits_seen:
        for partition, offset in basis.items():
            known_offsets = offsets.setdefault(partition, [])
            if not known_offsets or known_offsets[-1] < offset:
                known_offsets.append(offset)
                times.setdefault(partition, []).append(at)
    milliseconds = []
    for due, partition, offset in appended_events:
        place = bisect_left(offsets.get(partition, []), offset + 1)
        if place == len(offsets.get(partition, [])):
            raise SystemExit(f"event {partition}:{offset} never became servable")
        milliseconds.append((times[partition][place] - due) * 1000)
    return sorted(milliseconds)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--rate", type=int, default=1_000, help="events a second")
    parser.add_argument("--history", type=int, default=100_000, help="events projected before")
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dsn = fresh_database(folder, "freshness")
        try:
            with Plane.open(profile("freshness", folder), dsn) as plane:
                simulated(folder, arguments.history).append_to(plane)
                row = plane.ensure_live()
                catching_up = plane.projector(row)
                while catching_up.apply_available(max_records=100_000) is not None:
                    pass
                context = multiprocessing.get_context("spawn")
                receiving, sending = context.Pipe(duplex=False)
                stop = context.Event()
                watcher = context.Process(target=watch, args=(dsn, row.projection_id, sending, stop), daemon=True)
                watcher.start()
                sending.close()  # whoever waits for a watcher that died is told so
                receiving.recv()
                with projector(plane, folder):
                    warm_up_count = len(append(plane, 1.0, arguments.rate, arguments.seed)[0])
                    appended_events, append_seconds, append_duration = append(
                        plane, arguments.seconds, arguments.rate, arguments.seed + 1, warm_up_count
                    )
                    deadline = time.monotonic() + _WAIT_SECONDS
                    while sum(plane.log.ordinal_lag(plane.row(row.projection_id).basis).values()):
                        if time.monotonic() > deadline:
                            raise SystemExit("the projector does not catch up")
                        time.sleep(0.05)
                time.sleep(0.5)  # the last notice
                stop.set()
                commits_seen: Seen = receiving.recv()
                watcher.join()
        finally:
            stop_embedded(folder / "postgres")
    milliseconds = latencies(appended_events, commits_seen)
    p50, p99 = (float(np.quantile(milliseconds, quantile)) for quantile in (0.5, 0.99))
    appends = np.quantile(np.array(append_seconds) * 1000, (0.5, 0.99))
    commits = sum(1 for at, _ in commits_seen if at >= appended_events[0][0])
    rows = [
        Row("append to servable, p50", f"{p50:.1f} ms", f"<= {AIM_P50:g} ms", p50 <= AIM_P50),
        Row("append to servable, p99", f"{p99:.1f} ms", f"<= {AIM_P99:g} ms", p99 <= AIM_P99),
        Row("append to servable, the slowest event", f"{milliseconds[-1]:.1f} ms"),
        Row("events appended", f"{len(milliseconds):,} in {append_duration:.1f} s: {len(milliseconds) / append_duration:,.0f}/s"),
        Row("of that the append itself", f"p50 {appends[0]:.1f} ms, p99 {appends[1]:.1f} ms"),
        Row("commits of the projector", f"{commits:,}, {len(milliseconds) / max(commits, 1):.0f} events each"),
    ]
    figures = Figures(
        suite="freshness",
        kind="bench",
        title="Freshness: append to servable at a steady rate",
        rows=tuple(rows),
        seconds=time.perf_counter() - began,
        arguments=vars(arguments),
        raw={"milliseconds": [round(value, 2) for value in milliseconds]},
    )
    print(figures.table())
    figures.write()


if __name__ == "__main__":
    main()
