"""`ofp log`: append events from a file, see where the log ends, trim what is archived."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import AsJson, FactReason, Home, ProfileSource
from ofp_platform.cli.terminal.printed_facts import item, print_facts
from ofp_platform.cli.terminal.refusals import CommandRefused

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ofp_platform.ingress.entrance import Entrance
    from ofp_platform.vocabulary.position import Position

app = typer.Typer(help="Append to the event log of the profile, see its ends, trim it.", no_args_is_help=True)
PRODUCER = "log-append"
_BATCH = 5_000
_WIDE_MARKS = (b"\xff\xfe", b"\xfe\xff")  # of UTF-16, in which a line feed is no line's end


@app.command(short_help="Append events from a file.")
def append(
    file: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="One envelope per line; - reads standard input.")],
    context: Annotated[bool, typer.Option("--context", help="Append to the context stream: links between entities.")] = False,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Append envelopes, one per line of UTF-8 text, through the door of the run: each gets a receipt. A refused line is
    printed as FILE:LINE: REASON: message; exit code 1 if there was one. A line ends with a line feed only; a byte order mark in
    front of the first is skipped. What was admitted before is there already, and is not appended again.

    The newest position of each partition is printed in the form that `features get --at-least` takes.
    """
    from ofp_platform.cli.files.run_door import entrance_of
    from ofp_platform.ingress.record_text import record_of

    tally = _Tally(file)
    with resolve(home, profile).open_plane("ingress", create_stream=True) as plane:
        if context:
            plane.context_log(create=True)
        entrance = entrance_of(plane)
        batch: list[tuple[int, Any]] = []
        for number, line in enumerate(lines_of_file(file), 1):
            if not line.strip():
                continue
            value = record_of(line)
            if isinstance(value, dict):
                batch.append((number, value))
            else:
                tally.refuse(number, value.reason.value, value.message)
            if len(batch) == _BATCH:
                _append(entrance, batch, tally)
                batch = []
        if batch:
            _append(entrance, batch, tally)
    positions = [position for _, position in sorted(tally.newest.items())]
    known = f", {tally.known_count} there already" if tally.known_count else ""
    lines = [f"{tally.appended_count} appended, {tally.refused_count} refused{known}"]
    lines += [f"up to {position.partition_id}:{position.offset}" for position in positions]
    facts = {"appended": tally.appended_count, "known": tally.known_count, "refused": tally.refused_count, "up_to": positions}
    print_facts(facts, lines, as_json=json)
    if tally.refused_count:
        raise typer.Exit(1)


def lines_of_file(file: Path) -> Iterator[bytes]:
    """The lines of a file, or of standard input (`-`).

    Raises:
        CommandRefused: it cannot be read, or is no UTF-8 text.
    """
    from ofp_platform.vocabulary.text_file import lines_of

    try:
        with nullcontext(typer.get_binary_stream("stdin")) if str(file) == "-" else file.open("rb") as stream:
            for number, line in enumerate(lines_of(stream)):
                if not number and line.startswith(_WIDE_MARKS):
                    raise CommandRefused(f"{file}: not UTF-8 text")
                yield line
    except OSError as error:
        raise CommandRefused(f"{file}: {error.strerror}") from None


@dataclass
class _Tally:
    """The fate of the lines of a file."""

    file: Path
    appended_count: int = 0
    known_count: int = 0
    refused_count: int = 0
    newest: dict[str, Position] = field(default_factory=dict)

    def refuse(self, line: int, reason: str, message: str) -> None:
        """Count a line that is not appended, and say why."""
        typer.echo(f"{self.file}:{line}: {reason}: {message}", err=True)
        self.refused_count += 1


def _append(entrance: Entrance, batch: list[tuple[int, Any]], tally: _Tally) -> None:
    from ofp_platform.vocabulary.admission_receipt import AdmissionOutcome
    from ofp_platform.vocabulary.position import order

    fates = entrance.send([envelope for _, envelope in batch], PRODUCER)
    for (number, _), fate in zip(batch, fates, strict=True):
        if fate.reason is not None or fate.position is None:
            tally.refuse(number, fate.reason or "", fate.detail or "")
            continue
        tally.appended_count += fate.outcome is AdmissionOutcome.ADMIT
        tally.known_count += fate.outcome is AdmissionOutcome.DUPLICATE
        newest_known = tally.newest.get(fate.position.partition_id)
        if newest_known is None or order(newest_known.offset) < order(fate.position.offset):
            tally.newest[fate.position.partition_id] = fate.position


