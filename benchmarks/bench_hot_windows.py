"""Lists, categories, quantiles, pairs and calendar windows of a hot key beside commits, and of an ordinary key in turns with it.

`python -m benchmarks.bench_hot_windows --events 1000000`: one merchant has that many payments in the window of 30 days, the
others twenty each. Another process appends and commits twenty times a second, to the hot merchant among others, while the
service is asked for one group after the other, without HTTP: for the hot merchant and an ordinary one by turns, every 20 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import multiprocessing
import tempfile
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from benchmarks.bench_projection import project
from benchmarks.figures import Figures, Row
from benchmarks.world import PINS, fresh_database, profile
from ofp_platform.online.plane import Plane
from ofp_platform.online.service.online_service import OnlineService
from ofp_platform.simulation.deliveries import Deliveries
from ofp_platform.storage.embedded import stop_embedded
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.vocabulary.times import format_time, parse_duration, parse_time

AIM = 3.0
HOT = "terminal-hot"
_ORDINARY, _EVENTS_OF_ORDINARY = 2_000, 20
_WINDOW = parse_duration("30d")
_BEGIN = parse_time("2026-01-01T00:00:00Z")
_BATCH = 50_000
_COMMITS_A_SECOND, _EVENTS_A_COMMIT = 20, 50
_PACE_SECONDS = 0.02
_PAYMENT = "events: [payment], window: 30d"
GROUPS = {
    "counts_and_sums": (
        f"{{name: count, aggregation: count, {_PAYMENT}}}",
        f"{{name: sum, aggregation: sum, value: amount, {_PAYMENT}}}",
        f"{{name: largest, aggregation: max, value: amount, {_PAYMENT}}}",
    ),
    "last_n": (f"{{name: last, aggregation: last_n, n: 20, value: shop, {_PAYMENT}}}",),
    "top_k": (f"{{name: top, aggregation: top_k, k: 20, category: shop, {_PAYMENT}}}",),
    "count_by": (f"{{name: counts, aggregation: count_by, k: 20, category: shop, {_PAYMENT}}}",),
    "sum_by": (f"{{name: sums, aggregation: sum_by, k: 20, category: shop, value: amount, {_PAYMENT}}}",),
    "quantile": (f"{{name: p95, aggregation: quantile, p: 0.95, value: amount, {_PAYMENT}}}",),
    "median": (f"{{name: middle, aggregation: median, value: amount, {_PAYMENT}}}",),
    "distinct_pairs": (f"{{name: pairs, aggregation: distinct_count, value: shop, paired_with: city, {_PAYMENT}}}",),
    "since_change": (f"{{name: change, aggregation: seconds_since_change, condition: {{online: true}}, {_PAYMENT}}}",),
    "calendar": (
        "{name: today, aggregation: count, events: [payment], window: day in Europe/London}",
        "{name: month, aggregation: sum, value: amount, events: [payment], window: month in Europe/London}",
    ),
}


def pack_text() -> str:
    """A pack with a group for each kind of aggregation, of the key type merchant."""
    groups = "\n".join(
        f"  - {{name: {name}, version: v1, key_type: merchant, ttl_seconds: 86400, features: [{', '.join(features)}]}}"
        for name, features in GROUPS.items()
    )
    fields = "{amount: integer, shop: string, city: string, online: boolean}"
    events = f"  payment:\n    schema_versions: [v1]\n    keys: {{merchant: merchant_id}}\n    fields: {fields}"
    return f"pack_id: hot_windows\nrevision: 1\nevents:\n{events}\ngroups:\n{groups}\n"


def deliveries(rng: np.random.Generator, merchants: list[str], ts: np.ndarray[Any, np.dtype[np.int64]], first: int) -> Deliveries:
    """Payments of these merchants at these times (int64[n], microseconds); their ids count from `first`."""
    count = len(merchants)
    columns = (rng.integers(1, 10**6, count), rng.integers(0, 200, count), rng.integers(0, 40, count), rng.random(count) < 0.5)
    payloads = [
        orjson.dumps(
            {"amount": amount, "city": f"city-{city}", "merchant_id": merchant, "online": online, "shop": f"shop-{shop}"}
        )
        for merchant, amount, shop, city, online in zip(merchants, *(column.tolist() for column in columns), strict=True)
    ]
    return Deliveries(
        schema_version="v1",
        pins=(PINS,),
        pins_index=np.zeros(count, np.int32),
        event_ids=[f"payment-{number}" for number in range(first, first + count)],
        event_types=["payment"] * count,
        ts=ts,
        emitted_at=ts,
        admitted_at=ts,
        payloads=payloads,
    )


def fill(plane: Plane, events: int, rng: np.random.Generator) -> int:
    """Append the history in the order of its times; how many records."""
    merchants = [HOT] * events + [f"terminal-{number}" for number in range(_ORDINARY)] * _EVENTS_OF_ORDINARY
    merchants = [merchants[place] for place in rng.permutation(len(merchants)).tolist()]
    ts = np.sort(rng.integers(_BEGIN, _BEGIN + _WINDOW - parse_duration("1h"), len(merchants)))
    for start in range(0, len(merchants), _BATCH):
        part = deliveries(rng, merchants[start : start + _BATCH], ts[start : start + _BATCH], start)
        receipt = plane.log.append_columns(part.columns(), part.admitted_at)
        if receipt.refusals:
            raise SystemExit(f"the log refused a record: {receipt.refusals[0].message}")
    return len(merchants)


def commit_on(declared: Profile, dsn: str, first: int, running: Event, stop: Event) -> None:
    """Append and commit, so many times a second, until told to stop: half of the events are of the hot merchant."""
    rng = np.random.default_rng(first)
    with Plane.open(declared, dsn) as plane:
        projector = plane.projector(plane.known_live())
        number, moment = first, _BEGIN + _WINDOW - parse_duration("1h")
        while not stop.is_set():
            began = time.perf_counter()
            ts = np.sort(rng.integers(moment, moment + 50_000, _EVENTS_A_COMMIT))
            names = [HOT if place % 2 else f"terminal-{place}" for place in range(_EVENTS_A_COMMIT)]
            part = deliveries(rng, names, ts, number)
            plane.log.append_columns(part.columns(), part.admitted_at)
            projector.apply_available(max_records=10_000)
            number, moment = number + _EVENTS_A_COMMIT, moment + 50_000
            running.set()
            stop.wait(max(0.0, 1 / _COMMITS_A_SECOND - (time.perf_counter() - began)))


def body(merchant: str, group: str, as_of: int) -> bytes:
    """A request for one group of one merchant."""
    return orjson.dumps(
        {
            "context_pins": PINS.wire(),
            "feature_keys": [{"key_type": "merchant", "key_id": merchant}],
            "feature_groups": [{"group_name": group, "group_version": "v1"}],
            "as_of_time_utc": format_time(as_of),
        }
    )


async def seconds_of(service: OnlineService, request: bytes) -> float:
    """How long an answer takes."""
    began = time.perf_counter()
    answer = service.answer(request)
    if inspect.isawaitable(answer):
        await answer
    return time.perf_counter() - began


async def measure(
    declared: Profile, dsn: str, reads: int, rng: np.random.Generator
) -> dict[str, tuple[list[float], list[float], float]]:
    """Group to the seconds of the hot key and of ordinary ones, by turns, and of the hot key's first answer.

    The as-of is the end of the window.
    """
    as_of = _BEGIN + _WINDOW
    seen: dict[str, tuple[list[float], list[float], float]] = {}
    service = OnlineService(declared, dsn, log_served=False)
    await service.open()
    try:
        for group in GROUPS:
            first = await seconds_of(service, body(HOT, group, as_of))
            hot, ordinary, _ = seen[group] = [], [], first
            for turn in range(-10, reads):
                for times, merchant in ((hot, HOT), (ordinary, f"terminal-{int(rng.integers(0, _ORDINARY))}")):
                    taken = await seconds_of(service, body(merchant, group, as_of))
                    if turn >= 0:
                        times.append(taken)
                await asyncio.sleep(_PACE_SECONDS)
    finally:
        await service.close()
    return seen


def rows_of(seen: dict[str, tuple[list[float], list[float], float]]) -> list[Row]:
    """A row for each group."""
    rows = []
    for group, (*times, first) in seen.items():
        (hot_middle, hot_last), (middle, last) = ((float(np.median(one)), float(np.percentile(one, 99))) for one in times)
        figures = (
            f"p50 {hot_middle * 1e3:.2f} ms, p99 {hot_last * 1e3:.2f} ms; ordinary {middle * 1e3:.2f}, {last * 1e3:.2f} ms;"
            f" the first one {first * 1e3:.0f} ms"
        )
        ratio, claim = hot_last / last, f"{group}: p99 of the hot key over an ordinary one's"
        rows.append(Row(claim, f"{ratio:.2f}x ({figures})", f"<= {AIM:g}x", ratio <= AIM))
    return rows


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--reads", type=int, default=300, help="of each key and group")
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    began = time.perf_counter()
    rng = np.random.default_rng(arguments.seed)
    processes = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "pack.yaml").write_text(pack_text())
        declared = profile("hot_windows", folder).model_copy(
            update={"pack": str(folder / "pack.yaml"), "partition_key": "payload.merchant_id"}
        )
        dsn = fresh_database(folder, "hot_windows")
        try:
            with Plane.open(declared, dsn) as plane:
                records = fill(plane, arguments.events, rng)
                _, seconds = project(plane, _BATCH)
                running, stop = processes.Event(), processes.Event()
                committing = processes.Process(target=commit_on, args=(declared, dsn, records, running, stop))
                committing.start()
                while not running.wait(1):
                    if not committing.is_alive():
                        raise SystemExit("the committing process ended before its first commit")
                seen = asyncio.run(measure(declared, dsn, arguments.reads, rng))
                stop.set()
                committing.join()
                if committing.exitcode:
                    raise SystemExit(f"the committing process ended with {committing.exitcode}")
        finally:
            stop_embedded(folder / "postgres")
    figures = Figures(
        suite="hot_windows",
        kind="bench",
        title=f"A key with {arguments.events:,} events beside {_COMMITS_A_SECOND} commits a second",
        rows=(Row("history projected", f"{records / seconds:,.0f} events/s"), *rows_of(seen)),
        seconds=time.perf_counter() - began,
        arguments=vars(arguments),
        raw={"seconds": seen},
    )
    print(figures.table())
    figures.write()


if __name__ == "__main__":
    main()
