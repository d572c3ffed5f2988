"""`ofp log`: append events from a file, and see where the log ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import Home, ProfileSource
from ofp_platform.cli.terminal.refusals import CommandRefused

if TYPE_CHECKING:
    from ofp_platform.log.port import EventLog, Refusal
    from ofp_platform.vocabulary.position import Position

app = typer.Typer(help="The event log of the profile.", no_args_is_help=True)
_BATCH = 5_000


@app.command(short_help="Append events from a file.")
def append(
    file: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="One envelope a line; - reads standard input.")],
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Append envelopes. Each refused line is printed as FILE:LINE: REASON: message; exit code 1 if there was one.

    The newest position of each partition is printed in the form that `features get --at-least` takes.
    """
    appended = refused = 0
    newest: dict[str, Position] = {}
    with resolve(home, profile).open_plane() as plane:
        batch: list[tuple[int, Any]] = []
        for number, line in enumerate(_lines(file), 1):
            if not line.strip():
                continue
            try:
                batch.append((number, _object(line)))
            except ValueError as error:
                typer.echo(f"{file}:{number}: INVALID_ENVELOPE: {error}", err=True)
                refused += 1
            if len(batch) == _BATCH:
                good, bad = _append(plane.log, file, batch, newest)
                appended, refused, batch = appended + good, refused + bad, []
        if batch:
            good, bad = _append(plane.log, file, batch, newest)
            appended, refused = appended + good, refused + bad
    typer.echo(f"{appended} appended, {refused} refused")
    for _, position in sorted(newest.items()):
        typer.echo(f"up to {position.partition_id}:{position.offset}")
    if refused:
        raise typer.Exit(1)


def _lines(file: Path) -> list[str]:
    try:
        if str(file) == "-":
            return typer.get_text_stream("stdin").readlines()
        return file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise CommandRefused(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise CommandRefused(f"{file}: not UTF-8 text") from None


def _object(line: str) -> dict[str, Any]:
    """One line as a JSON object. The text of the error says what is wrong, and holds nothing of the line.

    Raises:
        ValueError: it is not one.
    """
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        raise ValueError("not JSON") from None
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def _append(log: EventLog, file: Path, batch: list[tuple[int, Any]], newest: dict[str, Position]) -> tuple[int, int]:
    from ofp_platform.vocabulary.position import Position, order

    receipt = log.append([envelope for _, envelope in batch])
    for outcome in receipt.outcomes:
        if isinstance(outcome, Position):
            known = newest.get(outcome.partition_id)
            if known is None or order(known.offset) < order(outcome.offset):
                newest[outcome.partition_id] = outcome
    for refusal in receipt.refusals:
        typer.echo(_words(file, batch[refusal.index][0], refusal), err=True)
    return receipt.appended, len(receipt.refusals)


def _words(file: Path, line: int, refusal: Refusal) -> str:
    return f"{file}:{line}: {refusal.reason}: {refusal.message}"


@app.command(short_help="Where the log ends.")
def ends(home: Home = None, profile: ProfileSource = None) -> None:
    """The head of every partition: the position that the next record gets (Kinesis: the last number given out)."""
    with resolve(home, profile).open_plane() as plane:
        floor = plane.log.retention_floor().by_partition()
        typer.echo(f"stream {plane.log.stream_name}, {plane.log.offset_kind}")
        for part in plane.log.ends().partitions:
            typer.echo(f"{part.partition_id}  from {floor[part.partition_id].offset or 0}  to {part.offset or 0}")
