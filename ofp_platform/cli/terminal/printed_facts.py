"""Facts on stdout: for a person in lines of 80 columns, for programs as one JSON document."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from textwrap import wrap
from typing import Any

import typer
from pydantic import BaseModel
from pydantic_core import to_jsonable_python

from ofp_platform.cli.terminal.readable_json import readable_json

WIDTH = 80
_DIGITS = 12
_UNDER = "    "
# ends of lines, what moves or colours a terminal, what turns the order of letters round, halves of characters
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def print_facts(facts: Any, lines: Iterable[str], *, as_json: bool) -> None:
    """Print facts as lines or as JSON. `facts`: a model or data class, a mapping or a sequence of such; see `plain`. In a line,
    what a terminal would obey stands as `visible` has it: ids and notes are texts of others.
    """
    if as_json:
        typer.echo(readable_json(plain(facts)))
        return
    for line in lines:
        typer.echo(visible(line))


def visible(text: str) -> str:
    r"""A text of one line, in which an unseen character stands as its escape, as in `\x1b` and `\n`."""
    return _UNSEEN.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def plain(value: Any) -> Any:
    """A value as JSON has it: models as their contract writes them, data classes field by field, enumerations as their values."""
    if isinstance(value, BaseModel):
        return value.wire() if hasattr(value, "wire") else value.model_dump(mode="json")
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(name): plain(item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    return to_jsonable_python(value)


def item(*head: object, details: Iterable[str] = ()) -> Iterator[str]:
    """One item of a list: the words that name it, two blanks between them; details below, indented. No word is broken."""
    yield from _wrapped("  ".join(str(word) for word in head), "")
    for detail in details:
        yield from _wrapped(detail, _UNDER)


def table(names: Sequence[str], rows: Iterable[Sequence[object]]) -> Iterator[str]:
    """Rows under the names of their columns, each as wide as its longest text; numbers stand right."""
    cells = [[f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row] for row in rows]
    given = [list(row) for row in rows]
    numeric = [bool(given) and all(isinstance(row[column], int) for row in given) for column in range(len(names))]
    widths = [max(len(row[column]) for row in [list(names), *cells]) for column in range(len(names))]
    for row in [list(names), *cells]:
        texts = (
            f"{cell:>{width}}" if right else f"{cell:<{width}}" for cell, width, right in zip(row, widths, numeric, strict=True)
        )
        yield "  ".join(texts).rstrip()


def short(digest: str) -> str:
    """The first digits of a digest: as many as every command takes for the whole of it."""
    return digest[:_DIGITS]


def when(time: str | int | None, nothing: str = "none") -> str:
    """A time in UTC to the second, as every list shows it; RFC 3339 text or microseconds."""
    from ofp_platform.vocabulary.times import format_time, parse_time

    if time is None:
        return nothing
    microseconds = parse_time(time) if isinstance(time, str) else time
    return f"{format_time(microseconds)[:19]}Z"


def _wrapped(text: str, indent: str) -> list[str]:
    if len(indent) + len(text) <= WIDTH:
        return [indent + text]
    return wrap(
        text,
        WIDTH,
        initial_indent=indent,
        subsequent_indent=indent or _UNDER,
        break_long_words=False,
        break_on_hyphens=False,
        drop_whitespace=True,
    )
