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
    projected: float = 0.0
    built: float = 0.0
    requests: list[bytes] = field(default_factory=list)
    turns: list[Load] = field(default_factory=list)

    def measure(self, folder: Path, seed: int) -> tuple[Prepared, str]:
        """Project and build it; the server's profile and database."""
        customers, terminals = ACCOUNTS // self.keys_divisor, MERCHANTS // self.keys_divisor
        world = simulated(folder, self.events, customers=customers, terminals=terminals, seed=seed)
        dsn = fresh_database(folder, f"growth_{self.name}")
        own = folder / self.name
        own.mkdir()
        prepared = prepare(world, own, dsn, AsOfBasis.EVENT_TIME)
        with Plane.open(prepared.profile, dsn) as plane:
            _, self.projected = project(plane, plane.profile.batch_records)
            row = plane.row(plane.ensure_live().projection_id)
            with plane.pool.connection() as connection:
                connection.execute("VACUUM ANALYZE")
        stages = build(prepared, own, dsn).stages
        self.built = sum(seconds for stage, seconds in stages.items() if stage != "start")
        rng = np.random.default_rng(seed)
        for _ in range(_POOL):
            as_of = (row.watermark or 0) - int(rng.integers(_HOUR_SECONDS)) * 1_000_000
            names = f"customer-{rng.integers(customers):07d}", f"terminal-{rng.integers(terminals):07d}"
            self.requests.append(post("/v0/get_features", request(as_of, *names)))
        return prepared, dsn

    def p99(self) -> float:
        """Milliseconds, the median of the turns."""
        return median(taken.quantile(0.99) for taken in self.turns)


def time_row(what: str, small: Size, large: Size, seconds: Callable[[Size], float]) -> Row:
    """Time of ten times as much, over the time of once."""
    ratio = seconds(large) / seconds(small)
    aim = f"<= {AIM_TIME:g}x"
    return Row(what, f"{ratio:.1f}x ({seconds(small):.2f} s, {seconds(large):.2f} s)", aim, ratio <= AIM_TIME)


def p99_row(what: str, small: Size, large: Size) -> Row:
    """Serving's p99 there over its p99 here, both of the same turn."""
    ratio = median(b.quantile(0.99) / a.quantile(0.99) for a, b in zip(small.turns, large.turns, strict=True))
    aim = f"<= {AIM_P99:g}x"
    return Row(what, f"{ratio:.2f}x ({small.p99():.2f} ms, {large.p99():.2f} ms)", aim, ratio <= AIM_P99)


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
    one, three, ten = Size("x1", once, 1), Size("x3", 3 * once, 1), Size("x10", 10 * once, 1)
    sizes = [few, one, three, ten]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            with ExitStack() as standing:
                warm.measure(folder, arguments.seed)  # loads code, opens files: the first world would pay for it
                ports = []
                for size in sizes:
                    prepared, dsn = size.measure(folder, arguments.seed)
                    factory = partial(plane_app, prepared.profile, dsn, arguments.cache_mb << 20)
                    ports.append(standing.enter_context(server(factory)))
                for size, port in zip(sizes, ports, strict=True):
                    load(port, size.requests, CONNECTIONS)
                for turn in range(arguments.turns):
                    for place in range(len(sizes)):
                        number = (place + turn) % len(sizes)
                        taken = load(ports[number], sizes[number].requests, CONNECTIONS, arguments.seconds)
                        if taken.failures:
                            raise SystemExit(f"{taken.failures} requests failed")
                        sizes[number].turns.append(taken)
        finally:
            stop_embedded(folder / "postgres")
    rows = [
        time_row(f"catch-up of 10x events ({once:,}, {10 * once:,})", one, ten, lambda size: size.projected),
        time_row("build of 10x events", one, ten, lambda size: size.built),
        Row("catch-up and build of 3x events", f"{three.projected / one.projected:.1f}x, {three.built / one.built:.1f}x"),
        time_row("catch-up over 10x keys (1,500, 15,000)", few, one, lambda size: size.projected),
        time_row("build over 10x keys", few, one, lambda size: size.built),
        p99_row(f"serving p99 with 10x events, {CONNECTIONS} connections", one, ten),
        p99_row("serving p99 with 3x events", one, three),
        p99_row("serving p99 with 10x keys", few, one),
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
                "projected": size.projected,
                "built": size.built,
                "turns": [taken.compact() for taken in size.turns],
            }
            for size in sizes
        },
    )
    print(figures.table())
    figures.write()


if __name__ == "__main__":
    main()
