"""Entity tables: one type a column, nothing rounded, faults with their place."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pytest

from ofp_platform.tables.entity_rows import EntityColumns, EntityRows, frame_parts, read_entity_rows
from ofp_platform.tables.table_file import TableFault, TableFile

COLUMNS = EntityColumns({"account": "client", "card": "plastic"}, "at", labels=("fraud",))
HEADER = "client,at,fraud,score,note,plastic,whole"
ROWS = [
    "Ann B,2026-03-01 02:00:00+02:00,1,0.5,x,c1,7",
    ",2026-03-01T00:00:00Z,,1.25,,c%201,-3",
    "Ann B,2026-03-01 02:00:00+02:00,0,2,007,,0",
]


def read(path: Path, rows: list[str], header: str = HEADER, columns: EntityColumns = COLUMNS) -> EntityRows:
    path.write_text("\n".join([header, *rows]) + "\n")
    return read_entity_rows(columns, TableFile(path).parts(2))


def test_columns_are_typed_by_all_their_cells_and_rows_keep_their_order(tmp_path: Path) -> None:
    rows = read(tmp_path / "t.csv", ROWS)
    assert rows.faults == []
    assert rows.table.to_pydict() == {
        "account_id": ["Ann%20B", None, "Ann%20B"],
        "card_id": ["c1", "c%201", None],
        "as_of_time_utc": [datetime(2026, 3, 1, tzinfo=UTC)] * 3,
        "fraud": [1, None, 0],
        "score": [Decimal("0.50"), Decimal("1.25"), Decimal("2.00")],
        "note": ["x", None, "007"],
        "whole": [7, -3, 0],
    }
    assert rows.table.schema.field("score").type == pa.decimal128(38, 2)


def test_a_frame_reads_as_the_file_does(tmp_path: Path) -> None:
    of_file = read(tmp_path / "t.csv", ROWS).table
    frame = pd.DataFrame(
        {
            "client": ["Ann B", None, "Ann B"],
            "at": pd.to_datetime(["2026-03-01T00:00:00Z"] * 3),
            "fraud": [1.0, None, 0.0],  # as pandas holds whole numbers among which one is missing
            "score": [0.5, 1.25, 2.0],
            "note": ["x", None, "007"],
            "plastic": ["c1", "c%201", None],
            "whole": [7, -3, 0],
        },
        index=[9, 4, 2],
    )
    assert read_entity_rows(COLUMNS, frame_parts(frame)).table.equals(of_file)
    assert read_entity_rows(COLUMNS, frame_parts(pa.Table.from_pandas(frame, preserve_index=False))).table.equals(of_file)


@pytest.mark.parametrize(
    ("row", "column", "words"),
    [
        ("a,yesterday,1,1,x,c,1", "at", "not a time as in"),
        ("a,,1,1,x,c,1", "at", "says nothing, and each row needs it"),
        ("4111111111111111,2026-03-01T00:00:00Z,1,1,x,c,1", "client", "a raw identifier"),
        ("a,2026-03-01T00:00:00Z,1,1,4111111111111111 ,c,1", "note", "a raw identifier"),
        ("a,2026-03-01T00:00:00Z,1,1,x,c,99999999999999999999", "whole", "beyond 64 bits"),
        ("a,2026-03-01T00:00:00Z,1,1." + "1" * 39 + ",x,c,1", "score", "more than 38 digits"),
    ],
)
def test_a_row_that_cannot_be_read_is_named(tmp_path: Path, row: str, column: str, words: str) -> None:
    rows = read(tmp_path / "t.csv", [ROWS[0], row])
    assert [(fault.place, fault.column) for fault in rows.faults] == [(3, column)]
    assert words in rows.faults[0].message
    assert "4111" not in rows.faults[0].message


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (HEADER.replace("client", "clinet"), "no column 'client'; did you mean 'clinet'?"),
        (HEADER.replace("note", "label_value"), "has the name of a column that datasets have"),
        (HEADER.replace("note", "card_id"), "has the name of a column that datasets have"),
        (HEADER.replace("note", "fraud"), "'fraud' is there twice"),
    ],
)
def test_columns_that_cannot_be_are_refused(tmp_path: Path, header: str, words: str) -> None:
    with pytest.raises(TableFault, match=words.replace("?", r"\?")):
        read(tmp_path / "t.csv", ROWS, header)


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (7, "no table of pyarrow and no data frame"),
        (pa.table([[1], [2]], names=["a", "a"]), "a name of its own"),
        (pa.table({"a": [[1]]}), "no single value a row"),
        (pa.table({"a": pa.array([1], pa.timestamp("ns"))}), "cannot be read"),
    ],
)
def test_what_is_no_table_is_refused(frame: Any, words: str) -> None:
    with pytest.raises(TableFault, match=words):
        list(frame_parts(frame))


def test_a_column_of_several_kinds_is_a_fault_of_its_row(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text(
        '{"account": "a", "at": "2026-03-01T00:00:00Z", "x": 1}\n{"account": "a", "at": "2026-03-01T00:00:00Z", "x": "b"}\n'
    )
    rows = read_entity_rows(EntityColumns({"account": "account"}, "at"), TableFile(path).parts())
    assert [(fault.place, fault.column) for fault in rows.faults] == [(2, "x")]
    assert "a column has one type" in rows.faults[0].message
