"""The parts of the mature world's suite that measure the projector: sustained rate, its commits, its start, freshness."""

from __future__ import annotations

import multiprocessing
import time
from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median

import numpy as np
import psycopg

from benchmarks.bench_freshness import Seen, latencies, watch
from benchmarks.figures import Row
from benchmarks.mature_processes import peak_bytes, projector, resident_bytes, wait_until_applied
from benchmarks.mature_rig import (
    Rig,
    Together,
    asked_now_and_then,
    at_least,
    at_most,
    cpu_each,
    opened,
    rate_of,
    raw_window,
    wait_for,
    wal_each,
    window_of,
)

AIM_SUSTAINED, AIM_WAL, AIM_START, AIM_MEMORY = 30_000, 600, 10.0, 2 << 30
AIM_FRESH, AIM_FRESH_FAST = 50.0, 200.0
KNOWN_FOR_AIMS = 100_000_000
"""How many events are known where the aims of start and memory hold."""
FRESH_RATE = 1_000
FAST_RATES = (20_000, 10_000, 5_000, 2_500)
_PAUSE_SECONDS = 1.5
"""The statistics of the server are at most a second old after it."""
_FEW_KEYS = 1_000


def sustained(rig: Rig, together: Together) -> list[Row]:
    """All processes together, the log always ahead of the projector."""
    arguments = rig.arguments
    together.producers.begin(rig.pace(arguments.seconds * 3 + 120, ahead=12 * arguments.commit_records))
    with asked_now_and_then(together.port, rig.bodies(500, 1)):
        together.wait_for_commits(10)
        together.connection.execute("CHECKPOINT")
        fresh = window_of(together.meter, arguments.seconds)  # every page that it touches first is written whole
        window = window_of(together.meter, arguments.seconds)
    together.producers.stop()
    rig.settle()
    before, after = window
    claim = "sustained" + rig.behind
    rate, part_cpu = rate_of(window), cpu_each(window)
    rig.raw[claim] = {
        "windows": [raw_window(fresh), raw_window(window)],
        "records behind at the end": after.appended - after.records,
    }
    own_us, backend_us = part_cpu["projector"], part_cpu["postgres for bench-projector"]
    size = (after.records - before.records) / max(after.version - before.version, 1)
    return [
        Row(f"{claim}, commits of at most {arguments.commit_records:,}", f"{rate:,.0f} events/s", *at_least(rate, AIM_SUSTAINED)),
        Row(f"{claim}, right after a checkpoint", f"{rate_of(fresh):,.0f} events/s"),
        Row(f"{claim}, records a commit", f"{size:,.0f}"),
        Row(
            f"{claim}, CPU an event: projector",
            f"{own_us + backend_us:,.0f} us ({own_us:,.0f} itself, {backend_us:,.0f} its backend)",
        ),
        Row(f"{claim}, CPU an event: the others", ", ".join(_others(part_cpu))),
        Row(f"{claim}, WAL an event of all together", f"{wal_each(window):,.0f} B"),
    ]


def _others(part_cpu: dict[str, float]) -> list[str]:
    told = ("projector", "postgres for bench-projector")
    by_cost = sorted(part_cpu.items(), key=lambda part: -part[1])
    return [f"{name.replace('bench-', '')} {us:,.0f} us" for name, us in by_cost if us >= 1 and name not in told]


def commits(rig: Rig) -> list[Row]:
    """The projector's commits with nothing beside them: WAL, rows and time, right after a checkpoint and later."""
    size = rig.arguments.commit_records
    rows = []
    with psycopg.connect(rig.direct_dsn, autocommit=True) as connection:
        meter = rig.meter(connection)
        applying = rig.projector()
        for name in ("right after a checkpoint", "later"):
            rig.append_live(rig.arguments.commits, size)
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
            rig.raw[f"commits, {name}"] = {
                **raw_window((before, after)),
                "records": records,
                "seconds": round(seconds, 3),
                "projector_cpu": round(cpu, 3),
            }
            aim = at_most(wal, AIM_WAL, " B") if name == "later" else ("", None)
            rows.append(Row(f"WAL an event, commits alone, {name}", f"{wal:,.0f} B, {pages:.2f} whole pages", *aim))
    chunk_rows = (after.chunk_rows - before.chunk_rows) / records
    return [
        *rows,
        Row("chunk rows written an event", f"{chunk_rows:.2f}"),
        Row("commits alone", f"{records / seconds:,.0f} events/s, {cpu / records * 1e6:,.0f} us CPU of the projector an event"),
    ]


