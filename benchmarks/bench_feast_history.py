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
    """A measurement of Feast with one offline store: seconds from the call to the table, peak of its process in bytes, rows."""

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
            feature_table = connection.sql(f"SELECT {', '.join(columns)} FROM transactions ORDER BY ts").to_arrow_table()
            pq.write_table(feature_table, folder / f"{name}.parquet")


def by_store(folder: Path, table: pa.Table, store: str) -> History:
    """Let one offline store join the features of a table's transactions to them.

    Raises:
        PeerUnavailable: it cannot be installed, fails, needs more than the time limit, or gives other rows than it was asked for.
    """
    python = interpreter("feast")
    with tempfile.TemporaryDirectory(dir=folder) as own_folder:
        _precompute(table, Path(own_folder))
        try:
            process = subprocess.run(
                [python, _SCRIPT, own_folder, store], capture_output=True, text=True, check=False, timeout=LIMIT_SECONDS
            )
        except subprocess.TimeoutExpired:
            raise PeerUnavailable(f"no answer within {LIMIT_SECONDS:.0f} s for {table.num_rows:,} rows") from None
    if process.returncode:
        raise PeerUnavailable(f"the {store} store fails: {process.stderr.strip().splitlines()[-1][:200]}")
    report = json.loads(process.stdout.splitlines()[-1])
    if report["whole"] != report["rows"]:
        raise PeerUnavailable(f"the {store} store answers {report['rows']:,} rows, {report['whole']:,} of them with all features")
    return History(store, report["rows"], report["seconds"], report["peak_bytes"])


def measure(folder: Path, table: pa.Table) -> tuple[list[History], list[Row]]:
    """Every store with a quarter of a table's transactions and with all of them; and a row of each, measured or not."""
    histories: list[History] = []
    rows: list[Row] = []
    for store in STORES:
        for count in (table.num_rows // 4, table.num_rows):
            claim = f"Feast {VERSION} get_historical_features, {store}, {count:,} rows x 12 precomputed features"
            try:
                history = by_store(folder, table.slice(0, count), store)
            except PeerUnavailable as error:
                rows.append(Row(claim, f"not measured: {error}"))
                continue
            histories.append(history)
            rows.append(Row(claim, f"{history.seconds:.2f} s, peak {history.peak_bytes / 1e9:.2f} GB"))
    return histories, rows


def quickest(histories: list[History]) -> History | None:
    """Of what was measured with the most rows, the least seconds."""
    most = max((history.rows for history in histories), default=0)
    return min((history for history in histories if history.rows == most), key=lambda history: history.seconds, default=None)


def feast_history(rows: int = ROWS) -> tuple[float, int]:
    """Seconds and peak bytes of the quickest offline store for the first `rows` transactions, as measured: not extrapolated.

    Raises:
        PeerUnavailable: none of them could be measured; the text says why.
    """
    with tempfile.TemporaryDirectory() as folder:
        table = transactions(Path(folder), rows).table()
        histories: list[History] = []
        refusals: list[str] = []
        for store in STORES:
            try:
                histories.append(by_store(Path(folder), table, store))
            except PeerUnavailable as error:
                refusals.append(str(error))
    if (best := quickest(histories)) is None:
        raise PeerUnavailable("; ".join(refusals))
    return best.seconds, best.peak_bytes


def main() -> None:
    """Print the table and keep the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=ROWS)
    arguments = parser.parse_args()
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        source = transactions(Path(folder), arguments.rows)
        histories, rows = measure(Path(folder), source.table())
    if (best := quickest(histories)) is not None:
        seconds = best.seconds * TRANSACTIONS / best.rows
        claim = f"the same, {best.store}, {TRANSACTIONS:,} rows, extrapolated linearly from {best.rows:,}"
        rows.append(Row(claim, f"{seconds:,.1f} s, extrapolated"))
    rows.append(Row("the rows", source.source))
    title = "Feast's historical features, computed before and joined, as a peer of a whole dataset build"
    raw = {"histories": [asdict(history) for history in histories]}
    figures = Figures("feast_history", "bench", title, tuple(rows), time.perf_counter() - began, vars(arguments), raw)
    print(figures.table())
    figures.write()


if __name__ == "__main__":
    main()
