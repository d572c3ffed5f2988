"""The content digest, against a computation by the letter of its definition, and what it sees and does not see."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.offline.datasets.content_digest import ContentDigest
from ofp_platform.offline.datasets.dataset_files import write_dataset
from ofp_platform.vocabulary.offline.build_refusal import BuildRefused

SCHEMA = pa.schema(
    [
        ("number", pa.int64()),
        ("moment", pa.timestamp("us", tz="UTC")),
        ("text", pa.string()),
        ("flag", pa.bool_()),
        ("share", pa.decimal128(38, 6)),
    ]
)
integers = st.integers(-(2**63), 2**63 - 1)
rows_of_anything = st.lists(
    st.fixed_dictionaries(
        {
            "number": st.none() | integers,
            "moment": st.none() | st.integers(-(2**50), 2**50),
            "text": st.none() | st.text(max_size=5),
            "flag": st.none() | st.booleans(),
            "share": st.none() | st.integers(-(10**37), 10**37),
        }
    ),
    min_size=1,
    max_size=30,
)


def table(rows: list[dict[str, Any]]) -> pa.Table:
    columns = {
        "number": pa.array([row["number"] for row in rows], pa.int64()),
        "moment": pa.array([row["moment"] for row in rows], pa.int64()).cast(pa.timestamp("us", tz="UTC")),
        "text": pa.array([row["text"] for row in rows], pa.string()),
        "flag": pa.array([row["flag"] for row in rows], pa.bool_()),
        "share": pa.array(
            [
                None if row["share"] is None else Decimal((row["share"] < 0, tuple(map(int, str(abs(row["share"])))), -6))
                for row in rows
            ],
            pa.decimal128(38, 6),
        ),
    }
    return pa.table(columns, schema=SCHEMA)


def by_the_letter(rows: list[dict[str, Any]]) -> str:
    columns = []
    for field in SCHEMA:
        values = [row[field.name] for row in rows]
        column: dict[str, str] = {"name": field.name, "type": str(field.type)}
        column["validity"] = hashlib.sha256(bytes(value is not None for value in values)).hexdigest()
        if field.name == "text":
            texts = [(value or "").encode() for value in values]
            column["lengths"] = hashlib.sha256(b"".join(len(text).to_bytes(4, "little") for text in texts)).hexdigest()
            column["values"] = hashlib.sha256(b"".join(texts)).hexdigest()
        else:
            width = {"flag": 1, "share": 16}.get(field.name, 8)
            data = b"".join(int(value or 0).to_bytes(width, "little", signed=width > 1) for value in values)
            column["values"] = hashlib.sha256(data).hexdigest()
        columns.append(column)
    wire = {"format": "ofp_dataset_content_v0", "rows": len(rows), "columns": columns}
    return hashlib.sha256(json.dumps(wire, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def digest_of(blocks: Iterable[pa.Table]) -> str:
    digest = ContentDigest(SCHEMA)
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


@given(rows_of_anything, st.integers(1, 7), st.integers(0, 5))
def test_the_digest_is_what_its_definition_says_however_the_rows_are_cut(
    rows: list[dict[str, Any]], size: int, offset: int
) -> None:
    whole = table(rows)
    expected = by_the_letter(rows)
    assert digest_of([whole]) == expected
    cut = [whole.slice(start, size) for start in range(0, whole.num_rows, size)]
    assert digest_of(cut) == expected
    behind = pa.concat_tables([whole.slice(0, offset), whole]).combine_chunks().slice(min(offset, whole.num_rows))
    assert digest_of([behind]) == expected


@given(rows_of_anything, st.sampled_from(SCHEMA.names), st.data())
def test_another_value_is_another_digest(rows: list[dict[str, Any]], name: str, data: st.DataObject) -> None:
    place = data.draw(st.integers(0, len(rows) - 1))
    changed = [dict(row) for row in rows]
    changed[place][name] = data.draw(rows_of_anything)[0][name]
    same = changed == rows
    assert (digest_of([table(changed)]) == digest_of([table(rows)])) is same


ROWS = [
    {"number": number, "moment": number, "text": f"t{number}", "flag": number % 2 == 0, "share": number * 10**6}
    for number in range(100)
]


def test_files_hold_the_rows_in_order_and_give_the_digest_again(tmp_path: Path) -> None:
    blocks = [table(ROWS[start : start + 33]) for start in range(0, 100, 33)]
    files = write_dataset(tmp_path / "set", blocks, file_rows=40)
    assert [path.name for path in files.paths] == ["part-00000.parquet", "part-00001.parquet", "part-00002.parquet"]
    assert files.rows_per_file == (40, 40, 20)
    assert (files.rows, files.schema) == (100, SCHEMA)
    assert files.bytes == sum(path.stat().st_size for path in files.paths)
    assert files.content_digest == digest_of(map(pq.read_table, files.paths)) == by_the_letter(ROWS)
    assert digest_of(map(pq.read_table, files.paths[::-1])) != files.content_digest
    frame = pd.read_parquet(tmp_path / "set", dtype_backend="pyarrow")
    assert frame["number"].tolist() == list(range(100))
    assert frame["share"].iloc[3] == Decimal("3.000000")


def test_what_cannot_be_digested_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="not double"):
        write_dataset(tmp_path / "floats", [pa.table({"x": [0.5]})])
    with pytest.raises(ValueError, match="another schema"):
        write_dataset(tmp_path / "mixed", [table(ROWS[:2]), pa.table({"x": [1]})])
    with pytest.raises(BuildRefused, match="NOTHING_TO_BUILD"):
        write_dataset(tmp_path / "nothing", [])
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(ValueError, match="stands twice"):
        write_dataset(tmp_path / "twice", [pa.table([[1], [2]], names=["x", "x"])])
    with pytest.raises(ValueError, match="another schema"):
        ContentDigest(SCHEMA).update(pa.table({"x": [1]}))
