"""Feast's `get_historical_features` over features that were computed before: what joining them to a training set takes.

`python -m benchmarks.bench_feast_history --rows 25000`: the twelve features of the handbook pack for the first rows of the
transactions, in Parquet, one feature view per customer and one per terminal; the same rows are asked for. Each offline store in
a process of its own, with a time limit, its first call not counted. Feast computes no window here, only finds the latest row of
each key. What all transactions would take is extrapolated linearly, which is in Feast's favour: its join pairs every row asked
for with all earlier rows of the key, and these grow too, as the quarter of the rows beside it shows.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.feast import VERSION
from benchmarks.figures import Figures, Row
from benchmarks.handbook import TRANSACTIONS, transactions
from benchmarks.peer import PeerUnavailable, interpreter
from benchmarks.world import DAY

STORES = ("duckdb", "dask")
ROWS = 100_000
LIMIT_SECONDS = 300.0
_SCRIPT = Path(__file__).parent / "peers" / "feast_history.py"
_DELAY = 7 * DAY


@dataclass(frozen=True)
class History:
    """What Feast did by one offline store: seconds from the call to the table, peak of its process in bytes, rows."""

    store: str
    rows: int
    seconds: float
    peak_bytes: int


def _precompute(table: pa.Table, folder: Path) -> None:
    """Write the entity rows and the pack's features of each of them: windows left-open and right-closed, in microseconds."""
    spending, risk = [], []
    for days in (1, 7, 30):
        window = f"(PARTITION BY customer ORDER BY ts RANGE BETWEEN {days * DAY - 1} PRECEDING AND CURRENT ROW)"
        earlier = f"(PARTITION BY terminal ORDER BY ts RANGE BETWEEN {_DELAY + days * DAY - 1} PRECEDING AND {_DELAY} PRECEDING)"
        spending += [f"count(*) OVER {window} AS count_{days}d", f"avg(amount) OVER {window} AS mean_amount_{days}d"]
        risk += [f"count(*) OVER {earlier} AS tx_count_{days}d", f"avg(fraud) OVER {earlier} AS risk_{days}d"]
    when = "make_timestamptz(ts) AS event_timestamp"
    with duckdb.connect() as connection:
        connection.register("transactions", table)
        for name, columns in {
            "entities": [when, "customer AS customer_id", "terminal AS terminal_id"],
            "account_activity": [when, "customer AS customer_id", *spending],
            "merchant_risk": [when, "terminal AS terminal_id", *risk],
        }.items():
            made = connection.sql(f"SELECT {', '.join(columns)} FROM transactions ORDER BY ts").to_arrow_table()
            pq.write_table(made, folder / f"{name}.parquet")


def by_store(folder: Path, table: pa.Table, store: str) -> History:
    """Let one offline store join the features of a table's transactions to them.

    Raises:
        PeerUnavailable: it cannot be installed, fails, needs more than the time limit, or gives other rows than it was asked for.
    """
    python = interpreter("feast")
    with tempfile.TemporaryDirectory(dir=folder) as own:
        _precompute(table, Path(own))
        try:
            done = subprocess.run(
                [python, _SCRIPT, own, store], capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise PeerUnavailable(f"no answer within {LIMIT_SECONDS:.0f} s for {table.num_rows:,} rows") from None
    if done.returncode:
        raise PeerUnavailable(f"the {store} store fails: {done.stderr.strip().splitlines()[-1][:200]}")
    seen = json.loads(done.stdout.splitlines()[-1])
    if seen["whole"] != seen["rows"]:
        raise PeerUnavailable(f"the {store} store answers {seen['rows']:,} rows, {seen['whole']:,} of them with all features")
    return History(store, seen["rows"], seen["seconds"], seen["peak_bytes"])


def measure(folder: Path, table: pa.Table) -> tuple[list[History], list[Row]]:
    """Every store with a quarter of a table's transactions and with all of them; and a row of each, measured or not."""
    done: list[History] = []
    rows: list[Row] = []
    for store in STORES:
        for count in (table.num_rows // 4, table.num_rows):
            claim = f"Feast {VERSION} get_historical_features, {store}, {count:,} rows x 12 precomputed features"
            try:
                taken = by_store(folder, table.slice(0, count), store)
            except PeerUnavailable as error:
                rows.append(Row(claim, f"not measured: {error}"))
                continue
            done.append(taken)
            rows.append(Row(claim, f"{taken.seconds:.2f} s, peak {taken.peak_bytes / 1e9:.2f} GB"))
    return done, rows


def quickest(done: list[History]) -> History | None:
    """Of what was measured with the most rows, the least seconds."""
    most = max((taken.rows for taken in done), default=0)
    return min((taken for taken in done if taken.rows == most), key=lambda taken: taken.seconds, default=None)


def feast_history(rows: int = ROWS) -> tuple[float, int]:
    """Seconds and peak bytes of the quickest offline store for the first `rows` transactions, as measured: not extrapolated.

    Raises:
        PeerUnavailable: none of them could be measured; the text says why.
    """
    with tempfile.TemporaryDirectory() as folder:
        table = transactions(Path(folder), rows).table()
        done: list[History] = []
        refused: list[str] = []
        for store in STORES:
            try:
                done.append(by_store(Path(folder), table, store))
            except PeerUnavailable as error:
                refused.append(str(error))
    if (best := quickest(done)) is None:
        raise PeerUnavailable("; ".join(refused))
    return best.seconds, best.peak_bytes


def main() -> None:
    """Print the table and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    arguments = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        source = transactions(Path(folder), arguments.rows)
        done, rows = measure(Path(folder), source.table())
    if (best := quickest(done)) is not None:
        seconds = best.seconds * TRANSACTIONS / best.rows
        claim = f"the same, {best.store}, {TRANSACTIONS:,} rows, extrapolated linearly from {best.rows:,}"
        rows.append(Row(claim, f"{seconds:,.1f} s, extrapolated"))
    rows.append(Row("the rows", source.source))
    title = "Feast's historical features, computed before and joined, as a peer of a whole dataset build"
    raw = {"histories": [asdict(taken) for taken in done]}
    figures = Figures("feast_history", "bench", title, tuple(rows), time.perf_counter() - began, vars(arguments), raw)
    print(figures.table())
    figures.write()


if __name__ == "__main__":
    main()
