"""The twelve features of every transaction, computation only: the kernel's columns beside Polars and DuckDB on all cores.

`python -m benchmarks.bench_columns --transactions 200000`: the same columns in memory go in (int64: customer, terminal, amount,
fraud, time in microseconds, in time order), the twelve values of every row come out, in any order, each with its row's number.
All three compute the same windows, (T - delay - w, T - delay] to the microsecond, and transactions at one instant all see each
other, as the law of the plane says: exact in Polars (closed="right" on an integer index) and DuckDB (RANGE of w - 1 us), which
divide means and shares in binary floating point where the kernel rounds decimals half to even. A report of a fraud stands seven
days behind its transaction, so reports in (T - w, T] are frauds in (T - 7d - w, T - 7d]: the peers count those, which spares
them the reports. Turns alternate; the values are compared in each run: integers exactly, decimals to half of their last place.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from benchmarks.figures import Figures, Row
from benchmarks.handbook import TRANSACTIONS, transactions
from benchmarks.world import DAY
from ofp_platform.kernel.columns import ColumnQuery, FeatureColumn, KeyedEvents, KeyedRows, feature_columns
from ofp_platform.kernel.query import LayoutArrays
from ofp_platform.offline.replay.key_shards import by_key_and_time
from ofp_platform.registry.compile import CompiledRegistry, compile_pack
from ofp_platform.registry.layout import KeyLayout
from ofp_platform.registry.pack import shipped_pack

Int64s = npt.NDArray[np.int64]
WINDOWS = (1, 7, 30)
DELAY = 7
NAMES = [f"{kind}_{days}d" for kind in ("count", "mean_amount", "tx_count", "risk") for days in WINDOWS]
_KEYS = {"account": "customer", "merchant": "terminal"}
_TOLERANCE = 0.5e-6 + 1e-9


def matrices(table: dict[str, Int64s], layout: KeyLayout, key: str) -> tuple[KeyedEvents, KeyedRows, Int64s]:
    """The input that the offline plane gives the kernel: events and rows by key and time; and the number of each row."""
    codes, ts = table[key].astype(np.uint32), table["ts"]
    count, keys = len(ts), int(codes.max()) + 1
    order = by_key_and_time(codes, ts)
    rows = KeyedRows(np.searchsorted(codes[order], np.arange(keys + 1)), ts[order])
    frauds = np.flatnonzero(table["fraud"])
    of_events = np.concatenate([codes, codes[frauds]])
    at = np.concatenate([ts, ts[frauds] + DELAY * DAY])
    events = by_key_and_time(of_events, at)
    matrix = np.zeros((layout.column_count, len(events)), np.int64)
    matrix[0] = at[events]
    bits = [
        sum(1 << place for place, predicate in enumerate(layout.predicates) if kind in predicate.event_types)
        for kind in ("transaction", "fraud_report")
    ]
    matrix[1] = np.where(events < count, *bits)
    if layout.integer_fields:
        amounts = np.concatenate([table["amount"], np.zeros(len(frauds), np.int64)])
        matrix[layout.first_integer_row] = amounts[events]
    bounds = np.searchsorted(of_events[events], np.arange(keys + 1))
    return KeyedEvents(matrix, bounds[:-1], bounds[1:]), rows, order


def kernel(table: dict[str, Int64s], registry: CompiledRegistry, workers: int) -> dict[str, tuple[Int64s, list[FeatureColumn]]]:
    """Rows and columns of each key type and part of its keys, on threads as in the offline plane."""

    def order(key_type: str) -> tuple[str, tuple[KeyedEvents, KeyedRows, Int64s]]:
        return key_type, matrices(table, registry.layouts[key_type], _KEYS[key_type])

    def compute(job: tuple[str, int]) -> tuple[str, tuple[Int64s, list[FeatureColumn]]]:
        key_type, part = job
        groups = [group for _, group in sorted(registry.groups.items()) if group.key_type == key_type]
        events, rows, numbers = inputs[key_type]
        keys = len(events.starts)
        first, last = keys * part // workers, keys * (part + 1) // workers
        begin, end = int(rows.offsets[first]), int(rows.offsets[last])
        own_events = KeyedEvents(events.matrix, events.starts[first:last], events.ends[first:last])
        own_rows = KeyedRows(rows.offsets[first : last + 1] - begin, rows.times[begin:end])
        plan = ColumnQuery(LayoutArrays.of(registry.layouts[key_type]), groups)
        return f"{key_type} {part}", (numbers[begin:end], feature_columns(plan, own_events, own_rows))

    with ThreadPoolExecutor(workers) as pool:
        inputs = dict(pool.map(order, _KEYS))
        return dict(pool.map(compute, [(key_type, part) for key_type in _KEYS for part in range(workers)]))


def polars_grouped(frame: pl.DataFrame) -> list[pl.DataFrame]:
    """A rolling group per window: each answers count and sum of its window."""
    queries = []
    for key, value, name, delay in (("customer", "amount", "mean_amount", 0), ("terminal", "fraud", "risk", DELAY)):
        sorted_frame = frame.lazy().sort(key, maintain_order=True)
        for days in WINDOWS:
            windows = sorted_frame.rolling(
                "ts", period=f"{days * DAY}i", offset=f"-{(days + delay) * DAY}i", group_by=key, closed="right"
            ).agg(pl.len().cast(pl.Int64).alias("n"), pl.col(value).sum().alias("total"))
            queries.append(
                windows.select(
                    pl.col("n").alias(f"{'tx_count' if delay else 'count'}_{days}d"),
                    pl.when(pl.col("n") > 0).then(pl.col("total") / pl.col("n")).alias(f"{name}_{days}d"),
                )
            )
        queries.append(sorted_frame.select(pl.col("row").alias(f"row_of_{key}")))
    return pl.collect_all(queries)


def polars_over(frame: pl.DataFrame) -> list[pl.DataFrame]:
    """Rolling sums within each key; a delayed window is a longer one less a shorter one."""

    def total(value: str, days: int, key: str) -> pl.Expr:
        return pl.col(value).rolling_sum_by("ts", window_size=f"{days * DAY}i", closed="right").over(key)

    columns = []
    for days in WINDOWS:
        count = total("one", days, "customer")
        columns += [count.alias(f"count_{days}d"), (total("amount", days, "customer") / count).alias(f"mean_amount_{days}d")]
        count, frauds = (total(value, days + DELAY, "terminal") - total(value, DELAY, "terminal") for value in ("one", "fraud"))
        columns += [count.alias(f"tx_count_{days}d"), pl.when(count > 0).then(frauds / count).alias(f"risk_{days}d")]
    query = frame.lazy().with_columns(one=pl.lit(1, pl.Int64))
    rows = [pl.col("row").alias("row_of_customer"), pl.col("row").alias("row_of_terminal")]
    return [query.select(*columns, *rows).collect()]


def duckdb_sql(days: tuple[int, ...] = WINDOWS) -> str:
    """One statement with six named windows."""
    values, windows = [], []
    for width in days:
        windows += [
            f"c{width} AS (PARTITION BY customer ORDER BY ts RANGE BETWEEN {width * DAY - 1} PRECEDING AND CURRENT ROW)",
            f"t{width} AS (PARTITION BY terminal ORDER BY ts"
            f" RANGE BETWEEN {(width + DELAY) * DAY - 1} PRECEDING AND {DELAY * DAY} PRECEDING)",
        ]
        values += [
            f"count(*) OVER c{width} AS count_{width}d",
            f"avg(amount) OVER c{width} AS mean_amount_{width}d",
            f"count(*) OVER t{width} AS tx_count_{width}d",
            f"avg(fraud) OVER t{width} AS risk_{width}d",
        ]
    rows = '"row" AS row_of_customer, "row" AS row_of_terminal'
    return f"SELECT {', '.join(values)}, {rows} FROM transactions WINDOW {', '.join(windows)}"


def in_row_order(parts: list[pl.DataFrame], count: int) -> dict[str, npt.NDArray[Any]]:
    """A peer's values by row: float64 with NaN for null, or int64."""
    columns = {name: part[name] for part in parts for name in part.columns}
    values_by_name = {}
    for name in NAMES:
        key = "terminal" if name.startswith(("tx_count", "risk")) else "customer"
        values = columns[name]
        flat = values.to_numpy() if name.startswith(("count", "tx_count")) else values.fill_null(np.nan).to_numpy()
        values_by_name[name] = np.empty(count, flat.dtype)
        values_by_name[name][columns[f"row_of_{key}"].to_numpy()] = flat
    return values_by_name


