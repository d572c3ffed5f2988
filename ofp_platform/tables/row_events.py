"""Rows to events, by the rules of import.yaml; a row that is no event is a fault with its place, column and reason. Pure."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import partial
from typing import Any

import numpy as np

from ofp_platform.tables import cell_values
from ofp_platform.tables.import_rules import EventRules, FieldKind, PayloadField
from ofp_platform.tables.table_file import Cell, TableFault, TablePart
from ofp_platform.vocabulary.canonical import canonical_bytes, digest_of
from ofp_platform.vocabulary.columns import NOT_EMITTED, EventColumns
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.model import IDENTIFIER_PATTERN

_IDENTIFIER = re.compile(IDENTIFIER_PATTERN, re.ASCII)
_DIGITS_OF_ID = 32


@dataclass(frozen=True, order=True)
class RowFault:
    """Why a row is no event or label: its place in the file, the column, and words that show no cell."""

    place: int
    column: str
    message: str


@dataclass
class RowEvents:
    """The events of rows, in columns, and the faults of the others. `ts`: microseconds."""

    places: list[int] = field(default_factory=list)
    event_ids: list[str] = field(default_factory=list)
    ts: list[int] = field(default_factory=list)
    payloads: list[bytes] = field(default_factory=list)
    faults: list[RowFault] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.event_ids)


class RowReader:
    """Reads rows as events of one type."""

    def __init__(self, rules: EventRules) -> None:
        self._rules = rules
        self._moment = cell_values.moment_reader(rules.time.format, rules.time.zone)
        self._readers = {name: (spec.column, reader_of(spec)) for name, spec in rules.fields.items()}

    def read(self, part: TablePart) -> RowEvents:
        """The events of a part of a file.

        Raises:
            TableFault: the file lacks a column that the rules name.
        """
        rules = self._rules
        columns = [rules.time.column, *([rules.event_id] if rules.event_id else []), *(c for c, _ in self._readers.values())]
        require_columns(part, columns)
        events = RowEvents()
        for index, place in enumerate(part.places):
            try:
                ts = value_of(part, index, rules.time.column, self._moment, is_needed=True)
                payload = {
                    name: value
                    for name, (column, reader) in self._readers.items()
                    if (value := value_of(part, index, column, reader)) is not None
                }
                event_id = self._event_id(part, index, ts, payload)
            except _Unreadable as unreadable:
                events.faults.append(RowFault(place, unreadable.column, unreadable.message))
                continue
            events.places.append(place)
            events.event_ids.append(event_id)
            events.ts.append(ts)
            events.payloads.append(canonical_bytes(payload))
        return events

    def _event_id(self, part: TablePart, index: int, ts: int, payload: dict[str, Any]) -> str:
        rules = self._rules
        if rules.event_id is None:
            return f"row-{digest_of({'event_type': rules.event_type, 'payload': payload, 'ts': ts})[:_DIGITS_OF_ID]}"
        event_id: str = value_of(part, index, rules.event_id, identifier, is_needed=True)
        return event_id


class _Unreadable(Exception):
    def __init__(self, column: str, message: str) -> None:
        super().__init__(message)
        self.column, self.message = column, message


def identifier(cell: Cell) -> str:
    """An id of an event.

    Raises:
        ValueError: it cannot be one.
    """
    event_id = cell_values.text(cell).strip()
    if _IDENTIFIER.fullmatch(event_id) is None:
        raise ValueError("not an event id: 1 to 128 of A-Z a-z 0-9 _ . : / -, the first a letter or digit")
    return event_id


def reader_of(spec: PayloadField) -> Callable[[Cell], Any]:
    """The reader of a payload field's cells."""
    match spec.type:
        case FieldKind.KEY:
            return cell_values.key
        case FieldKind.TEXT:
            return cell_values.text
        case FieldKind.INTEGER | FieldKind.AMOUNT:
            return partial(cell_values.minor_units, digits=spec.digits)
        case FieldKind.BOOLEAN:
            return cell_values.boolean


def value_of(part: TablePart, index: int, column: str, reader: Callable[[Cell], Any], *, is_needed: bool = False) -> Any:
    """The value of a cell; None where it says nothing and need not.

    Raises:
        _Unreadable: the cell is not what the rules say.
    """
    cell = part.cells[column][index]
    if cell is None:
        if is_needed:
            raise _Unreadable(column, "says nothing, and each row needs it")
        return None
    try:
        return reader(cell)
    except ValueError as error:
        raise _Unreadable(column, str(error)) from None


def require_columns(part: TablePart, columns: Iterable[str]) -> None:
    """Refuse a file without a column.

    Raises:
        TableFault: which column is not there, and what may be meant.
    """
    for column in columns:
        if column not in part.cells:
            close = get_close_matches(column, list(part.cells), 1, 0.5)
            hint = f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(map(repr, part.cells))}"
            raise TableFault(f"no column {column!r}{hint}")


@dataclass(frozen=True)
class History:
    """Events of a file as history: in the order of their time, each admitted a declared while after it by a simulated clock."""

    rules: EventRules
    pins: ContextPins
    events: RowEvents

    def columns(self, rows: int) -> Iterator[tuple[list[int], EventColumns, np.ndarray[Any, np.dtype[np.int64]]]]:
        """Places in the file, events and admission times (microseconds), so many at once."""
        events = self.events
        all_ts = np.array(events.ts, np.int64)
        order = np.argsort(all_ts, kind="stable")
        for begin in range(0, len(order), rows):
            indices_by_time = order[begin : begin + rows]
            indices = indices_by_time.tolist()
            ts = all_ts[indices_by_time]
            count = len(indices)
            columns = EventColumns(
                [events.event_ids[index] for index in indices],
                [self.rules.event_type] * count,
                [self.rules.schema_version] * count,
                ts,
                np.full(count, NOT_EMITTED, np.int64),
                [self.pins],
                np.zeros(count, np.int32),
                [events.payloads[index] for index in indices],
            )
            yield [events.places[index] for index in indices], columns, ts + self.rules.admitted_after_us


def read_all(reader: RowReader, parts: Iterable[TablePart], advance: Callable[[int], None] = lambda _: None) -> RowEvents:
    """The events of all parts, as they stand in the file."""
    whole = RowEvents()
    for part in parts:
        events = reader.read(part)
        for name in ("places", "event_ids", "ts", "payloads", "faults"):
            getattr(whole, name).extend(getattr(events, name))
        advance(len(part))
    return whole
