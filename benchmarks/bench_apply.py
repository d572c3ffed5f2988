"""Freshness while a pack is applied: from append to servable with the live projection alone, and beside its successor's build.

`python -m benchmarks.bench_apply --history 300000`: as `bench_freshness`, and after a quiet time `ofp plan` and `ofp apply` of a
pack with one group more run as processes of their own, while appends go on at the same rate. An event is servable when a read of
the projection that is *live* at that moment has it in its basis; so the switch is part of the measurement.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.bench_freshness import Placed, Seen, append, latencies, projector, watch
from benchmarks.figures import Figures, Row
from benchmarks.handbook import simulated
from benchmarks.world import fresh_database, profile
from ofp_platform.online.plane import Plane
from ofp_platform.storage.embedded import stop_embedded

AIM = 3.0
_LIVE = "SELECT basis FROM ofp.projection WHERE stream_name = %s AND status = 'live'"
_GROUP = """
  - name: one_more
    version: v1
    key_type: account
    ttl_seconds: 86400
    features:
      - {name: largest_30d, aggregation: max, events: [transaction], value: amount_minor, window: 30d}
"""
_SETTLE_SECONDS = 30.0


def ofp(plane: Plane, home: Path, *arguments: str) -> str:
    """Run a command of the program; its output.

    Raises:
        SystemExit: it failed.
    """
    command = [sys.executable, "-m", "ofp_platform.cli.main", *arguments, "--home", str(home), "--json"]
    environment = {**os.environ, "OFP_DATABASE_URL": plane.dsn, "OFP_PROFILE": str(home.parent / "profile.yaml")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"ofp {' '.join(arguments)} failed: {done.stderr}")
    return done.stdout


def appended_while(plane: Plane, rate: int, seed: int, first: int, work: Callable[[], Any]) -> tuple[Placed, Any]:
    """Append at that rate, second by second, until `work`, which runs in a thread, is done; what it gave."""
    placed: Placed = []
    with ThreadPoolExecutor(1) as threads:
        outcome = threads.submit(work)
        while not outcome.done():
            placed += append(plane, 1.0, rate, seed + len(placed), first + len(placed))[0]
        return placed, outcome.result()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20.0, help="of the quiet time")
    parser.add_argument("--rate", type=int, default=1_000, help="events a second")
    parser.add_argument("--history", type=int, default=300_000, help="events projected before")
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        dsn = fresh_database(folder, "apply")
        pack = folder / "next.yaml"
        pack.write_text((files("ofp_platform.registry.packs") / "handbook.yaml").read_text().rstrip() + _GROUP)
        try:
            with Plane.open(profile("apply", folder), dsn) as plane:
                simulated(folder, arguments.history).append_to(plane)
                catching_up = plane.projector(plane.ensure_live())
                while catching_up.apply_available(max_records=100_000) is not None:
                    pass
                context = multiprocessing.get_context("spawn")
                receiving, sending = context.Pipe(duplex=False)
                stop = context.Event()
                watcher = context.Process(target=watch, args=(dsn, plane.log.stream_name, sending, stop, _LIVE), daemon=True)
                watcher.start()
                sending.close()
                receiving.recv()
                with projector(plane, folder):
                    home = folder / "home"
                    first = len(append(plane, 1.0, arguments.rate, arguments.seed)[0])
                    quiet = append(plane, arguments.seconds, arguments.rate, arguments.seed + 1, first)[0]
                    first += len(quiet)

                    def put_live() -> tuple[float, dict[str, Any]]:
                        planned = json.loads(ofp(plane, home, "plan", str(pack)))
                        at = time.perf_counter()
                        receipt = ofp(plane, home, "apply", str(pack), "--plan", planned["plan_digest"], "--reason", "benchmark")
                        return time.perf_counter() - at, json.loads(receipt)

                    beside, (apply_seconds, receipt) = appended_while(plane, arguments.rate, arguments.seed + 2, first, put_live)
                    first += len(beside)
                    after = append(plane, 5.0, arguments.rate, arguments.seed + 3, first)[0]
                    deadline = time.monotonic() + _SETTLE_SECONDS
                    while sum(plane.log.ordinal_lag(plane.known_live().basis).values()):
                        if time.monotonic() > deadline:
                            raise SystemExit("the projector does not catch up with what was applied")
                        time.sleep(0.05)
                time.sleep(0.5)  # the last notice
                stop.set()
                commits_seen: Seen = receiving.recv()
                watcher.join()
        finally:
            stop_embedded(folder / "postgres")
    seen = {title: latencies(placed, commits_seen) for title, placed in (("alone", quiet), ("beside", beside), ("after", after))}
    quantiles = {
        title: tuple(float(np.quantile(milliseconds, quantile)) for quantile in (0.5, 0.99))
        for title, milliseconds in seen.items()
    }
    ratios = [quantiles["beside"][place] / quantiles["alone"][place] for place in range(2)]
    rows = [
        Row("append to servable before", "p50 {:.1f} ms, p99 {:.1f} ms".format(*quantiles["alone"])),
        Row(
            f"... while a pack is planned and applied, {arguments.history:,} events folded again in {apply_seconds:.1f} s",
            "p50 {:.1f} ms, p99 {:.1f} ms, slowest {:.0f} ms".format(*quantiles["beside"], seen["beside"][-1]),
        ),
        Row("... p50 over that before", f"{ratios[0]:.2f}x", f"<= {AIM:g}x", ratios[0] <= AIM),
        Row("... p99 over that before", f"{ratios[1]:.2f}x", f"<= {AIM:g}x", ratios[1] <= AIM),
        Row("append to servable after", "p50 {:.1f} ms, p99 {:.1f} ms".format(*quantiles["after"])),
    ]
    table = Figures(
        suite="apply",
        kind="bench",
        title="Freshness while a pack is applied",
        rows=tuple(rows),
        seconds=time.perf_counter() - began,
        arguments=vars(arguments),
        raw={
            "milliseconds": {title: [round(value, 2) for value in values] for title, values in seen.items()},
            "receipt": receipt,
        },
    )
    print(table.table())
    table.write()


if __name__ == "__main__":
    main()
