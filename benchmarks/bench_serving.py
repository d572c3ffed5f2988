"""get_features over HTTP, beside a constant answer of the same size from the same server.

`python -m benchmarks.bench_serving --events 500000 --requests 8000`: 2 keys, 12 windowed features, keys at random; 1 and 8
connections; with --hot, one terminal has that many events in its window.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
from functools import partial
from pathlib import Path

import numpy as np
import uvloop
from starlette.types import ASGIApp, Receive, Scope, Send

from benchmarks.load import Load, post, run
from benchmarks.world import ACCOUNTS, MERCHANTS, fill, fresh_database, profile, request
from ofp_platform.api.app import Application
from ofp_platform.api.server import serve
from ofp_platform.online.plane import Plane
from ofp_platform.online.service import OnlineService
from ofp_platform.storage.embedded import stop_embedded
from ofp_platform.vocabulary.profile import Profile


def constant_app(body: bytes) -> ASGIApp:
    """Answers every request with the same bytes."""

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        await receive()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    return app


def plane_app(chosen: Profile, dsn: str) -> ASGIApp:
    """The service itself, as `ofp serve` runs it."""
    return Application(OnlineService(chosen, dsn))


def _started(factory: object, ready: object) -> multiprocessing.Process:
    process = multiprocessing.get_context("fork").Process(target=serve, args=(factory,), kwargs={"port": 0, "on_ready": ready})
    process.start()
    return process  # type: ignore[return-value]


def measure(factory: object, requests: list[bytes], connections: list[int]) -> list[Load]:
    """Run a server in a process of its own and load it."""
    receiving, sending = multiprocessing.Pipe(duplex=False)
    process = _started(factory, sending.send)
    try:
        if not receiving.poll(60):
            raise SystemExit("the server did not start")
        port = int(receiving.recv().rsplit(":", 1)[1])
        uvloop.run(run("127.0.0.1", port, requests[:500], 8))
        return [uvloop.run(run("127.0.0.1", port, requests, count)) for count in connections]
    finally:
        process.terminate()
        process.join()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=300_000)
    parser.add_argument("--requests", type=int, default=8_000)
    parser.add_argument("--hot", type=int, default=0, help="events in one terminal's window")
    arguments = parser.parse_args()
    rng = np.random.default_rng(7)
    with tempfile.TemporaryDirectory() as folder:
        dsn = fresh_database(Path(folder), "serving")
        chosen = profile("serving").model_copy(update={"object_store_url": f"file://{folder}/objects"})
        try:
            total = arguments.events + arguments.hot
            with Plane.open(chosen, dsn) as plane:
                fill(plane, total, hot_share=arguments.hot / total)
                row = plane.ensure_live()
                projector = plane.projector(row)
                while projector.apply_available(max_records=200_000):
                    pass
                watermark = plane.row(row.projection_id).watermark or 0
                plane.pool.connection().__enter__().execute("VACUUM ANALYZE")
                names = [
                    (f"customer-{rng.integers(ACCOUNTS):07d}", f"terminal-{rng.integers(MERCHANTS):07d}")
                    for _ in range(arguments.requests)
                ]
                cold = [post("/v0/get_features", request(watermark, *name)) for name in names]
                hot = [post("/v0/get_features", request(watermark, name[0], f"terminal-{MERCHANTS:07d}")) for name in names]
                size = len(plane.reader(row).answer(request(watermark, *names[0])).body)
            rows: list[tuple[str, Load]] = []
            floor = measure(partial(constant_app, b"x" * size), cold, [1, 8])
            rows += [(f"constant {size} B", load) for load in floor]
            served = measure(partial(plane_app, chosen, dsn), cold, [1, 8])
            rows += [("get_features", load) for load in served]
            if arguments.hot:
                heated = measure(partial(plane_app, chosen, dsn), hot[: arguments.requests // 4], [1])
                rows += [(f"hot key, {arguments.hot:,} events", heated[0])]
        finally:
            stop_embedded(Path(folder) / "postgres")
    print(f"{'':30}{'conns':>6}{'req/s':>10}{'p50 ms':>9}{'p99 ms':>9}{'failed':>8}")
    for (name, load), connections in zip(rows, [1, 8, 1, 8, 1], strict=False):
        print(f"{name:30}{connections:6}{load.rate:10,.0f}{load.quantile(0.5):9.3f}{load.quantile(0.99):9.3f}{load.failures:8}")
    print(f"get_features / constant at 8 connections: {served[1].rate / floor[1].rate:.3f}")
    if arguments.hot:
        print(f"hot / cold p99 at 1 connection: {heated[0].quantile(0.99) / served[0].quantile(0.99):.2f}")


if __name__ == "__main__":
    main()