def of_kernel(parts: dict[str, tuple[Int64s, list[FeatureColumn]]], count: int) -> dict[str, npt.NDArray[Any]]:
    """The kernel's values by row: decimals as float64 of their six places with NaN for null, or int64."""
    values_by_name: dict[str, npt.NDArray[Any]] = {}
    for rows, columns in parts.values():
        for column in columns:
            decimal = column.scale is not None
            whole = values_by_name.setdefault(column.name, np.empty(count, np.float64 if decimal else np.int64))
            if column.scale is None:
                whole[rows] = column.low
            else:
                whole[rows] = np.where(column.valid, column.low / 10**column.scale, np.nan)
    return values_by_name


def difference(ours: dict[str, npt.NDArray[Any]], peer: dict[str, npt.NDArray[Any]]) -> Iterator[tuple[str, str]]:
    """The features that differ, and how in the first row where they do."""
    for name in NAMES:
        if ours[name].dtype == np.int64:
            same = ours[name] == peer[name]
        else:
            same = np.isclose(ours[name], peer[name], rtol=0, atol=_TOLERANCE, equal_nan=True)
        if not same.all():
            row = int(np.flatnonzero(~same)[0])
            yield name, f"row {row}: {ours[name][row]} here, {peer[name][row]} there"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--transactions", type=int, default=TRANSACTIONS)
    parser.add_argument("--turns", type=int, default=5)
    arguments = parser.parse_args()
    began = time.perf_counter()
    workers = os.cpu_count() or 1
    registry = compile_pack(shipped_pack("handbook"))
    with tempfile.TemporaryDirectory() as folder:
        world = transactions(Path(folder), arguments.transactions)
        columns = world.table()
    table = {name: columns[name].to_numpy() for name in columns.column_names}
    columns = columns.append_column("row", pa.array(np.arange(world.count)))
    frame = pl.DataFrame(columns)
    database = duckdb.connect()
    database.execute(f"SET threads = {workers}")
    database.register("transactions", columns)
    contenders: dict[str, Callable[[], Any]] = {
        "kernel": lambda: kernel(table, registry, workers),
        "Polars, rolling groups": lambda: polars_grouped(frame),
        "Polars, rolling sums over keys": lambda: polars_over(frame),
        "DuckDB, SQL windows": lambda: database.sql(duckdb_sql()).to_arrow_table(),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    cpu_seconds: dict[str, list[float]] = {name: [] for name in contenders}
    differing: dict[str, str] = {}
    for turn in range(arguments.turns + 1):
        answers = {}
        for name, run in contenders.items():
            start_time, start_cpu = time.perf_counter(), time.process_time()
            answer = run()
            if turn:  # the first turn warms all up
                seconds[name].append(time.perf_counter() - start_time)
                cpu_seconds[name].append(time.process_time() - start_cpu)
            else:
                answers[name] = answer
        if not turn:
            ours = of_kernel(answers.pop("kernel"), world.count)
            for name, answer in answers.items():
                parts = [pl.DataFrame(answer)] if isinstance(answer, pa.Table) else answer
                for feature, how in difference(ours, in_row_order(parts, world.count)):
                    differing[feature] = f"{name}, {how}"
            del ours, answers
    middle = {name: median(turn_seconds) for name, turn_seconds in seconds.items()}
    fastest = min((name for name in middle if name != "kernel"), key=middle.__getitem__)
    ratio = median(kernel_seconds / other for kernel_seconds, other in zip(seconds["kernel"], seconds[fastest], strict=True))
    texts = {name: f"{middle[name]:.2f} s, of all cores {median(cpu_seconds[name]):.2f} s" for name in middle}
    rows = [
        Row(f"{world.count:,} rows x 12 windows by the kernel, {world.source}", texts.pop("kernel")),
        *(Row(name, text) for name, text in texts.items()),
        Row(f"kernel over the faster peer ({fastest}), median of {arguments.turns} turns", f"{ratio:.2f}x", "<= 1x", ratio <= 1),
        Row("columns in which a peer has another value", f"{len(differing)} of {len(NAMES)}", "0", not differing),
        *(Row(f"... {feature}", how) for feature, how in differing.items()),
    ]
    figures = Figures(
        suite="columns",
        kind="bench",
        title="A dataset's features, computation only",
        rows=tuple(rows),
        seconds=time.perf_counter() - began,
        arguments=vars(arguments),
        raw={"seconds": seconds, "cpu_seconds": cpu_seconds},
    )
    print(figures.table())
    figures.write()


if __name__ == "__main__":
    main()
