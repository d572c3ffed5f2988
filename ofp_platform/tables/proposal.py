"""A proposal for a file of events: what its columns seem to be. Pure.

Every row is looked at. A column is taken for what all of its cells are; names break ties and are otherwise only hints. What is
proposed is a beginning, with the reason of each choice in a comment.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from ofp_platform.tables import cell_values
from ofp_platform.tables.cell_values import TimeFormat
from ofp_platform.tables.row_events import identifier
from ofp_platform.tables.table_file import Cell, TableFault, TablePart
from ofp_platform.vocabulary.raw_identifier import is_raw_key

KEY_NAMES: Mapping[str, tuple[str, ...]] = {
    "card": ("card", "pan"),
    "account": ("account", "acct", "acc", "iban", "wallet"),
    "customer": ("customer", "cust", "client", "user", "member", "payer", "holder", "buyer"),
    "merchant": ("merchant", "shop", "store", "terminal", "payee", "seller", "vendor", "mcht"),
    "device": ("device", "browser", "fingerprint", "handset", "phone"),
}
_ID_NAMES = ("id", "ref", "reference", "uuid", "number", "no", "key", "txn", "transaction", "trx")
_TIME_NAMES = ("time", "timestamp", "date", "at", "when", "ts", "booked", "created", "occurred")
_AMOUNT_NAMES = ("amount", "amt", "value", "price", "total", "sum", "betrag")
_LABEL_NAMES = ("fraud", "chargeback", "label", "target", "disputed", "is_fraud")
_MOST_DISTINCT = 50_000
_MOST_CATEGORIES = 20
_MOST_DIGITS = 12
_MOST_NAME_CHARACTERS = 40
_YAML_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])|[0-9]+")
_EPOCHS = (
    (TimeFormat.SECONDS, 10**9, 10**10),
    (TimeFormat.MILLISECONDS, 10**12, 10**13),
    (TimeFormat.MICROSECONDS, 10**15, 10**16),
)


@dataclass
class ColumnStudy:
    """All that is remembered of a column. `digits`: the most behind a decimal point; `distinct`: values seen, all of them
    until one repeats, then up to a bound."""

    name: str
    cells: int = 0
    absent: int = 0
    integers: bool = True
    numbers: bool = True
    booleans: bool = True
    moments: bool = True
    has_zone: bool = True
    keys: bool = True
    identifiers: bool = True
    raw: bool = False
    digits: int = 0
    least: int | None = None
    greatest: int | None = None
    distinct: set[str] = field(default_factory=set)
    repeats: bool = False

    @property
    def words(self) -> tuple[str, ...]:
        """The words of its name, in lower case."""
        return tuple(word.lower() for word in _WORD.findall(self.name))

    @property
    def field_name(self) -> str:
        """A name for the payload."""
        words = "_".join(self.words)[:_MOST_NAME_CHARACTERS] or "field"
        return words if words[0].isalpha() and words not in _YAML_WORDS else f"f_{words}"

    @property
    def epoch(self) -> TimeFormat | None:
        """The count since 1970 that its integers can be."""
        if not self.integers or self.least is None or self.greatest is None:
            return None
        return next((kind for kind, low, high in _EPOCHS if low <= self.least and self.greatest < high), None)

    def has_word_of(self, names: Iterable[str]) -> bool:
        """Whether one of the words is a word of its name."""
        return not set(self.words).isdisjoint(names)

    def look(self, cell: Cell) -> None:
        """Take a cell into account."""
        self.cells += 1
        if cell is None:
            self.absent += 1
            return
        cell_text = str(cell)
        if cell_text in self.distinct:
            self.repeats = True
        elif not self.repeats or len(self.distinct) < _MOST_DISTINCT:
            self.distinct.add(cell_text)
        self._numbers(cell)
        self.booleans = self.booleans and _reads(cell_values.boolean, cell)
        self.moments = self.moments and not isinstance(cell, int | float) and _reads(_ANY_MOMENT, cell)
        if self.moments and self.has_zone:
            self.has_zone = _reads(_ZONED_MOMENT, cell)
        self.keys = self.keys and _reads(cell_values.key, cell)
        self.identifiers = self.identifiers and _reads(identifier, cell)
        self.raw = self.raw or is_raw_key(cell_text)

    def _numbers(self, cell: Cell) -> None:
        if not self.numbers:
            return
        try:
            number = cell_values.decimal_of(cell)
        except ValueError:
            self.numbers = self.integers = False
            return
        exponent = number.as_tuple().exponent
        self.digits = max(self.digits, -exponent if isinstance(exponent, int) else 0)
        has_no_fraction = number == number.to_integral_value() and not (isinstance(cell, str) and "." in cell)
        # zeros in front: a name made of digits, no number
        self.integers = (
            self.integers and has_no_fraction and not (isinstance(cell, str) and len(cell) > 1 and cell.startswith("0"))
        )
        if has_no_fraction:
            whole = int(number)
            self.least = whole if self.least is None else min(self.least, whole)
            self.greatest = whole if self.greatest is None else max(self.greatest, whole)


_ANY_MOMENT = cell_values.moment_reader(TimeFormat.ISO, "UTC")
_ZONED_MOMENT = cell_values.moment_reader(TimeFormat.ISO, None)


def _reads(reader: Callable[[Cell], object], cell: Cell) -> bool:
    try:
        reader(cell)
    except ValueError:
        return False
    return True


@dataclass(frozen=True)
class Choices:
    """Choices of a person beside the file; those that are None are made here. `keys`: key type to column."""

    event_type: str | None = None
    event_id: str | None = None
    time: str | None = None
    amount: str | None = None
    keys: Mapping[str, str] = field(default_factory=dict)
    label: str | None = None


@dataclass(frozen=True)
class Proposal:
    """The part that each column of a file of events is given, by its name in the file. `left_out`: column to the reason."""

    event_type: str
    event_id: str | None
    time: str
    time_format: TimeFormat
    names_zone: bool
    keys: Mapping[str, str]
    amount: str | None
    digits: int
    label: str | None
    booleans: tuple[str, ...]
    categories: tuple[str, ...]
    integers: tuple[str, ...]
    left_out: Mapping[str, str]
    rows: int
    field_names: Mapping[str, str]


def study(parts: Iterable[TablePart]) -> list[ColumnStudy]:
    """The study of each column, in the order of the file.

    Raises:
        TableFault: there is no row.
    """
    columns: dict[str, ColumnStudy] = {}
    for part in parts:
        for name, cells in part.cells.items():
            column = columns.setdefault(name, ColumnStudy(name))
            for cell in cells:
                column.look(cell)
    if not columns:
        raise TableFault("there is no row to look at")
    return list(columns.values())


def propose(columns: list[ColumnStudy], choices: Choices) -> Proposal:
    """Give each column its part.

    Raises:
        TableFault: a column that was named is not there or is not what it was own_choice for; or no time, or no key, was seen.
    """
    by_name = {column.name: column for column in columns}
    rest = dict(by_name)
    time = _take(rest, choices.time, "--time", _times(columns), "a column with the time of each event")
    if not time.moments and time.epoch is None:
        raise TableFault(f"--time {time.name!r}: not all cells are times, or counts since 1970")
    event_id = _event_id(rest, choices.event_id)
    label = _label(rest, choices.label)
    amount = _amount(rest, choices.amount)
    keys = _keys(rest, choices.keys)
    booleans = _taken_out(rest, lambda column: column.booleans and len(column.distinct) == 2)
    integers = _taken_out(rest, lambda column: column.integers and not column.booleans)
    categories = _taken_out(
        rest, lambda column: not column.numbers and 2 <= len(column.distinct) <= _MOST_CATEGORIES and not column.raw
    )
    columns_of_fields = [time.name, *keys.values(), *booleans, *integers, *categories, *([amount.name] if amount else [])]
    return Proposal(
        event_type=choices.event_type or "payment",
        event_id=event_id,
        time=time.name,
        time_format=TimeFormat.ISO if time.moments else time.epoch or TimeFormat.ISO,
        names_zone=not time.moments or time.has_zone,
        keys=keys,
        amount=None if amount is None else amount.name,
        digits=0 if amount is None else amount.digits,
        label=label,
        booleans=booleans,
        categories=categories,
        integers=integers,
        left_out={column.name: _reason(column) for column in rest.values()},
        rows=columns[0].cells,
        field_names=_field_names([by_name[name] for name in columns_of_fields]),
    )


def _times(columns: list[ColumnStudy]) -> list[ColumnStudy]:
    times = [column for column in columns if not column.absent and column.cells and (column.moments or column.epoch)]
    return sorted(times, key=lambda column: (not column.has_word_of(_TIME_NAMES), not column.moments))


def _take(
    rest: dict[str, ColumnStudy], own_choice: str | None, option: str, candidates: list[ColumnStudy], meaning: str
) -> ColumnStudy:
    if own_choice is not None:
        if own_choice not in rest:
            raise TableFault(f"{option}: no column {own_choice!r} that is free; there are {', '.join(map(repr, rest))}")
        return rest.pop(own_choice)
    candidates = [column for column in candidates if column.name in rest]
    if not candidates:
        raise TableFault(f"{meaning} was not seen; name it with {option}; there are {', '.join(map(repr, rest))}")
    return rest.pop(candidates[0].name)


def _event_id(rest: dict[str, ColumnStudy], own_choice: str | None) -> str | None:
    if own_choice is not None:
        column = _take(rest, own_choice, "--id", [], "")
        if column.repeats or column.absent or not column.identifiers:
            why = "repeats" if column.repeats else "has empty cells" if column.absent else "has cells that are no event ids"
            raise TableFault(f"--id {own_choice!r}: the column {why}; without one the id is a digest of the row")
        return own_choice
    unique = [
        column
        for column in rest.values()
        if column.cells and not column.repeats and not column.absent and column.identifiers and not column.digits
        if column.has_word_of(_ID_NAMES)
    ]
    if not unique:
        return None
    best = min(unique, key=lambda column: not column.has_word_of(("id", "uuid", "txn", "transaction", "trx")))
    del rest[best.name]
    return best.name


def _label(rest: dict[str, ColumnStudy], own_choice: str | None) -> str | None:
    if own_choice is not None:
        return _take(rest, own_choice, "--label", [], "").name
    for column in list(rest.values()):
        if column.has_word_of(_LABEL_NAMES) and column.booleans:
            del rest[column.name]
            return column.name
    return None


def _amount(rest: dict[str, ColumnStudy], own_choice: str | None) -> ColumnStudy | None:
    if own_choice is not None:
        column = _take(rest, own_choice, "--amount", [], "")
        if not column.numbers or column.digits > _MOST_DIGITS:
            raise TableFault(f"--amount {own_choice!r}: not all cells are numbers of at most {_MOST_DIGITS} decimals")
        return column
    numbers = [column for column in rest.values() if column.numbers and column.digits <= _MOST_DIGITS and not column.booleans]
    likely = [column for column in numbers if column.has_word_of(_AMOUNT_NAMES)] or [
        column for column in numbers if column.digits
    ]
    return rest.pop(likely[0].name) if likely else None


def _keys(rest: dict[str, ColumnStudy], own_choice: Mapping[str, str]) -> dict[str, str]:
    keys = {}
    for key_type, name in own_choice.items():
        if key_type not in KEY_NAMES:
            raise TableFault(f"--key {key_type}: no key type; there are {', '.join(sorted(KEY_NAMES))}")
        column = _take(rest, name, "--key", [], "")
        if column.raw or not column.keys:
            why = "raw identifiers (card numbers, IBANs, e-mail or IP addresses)" if column.raw else "cells that are no key ids"
            raise TableFault(f"--key {key_type}={name}: holds {why}; send tokens in their place")
        keys[key_type] = name
    for key_type, names in KEY_NAMES.items():
        if key_type in keys:
            continue
        fits = [
            column for column in rest.values() if column.has_word_of(names) and column.keys and not column.raw and column.repeats
        ]
        fits = [column for column in fits if not column.digits and not (column.booleans and len(column.distinct) <= 2)]
        if fits:
            best = max(
                fits, key=lambda column: (column.has_word_of(("id", "no", "number", "token", "ref")), len(column.distinct))
            )
            del rest[best.name]
            keys[key_type] = best.name
    if not keys:
        raise TableFault(
            "no column was taken for an account, card, customer, device or merchant; name one, as in --key account=COLUMN;"
            f" there are {', '.join(map(repr, rest))}"
        )
    return dict(sorted(keys.items()))


def _taken_out(rest: dict[str, ColumnStudy], fits: Callable[[ColumnStudy], bool]) -> tuple[str, ...]:
    names = tuple(column.name for column in rest.values() if column.cells > column.absent and fits(column))
    for name in names:
        del rest[name]
    return names


def _reason(column: ColumnStudy) -> str:
    if column.cells == column.absent:
        return "empty"
    if column.raw:
        return "holds raw identifiers (card numbers, IBANs, e-mail or IP addresses): never in a log; send tokens in their place"
    if column.moments or column.epoch:
        return "another time"
    if column.numbers:
        return "a number with digits behind the point; take it as an amount, with its digits"
    return "a text of many values"


def _field_names(columns: list[ColumnStudy]) -> dict[str, str]:
    names: dict[str, str] = {}
    for column in columns:
        name = column.field_name
        while name in names.values():
            name += "_2"
        names[column.name] = name
    return names
