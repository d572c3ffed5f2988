"""Growth: what ten times the events, or ten times the keys, do to catch-up, build and serving.

`python -m benchmarks.bench_growth --events 20000`: the same 183 days with 1x, 3x and 10x the transactions over 15,000 keys, so a
key has ten times the events in its windows; and 1x over a tenth of the keys. Each world is projected, and built into a training
set by a process of its own (its stages count, not its start). Then a server of every world stands at once, one worker each,
and they are asked in turns, for keys at random and instants of the last hour: what the machine does meanwhile is done to all.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.bench_build import Prepared, build, prepare
from benchmarks.bench_projection import project
from benchmarks.figures import Figures, Row
from benchmarks.handbook import simulated
from benchmarks.load import Load, load, post
from benchmarks.servers import plane_app, server
from benchmarks.world import ACCOUNTS, MERCHANTS, fresh_database, request
from ofp_platform.online.plane import Plane
from ofp_platform.storage.embedded import stop_embedded
from ofp_platform.vocabulary.offline.build_intent import AsOfBasis

AIM_TIME, AIM_P99 = 11.0, 1.5
CONNECTIONS = 8
_HOUR_SECONDS = 3_600
_POOL = 8_000


@dataclass
class Size:
    """One world: how large, and what was measured on it; seconds."""

    name: str
    events: int
    keys_divisor: int
    catch_up_seconds: float = 0.0
    build_seconds: float = 0.0
    requests: list[bytes] = field(default_factory=list)
    turns: list[Load] = field(default_factory=list)

    def measure(self, folder: Path, seed: int) -> tuple[Prepared, str]:
        """Project and build it; the server's profile and database."""
        customers, terminals = ACCOUNTS // self.keys_divisor, MERCHANTS // self.keys_divisor
        world = simulated(folder, self.events, customers=customers, terminals=terminals, seed=seed)
        dsn = fresh_database(folder, f"growth_{self.name}")
        own_folder = folder / self.name
        own_folder.mkdir()
        waiting = prepare(world, own_folder, dsn, AsOfBasis.EVENT_TIME)
        with Plane.open(waiting.profile, dsn) as plane:
            _, self.catch_up_seconds = project(plane, plane.profile.batch_records)
            row = plane.row(plane.ensure_live().projection_id)
            with plane.pool.connection() as connection:
                connection.execute("VACUUM ANALYZE")
        stages = build(waiting, own_folder, dsn).stages
        self.build_seconds = sum(seconds for stage, seconds in stages.items() if stage != "start")
        rng = np.random.default_rng(seed)
        for _ in range(_POOL):
            as_of = (row.watermark or 0) - int(rng.integers(_HOUR_SECONDS)) * 1_000_000
            names = f"customer-{rng.integers(customers):07d}", f"terminal-{rng.integers(terminals):07d}"
            self.requests.append(post("/v0/get_features", request(as_of, *names)))
        return waiting, dsn

    def p99(self) -> float:
        """Milliseconds, the median of the turns."""
        return median(turn_load.quantile(0.99) for turn_load in self.turns)


def time_row(claim: str, small: Size, large: Size, seconds: Callable[[Size], float]) -> Row:
    """Time of ten times as much, over the time of once."""
    ratio = seconds(large) / seconds(small)
    aim = f"<= {AIM_TIME:g}x"
    return Row(claim, f"{ratio:.1f}x ({seconds(small):.2f} s, {seconds(large):.2f} s)", aim, ratio <= AIM_TIME)


def p99_row(claim: str, small: Size, large: Size) -> Row:
    """Serving's p99 there over its p99 here, both of the same turn."""
    ratio = median(b.quantile(0.99) / a.quantile(0.99) for a, b in zip(small.turns, large.turns, strict=True))
    aim = f"<= {AIM_P99:g}x"
    return Row(claim, f"{ratio:.2f}x ({small.p99():.2f} ms, {large.p99():.2f} ms)", aim, ratio <= AIM_P99)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=100_000, help="of 1x")
    parser.add_argument("--turns", type=int, default=9)
    parser.add_argument("--seconds", type=float, default=1.0, help="of a turn of one server")
    parser.add_argument("--cache-mb", type=int, default=256, help="0: every answer from the store")
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    began = time.perf_counter()
    once = arguments.events
    warm, few = Size("warm", max(once // 10, 2_000), 1), Size("few_keys", once, 10)
    x1, x3, x10 = Size("x1", once, 1), Size("x3", 3 * once, 1), Size("x10", 10 * once, 1)
    sizes = [few, x1, x3, x10]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            with ExitStack() as standing:
                warm.measure(folder, arguments.seed)  # loads code, opens files: the first world would pay for it
                ports = []
                for size in sizes:
                    waiting, dsn = size.measure(folder, arguments.seed)
                    factory = partial(plane_app, waiting.profile, dsn, arguments.cache_mb << 20)
                    ports.append(standing.enter_context(server(factory)))
                for size, port in zip(sizes, ports, strict=True):
                    load(port, size.requests, CONNECTIONS)
                for turn in range(arguments.turns):
                    for place in range(len(sizes)):
                        number = (place + turn) % len(sizes)
                        turn_load = load(ports[number], sizes[number].requests, CONNECTIONS, arguments.seconds)
                        if turn_load.failures:
                            raise SystemExit(f"{turn_load.failures} requests failed")
                        sizes[number].turns.append(turn_load)
        finally:
            stop_embedded(folder / "postgres")
    rows = [
        time_row(f"catch-up of 10x events ({once:,}, {10 * once:,})", x1, x10, lambda size: size.catch_up_seconds),
        time_row("build of 10x events", x1, x10, lambda size: size.build_seconds),
        Row(
            "catch-up and build of 3x events",
            f"{x3.catch_up_seconds / x1.catch_up_seconds:.1f}x, {x3.build_seconds / x1.build_seconds:.1f}x",
        ),
        time_row("catch-up over 10x keys (1,500, 15,000)", few, x1, lambda size: size.catch_up_seconds),
        time_row("build over 10x keys", few, x1, lambda size: size.build_seconds),
        p99_row(f"serving p99 with 10x events, {CONNECTIONS} connections", x1, x10),
        p99_row("serving p99 with 3x events", x1, x3),
        p99_row("serving p99 with 10x keys", few, x1),
    ]
    figures = Figures(
        suite="growth",
        kind="bench",
        title="Growth: ten times the events, ten times the keys",
        rows=tuple(rows),
        seconds=time.perf_counter() - began,
        arguments=vars(arguments),
        raw={
            size.name: {
                "events": size.events,
                "projected": size.catch_up_seconds,
                "built": size.build_seconds,
                "turns": [turn_load.compact() for turn_load in size.turns],
            }
            for size in sizes
        },
    )
    print(figures.table())
    figures.write()


if __name__ == "__main__":
    main()
