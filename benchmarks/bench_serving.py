"""get_features over HTTP, beside a constant answer of the same size from the same HTTP stack.

`python -m benchmarks.bench_serving --events 500000 --requests 8000`: 2 keys, 12 windowed features, hash and provenance on, keys
and instants at random; 1 and 8 connections; with --hot, one terminal has that many events in its window. Both servers stand
the whole time, one worker each, and are asked in turns of a second or so: what the machine does meanwhile is done to both. The
first pass over the requests fills the service's cache and is shown apart ("first time").
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import uvloop
from starlette.types import ASGIApp, Receive, Scope, Send

from benchmarks.load import Load, post, run
from benchmarks.world import ACCOUNTS, MERCHANTS, fill, fresh_database, profile, request
from ofp_platform.api.app import Application
from ofp_platform.api.build_requests import BuildRequests
from ofp_platform.api.server import serve
from ofp_platform.online.plane import Plane
from ofp_platform.online.service import OnlineService
from ofp_platform.storage.embedded import stop_embedded
from ofp_platform.vocabulary.profile import Profile

HOUR_SECONDS = 3_600
MICROS = 1_000_000


def constant_app(body: bytes) -> ASGIApp:
    """Answers every request with the same bytes."""
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def plane_app(chosen: Profile, dsn: str, cache_bytes: int) -> ASGIApp:
    """The service itself, as `ofp serve` runs it."""
    return Application(OnlineService(chosen, dsn, cache_bytes=cache_bytes), BuildRequests(dsn))


@contextmanager
def server(factory: Callable[[], ASGIApp]) -> Iterator[int]:
    """A server in a process of its own; its port."""
    receiving, sending = multiprocessing.Pipe(duplex=False)
    process = multiprocessing.get_context("fork").Process(
        target=serve, args=(factory,), kwargs={"port": 0, "on_ready": sending.send}
    )
    process.start()
    try:
        if not receiving.poll(60):
            raise SystemExit("the server did not start")
        yield int(receiving.recv().rsplit(":", 1)[1])
    finally:
        process.terminate()
        process.join()


def load(port: int, requests: list[bytes], connections: int) -> Load:
    """Send the requests."""
    return uvloop.run(run("127.0.0.1", port, requests, connections))


def together(parts: list[Load]) -> Load:
    """Several turns as one run."""
    latencies = sorted(latency for part in parts for latency in part.latencies)
    return Load(len(latencies), sum(part.seconds for part in parts), latencies, sum(part.failures for part in parts))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--requests", type=int, default=8_000)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--hot", type=int, default=0, help="events in one terminal's window")
    parser.add_argument("--cache-mb", type=int, default=256, help="0: every answer from the store")
    parser.add_argument("--json", type=Path, help="write the raw results there")
    arguments = parser.parse_args()
    rng = np.random.default_rng(7)
    with tempfile.TemporaryDirectory() as folder:
        dsn = fresh_database(Path(folder), "serving")
        chosen = profile("serving").model_copy(update={"object_store_url": f"file://{folder}/objects"})
        try:
            with Plane.open(chosen, dsn) as plane:
                fill(plane, arguments.events, hot=arguments.hot)
                row = plane.ensure_live()
                projector = plane.projector(row)
                while (receipt := projector.apply_available(max_records=200_000)) is not None:
                    if receipt.failures:
                        raise SystemExit(f"the world of the benchmark is wrong: {dict(receipt.failures)}")
                watermark = plane.row(row.projection_id).watermark or 0
                with plane.pool.connection() as connection:
                    connection.execute("VACUUM ANALYZE")

                def asked(merchant: str | None = None) -> bytes:
                    as_of = watermark - int(rng.integers(HOUR_SECONDS)) * MICROS
                    account = f"customer-{rng.integers(ACCOUNTS):07d}"
                    return request(as_of, account, merchant or f"terminal-{rng.integers(MERCHANTS):07d}")

                cold = [asked() for _ in range(arguments.requests)]
                hot = [asked(f"terminal-{MERCHANTS:07d}") for _ in range(arguments.requests // 4)]
                size = len(plane.reader(row).answer(cold[0]).body)
            cold_posts, hot_posts = ([post("/v0/get_features", body) for body in bodies] for bodies in (cold, hot))
            runs: dict[str, list[Load]] = {}
            with (
                server(partial(constant_app, b"x" * size)) as floor,
                server(partial(plane_app, chosen, dsn, arguments.cache_mb << 20)) as plane_port,
            ):
                load(floor, cold_posts[:500], 8)
                load(plane_port, hot_posts[:200], 8)
                runs["get_features, first time, 8"] = [load(plane_port, cold_posts, 8)]
                if arguments.hot:
                    load(plane_port, hot_posts, 8)
                for _ in range(arguments.turns):
                    for connections in (1, 8):
                        runs.setdefault(f"constant {size} B, {connections}", []).append(load(floor, cold_posts, connections))
                        runs.setdefault(f"get_features, {connections}", []).append(load(plane_port, cold_posts, connections))
                    if arguments.hot:
                        name = f"get_features, hot key of {arguments.hot:,}, 1"
                        runs.setdefault(name, []).append(load(plane_port, hot_posts, 1))
        finally:
            stop_embedded(Path(folder) / "postgres")
    table = {name: together(parts) for name, parts in runs.items()}
    print(f"{'answer, connections':40}{'req/s':>9}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'failed':>8}")
    for name, one in sorted(table.items()):
        quantiles = "".join(f"{one.quantile(q):9.3f}" for q in (0.5, 0.95, 0.99))
        print(f"{name:40}{one.rate:9,.0f}{quantiles}{one.failures:8}")
    ratios = [own.rate / other.rate for own, other in zip(runs["get_features, 8"], runs[f"constant {size} B, 8"], strict=True)]
    print(f"get_features / constant, 8 connections: {np.median(ratios):.3f} (median of {len(ratios)} turns)")
    if arguments.hot:
        hot_p99 = table[f"get_features, hot key of {arguments.hot:,}, 1"].quantile(0.99)
        print(f"hot / cold p99, 1 connection: {hot_p99 / table['get_features, 1'].quantile(0.99):.2f}")
    if arguments.json:
        results = {
            name: [{"seconds": part.seconds, "latencies": part.latencies} for part in parts] for name, parts in runs.items()
        }
        machine = {"cores": os.cpu_count(), "machine": platform.machine(), "python": platform.python_version()}
        arguments.json.write_text(json.dumps({"arguments": vars(arguments), "machine": machine, "runs": results}, default=str))


if __name__ == "__main__":
    main()
