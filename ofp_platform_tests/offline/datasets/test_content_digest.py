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

COUNT = [pa.field("category", pa.string(), nullable=False), pa.field("value", pa.int64(), nullable=False)]
SCHEMA = pa.schema(
    [
        ("number", pa.int64()),
        ("moment", pa.timestamp("us", tz="UTC")),
        ("text", pa.string()),
        ("flag", pa.bool_()),
        ("share", pa.decimal128(38, 6)),
        ("words", pa.list_(pa.field("element", pa.string(), nullable=False))),
        ("flags", pa.list_(pa.field("element", pa.bool_(), nullable=False))),
        ("numbers", pa.list_(pa.field("element", pa.int64(), nullable=False))),
        ("counts", pa.list_(pa.field("element", pa.struct(COUNT), nullable=False))),
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
            "words": st.none() | st.lists(st.text(max_size=3), max_size=3),
            "flags": st.none() | st.lists(st.booleans(), max_size=3),
            "numbers": st.none() | st.lists(integers, max_size=3),
            "counts": st.none()
            | st.lists(st.fixed_dictionaries({"category": st.text(max_size=3), "value": integers}), max_size=3),
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
        **{name: pa.array([row[name] for row in rows], SCHEMA.field(name).type) for name in SCHEMA.names[5:]},
    }
    return pa.table(columns, schema=SCHEMA)


def lengths_of(values: Iterable[Any]) -> str:
    return hashlib.sha256(b"".join(len(value).to_bytes(4, "little") for value in values)).hexdigest()


def column_by_the_letter(name: str, kind: str, values: list[Any]) -> dict[str, Any]:
    column: dict[str, Any] = {"name": name, "type": kind}
    column["validity"] = hashlib.sha256(bytes(value is not None for value in values)).hexdigest()
    if kind == "string":
        texts = [(value or "").encode() for value in values]
        return {**column, "lengths": lengths_of(texts), "values": hashlib.sha256(b"".join(texts)).hexdigest()}
    if kind.startswith("list<element: "):
        items = [item for value in values for item in value or ()]
        inner = column_by_the_letter("element", kind.removeprefix("list<element: ").removesuffix(" not null>"), items)
        return {**column, "lengths": lengths_of(value or () for value in values), "items": inner}
    if kind.startswith("struct<"):
        parts = (("category", "string"), ("value", "int64"))
        return {**column, "fields": [column_by_the_letter(name, kind, [item[name] for item in values]) for name, kind in parts]}
    width = {"bool": 1, "decimal128(38, 6)": 16}.get(kind, 8)
    data = b"".join(int(value or 0).to_bytes(width, "little", signed=width > 1) for value in values)
    return {**column, "values": hashlib.sha256(data).hexdigest()}


def by_the_letter(rows: list[dict[str, Any]]) -> str:
    columns = [column_by_the_letter(field.name, str(field.type), [row[field.name] for row in rows]) for field in SCHEMA]
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
    {
        "number": number,
        "moment": number,
        "text": f"t{number}",
        "flag": number % 2 == 0,
        "share": number * 10**6,
        "words": None if number % 5 == 0 else [f"w{number}"] * (number % 3),
        "flags": [True, False][: number % 3],
        "numbers": list(range(number % 21)),
        "counts": [{"category": f"c{number % 3}", "value": number}] * (number % 3),
    }
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
    for items, words in ((pa.float64(), "not double"), (pa.list_(pa.int64()), "not list<item: list<item: int64>>")):
        with pytest.raises(TypeError, match=words):
            ContentDigest(pa.schema([("x", pa.list_(items))]))
    with pytest.raises(ValueError, match="another schema"):
        write_dataset(tmp_path / "mixed", [table(ROWS[:2]), pa.table({"x": [1]})])
    with pytest.raises(BuildRefused, match="NOTHING_TO_BUILD"):
        write_dataset(tmp_path / "nothing", [])
    assert not (tmp_path / "nothing").exists()
    with pytest.raises(ValueError, match="stands twice"):
        write_dataset(tmp_path / "twice", [pa.table([[1], [2]], names=["x", "x"])])
    with pytest.raises(ValueError, match="another schema"):
        ContentDigest(SCHEMA).update(pa.table({"x": [1]}))
