"""Entity tables: rows of keys, a time and whatever else, of a file or a data frame, in the column types of a dataset. Pure.

Each column has one type, that of all its cells: whole numbers int64, other numbers decimal128, moments timestamp[us, UTC],
else bool or string. Nothing is rounded: a float is the shortest decimal that reads back as it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa

from ofp_platform.tables import cell_values
from ofp_platform.tables.row_events import RowFault, _Unreadable, require_columns, value_of
from ofp_platform.tables.table_file import PART_ROWS, Cell, TableFault, TablePart, microseconds
from ofp_platform.vocabulary.identity import KEY_ID_TEXT
from ofp_platform.vocabulary.raw_identifier import holds_raw_identifier, is_raw_key

UTC_MICROSECONDS = pa.timestamp("us", tz="UTC")
AS_OF = "as_of_time_utc"
_RESERVED = re.compile(
    rf"(event_id|event_type|event_time_utc|{AS_OF}|known_until_utc|decision_id|input_basis_digest|graph_version"
    r"|label_(value|observed_time|is_mature)|(account|card|customer|device|merchant)_id|payload__.*)"
)
_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]*)", re.ASCII)
_DECIMAL = re.compile(r"[+-]?(0|[1-9][0-9]*)\.[0-9]+", re.ASCII)
_ESCAPES = re.compile(r"(?:[^%]|%[0-9A-F]{2})*", re.ASCII)
_INT64 = 2**63
_DIGITS = 38


@dataclass(frozen=True)
class EntityColumns:
    """The meaning of columns. `keys`: key type to column; `zone`: of times that name none; `labels`: others that are learned."""

    keys: Mapping[str, str]
    time: str
    zone: str = "UTC"
    labels: tuple[str, ...] = ()


@dataclass
class EntityRows:
    """The table in the types of a dataset, and the rows that cannot be read.

    Columns: `<key type>_id` of each key type by name, `as_of_time_utc`, then the others with their own names, in their order.
    """

    table: pa.Table
    faults: list[RowFault] = field(default_factory=list)


def frame_parts(frame: Any) -> Iterator[TablePart]:
    """The rows of a pyarrow table or of a pandas data frame; places count from 1. The index of a frame is no column.

    Raises:
        TableFault: neither of them, a column without a name, or one of several values a row.
    """
    if isinstance(frame, pa.Table):
        table = frame
    else:
        try:
            table = pa.Table.from_pandas(frame, preserve_index=False)
        except (pa.ArrowException, AttributeError, TypeError) as error:
            raise TableFault(f"no table of pyarrow and no data frame of pandas: {error}") from None
    names = table.column_names
    if not all(name.strip() for name in names) or len(set(names)) != len(names):
        raise TableFault("each column needs a name of its own")
    for column in table.schema:
        if pa.types.is_nested(column.type):
            raise TableFault(f"column {column.name!r} is no single value a row; flatten it first")
    for start in range(0, table.num_rows, PART_ROWS):
        batch = table.slice(start, PART_ROWS)
        try:
            cells = {name: microseconds(batch[name].combine_chunks()).to_pylist() for name in names}
        except pa.ArrowException as error:
            raise TableFault(f"cannot be read behind row {start}: {error}") from None
        yield TablePart(list(range(start + 1, start + 1 + batch.num_rows)), cells)


def read_entity_rows(columns: EntityColumns, parts: Iterable[TablePart]) -> EntityRows:
    """The rows of a table, in their order; a row that cannot be read is a fault, and then the table lacks it.

    Raises:
        TableFault: a column is not there, or its name is that of a column that datasets have.
    """
    moment = cell_values.moment_reader(cell_values.TimeFormat.ISO, columns.zone)
    key_types = sorted(columns.keys)
    key_cells: dict[str, list[str | None]] = {key_type: [] for key_type in key_types}
    times: list[int] = []
    others: dict[str, list[Cell]] | None = None
    places: list[int] = []
    faults: list[RowFault] = []
    for part in parts:
        require_columns(part, [*columns.keys.values(), columns.time, *columns.labels])
        if others is None:
            columns_of_meaning = {*columns.keys.values(), columns.time}
            others = {name: [] for name in part.cells if name not in columns_of_meaning}
            _check_names(others)
        for index, place in enumerate(part.places):
            try:
                time = value_of(part, index, columns.time, moment, is_needed=True)
                keys = [value_of(part, index, columns.keys[key_type], _key_id) for key_type in key_types]
            except _Unreadable as unreadable:
                faults.append(RowFault(place, unreadable.column, unreadable.message))
                continue
            times.append(time)
            places.append(place)
            for key_type, key_id in zip(key_types, keys, strict=True):
                key_cells[key_type].append(key_id)
            for name, cells in others.items():
                cells.append(part.cells[name][index])
    arrays: dict[str, pa.Array] = {f"{key_type}_id": pa.array(cells, pa.string()) for key_type, cells in key_cells.items()}
    arrays[AS_OF] = pa.array(times, pa.int64()).cast(UTC_MICROSECONDS)
    for name, cells in (others or {}).items():
        try:
            arrays[name] = _column(cells)
        except _CellFault as fault:
            faults.append(RowFault(places[fault.index], name, fault.message))
            arrays[name] = pa.nulls(len(cells), pa.string())
    return EntityRows(pa.table(arrays), sorted(faults))


def read_frame(columns: EntityColumns, frame: Any) -> pa.Table:
    """The table of a data frame; raises TableFault with row and column where one cannot be read."""
    rows = read_entity_rows(columns, frame_parts(frame))
    if rows.faults:
        fault = rows.faults[0]
        raise TableFault(f"row {fault.place}: {fault.column}: {fault.message} ({len(rows.faults):,} rows cannot be read)")
    return rows.table


def _check_names(names: Iterable[str]) -> None:
    for name in names:
        if _RESERVED.fullmatch(name):
            raise TableFault(
                f"column {name!r} has the name of a column that datasets have: call it otherwise, or say that it is a key"
            )


def _key_id(cell: Cell) -> str:
    """A key id as it is, or, of what a key cannot hold, the text with that percent-encoded, as an import writes it."""
    text = cell_values.text(cell).strip()
    if is_raw_key(text):
        raise ValueError("a raw identifier (a card number, IBAN, e-mail or IP address) is never a key")
    is_key_id = KEY_ID_TEXT.fullmatch(text) is not None and _ESCAPES.fullmatch(text) is not None
    return text if is_key_id else cell_values.key(text)


class _CellFault(Exception):
    def __init__(self, index: int, message: str) -> None:
        super().__init__(message)
        self.index, self.message = index, message


def _column(cells: list[Cell]) -> pa.Array:
    """A column of one type."""
    kinds = {type(cell) for cell in cells if cell is not None}
    if kinds == {str}:
        return _of_texts([cell for cell in cells if cell is None or isinstance(cell, str)])
    if kinds <= {bool}:
        return pa.array(cells, pa.bool_() if kinds else pa.string())
    if kinds <= {int, float, Decimal}:
        return _numbers(cells, _each(cells, cell_values.decimal_of))
    if kinds == {datetime}:
        micros = _each(cells, cell_values.moment_reader(cell_values.TimeFormat.ISO, "UTC"))
        return pa.array(micros, pa.int64()).cast(UTC_MICROSECONDS)
    first = next(cell for cell in cells if cell is not None)
    odd = next((index for index, cell in enumerate(cells) if cell is not None and type(cell) is not type(first)), 0)
    raise _CellFault(odd, "another kind of value than above it: a column has one type (numbers, texts, yes or no, or times)")


def _of_texts(cells: list[str | None]) -> pa.Array:
    texts = [cell for cell in cells if cell is not None]
    for index, cell in enumerate(cells):
        if cell is not None and (is_raw_key(cell) or holds_raw_identifier(cell)):
            raise _CellFault(index, "holds a raw identifier (a card number, IBAN, e-mail or IP address): leave the column out")
    if all(_INTEGER.fullmatch(text) or _DECIMAL.fullmatch(text) for text in texts):
        return _numbers(cells, _each(cells, cell_values.decimal_of))
    if all(text.lower() in ("true", "false") for text in texts):
        return pa.array([None if cell is None else cell.lower() == "true" for cell in cells], pa.bool_())
    return pa.array(cells, pa.string())


def _numbers(cells: list[Any], numbers: list[Decimal | None]) -> pa.Array:
    """Whole numbers as int64, others as decimals with as many digits as the longest of them has."""
    exponents = [number.as_tuple().exponent for number in numbers if number is not None]
    is_written_whole = not any(isinstance(cell, str | Decimal) and "." in str(cell) for cell in cells)
    if is_written_whole and all(number is None or number == number.to_integral_value() for number in numbers):
        for index, number in enumerate(numbers):
            if number is not None and not -_INT64 <= number < _INT64:
                raise _CellFault(index, "beyond 64 bits")
        return pa.array([None if number is None else int(number) for number in numbers], pa.int64())
    digits = [max(-exponent, 0) if isinstance(exponent, int) else 0 for exponent in exponents]
    scale = max(digits)
    for index, number in enumerate(numbers):
        if number is None:
            continue
        is_too_fine = scale > _DIGITS and -int(number.as_tuple().exponent) == scale
        if is_too_fine or (scale <= _DIGITS and abs(number) >= Decimal(10) ** (_DIGITS - scale)):
            raise _CellFault(index, f"more than {_DIGITS} digits, with as many behind the point as the column has")
    return pa.array(numbers, pa.decimal128(_DIGITS, scale))


def _each(cells: list[Any], reader: Callable[[Any], Any]) -> list[Any]:
    values = []
    for index, cell in enumerate(cells):
        try:
            values.append(None if cell is None else reader(cell))
        except ValueError as error:
            raise _CellFault(index, str(error)) from None
    return values
