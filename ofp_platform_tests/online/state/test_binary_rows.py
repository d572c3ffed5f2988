"""Values in PostgreSQL's binary form: the database reads from them what psycopg would have sent."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import RawCursor

from ofp_platform.online.state.binary_rows import BigintArray, Column, TextArray, copy_rows
from ofp_platform.storage.postgres import open_pool

TEXTS = [[], [""], ["a"], ["", "b", "", "ü😀", "x" * 300]]


def values_of(column: Column) -> list[bytes]:
    """The values of a column."""
    places = zip(column.starts.tolist(), column.sizes.tolist(), strict=True)
    return [column.data[start : start + size].tobytes() for start, size in places]


@given(st.lists(st.text(st.characters(codec="utf-8"), max_size=8), max_size=8))
def test_a_column_of_texts_is_their_utf_8(texts: list[str]) -> None:
    assert values_of(Column.of_texts(texts)) == [text.encode() for text in texts]


@pytest.mark.parametrize("width", [2, 4, 8])
def test_integers_are_big_endian(width: int) -> None:
    values = [0, 1, -1, 2 ** (8 * width - 1) - 1, -(2 ** (8 * width - 1))]
    assert values_of(Column.of_integers(np.array(values), width)) == [
        value.to_bytes(width, "big", signed=True) for value in values
    ]


def test_rows_of_an_array_and_pieces_of_bytes() -> None:
    values = np.arange(12, dtype=np.int64).reshape(2, 3, 2)
    assert values_of(Column.of_rows(values[::-1])) == [values[1].tobytes(), values[0].tobytes()]
    assert values_of(Column.of_rows(values[:0])) == []
    pieces = Column.of_pieces(b"abcd", np.array([0, 1, 1, 4]))
    assert values_of(pieces) == [b"a", b"", b"bcd"]
    assert values_of(pieces.take(np.array([2, 0, 2]))) == [b"bcd", b"a", b"bcd"]


@pytest.mark.parametrize("texts", TEXTS)
def test_the_database_reads_lists(dsn: str, texts: list[str]) -> None:
    numbers = np.array([index * 2**60 * (-1) ** index for index in range(len(texts))], np.int64)
    arguments = (TextArray.of(Column.of_texts(texts)), BigintArray.of(numbers))
    assert [len(argument) for argument in arguments] == [len(texts)] * 2
    with open_pool(dsn, max_size=1) as pool, pool.connection() as connection, RawCursor(connection) as cursor:
        for _ in range(2):  # one argument serves several statements
            row = cursor.execute("SELECT $1::text[], $2::bigint[], pg_typeof($1)::text", arguments).fetchone()
            assert row == (texts, numbers.tolist(), "text[]")


@pytest.mark.parametrize("texts", TEXTS)
def test_the_database_reads_copied_rows(dsn: str, texts: list[str]) -> None:
    with open_pool(dsn, max_size=1) as pool, pool.connection() as connection:
        connection.execute("CREATE TEMPORARY TABLE copied (small int2, large int8, name text, content bytea)")
        numbers = np.arange(len(texts))
        columns = {
            "large": Column.of_integers(-numbers),
            "name": Column.of_texts(texts),
            "content": Column.of_rows(np.stack([numbers, numbers], axis=1)),
            "small": Column.of_integers(numbers, 2),
        }
        copy_rows(connection, "copied", columns)
        rows = connection.execute("SELECT small, large, name, content FROM copied ORDER BY small").fetchall()
        assert rows == [(number, -number, text, 2 * number.to_bytes(8, "little")) for number, text in enumerate(texts)]
        connection.rollback()
