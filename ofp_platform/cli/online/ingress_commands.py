"""`ofp ingress`: records through the door, their receipts, and the reconciliation."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.files.run_door import door_of
from ofp_platform.cli.online.log_commands import lines_of_file
from ofp_platform.cli.online.serve import front_of
from ofp_platform.cli.options import AsJson, Home, ProfileSource
from ofp_platform.cli.process_log import follow_as, followed_as, log_as
from ofp_platform.cli.terminal.printed_facts import item, print_facts, when
from ofp_platform.cli.terminal.progress import bar
from ofp_platform.cli.terminal.refusals import CommandRefused

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ofp_platform.api.ingress_app import IngressApplication
    from ofp_platform.ingress.gate import Sent
    from ofp_platform.vocabulary.profile import Profile

app = typer.Typer(help="Send events through the door of a run, and show their receipts.", no_args_is_help=True)
_SHOWN = 20


@app.command(short_help="Send the events of a file through the door.")
def admit(
    file: Annotated[Path, typer.Argument(metavar="FILE.jsonl", help="One envelope per line; - reads standard input.")],
    producer: Annotated[str, typer.Option("--producer", help="Name of who sends them; it is in the receipts.")] = "file",
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Send envelopes, one per line of UTF-8 text, in batches of 1,000. Each gets a receipt: admitted, a duplicate of one that
    was, or set aside with a reason, which is printed as FILE:LINE: REASON: detail; exit code 1 if there was one.

    Cut off, the command is called again: what was admitted is a duplicate then.
    """
    from ofp_platform.vocabulary.admission_receipt import AdmissionOutcome

    counts = dict.fromkeys((outcome.value for outcome in AdmissionOutcome), 0)
    batches: list[int] = []
    environment = resolve(home, profile)
    with environment.open_plane("ingress", create_stream=True) as plane:
        follow_as("ingress admit", plane.profile.context_pins, environment, ends=True)
        door = door_of(plane)
        for numbers, records_sent in _batches(file):
            receipt = door.admit(records_sent, producer)
            batches.append(receipt.batch_id)
            for number, outcome in zip(numbers, receipt.outcomes, strict=True):
                counts[outcome.outcome.value] += 1
                if outcome.reason is not None and counts[AdmissionOutcome.QUARANTINE] <= _SHOWN:
                    typer.echo(f"{file}:{number}: {outcome.reason}: {outcome.detail}", err=True)
    if (more := counts[AdmissionOutcome.QUARANTINE] - _SHOWN) > 0:
        typer.echo(f"and {more:,} more that were set aside: `ofp quarantine list`", err=True)
    print_facts({**_outcome_counts(counts), "batches": batches}, [_line(counts)], as_json=json)
    if counts[AdmissionOutcome.QUARANTINE]:
        raise typer.Exit(1)


