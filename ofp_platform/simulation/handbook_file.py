"""A handbook Parquet file, read for both who take it: the replay of its events, and the loader of its labels.

Integers may be of any width, a decimal without a fraction, or encoded in a dictionary; the outcome may be a boolean; a time
may be of any resolution, in UTC by any of its names. What is none of these is refused, with the column, the row and what to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from ofp_platform.vocabulary.canonical import MAX_INTEGER
from ofp_platform.vocabulary.columns import FIRST_MOMENT, Int64
from ofp_platform.vocabulary.times import parse_time

TIME = "tx_datetime"
OUTCOME = "tx_fraud"
COLUMNS = ("transaction_id", TIME, "customer_id", "terminal_id", "tx_amount_minor", OUTCOME)
_UTC = {"UTC", "+00:00", "-00:00", "Z", "Etc/UTC", "Zulu", "GMT", "Etc/GMT"}
_NANOSECONDS = 1_000
# a report follows a week later, and is admitted after that
_LAST = parse_time("9998-12-31T23:59:59.999999Z")
_RANGES = {OUTCOME: (0, 1, "0 or 1"), TIME: (FIRST_MOMENT, _LAST, "a time of the years 1 to 9998")}
_COUNTS = (0, MAX_INTEGER, "an integer from 0 to 2^53-1")


class HandbookFileError(Exception):
    """The file is not a handbook file; the text says why."""


def row_count(path: Path) -> int:
    """How many rows the file has.

    Raises:
        HandbookFileError: see `handbook_columns`.
    """
    with _opened(path) as file:
        return int(file.metadata.num_rows)


def handbook_columns(path: Path, names: Sequence[str] = COLUMNS, batch_rows: int = 50_000) -> Iterator[dict[str, Int64]]:
    """The named columns, in parts of at most `batch_rows` rows: int64 each, times in microseconds.

    Raises:
        HandbookFileError: no such file, not Parquet, a column that is missing or of a type that is not read, or a value
            that cannot stand in an event; the text names column and row, which counts from 1.
    """
    with _opened(path) as file:
        first_row = 1
        parts = file.iter_batches(batch_size=batch_rows, columns=list(names))
        while True:
            try:
                part = next(parts, None)
            except (pa.ArrowException, OSError) as error:
                raise HandbookFileError(f"{path}: cannot be read behind row {first_row - 1}: {error}") from None
            if part is None:
                return
            yield {name: _integers(path, name, part.column(name), first_row) for name in names}
            first_row += part.num_rows


def _opened(path: Path) -> pq.ParquetFile:
    """The file, with the schema of a handbook file; the caller closes it (it is a context manager)."""
    try:
        file = pq.ParquetFile(path)
    except FileNotFoundError:
        raise HandbookFileError(f"{path}: no such file") from None
    except (OSError, pa.ArrowException) as error:
        raise HandbookFileError(f"{path}: not a Parquet file: {error}") from None
    try:
        _check_schema(path, file.schema_arrow)
    except HandbookFileError:
        file.close()
        raise
    return file


def _check_schema(path: Path, schema: pa.Schema) -> None:
    missing = [name for name in COLUMNS if name not in schema.names]
    if missing:
        raise HandbookFileError(f"{path}: no column {', '.join(missing)}")
    for name in COLUMNS:
        if schema.names.count(name) > 1:
            raise HandbookFileError(f"{path}: column {name} is there twice")
        kind = _plain_type(schema.field(name).type)
        if name == TIME:
            if not pa.types.is_timestamp(kind) or kind.tz not in _UTC:
                words = f"{TIME} is {kind}, not a timestamp in UTC; convert it, and say so in its type: timestamp[us, UTC]"
                raise HandbookFileError(f"{path}: {words}")
        elif not (
            pa.types.is_integer(kind)
            or (pa.types.is_decimal(kind) and kind.scale == 0)
            or (name == OUTCOME and pa.types.is_boolean(kind))
        ):
            raise HandbookFileError(f"{path}: {name} is {kind}, not an integer; convert it to int64")


def _plain_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _integers(path: Path, name: str, column: pa.Array, first_row: int) -> Int64:
    def refuse(is_wrong: npt.NDArray[np.bool_], words: str) -> None:
        if is_wrong.any():
            raise HandbookFileError(f"{path}: row {first_row + int(is_wrong.argmax())}: {name} {words}")

    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    refuse(column.is_null().to_numpy(zero_copy_only=False), "holds nulls; every transaction has one")
    least, greatest, words = _RANGES.get(name, _COUNTS)
    kind = column.type
    if pa.types.is_timestamp(kind):
        numbers = column.cast(pa.int64()).to_numpy()
        if kind.unit == "ns":
            refuse(numbers % _NANOSECONDS != 0, "has nanoseconds; times of events have microseconds: round it as you see fit")
            numbers = numbers // _NANOSECONDS
        else:
            factor = {"s": 1_000_000, "ms": 1_000, "us": 1}[kind.unit]
            refuse((numbers < least // factor) | (numbers > greatest // factor), f"is not {words}")
            numbers = numbers * factor
    elif pa.types.is_decimal(kind) or pa.types.is_uint64(kind):
        bounds = (pc.less(column, pa.scalar(least).cast(kind)), pc.greater(column, pa.scalar(greatest).cast(kind)))
        refuse(pc.or_(*bounds).to_numpy(zero_copy_only=False), f"is not {words}")
        numbers = column.cast(pa.int64()).to_numpy()
    else:
        numbers = column.cast(pa.int64()).to_numpy()
    refuse((numbers < least) | (numbers > greatest), f"is not {words}")
    return np.asarray(numbers, dtype=np.int64)
