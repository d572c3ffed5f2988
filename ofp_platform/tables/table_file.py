"""A file of rows that somebody else made: CSV, Parquet or NDJSON, read in parts, each row with the place where it stands.

A CSV cell is a text; Parquet and NDJSON cells have the types that the file gives them. A cell that says nothing is None: an empty
one, and what the caller lists besides.
"""

from __future__ import annotations

import csv
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from pathlib import Path
from typing import TextIO

import pyarrow as pa
import pyarrow.parquet as pq

from ofp_platform.vocabulary.json_text import NotIJson, NotJson, read_json
from ofp_platform.vocabulary.raw_identifier import is_raw_key
from ofp_platform.vocabulary.text_file import lines_of

Cell = str | int | float | bool | Decimal | date | datetime | None
PART_ROWS = 20_000
_DELIMITERS = ",;\t|"
_MOST_CELL_CHARACTERS = 1_000_000
_PARQUET = (".parquet", ".pq")
_NDJSON = (".jsonl", ".ndjson")


class TableFault(Exception):
    """A file cannot be read as rows; the text says where and what to do. It never shows a cell."""


@dataclass(frozen=True, eq=False)
class TablePart:
    """Some rows: the place of each, counted from 1 as `TableFile.unit` says, and the cells of each column."""

    places: list[int]
    cells: dict[str, list[Cell]]

    def __len__(self) -> int:
        return len(self.places)


@dataclass(frozen=True)
class TableFile:
    """A file by its name's end: .parquet or .pq, .jsonl or .ndjson, else CSV (comma, semicolon, tab or bar; UTF-8)."""

    path: Path
    absent: Collection[str] = ("",)

    @property
    def unit(self) -> str:
        """The unit of places."""
        return "row" if self.path.suffix.lower() in _PARQUET else "line"

    def parts(self, rows: int = PART_ROWS) -> Iterator[TablePart]:
        """All rows, at most so many at once. The columns are those of the first row or the header, in its order.

        Raises:
            TableFault: no such file, or it is not what its name says; rows of another length; a column without a name.
        """
        suffix = self.path.suffix.lower()
        try:
            if suffix in _PARQUET:
                yield from self._parquet(rows)
            elif suffix in _NDJSON:
                yield from self._in_parts(self._ndjson(), rows)
            else:
                yield from self._in_parts(self._csv(), rows)
        except OSError as error:
            raise TableFault(f"{self.path}: {error.strerror or error}") from None

    def _in_parts(self, records: Iterable[tuple[int, dict[str, Cell]]], rows: int) -> Iterator[TablePart]:
        part: TablePart | None = None
        for place, record in records:
            if part is None or len(part) == rows:
                if part is not None:
                    yield part
                part = TablePart([], {name: [] for name in record})
            part.places.append(place)
            for name, cells in part.cells.items():
                cells.append(record[name])
        if part is not None:
            yield part

    def _csv(self) -> Iterator[tuple[int, dict[str, Cell]]]:
        with self.path.open(encoding="utf-8-sig", newline="") as stream:
            try:
                yield from self._csv_rows(stream)
            except UnicodeDecodeError as error:
                raise TableFault(f"{self.path}: not UTF-8 text ({error.reason}); convert it first, as with iconv") from None

    def _csv_rows(self, stream: TextIO) -> Iterator[tuple[int, dict[str, Cell]]]:
        header = stream.readline()
        delimiter = max(_DELIMITERS, key=header.count)
        stream.seek(0)
        csv.field_size_limit(_MOST_CELL_CHARACTERS)
        reader = csv.reader(stream, delimiter=delimiter, strict=True)
        names: list[str] = []
        while True:
            place = reader.line_num + 1
            try:
                row = next(reader, None)
            except csv.Error as error:
                raise TableFault(f"{self.path}:{place}: not CSV: {error}") from None
            if row is None:
                return
            if not names:
                names = self._names(row, place)
            elif not row:
                continue
            elif len(row) != len(names):
                raise TableFault(f"{self.path}:{place}: {len(row)} cells, where the header names {len(names)} columns")
            else:
                yield place, {name: None if cell in self.absent else cell for name, cell in zip(names, row, strict=True)}

    def _ndjson(self) -> Iterator[tuple[int, dict[str, Cell]]]:
        names: list[str] = []
        with self.path.open("rb") as stream:
            for place, line in enumerate(lines_of(stream), 1):
                if not line.strip():
                    continue
                try:
                    record = read_json(line)
                except (NotJson, NotIJson) as error:
                    raise TableFault(f"{self.path}:{place}: not a line of JSON: {error}") from None
                if not isinstance(record, dict):
                    raise TableFault(f"{self.path}:{place}: not a JSON object")
                names = names or self._names(list(record), place)
                if unknown := set(record) - set(names):
                    raise TableFault(f"{self.path}:{place}: {sorted(unknown)[0]!r} is no field of the first line")
                if of_many := [name for name, value in record.items() if isinstance(value, dict | list)]:
                    raise TableFault(f"{self.path}:{place}: {of_many[0]!r} is no single value; flatten it first")
                yield place, {name: self._present(record.get(name)) for name in names}

    def _parquet(self, rows: int) -> Iterator[TablePart]:
        try:
            file = pq.ParquetFile(self.path)
        except pa.ArrowException as error:
            raise TableFault(f"{self.path}: not a Parquet file: {error}") from None
        with file:
            names = self._names(file.schema_arrow.names, 0)
            for field in file.schema_arrow:
                if pa.types.is_nested(field.type):
                    raise TableFault(f"{self.path}: column {field.name!r} is no single value a row; flatten it first")
            first = 1
            try:
                for batch in file.iter_batches(batch_size=rows):
                    cells = {
                        name: [self._present(cell) for cell in microseconds(batch.column(name)).to_pylist()] for name in names
                    }
                    yield TablePart(list(range(first, first + batch.num_rows)), cells)
                    first += batch.num_rows
            except pa.ArrowException as error:
                raise TableFault(f"{self.path}: cannot be read behind row {first - 1}: {error}") from None

    def _present(self, cell: Cell) -> Cell:
        return None if isinstance(cell, str) and cell in self.absent else cell

    def _names(self, names: list[str], place: int) -> list[str]:
        where = f"{self.path}:{place}" if place else str(self.path)
        if not names or not all(name.strip() for name in names):
            raise TableFault(f"{where}: a column without a name; the first line names them")
        if any(map(is_raw_key, names)):
            raise TableFault(f"{where}: a column is called like a card or an address: the first line must name the columns")
        if twice := [name for name in names if names.count(name) > 1]:
            raise TableFault(f"{where}: the column {twice[0]!r} is there twice")
        return names


def microseconds(column: pa.Array) -> pa.Array:
    """A column whose moments are Python's: nanoseconds that are whole microseconds; others are refused by Arrow."""
    is_fine = pa.types.is_timestamp(column.type) and column.type.unit == "ns"
    return column.cast(pa.timestamp("us", column.type.tz)) if is_fine else column