@app.command(short_help="List batches, or show the receipts of one.")
def receipts(
    batch: Annotated[int | None, typer.Argument(metavar="[BATCH]", help="Id of a batch.", show_default=False)] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Greatest number of batches to list.")] = 20,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """The newest batches of the profile's run with their counts; of one batch, the receipt of each record."""
    from ofp_platform.ingress.receipts import read_batches, read_receipts

    with resolve(home, profile).open_plane_without_log("auditor") as plane, plane.pool.connection() as connection:
        pins, streams = plane.profile.context_pins, (plane.profile.stream_name, plane.profile.context_stream)
        if batch is None:
            batches = read_batches(connection, pins, limit=limit)
            lines = [
                line
                for row in batches
                for line in item(
                    row.batch_id,
                    when(row.received_at_utc),
                    row.producer,
                    details=(
                        f"{row.records:,} records: {row.admitted:,} admitted, {row.duplicates:,} duplicates,"
                        f" {row.quarantined:,} set aside",
                    ),
                )
            ]
            print_facts(batches, lines or ["no batch was received for this run"], as_json=json)
            return
        rows = read_receipts(connection, pins, batch, streams)
    lines = []
    for row in rows:
        place = "" if row.position is None else f"{row.position.partition_id}/{row.position.offset}"
        details = () if row.reason is None else (f"{row.reason}: {row.detail}",)
        lines += item(row.place, row.outcome, row.event_class or "", row.event_id or "", place, details=details)
    print_facts(rows, lines, as_json=json)


@app.command(short_help="Hold receipts against the log, to the unit.")
def reconcile(json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """Count all receipts of the profile's run: sent = admitted + duplicates + set aside. Then read the log: each admitted record
    stands where its receipt says, with its payload, and no other of the run is there. Exit code 1 if anything differs.
    """
    from ofp_platform.ingress.class_map import class_map_in_force
    from ofp_platform.ingress.reconciliation import reconcile_ingress
    from ofp_platform.online.plane import profile_pack

    with resolve(home, profile).open_plane("auditor") as plane:
        declared_profile = plane.profile
        context = None if plane.known_context_log() is None else plane.context_log()
        class_map = class_map_in_force(declared_profile, profile_pack(declared_profile))
        records = sum(plane.log.ordinal_lag(plane.log.ends().model_copy(update={"partitions": ()})).values())
        with bar(Console(stderr=True), "Reading the log", records) as advance, plane.pool.connection() as connection:
            result = reconcile_ingress(connection, declared_profile.context_pins, class_map, plane.log, context, advance)
    if not result.batches:
        raise CommandRefused("no batch was received for this run: there is nothing to reconcile (`ofp ingress admit` sends one)")
    lines = [
        f"{result.sent_count:,} sent = {result.admitted_count:,} admitted + {result.duplicate_count:,} duplicates"
        f" + {result.quarantined_count:,} set aside ({result.batches:,} batches)",
        f"{result.in_log:,} of the admitted stand in the log, {result.trimmed_count:,} were trimmed, {result.later:,} came later,"
        f" {result.in_flight:,} are on their way",
        *result.differences,
        "balances to the unit" if not result.differing else f"{result.differing:,} differences",
    ]
    print_facts(result, lines, as_json=json)
    if result.differing:
        raise typer.Exit(1)


@app.command(short_help="Write the receipts of hours that are over to Parquet segments.")
def archive(json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """Write the receipts of the profile's run into write-once objects, one or more for each hour of the clock that is over, and
    read all of them again: exit code 1 if one is gone or changed, or lacks a receipt. No hour is written twice.
    """
    from ofp_platform.ingress.receipt_segments import hours_over, read_segments, verify_segments, write_segments
    from ofp_platform.vocabulary.times import format_time

    hours: list[dict[str, Any]] = []
    with resolve(home, profile).open_plane_without_log("offline") as plane, plane.pool.connection() as connection:
        pins, objects = plane.profile.context_pins, plane.objects
        for begin in hours_over(connection, pins):
            existed = bool(read_segments(connection, pins, begin))
            segments = write_segments(connection, objects, pins, begin)
            receipts, problems = verify_segments(connection, objects, pins, begin)
            paths = [segment.object_path for segment in segments]
            facts = {"hour": format_time(begin), "segments": paths, "receipts": receipts, "problems": problems}
            hours.append({**facts, "written": not existed})
    lines = [
        line
        for hour in hours
        for line in item(
            hour["hour"],
            f"{hour['receipts']:,} receipts",
            "written now" if hour["written"] else "were there",
            details=[*hour["segments"], *hour["problems"]],
        )
    ]
    print_facts(hours, lines or ["no hour with receipts of this run is over"], as_json=json)
    if any(hour["problems"] for hour in hours):
        raise typer.Exit(1)


@app.command(short_help="Settle what of batches nobody knows to be in the log.")
def settle(
    release_unread: Annotated[
        bool,
        typer.Option("--release-unread", help="Also release what the log does not lead to any more; a copy is counted once."),
    ] = False,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Read the log behind where batches were sent of which no answer came (Kinesis, Kafka): what is there is admitted, with its
    receipt; what is not there 15 minutes after it was given up is released, and its producer sends it again. Doors do the same
    while they work. Exit code 1 while some of it is not known.
    """
    from ofp_platform.ingress.publishing_door import PublishingDoor
    from ofp_platform.ingress.settlement import Settled

    with resolve(home, profile).open_plane("ingress") as plane:
        door = door_of(plane)
        settled = door.settler.settle(release_unread=release_unread) if isinstance(door, PublishingDoor) else Settled()
    lines = [
        f"{settled.admitted_count:,} admitted, {settled.released_count:,} released; {settled.ambiguous_count:,} may yet come,"
        f" {settled.in_flight_count:,} are being sent",
        *settled.problems,
    ]
    print_facts(settled, lines, as_json=json)
    if settled.ambiguous_count:
        raise typer.Exit(1)


@app.command("class-map", short_help="Show the class map, or check a file of one.")
def class_map(
    file: Annotated[Path | None, typer.Argument(metavar="[FILE]", help="A file to check.", show_default=False)] = None,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """The event types that the profile's run takes: class, versions, stream, and which have a payload schema; and the digest by
    which a profile names the map. Of a file, what is wrong with it.
    """
    from ofp_platform.ingress.class_map import class_map_in_force, load_class_map
    from ofp_platform.online.plane import profile_pack

    if file is None:
        declared_profile = resolve(home, profile).load_profile()
        shown = class_map_in_force(declared_profile, profile_pack(declared_profile))
    else:
        shown = load_class_map(file)
    lines = [
        line
        for name, mapped_type in shown.events.items()
        for line in item(
            name,
            mapped_type.stream,
            f"class {mapped_type.event_class}",
            details=(
                ", ".join(
                    f"{version}, payload by its schema" if version in mapped_type.payload_schemas else f"{version}, any payload"
                    for version in mapped_type.schema_versions
                ),
            ),
        )
    ]
    print_facts({**shown.wire(), "digest": shown.digest}, [*lines, f"digest {shown.digest}"], as_json=json)


def _batches(file: Path) -> Iterator[tuple[list[int], list[Sent]]]:
    from ofp_platform.ingress.record_text import record_of
    from ofp_platform.world.streamer import BATCH_RECORDS

    numbers: list[int] = []
    records_sent: list[Any] = []
    for number, line in enumerate(lines_of_file(file), 1):
        if line.strip():
            numbers.append(number)
            records_sent.append(record_of(line))
        if len(records_sent) == BATCH_RECORDS:
            yield numbers, records_sent
            numbers, records_sent = [], []
    if records_sent:
        yield numbers, records_sent


def _outcome_counts(counts: Mapping[str, int]) -> dict[str, int]:
    return {"admitted": counts["ADMIT"], "duplicates": counts["DUPLICATE"], "quarantined": counts["QUARANTINE"]}


def _line(counts: Mapping[str, int]) -> str:
    return f"{counts['ADMIT']:,} admitted, {counts['DUPLICATE']:,} duplicates, {counts['QUARANTINE']:,} set aside"


def build_application(
    profile: Profile, dsn: str, reports: Path, rate: float, *, principals: Path, access: Path, hosts: Sequence[str]
) -> IngressApplication:
    """The application of one worker process. `reports`: the folder in which all workers tell what ended in them."""
    from ofp_platform.api.access_log import AccessLog
    from ofp_platform.api.authentication import Authentication
    from ofp_platform.api.ingress_app import IngressApplication
    from ofp_platform.api.ingress_service import Allowance, IngressService
    from ofp_platform.api.request_head import OwnHosts
    from ofp_platform.vocabulary.background_tasks import EndedTasks

    ended = EndedTasks(reports)
    by_certificate = profile.http.client_certificates == "principals"
    return IngressApplication(
        IngressService(profile, dsn),
        authentication=Authentication(principals, profile.context_pins, time.time, warnings=ended, by_certificate=by_certificate),
        allowance=Allowance(rate),
        hosts=OwnHosts(hosts),
        access=AccessLog(access, time.time),
        ended=ended,
    )


@app.command(short_help="Start the HTTP door.")
def serve(
    host: Annotated[str, typer.Option(help="Address to bind.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 chooses a free one.")] = 8100,
    workers: Annotated[int, typer.Option(min=1, max=64, help="Worker processes.")] = 1,
    rate: Annotated[float, typer.Option(min=0, help="Records a second of one producer and worker; 0: any number.")] = 50_000,
    allow_host: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Another name that requests may carry in their header Host.")
    ] = None,
    tls_certificate: Annotated[
        Path | None, typer.Option(help="Serve by TLS with this certificate (PEM, with its chain); read again when it changes.")
    ] = None,
    tls_key: Annotated[Path | None, typer.Option(help="The key of --tls-certificate.")] = None,
    tls_client_ca: Annotated[
        Path | None, typer.Option(help="Let only those connect who show a certificate of this authority.")
    ] = None,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Admit events over HTTP until SIGTERM or Ctrl-C: `POST /v0/events`, or `POST /v0/decide` for the decision on one, for
    principals with the scope events:write. Prints the address as soon as it answers.
    """
    from ofp_platform.api import server
    from ofp_platform.api.access_log import FOLDER
    from ofp_platform.ingress.class_map import class_map_in_force
    from ofp_platform.online.plane import profile_pack
    from ofp_platform.vocabulary.background_tasks import EndedTasks

    environment = resolve(home, profile)
    declared_profile = environment.load_profile()
    log_as("ingress serve", declared_profile.context_pins, environment)
    dsn = environment.dsn("ingress")
    limits, tls = front_of(environment, host, tls_certificate, tls_key, tls_client_ca)
    class_map_in_force(declared_profile, profile_pack(declared_profile))  # told now, not to the first producer
    with TemporaryDirectory(prefix="ofp-ingress-") as reports:
        application = partial(
            build_application,
            declared_profile,
            dsn,
            Path(reports),
            rate,
            principals=environment.principals_file,
            access=environment.folder / FOLDER,
            hosts=(host, *(allow_host or ())),
        )
        factory = partial(followed_as, "ingress serve", declared_profile.context_pins, environment, application)
        server.serve(factory, host, port, workers, limits=limits, tls=tls, ended=EndedTasks(Path(reports)))
