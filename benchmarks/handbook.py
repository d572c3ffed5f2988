"""The transactions that the large benchmarks run on: those of the handbook where its file is, else simulated ones in its form.

Either way a Parquet file that `HandbookReplay` turns into events, so everything behind it is the same.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.world import ACCOUNTS, DAY, MERCHANTS, PINS, START
from ofp_platform.online.plane import Plane
from ofp_platform.simulation.handbook import HandbookReplay

TRANSACTIONS = 1_754_155
"""How many the handbook has."""
FILE = Path(
    os.environ.get("OFP_HANDBOOK_FILE") or Path(__file__).parents[2] / "shared" / "data" / "handbook_transactions.parquet"
)
DAYS = 183
_BATCH = 50_000


@dataclass(frozen=True)
class Transactions:
    """A file of `count` transactions in time order; `source`: whose they are, in words."""

    path: Path
    count: int
    source: str

    def append_to(self, plane: Plane) -> int:
        """Append them and the fraud reports due by the last of them to the plane's log; how many records that were."""
        records = 0
        for batch in HandbookReplay(self.path, PINS).batches(_BATCH, until_last=True):
            receipt = plane.log.append_columns(batch.columns(), batch.admitted_at)
            if receipt.refusals:
                raise SystemExit(f"the log refused: {receipt.refusals[0]}")
            records += receipt.appended
        return records

    def table(self) -> pa.Table:
        """int64 columns customer, terminal, amount, fraud and ts (microseconds), in time order."""
        read = pq.read_table(self.path)
        names = {"customer": "customer_id", "terminal": "terminal_id", "amount": "tx_amount_minor", "fraud": "tx_fraud"}
        columns = {name: pc.cast(read[column], pa.int64()) for name, column in names.items()}
        columns["ts"] = read["tx_datetime"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
        return pa.table(columns).combine_chunks()


def transactions(folder: Path, count: int) -> Transactions:
    """The first `count` of the handbook; simulated ones where its file is not, or does not hold so many."""
    if FILE.exists():
        with pq.ParquetFile(FILE) as file:
            row_count = file.metadata.num_rows
            if count == row_count:
                return Transactions(FILE, count, "the handbook's transactions")
            if count < row_count:
                path = folder / f"handbook-{count}.parquet"
                pq.write_table(file.read().slice(0, count), path)
                return Transactions(path, count, f"the handbook's first {count:,} transactions")
    return simulated(folder, count)


def copies_of(folder: Path, world: Transactions, copies: int) -> Transactions:
    """That many copies of all transactions at the same times, each with its own customers, terminals and ids, in time order."""
    if copies == 1:
        return world
    table = pq.read_table(world.path)
    parts = []
    for copy in range(copies):
        part = table
        for name in ("transaction_id", "customer_id", "terminal_id"):
            column = table[name]
            shifted = pc.add(column, pa.scalar(copy * (pc.max(column).as_py() + 1), column.type))
            part = part.set_column(part.schema.get_field_index(name), name, shifted)
        parts.append(part)
    path = folder / f"copies-{copies}-of-{world.count}.parquet"
    ordered = pa.concat_tables(parts).sort_by([("tx_datetime", "ascending"), ("transaction_id", "ascending")])
    pq.write_table(ordered, path)
    return Transactions(path, world.count * copies, f"{copies} copies of {world.source}, each with keys of its own")


def simulated(folder: Path, count: int, *, customers: int = ACCOUNTS, terminals: int = MERCHANTS, seed: int = 1) -> Transactions:
    """Transactions at random over 183 days, 0.8% of them frauds; times have whole seconds, as in the handbook."""
    rng = np.random.default_rng(seed)
    ts = np.sort(rng.integers(0, DAYS * DAY // 1_000_000, count)) * 1_000_000 + START
    table = pa.table(
        {
            "transaction_id": np.arange(count, dtype=np.int32),
            "tx_datetime": pa.array(ts).cast(pa.timestamp("us", tz="UTC")),
            "customer_id": rng.integers(0, customers, count).astype(np.int32),
            "terminal_id": rng.integers(0, terminals, count).astype(np.int32),
            "tx_amount_minor": rng.integers(100, 50_000, count).astype(np.int32),
            "tx_fraud": (rng.random(count) < 0.008).astype(np.int8),
        }
    )
    path = folder / f"simulated-{count}-{customers}-{terminals}.parquet"
    pq.write_table(table, path)
    return Transactions(path, count, "simulated transactions (the handbook's file is not here)")
