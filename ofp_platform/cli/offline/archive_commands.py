"""`ofp archive`: write segments of the log, see what is archived, verify all of it."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import AsJson, Home, OfContext, ProfileSource
from ofp_platform.cli.process_log import follow_as
from ofp_platform.cli.terminal.printed_facts import item, print_facts, when
from ofp_platform.cli.terminal.progress import bar
from ofp_platform.cli.terminal.stop_signals import stop_on_signals

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ofp_platform.log.port import EventLog
    from ofp_platform.online.plane import Plane
    from ofp_platform.vocabulary.offline.archive_receipt import ArchiveReceipt

app = typer.Typer(help="Write, list and verify the archive of the log.", no_args_is_help=True)
KEEPING = "archiving stream"


@app.command(short_help="Archive the ranges that are not archived yet.")
def run(
    to_head: Annotated[
        bool, typer.Option("--to-head", help="Also archive the records in no closed offset range yet, as trailing segments.")
    ] = False,
    context: OfContext = False,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Write a segment and a receipt for every closed offset range. What is archived already stays as it is."""
    from ofp_platform.log.archive import archive_closed_ranges, archive_up_to

    start = time.monotonic()
    with resolve(home, profile).open_plane("offline") as plane:
        stream = plane.stream(context=context)
        ranges, archive = stream.ranges, stream.archive
        ends = stream.log.ends()
        if to_head:
            total = sum(stream.log.ordinal_lag(ends.model_copy(update={"partitions": ()})).values())
        else:
            total = sum(closed_ranges.count for closed_ranges in ranges.closed().values()) * ranges.size
        with bar(Console(stderr=True), "Archiving", total) as advance:
            if to_head:
                receipts = archive_up_to(ranges, archive, ends, 2, lambda receipt: advance(receipt.records))
            else:
                receipts = archive_closed_ranges(ranges, archive, 2, lambda receipt: advance(receipt.records))
    records = sum(receipt.records for receipt in receipts)
    size = sum(receipt.segment_bytes for receipt in receipts)
    seconds = time.monotonic() - start
    line = f"archived: {len(receipts)} segments, {records:,} records, {size / 1e6:,.1f} MB, in {seconds:.1f} s"
    print_facts({"segments": receipts}, [line], as_json=json)