def start(rig: Rig) -> list[Row]:
    """From the start of `ofp projector run` to its first commit, and its memory, beside one of a small world."""
    few = Namespace(**{**vars(rig.arguments), "keys": _FEW_KEYS})
    with opened(few, rig.folder.parent) as small:
        base_seconds, base_memory, _ = _first_commit(small)
    seconds, memory, peak = _first_commit(rig)
    known = sum(int(part.offset) for part in rig.plane.row(rig.projection_id).basis.partitions)
    rig.raw["start"] = {
        "known": known,
        "seconds": seconds,
        "memory": memory,
        "peak": peak,
        "small": {"seconds": base_seconds, "memory": base_memory},
    }
    is_large = known >= KNOWN_FOR_AIMS
    each = max(memory - base_memory, 0) / known
    return [
        Row(
            f"projector: start to first commit, {known:,} events known",
            f"{seconds:.1f} s (few known: {base_seconds:.1f} s)",
            f"<= {AIM_START:g} s",
            seconds <= AIM_START if is_large or seconds > AIM_START else None,
        ),
        Row(
            f"projector: memory after it, {known:,} events known",
            f"{memory / 2**20:,.0f} MB, peak {peak / 2**20:,.0f} MB (few known: {base_memory / 2**20:,.0f} MB)",
            "<= 2 GB, flat",
            peak <= AIM_MEMORY if is_large or peak > AIM_MEMORY else None,
        ),
        Row("projector: memory for each known event", f"{each:.0f} B"),
    ]


def _first_commit(rig: Rig) -> tuple[float, int, int]:
    """Seconds to the first commit of a started projector; its memory then, and the most it had."""
    rig.append_live(1, 100)
    version = rig.plane.row(rig.projection_id).version
    began = time.perf_counter()
    with projector(rig.profile, rig.dsn, rig.folder) as pid:
        wait_for(lambda: rig.plane.row(rig.projection_id).version > version, "the projector does not commit", 600)
        seconds = time.perf_counter() - began
        time.sleep(0.5)
        return round(seconds, 2), resident_bytes(pid), peak_bytes(pid)


def freshness(rig: Rig, together: Together) -> list[Row]:
    """From append to servable beside all other processes, at 1,000 events/s and at the highest rate that is held."""
    arguments = rig.arguments
    rows = []
    milliseconds, is_held, size = _freshness(rig, together, FRESH_RATE, arguments.seconds)
    p50, p99 = np.quantile(milliseconds, (0.5, 0.99)).tolist()
    rows.append(
        Row(f"append to servable at {FRESH_RATE:,}/s, p50", f"{p50:.1f} ms, {size:,.0f} events a commit" + _unheld(is_held))
    )
    rows.append(Row(f"append to servable at {FRESH_RATE:,}/s, p99", f"{p99:.1f} ms", *at_most(p99, AIM_FRESH, " ms")))
    for rate in arguments.fast_rates:
        milliseconds, is_held, size = _freshness(rig, together, rate, arguments.seconds)
        if is_held:
            break
    p50, p99 = np.quantile(milliseconds, (0.5, 0.99)).tolist()
    is_fast = is_held and rate == FAST_RATES[0]
    rows += [
        Row(
            "highest rate held of those tried", f"{rate:,}/s" + _unheld(is_held), *at_least(rate if is_held else 0, FAST_RATES[0])
        ),
        Row(f"append to servable at {rate:,}/s, p50", f"{p50:.1f} ms, {size:,.0f} events a commit"),
        Row(
            f"append to servable at {rate:,}/s, p99",
            f"{p99:.1f} ms",
            f"<= {AIM_FRESH_FAST:g} ms at 20,000/s",
            is_fast and p99 <= AIM_FRESH_FAST,
        ),
    ]
    return rows


def _unheld(is_held: bool) -> str:
    return "" if is_held else ", not held"


def _freshness(rig: Rig, together: Together, rate: int, seconds: float) -> tuple[list[float], bool, float]:
    """Milliseconds of every event at that rate; whether it was held; events a commit.

    Held: no append was made more than a second after it was due, and at the end less than a second of events waited.
    """
    with _watched(rig) as commits_seen:
        before = together.meter.read()
        together.producers.begin(rig.pace(seconds, rate=rate, tick=0.01))
        productions = together.producers.finish()
        behind = together.meter.read()
        lag = behind.appended - behind.records
        wait_until_applied(rig.plane, rig.projection_id, 600)
        after = together.meter.read()
        time.sleep(0.5)  # the last notice
    placed = [event for production in productions for event in production.placed]
    milliseconds = latencies(placed, commits_seen)
    latest = max(production.latest for production in productions)
    rig.raw[f"freshness at {rate}/s"] = {
        "milliseconds": [round(value, 1) for value in milliseconds[:: max(len(milliseconds) // 2_000, 1)]],
        "records behind at the end": lag,
        "latest append": round(latest, 3),
        "append p50": round(median(s for production in productions for s in production.append_seconds) * 1e3, 2),
    }
    size = (after.records - before.records) / max(after.version - before.version, 1)
    return milliseconds, latest <= 1 and lag <= rate, size


@contextmanager
def _watched(rig: Rig) -> Iterator[Seen]:
    """The commits that become visible meanwhile: there when the context ends."""
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    stop = context.Event()
    watcher = context.Process(target=watch, args=(rig.direct_dsn, rig.projection_id, sending, stop), daemon=True)
    commits_seen: Seen = []
    watcher.start()
    sending.close()  # whoever waits for a watcher that died is told so
    try:
        receiving.recv()
        yield commits_seen
        stop.set()
        commits_seen += receiving.recv()
    finally:
        stop.set()
        watcher.join()
        watcher.close()
        receiving.close()
