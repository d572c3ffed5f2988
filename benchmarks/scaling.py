"""The arithmetic of docs/scaling.md: bytes, cores and money for loads that no machine here has, and the simulation of epochs.

`python -m benchmarks.scaling` writes the tables of the page; `--check` only says whether they are what this program computes.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.epochs import EpochWorld, Pauses, simulate

PAGE = Path(__file__).parent.parent / "docs" / "scaling.md"
_BLOCK = re.compile(r"(<!-- (\w+): python -m benchmarks\.scaling -->\n)(.*?)(<!-- end -->)", re.DOTALL)
_DAY, _MONTH_HOURS, _MONTH_SECONDS = 86_400, 730, 730 * 3600

# measured here (docs/figures.md, decision records), or assumed where it says so
RECORD_BYTES = 420  # of a payment with five keys on the wire
ARCHIVED_BYTES = 110  # of it in a Parquet segment: assumed, a quarter
KEYS = 5  # of an event
STATE_BYTES = 66  # of an event inside the window, over its keys
KEY_BYTES = 200  # of a key that has state: row, index and summaries; assumed
WINDOW_DAYS = 38
MEAN_OF_PEAK = 1 / 3  # assumed: the mean rate of a day as a part of the peak
FOLD_PER_CORE = 84_000  # events of two keys a second: 169,031 on two cores
COMMIT_PER_CORE = 2_500  # five keys, full windows, commits of 2,000 into PostgreSQL: about 5,000 on two cores
PARSE_PER_CORE = 80_000
KINESIS_SHARD_BYTES = 1_000_000  # a second into a shard
ANSWERS_PER_CORE = 2_500  # get_features of five keys with its database: 4,962 on two cores
TAIL_ROW_BYTES = 120  # a key's events of one epoch, with key and epoch; assumed
WARM_COPIES = 2

# of others, by their own documents
FDB_WRITES_PER_CORE = 46_000  # apple.github.io/foundationdb/benchmarking.html, one core, no replication
SCYLLA_WRITES_PER_CORE = 12_500  # the rule of thumb of ScyllaDB's sizing, replication counted by the caller
REPLICAS = 3
FLINK_OVERHEAD = 1.5  # cores of shuffle, checkpoints and JVM beside the kernel's: assumed

# list prices in USD, AWS us-east-1, on demand, as of January 2025: an assumption to be replaced by one's own contract
CORE_HOUR = 0.0408  # m7g.4xlarge, 0.6528 an hour for 16
NVME_CORE_HOUR = 0.0772  # i4g.4xlarge, 1.2352 an hour for 16, with 234 GB of NVMe a core
NVME_GB_PER_CORE = 234
OBJECT_GB_MONTH = 0.023
ZONE_GB = 0.02  # between zones, both directions
DISK_GB_MONTH = 0.08
BROKER_MB_PER_CORE = 12  # of writes of clients, with three replicas and two readers; assumed


@dataclass(frozen=True)
class Load:
    """Events a second at the peak, and keys that have state. Each event is one decision, so one question."""

    name: str
    events: int
    keys: int


LOADS = (Load("100k events/s, 100M keys", 100_000, 100_000_000), Load("1M events/s, 1B keys", 1_000_000, 1_000_000_000))


def log_bytes(load: Load) -> float:
    """Bytes a second into the log, at the peak."""
    return float(load.events * RECORD_BYTES)


def state_bytes(load: Load) -> float:
    """Bytes of state, one copy."""
    return load.events * MEAN_OF_PEAK * WINDOW_DAYS * _DAY * STATE_BYTES + load.keys * KEY_BYTES


def archive_bytes_year(load: Load) -> float:
    """Bytes that a year adds to the archive."""
    return load.events * MEAN_OF_PEAK * 365 * _DAY * ARCHIVED_BYTES


def fold_cores(load: Load) -> float:
    """Cores that route, deduplicate and fold the peak, once."""
    return load.events * (KEYS / 2 / FOLD_PER_CORE + 1 / PARSE_PER_CORE)


def answer_cores(load: Load) -> float:
    """Cores that answer one question an event, at the peak."""
    return load.events / ANSWERS_PER_CORE


def tail_rows(load: Load) -> float:
    """Rows a second that epochs append: every key of every event a row, as where no key comes twice in an epoch."""
    return float(load.events * KEYS)


@dataclass(frozen=True)
class Store:
    """A store of state: cores at the peak beside the kernel's, and copies of the bytes."""

    name: str
    cores: Callable[[Load], float]
    copies: int


STORES = (
    Store("Flink, RocksDB, the kernel over Arrow", lambda load: FLINK_OVERHEAD * fold_cores(load), 1),
    Store("key shards of our own, RocksDB, warm copies", lambda load: (WARM_COPIES - 1) * fold_cores(load), WARM_COPIES),
    Store("FoundationDB by epoch", lambda load: tail_rows(load) * REPLICAS / FDB_WRITES_PER_CORE, REPLICAS),
    Store("ScyllaDB by epoch", lambda load: tail_rows(load) * REPLICAS / SCYLLA_WRITES_PER_CORE, REPLICAS),
)


def store_cores(load: Load, store: Store) -> float:
    """Cores of kernel and store, for the work or for the disks that come with them, whichever is more."""
    return max(fold_cores(load) + store.cores(load), state_bytes(load) * store.copies / 1e9 / NVME_GB_PER_CORE)