@app.command(short_help="Archive as the log grows, until SIGTERM or Ctrl-C.")
def keep(
    seconds: Annotated[float, typer.Option("--every", min=1, help="Seconds between two rounds.")] = 60.0,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Archive each offset range as it closes, and the head before it has used a fifth of the log's retention. Likewise of the
    context stream, where the profile names one.

    What is wrong is told in words, round by round, and tried again.
    """
    from ofp_platform.cli.terminal.refusals import words_for

    stop = stop_on_signals()
    environment = resolve(home, profile)
    follow_as("archiver", environment.load_profile().context_pins, environment)
    with environment.open_plane_without_log("offline") as plane:  # the stream may come later
        typer.echo(f"{KEEPING} {plane.profile.stream_name}")
        while not stop.is_set():
            for context in (False, True):
                try:
                    _keep_up(plane, stop, context=context)
                except Exception as error:
                    words = words_for(error)
                    if words is None:
                        raise
                    if stop.is_set():
                        break  # whatever was under way is archived the next time
                    typer.echo(f"not archived: {words}", err=True)
            stop.wait(seconds)


def _keep_up(plane: Plane, stop: threading.Event, *, context: bool) -> None:
    """Archive what one of the streams has for it; of a context stream that is not made yet, nothing."""
    from ofp_platform.log.archive_keeping import keep_up

    if context and plane.known_context_log() is None:
        return
    stream = plane.stream(context=context)
    with stream.log.pauses_end_with(stop):
        receipts = keep_up(stream.ranges, stream.archived_log, stream.archive)
    if receipts:
        records = sum(receipt.records for receipt in receipts)
        of_stream = f" of {stream.log.stream_name}" if context else ""
        typer.echo(f"archived: {len(receipts)} segments, {records:,} records{of_stream}")


@app.command("list", short_help="List archived segments, partition by partition.")
def show_list(context: OfContext = False, json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """Each segment: its positions, its records, when they were admitted, the digest of its content."""
    with resolve(home, profile).open_plane("offline") as plane:
        stream = plane.stream(context=context)
        receipts = [
            receipt
            for partition_id in stream.archive.partition_ids()
            for receipt in stream.archive.receipts(partition_id, stream.log.position_kind.offset_kind)
        ]
    print_facts(receipts, (line for receipt in receipts for line in _segment_lines(receipt)), as_json=json)


def _segment_lines(receipt: ArchiveReceipt) -> Iterator[str]:
    readable = receipt.admitted_min is not None
    span = f"admitted {when(receipt.admitted_min)} to {when(receipt.admitted_max)}" if readable else "nothing readable"
    offsets = f"{receipt.first or 'start'} to {receipt.next}"
    yield from item(
        receipt.partition_id, offsets, f"{receipt.records:,} records", details=(span, f"content {receipt.content_digest}")
    )


@app.command(short_help="Verify every byte of the archive.")
def verify(context: OfContext = False, json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """Compute every digest and payload hash again, whether segments join and agree, and whether all that was archived, or left
    the log, is there; exit code 1 if something is wrong or missing.
    """
    from ofp_platform.log.archive_verify import PartitionVerification, absences, verify_partition
    from ofp_platform.log.archived_partitions import demand_archived_listed
    from ofp_platform.log.archived_tail import demand_tail
    from ofp_platform.log.port import LogRefused

    partitions: list[PartitionVerification] = []
    lines, problems = [], []
    with resolve(home, profile).open_plane("offline") as plane:
        stream = plane.stream(context=context)
        log, archive = stream.log, stream.archive
        names = archive.partition_ids()
        with bar(Console(stderr=True), "Verifying partitions", len(names)) as advance:
            for partition_id in names:
                verification = verify_partition(archive, partition_id, log.position_kind.offset_kind)
                advance(1)
                partitions.append(verification)
                problems += [f"{problem.path}: {problem.error}: {problem.message}" for problem in verification.problems]
                reach = (
                    "nothing" if verification.contiguous is None else f"whole from its start to {verification.contiguous.next}"
                )
                behind = _behind(log, partition_id, None if verification.contiguous is None else verification.contiguous.next)
                counts = f"{verification.segments} segments, {verification.records:,} records"
                lines.append(f"{partition_id}  {counts}, {reach}{behind}")
        problems += absences(stream.ranges, archive, partitions)
        try:
            demand_archived_listed(log, archive)
            demand_tail(log, archive)
            log.demand_settled()
        except LogRefused as error:
            problems.append(str(error))
        if not names:
            lines.append(f"nothing of stream {archive.stream_name} is archived")
    for problem in problems:
        typer.echo(problem, err=True)
    print_facts({"partitions": partitions, "problems": problems}, lines, as_json=json)
    if problems:
        raise typer.Exit(1)


@app.command(short_help="Put records that the log lost back from the archive.")
def restore(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Verify and show what would be put back; change nothing.")] = False,
    context: OfContext = False,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Append the archived records behind the head of each partition to the log in PostgreSQL, at their places, as they were.

    For a log that lost its tail: an asynchronous standby was promoted, a backup was put back. All of it in one transaction, or
    nothing; refused where log and archive differ. Another incarnation of the log begins behind it, so that appends go on, and
    positions of records that were lost for good are told from those that stand there later.
    """
    from ofp_platform.cli.terminal.refusals import CommandRefused
    from ofp_platform.log import archive_restore
    from ofp_platform.log.postgres import PostgresLog
    from ofp_platform.vocabulary.position import place

    with resolve(home, profile).open_plane("owner") as plane:
        stream = plane.stream(context=context)
        log, archive = stream.log, stream.archive
        if not isinstance(log, PostgresLog):
            raise CommandRefused(f"log {log.stream_name} is not in PostgreSQL: it keeps what it acknowledged")
        tails = archive_restore.plan_restore(log, archive, plane.pool)
        counts = [place(tail.end) - place(tail.first) for tail in tails]
        incarnation = None if dry_run else archive_restore.restore(log, archive, tails)
    lines = [
        f"{tail.partition_id}  from {tail.start} to {tail.next}: {count:,} records"
        for tail, count in zip(tails, counts, strict=True)
    ]
    lines.append(f"{'would be put back' if dry_run else 'put back'}: {sum(counts):,} records of log {log.stream_name}")
    if incarnation is not None:
        lines.append(f"incarnation {incarnation} of the log begins; records that were not archived are lost")
    print_facts({"dry_run": dry_run, "tails": tails, "incarnation": incarnation}, lines, as_json=json)


def _behind(log: EventLog, partition_id: str, archived_to: int | str | None) -> str:
    """Count the records that the log has behind the archive."""
    end = log.ends().by_partition().get(partition_id)
    if end is None:
        return "; the log no longer has this partition"
    return "" if end.offset == archived_to else f"; the log goes on to {end.offset}"