@app.command(short_help="Show where the log ends.")
def ends(json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """The head of every partition: the position that the next record gets (Kinesis: the last number given out)."""
    with resolve(home, profile).open_plane("auditor") as plane:
        floor = plane.log.retention_floor().by_partition()
        stream_name, offset_kind = plane.log.stream_name, plane.log.position_kind.offset_kind
        rows = [
            {"partition_id": part.partition_id, "first": floor[part.partition_id].offset or 0, "next": part.offset or 0}
            for part in plane.log.ends().partitions
        ]
    lines = [f"stream {stream_name}, {offset_kind}"]
    lines += [line for row in rows for line in item(row["partition_id"], f"from {row['first']}", f"to {row['next']}")]
    print_facts({"stream_name": stream_name, "offset_kind": offset_kind, "partitions": rows}, lines, as_json=json)


@app.command(short_help="Trim records that are archived, verified and applied.")
def trim(
    archived: Annotated[
        bool,
        typer.Option("--archived", help="Trim only records that the archive holds, verified; there is no other way to trim."),
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Verify and show what would be trimmed; change nothing.")] = False,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Delete records from the log in PostgreSQL, in whole offset ranges: those whose archive segments were just verified and
    compared with the log, and that every projection of the stream has applied. Replays read them from the archive.

    All partitions in one transaction, or none: a damaged archive, or one that differs from the log, refuses all of it.
    """
    from rich.console import Console

    from ofp_platform.cli.installation.retention import TRIM_POLICY, StoreRetention, tell_removal
    from ofp_platform.cli.terminal.progress import bar
    from ofp_platform.online.ranges import log_trim

    if not archived:
        raise CommandRefused("say --archived: only records that are archived and verified may leave the log")
    with resolve(home, profile).open_plane("owner") as plane:
        with bar(Console(stderr=True), "Verifying partitions", len(plane.log.partitions())) as advance:
            trims = log_trim.plan_trim(plane, plane.archive, lambda: advance(1))
        lines = []
        for partition_trim in trims:
            rest = f"; {partition_trim.end - partition_trim.until:,} stay: {partition_trim.kept}" if partition_trim.kept else ""
            span = f"from {partition_trim.floor} to {partition_trim.until}"
            lines.append(f"{partition_trim.partition_id}  {span}: {partition_trim.records:,} records{rest}")
        if not dry_run:
            log_trim.trim(plane, trims)
            trimmed = sum(partition_trim.records for partition_trim in trims)
            if trimmed:
                tell_removal(plane, StoreRetention("log", TRIM_POLICY, trimmed, "records"))
    doing = "would be trimmed" if dry_run else "trimmed"
    lines.append(f"{doing}: {sum(partition_trim.records for partition_trim in trims):,} records of log {plane.log.stream_name}")
    print_facts({"dry_run": dry_run, "partitions": trims}, lines, as_json=json)


@app.command(short_help="Record the decision that nothing of a partition was lost.")
def accept(
    partition: Annotated[str, typer.Argument(help="Id of the partition, as the refusal names it.")],
    reason: FactReason,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Decide that nothing of a partition was lost behind what is applied and archived of it, and let reading go on there.

    For a Kinesis shard that was quiet for longer than the retention, began before it, or is listed no more. The decision is
    stored for good, with its position, its reason and its time; it holds as long as the stream keeps what came after it.
    """
    from ofp_platform.log.shard_evidence import accept_gap
    from ofp_platform.online.ranges.log_progress import known_to

    with resolve(home, profile).open_plane("owner") as plane:
        if plane.log.position_kind.offset_kind.start_is_first:
            raise CommandRefused(
                f"log {plane.log.stream_name} tells itself what it trimmed: there is nothing to decide. What it trimmed is read"
                " from the archive"
            )
        part = known_to(plane, partition)
        accept_gap(plane.pool, plane.log.stream_name, partition, str(part.offset), reason)
    where = f"behind {part.offset}" if part.offset else "before its oldest record"
    line = f"recorded: nothing of partition {partition} of log {plane.log.stream_name} was lost {where}"
    facts = {"stream_name": plane.log.stream_name, "partition_id": partition, "behind": part.offset, "reason": reason}
    print_facts(facts, [line], as_json=json)
