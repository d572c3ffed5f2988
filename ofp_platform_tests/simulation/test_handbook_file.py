"""A handbook file as others write it: what can be read is read as the plain one, what cannot is refused by column and row."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ofp_platform.simulation.handbook import HandbookReplay
from ofp_platform.simulation.handbook_file import HandbookFileError, handbook_columns
from ofp_platform.simulation.handbook_labels import handbook_labels
from ofp_platform.vocabulary.identity import ContextPins

PINS = ContextPins(scenario_id="handbook", run_id="run-1", manifest_fingerprint="a" * 64, parameter_hash="b" * 64)
ROWS = 12
TIMES = [datetime(2018, 4, 1, tzinfo=UTC) + timedelta(hours=n) for n in range(ROWS)]
PLAIN = pa.table(
    {
        "transaction_id": pa.array(range(ROWS), pa.int64()),
        "tx_datetime": pa.array(TIMES, pa.timestamp("us", tz="UTC")),
        "customer_id": pa.array(range(ROWS), pa.int64()),
        "terminal_id": pa.array(range(ROWS), pa.int64()),
        "tx_amount_minor": pa.array(range(ROWS), pa.int64()),
        "tx_fraud": pa.array([n % 2 for n in range(ROWS)], pa.int64()),
    }
)


def with_column(name: str, column: pa.Array) -> pa.Table:
    return PLAIN.set_column(PLAIN.schema.get_field_index(name), name, column)


def with_value(name: str, row: int, value: Any, kind: pa.DataType) -> pa.Table:
    values = PLAIN[name].to_pylist()
    values[row] = value
    return with_column(name, pa.array(values, kind))


def written(tmp_path: Path, table: pa.Table) -> Path:
    path = tmp_path / "h.parquet"
    pq.write_table(table, path)
    return path


def read(path: Path) -> tuple[Any, ...]:
    replay = HandbookReplay(path, PINS)
    records = [list(batch.records()) for batch in replay.batches(5)]
    return replay.counts(), replay.reports_pending(), records, [label.wire() for label in handbook_labels(path)]


@pytest.mark.parametrize(
    ("name", "column"),
    [
        *(
            (name, PLAIN[name].cast(kind))
            for name in ("transaction_id", "tx_fraud")
            for kind in (pa.int8(), pa.uint64(), pa.int32())
        ),
        ("customer_id", pa.array([Decimal(n) for n in range(ROWS)], pa.decimal128(20, 0))),
        ("customer_id", PLAIN["customer_id"].combine_chunks().dictionary_encode()),
        ("tx_fraud", PLAIN["tx_fraud"].cast(pa.bool_())),
        *(("tx_datetime", PLAIN["tx_datetime"].cast(pa.timestamp(unit, tz="UTC"))) for unit in ("s", "ms", "ns")),
        *(("tx_datetime", PLAIN["tx_datetime"].cast(pa.timestamp("us", tz=zone))) for zone in ("+00:00", "Etc/UTC")),
    ],
    ids=lambda value: str(value.type) if not isinstance(value, str) else value,
)
def test_it_is_read_as_the_plain_file(tmp_path: Path, name: str, column: pa.Array) -> None:
    expected = read(written(tmp_path, PLAIN))
    assert read(written(tmp_path, with_column(name, column))) == expected


TEXTS = [str(n) for n in range(ROWS)]
LATE = datetime(9999, 12, 31, tzinfo=UTC)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        (with_column("customer_id", pa.array(TEXTS)), "customer_id is string, not an integer; convert it to int64"),
        (with_column("transaction_id", pa.array(TEXTS, pa.large_string())), "transaction_id is large_string"),
        (with_column("terminal_id", pa.array(TEXTS).dictionary_encode()), "terminal_id is string"),
        (with_column("tx_amount_minor", pa.array([1.5] * ROWS)), "tx_amount_minor is double"),
        (with_column("tx_amount_minor", pa.array([Decimal("1.50")] * ROWS)), "tx_amount_minor is decimal128"),
        (with_column("customer_id", pa.array([True] * ROWS)), "customer_id is bool"),
        (with_column("tx_datetime", pa.array(TEXTS)), "tx_datetime is string, not a timestamp in UTC"),
        (with_column("tx_datetime", pa.array(range(ROWS))), "tx_datetime is int64"),
        (with_column("tx_datetime", PLAIN["tx_datetime"].cast(pa.timestamp("us"))), "not a timestamp in UTC; convert it"),
        (with_column("tx_datetime", PLAIN["tx_datetime"].cast(pa.timestamp("us", tz="Europe/Berlin"))), "not a timestamp in UTC"),
        (with_column("tx_datetime", PLAIN["tx_datetime"].cast(pa.date32())), "tx_datetime is date32"),
        (with_value("tx_datetime", 7, None, pa.timestamp("us", tz="UTC")), "row 8: tx_datetime holds nulls"),
        (with_value("tx_fraud", 11, None, pa.int64()), "row 12: tx_fraud holds nulls"),
        (with_value("tx_fraud", 3, 2, pa.int64()), "row 4: tx_fraud is not 0 or 1"),
        (
            with_value("tx_datetime", 11, LATE, pa.timestamp("us", tz="UTC")),
            "row 12: tx_datetime is not a time of the years 1 to",
        ),
        (with_value("tx_datetime", 11, 2**62, pa.timestamp("ms", tz="UTC")), "row 12: tx_datetime is not a time of the years"),
        (
            with_column("tx_datetime", pa.array([n * 1_000 + n // 9 for n in range(ROWS)], pa.timestamp("ns", tz="UTC"))),
            "row 10: tx_datetime has nanoseconds",
        ),
        (with_value("customer_id", 6, 2**63, pa.uint64()), "row 7: customer_id is not an integer from 0 to"),
        (with_value("customer_id", 6, -1, pa.int64()), "row 7: customer_id is not an integer from 0 to"),
        (with_value("tx_amount_minor", 0, Decimal(10**20), pa.decimal128(30, 0)), "row 1: tx_amount_minor is not an integer"),
        (pa.Table.from_arrays([*PLAIN.columns, PLAIN["tx_fraud"]], [*PLAIN.column_names, "tx_fraud"]), "tx_fraud is there twice"),
    ],
)
def test_it_is_refused_by_column_and_row(tmp_path: Path, table: pa.Table, words: str) -> None:
    path = written(tmp_path, table)
    for door in (lambda: list(HandbookReplay(path, PINS).batches(5)), lambda: list(handbook_columns(path, batch_rows=5))):
        with pytest.raises(HandbookFileError) as caught:
            door()
        assert str(caught.value).startswith(f"{path}: ")
        assert words in str(caught.value)


def test_a_page_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    path = written(tmp_path, PLAIN)
    content = bytearray(path.read_bytes())
    content[4:200] = bytes(196)
    path.write_bytes(bytes(content))
    with pytest.raises(HandbookFileError, match="cannot be read behind row 0"):
        list(handbook_columns(path))


def test_no_rows(tmp_path: Path) -> None:
    assert read(written(tmp_path, PLAIN.slice(0, 0))) == ((0, 0), 0, [], [])
