"""Files of rows: what is read of them, and how what cannot be read is refused."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.tables.table_file import Cell, TableFault, TableFile

CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\r\x00"), max_size=8)


def read(path: Path, rows: int = 2) -> tuple[list[int], dict[str, list[Cell]]]:
    places: list[int] = []
    cells: dict[str, list[Cell]] = {}
    for part in TableFile(path).parts(rows):
        assert 0 < len(part) <= rows
        places += part.places
        for name, column in part.cells.items():
            cells.setdefault(name, []).extend(column)
    return places, cells


@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_csv_of_any_delimiter(tmp_path: Path, delimiter: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f'\ufeffa{delimiter}"b c"\r\n1{delimiter}"x\ny"\r\n\r\n{delimiter}2\r\n', encoding="utf-8")
    assert read(path) == ([2, 5], {"a": ["1", None], "b c": ["x\ny", "2"]})


@given(rows=st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=9))
def test_csv_gives_back_what_was_written(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]) -> None:
    path = tmp_path_factory.mktemp("csv") / "rows.csv"
    stream = io.StringIO()
    writer = csv.writer(stream, quoting=csv.QUOTE_ALL)
    writer.writerow(["a", "b"])
    writer.writerows(rows)
    path.write_bytes(stream.getvalue().encode("utf-8"))
    _, cells = read(path, 3)
    assert cells == {"a": [a or None for a, _ in rows], "b": [b or None for _, b in rows]}


def test_lines_of_json_keep_their_types(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    records = [{"a": 1, "b": True, "c": "x"}, {"a": None, "c": ""}, {"c": 1.5, "b": False}]
    path.write_text("\n\n".join(map(json.dumps, records)) + "\n")
    assert read(path) == ([1, 3, 5], {"a": [1, None, None], "b": [True, None, False], "c": ["x", None, 1.5]})


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    moment = datetime(2026, 3, 1, 12, tzinfo=UTC)
    table = pa.table(
        {
            "n": pa.array([1, None, 3]),
            "d": pa.array([Decimal("1.20"), Decimal("0.05"), None]),
            "t": pa.array([moment] * 3, pa.timestamp("ns", "UTC")),
            "s": pa.array(["x", "", "x"]).dictionary_encode(),
        }
    )
    pq.write_table(table, path)
    places, cells = read(path)
    assert places == [1, 2, 3]
    assert cells == {"n": [1, None, 3], "d": [Decimal("1.20"), Decimal("0.05"), None], "t": [moment] * 3, "s": ["x", None, "x"]}


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("absent.csv", None, "No such file"),
        ("short.csv", b"a,b\n1,2\nsecret\n", r"short\.csv:3: 1 cells, where the header names 2"),
        ("open.csv", b'a,b\n1,"secret', r"open\.csv:2: not CSV"),
        ("latin.csv", b"a,b\n1,\xe4\n", "not UTF-8"),
        ("twice.csv", b"a,a\n1,2\n", "'a' is there twice"),
        ("nameless.csv", b"a,\n1,2\n", "a column without a name"),
        ("headless.csv", b"4111111111111111,secret\n5,6\n", "the first line must name the columns"),
        ("rows.jsonl", b'{"a": 1}\n{"a": secret}\n', r"rows\.jsonl:2: not a line of JSON"),
        ("more.jsonl", b'{"a": 1}\n{"b": 2}\n', r"more\.jsonl:2: 'b' is no field of the first line"),
        ("deep.jsonl", b'{"a": [1]}\n', "'a' is no single value"),
        ("list.jsonl", b"[1]\n", "not a JSON object"),
        ("text.parquet", b"secret", "not a Parquet file"),
    ],
)
def test_a_file_that_is_none_is_refused_in_words_without_its_cells(
    tmp_path: Path, name: str, content: bytes | None, words: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(TableFault, match=words) as caught:
        read(path)
    assert "secret" not in str(caught.value)


def test_parquet_finer_than_a_microsecond_and_nested_columns_are_refused(tmp_path: Path) -> None:
    fine, nested = tmp_path / "fine.parquet", tmp_path / "nested.parquet"
    pq.write_table(pa.table({"t": pa.array([1], pa.timestamp("ns"))}), fine)
    pq.write_table(pa.table({"l": [[1]]}), nested)
    with pytest.raises(TableFault, match="cannot be read behind row 0"):
        read(fine)
    with pytest.raises(TableFault, match="'l' is no single value"):
        read(nested)


def test_cells_that_say_nothing_are_those_that_are_listed(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,b\nNULL,n/a\n,x\n")
    (part,) = TableFile(path, ("", "NULL")).parts()
    assert part.cells == {"a": [None, None], "b": ["n/a", "x"]}
