"""The mature world: card payments, five keys an event, full windows, Zipf keys, small commits, all processes together.

`python -m benchmarks.bench_mature --keys 200000`: projector, server, archiver and producers run together as real processes.
`--world FOLDER` keeps the filled world there for the next run; `--parts sustained commits` measures some of it.

sustained: producers keep the log ahead of the projector, which commits as it can; a server is asked and an archiver archives
beside it. commits: the projector alone, right after a checkpoint (every page is written whole once) and later. start: to the
first commit, with all events known. freshness: from append to servable. serving: answers beside 2,000 events/s, in turns with a
constant answer of the same front; then in an open loop at half of the rate just measured. partitions: 32 against 4. hot: the
world gets `--hot-events` more at its hot merchant, a tenth of them on its hot device; a kept world keeps them.
Sustained and serving are measured again behind a network between all processes and PostgreSQL (`--delay-ms`).
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from benchmarks.figures import Figures, Row
from benchmarks.mature_projection import FAST_RATES, commits, freshness, start, sustained
from benchmarks.mature_rig import NAME, Rig, Together, opened
from benchmarks.mature_serving import hot, partitions, serving
from benchmarks.mature_world import HOT_PER_CENT
from ofp_platform.storage.embedded import stop_embedded

ALONE_FIRST: dict[str, Callable[[Rig], list[Row]]] = {"commits": commits}
TOGETHER: dict[str, Callable[[Rig, Together], list[Row]]] = {
    "sustained": sustained,
    "serving": serving,
    "freshness": freshness,
    "hot": hot,
}
ALONE_LAST: dict[str, Callable[[Rig], list[Row]]] = {"partitions": partitions, "start": start}
PARTS = (*ALONE_FIRST, *TOGETHER, *ALONE_LAST)
NETWORK_PARTS = ("sustained", "serving")


def measure(folder: Path, arguments: argparse.Namespace) -> tuple[list[Row], dict[str, Any]]:
    """The rows, and the raw results."""
    size = f"{arguments.keys:,} keys, {arguments.events_per_key} events each, {HOT_PER_CENT}"
    rows: list[Row] = []
    raw: dict[str, Any] = {}
    load_before = os.getloadavg()[0]
    with opened(arguments, folder) as rig:
        filled = rig.raw.get("filled")
        history = f"{rig.world.history_records:,} events"
        rows.append(Row(f"the world: {size}", history + (f", filled in {filled['seconds']:,.0f} s" if filled else "")))
        for name in _in_order(arguments.parts, ALONE_FIRST):
            rows += ALONE_FIRST[name](rig)
        rows += _together(rig, _in_order(arguments.parts, TOGETHER))
        for name in _in_order(arguments.parts, ALONE_LAST):
            rows += ALONE_LAST[name](rig)
        raw |= rig.raw
    if arguments.delay_ms:
        with opened(arguments, folder, arguments.delay_ms / 1000) as rig:
            rows += _together(rig, _in_order(arguments.parts, NETWORK_PARTS))
            raw |= rig.raw
    loads = (load_before, os.getloadavg()[0])
    raw["load averages"] = loads
    cores = os.cpu_count()
    rows.append(Row(f"load average of the machine before and after, {cores} cores", f"{loads[0]:.1f}, {loads[1]:.1f}"))
    return rows, raw


def _in_order(asked_parts: Iterable[str], parts: Iterable[str]) -> list[str]:
    return [name for name in parts if name in asked_parts]


def _together(rig: Rig, parts: list[str]) -> list[Row]:
    rows: list[Row] = []
    if parts:
        with rig.together() as together:
            for name in parts:
                rows += TOGETHER[name](rig, together)
    return rows


def parser() -> argparse.ArgumentParser:
    """The arguments of the suite."""
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--keys", type=int, default=200_000, help="of all five types together; the hot two are beside them")
    arguments.add_argument("--events-per-key", type=int, default=60)
    arguments.add_argument("--hot-events", type=int, default=1_000_000, help="of the part `hot`")
    arguments.add_argument("--zipf", type=float, default=0.5, help="exponent of Zipf's law among the ordinary keys")
    arguments.add_argument("--partitions", type=int, default=4)
    arguments.add_argument("--commit-records", type=int, default=2_000, help="the most records of a commit")
    arguments.add_argument("--commits", type=int, default=40, help="of each measurement of commits alone")
    arguments.add_argument("--producers", type=int, default=2)
    arguments.add_argument("--seconds", type=float, default=10.0, help="of a measurement")
    arguments.add_argument("--turns", type=int, default=5, help="of those that take turns")
    arguments.add_argument("--turn-seconds", type=float, default=1.0)
    arguments.add_argument("--fast-rates", type=int, nargs="+", default=FAST_RATES, help="of freshness; the first that is held")
    arguments.add_argument("--delay-ms", type=float, default=0.5, help="of the network, each way; 0: no variant with a network")
    arguments.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
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
    figures = Figures(NAME, "bench", title, tuple(rows), seconds, {**vars(arguments), "world": arguments.world is not None}, raw)
    print(figures.table())
    figures.write()


if __name__ == "__main__":
    main()