def store_month(load: Load, store: Store) -> float:
    """USD a month of kernel and store, with what copies send between zones."""
    sent = tail_rows(load) * MEAN_OF_PEAK * TAIL_ROW_BYTES * (store.copies - 1) * _MONTH_SECONDS / 1e9
    return store_cores(load, store) * NVME_CORE_HOUR * _MONTH_HOURS + sent * ZONE_GB


def log_month(load: Load) -> float:
    """USD a month of Kafka: cores, seven days of disks, three replicas, and what they and two readers send between zones."""
    cores = log_bytes(load) / 1e6 / BROKER_MB_PER_CORE
    mean = log_bytes(load) * MEAN_OF_PEAK
    disks = mean * 7 * _DAY * REPLICAS / 1e9
    sent = mean * (REPLICAS - 1 + 2 * 2 / 3) * _MONTH_SECONDS / 1e9
    return cores * CORE_HOUR * _MONTH_HOURS + disks * DISK_GB_MONTH + sent * ZONE_GB


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def _quantity(value: float, unit: str = "") -> str:
    for size, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size and unit:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:,.0f}{' ' + unit if unit else ''}"


def loads_table() -> str:
    """What a load needs whatever holds its state."""
    rows = [
        ("into the log, peak", lambda load: _quantity(log_bytes(load), "B/s")),
        ("shards of a Kinesis stream", lambda load: f"{log_bytes(load) / KINESIS_SHARD_BYTES:,.0f}"),
        ("state, one copy", lambda load: _quantity(state_bytes(load), "B")),
        ("archive, a year", lambda load: _quantity(archive_bytes_year(load), "B")),
        ("parse, route, deduplicate, fold", lambda load: f"{fold_cores(load):,.0f} cores"),
        ("the same into PostgreSQL, as it runs today", lambda load: f"{load.events / COMMIT_PER_CORE:,.0f} cores"),
        ("one get_features of five keys an event", lambda load: f"{answer_cores(load):,.0f} cores"),
        ("rows that epochs append, at most", lambda load: _quantity(tail_rows(load), "rows/s")),
        ("Kafka, a month", lambda load: f"{log_month(load):,.0f} USD"),
        ("answers, a month", lambda load: f"{answer_cores(load) * CORE_HOUR * _MONTH_HOURS:,.0f} USD"),
        ("archive after a year, a month", lambda load: f"{archive_bytes_year(load) / 1e9 * OBJECT_GB_MONTH:,.0f} USD"),
    ]
    return _table(["", *(load.name for load in LOADS)], [[name, *map(figure, LOADS)] for name, figure in rows])


def stores_table() -> str:
    """Cores and money of each store of state."""
    rows = [
        [store.name] + [f"{store_cores(load, store):,.0f} cores, {store_month(load, store):,.0f} USD a month" for load in LOADS]
        for store in STORES
    ]
    return _table(["kernel and state", *(load.name for load in LOADS)], rows)


CALM = Pauses("no pauses", 0.0, 0.0)
RARE = Pauses("1 commit in 10,000 pauses, 200 ms on average", 1e-4, 200.0)
OFTEN = Pauses("1 in 1,000", 1e-3, 200.0)
_SHARDS = (1, 4, 16, 64, 256)
_EPOCHS = 4_000


def epochs_table(epochs: int = _EPOCHS) -> str:
    """Freshness by shards, commit time and pauses."""
    rows = []
    for commit in (5.0, 20.0):
        for pauses in (CALM, RARE, OFTEN):
            figures = [simulate(EpochWorld(shards, commit=commit, pauses=pauses), epochs=epochs) for shards in _SHARDS]
            quantiles = ["falls behind" if f.falls_behind else f"{f.p50:.0f} / {f.p99:.0f}" for f in figures]
            rows.append([f"{commit:.0f} ms; {pauses.name}", *quantiles])
    return _table(["commit; pauses", *(f"S = {shards}" for shards in _SHARDS)], rows)


def remedies_table(epochs: int = _EPOCHS) -> str:
    """What helps at many shards, where one commit in a thousand pauses."""
    worlds = {
        "as above": EpochWorld(256, pauses=OFTEN),
        "no shard begins before all have the epoch before": EpochWorld(256, pauses=OFTEN, barrier=True),
        "epochs of 200 ms": EpochWorld(256, pauses=OFTEN, cadence=200.0),
        "loaded to 0.8": EpochWorld(256, pauses=OFTEN, load=0.8),
        "two copies of each shard, the first counts": EpochWorld(256, pauses=OFTEN, copies=2),
    }
    rows = []
    for name, world in worlds.items():
        f = simulate(world, epochs=epochs)
        quantiles = [f"{quantile:.0f}" for quantile in (f.p50, f.p99, f.p999, f.own_shard_p99)]
        rows.append([name, *(["falls behind"] * 4 if f.falls_behind else quantiles)])
    return _table(["256 shards", "p50", "p99", "p99.9", "p99 without one basis"], rows)


TABLES: dict[str, Callable[[], str]] = {
    "loads": loads_table,
    "stores": stores_table,
    "epochs": epochs_table,
    "remedies": remedies_table,
}


def filled(page: str) -> str:
    """The page with its tables computed."""
    return _BLOCK.sub(lambda block: block[1] + TABLES[block[2]]() + block[4], page)


def main() -> None:
    """Write the tables of the page, or check them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail where the page says something else")
    page = PAGE.read_text(encoding="utf-8")
    new = filled(page)
    if parser.parse_args().check:
        raise SystemExit("docs/scaling.md has other figures: python -m benchmarks.scaling" if new != page else 0)
    PAGE.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
