"""`ofp parity`: what was served against what the log gives, decision by decision."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import AsJson, Home, ProfileSource
from ofp_platform.cli.terminal.printed_facts import item, print_facts, short, table
from ofp_platform.cli.terminal.refusals import CommandRefused

if TYPE_CHECKING:
    from ofp_platform.offline.runs.build_context import BuildContext
    from ofp_platform.offline.runs.run_parity import RunToProve
    from ofp_platform.vocabulary.offline.parity_record import EventRef, ParityResult

app = typer.Typer(help="Rebuild recorded decisions from the log and compare them.", no_args_is_help=True)
BasisFile = Annotated[
    Path | None,
    typer.Option("--basis", metavar="FILE", help="Basis, JSON; default: the end of log and archive.", show_default=False),
]
Workers = Annotated[int, typer.Option(min=1, help="Number of processes.")]
_SHOWN = 10
_RATE = ("group", "match", "mismatch", "uncheckable")
_OUTCOMES = ("MATCH", "MISMATCH", "UNCHECKABLE")


@contextmanager
def _run(
    home: Path | None, profile: str | None, basis_file: Path | None, workers: int
) -> Iterator[tuple[BuildContext, RunToProve]]:
    from ofp_platform.offline.parity.forensic_rebuild import RunPolicies
    from ofp_platform.offline.runs.build_context import BuildContext
    from ofp_platform.offline.runs.run_parity import RunToProve
    from ofp_platform.vocabulary.json_text import read_json
    from ofp_platform.vocabulary.position import Basis, make_basis
    from ofp_platform.vocabulary.text_file import read_text

    environment = resolve(home, profile)
    given_basis: Basis | None = None
    if basis_file is not None:
        try:
            text = read_text(basis_file).encode()
            read_json(text)  # for what it refuses
            given_basis = Basis.model_validate_json(text)
        except OSError as error:
            raise CommandRefused(f"{basis_file}: {error.strerror}") from None
        except ValueError as error:
            raise CommandRefused(f"{basis_file} holds no basis: {error}") from None
    with environment.open_plane("offline") as plane:
        declared_profile = plane.profile
        scratch, context_log = environment.folder / "scratch", plane.known_context_log()
        build_context = BuildContext(plane.pool, plane.log, plane.objects, scratch, workers, context_log=context_log)
        basis = given_basis or make_basis(declared_profile.stream_name, build_context.stream_records.ends)
        yield build_context, RunToProve(declared_profile.context_pins, RunPolicies.of(declared_profile), basis)


@app.command(short_help="Compare every recorded decision with its rebuild.")
def run(
    basis: BasisFile = None, workers: Workers = 2, json: AsJson = False, home: Home = None, profile: ProfileSource = None
) -> None:
    """Rebuild what each decision of the profile's run was served, up to a basis, and keep the outcome; exit code 1 when any
    differs, or none could be compared.
    """
    from ofp_platform.offline.runs.run_parity import prove_run

    with _run(home, profile, basis, workers) as (build_context, run_to_prove):
        mismatches: list[ParityResult] = []

        def keep(record: ParityResult) -> None:
            if record.outcome.value == "MISMATCH" and len(mismatches) < _SHOWN:
                mismatches.append(record)

        counts = prove_run(build_context, run_to_prove, keep)
    lines = [f"request {run_to_prove.request_id}", *(line for record in mismatches for line in _mismatch(record))]
    lines.append("  ".join(f"{outcome} {counts[outcome]:,}" for outcome in _OUTCOMES))
    facts = {
        "request_id": run_to_prove.request_id,
        "counts": {outcome: counts[outcome] for outcome in _OUTCOMES},
        "mismatches": mismatches,
    }
    print_facts(facts, lines, as_json=json)
    if counts["MISMATCH"]:
        typer.echo(f"what was served is not what the log gives: `ofp parity show {run_to_prove.request_id[:12]}`", err=True)
        raise typer.Exit(1)
    if not counts["MATCH"]:
        typer.echo(f"nothing could be compared: `ofp parity show {run_to_prove.request_id[:12]}` has the reasons", err=True)
        raise typer.Exit(1)


@app.command(short_help="Show the decisions that late events would have changed.")
def corrections(basis: BasisFile = None, json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """Write to the correction ledger which features each decision would have had otherwise, had the events up to a basis been
    known, and all links; and which events and links did it.
    """
    from ofp_platform.offline.parity.correction_store import corrected_days
    from ofp_platform.offline.runs.run_parity import correct_run
    from ofp_platform.vocabulary.times import format_time

    with _run(home, profile, basis, 1) as (build_context, run_to_prove):
        tally = correct_run(build_context, run_to_prove)
        days = corrected_days(build_context.pool, tally.request_id)
    rows = [{"day": format_time(day.day_us)[:10], "decisions": day.decisions, "features": day.features} for day in days]
    lines = [
        f"request {tally.request_id}",
        f"{tally.compared_count:,} decisions compared, {tally.corrected_count:,} of them with other features",
        *(f"{row['day']}  {row['decisions']:,} decisions, {row['features']:,} features" for row in rows),
    ]
    facts = {
        "request_id": tally.request_id,
        "compared": tally.compared_count,
        "corrected": tally.corrected_count,
        "unproven": tally.unproven_count,
        "days": rows,
    }
    print_facts(facts, lines, as_json=json)
    if tally.unproven_count:
        typer.echo(
            f"{tally.unproven_count:,} decisions are not in this: `ofp parity run` says why they cannot be rebuilt", err=True
        )


@app.command(short_help="Show rates and mismatches of a comparison.")
def show(
    request: Annotated[str, typer.Argument(metavar="[REQUEST]", help="First digits of a request; default: list all.")] = "",
    mismatches: Annotated[int, typer.Option(min=0, help="Greatest number of mismatches to show.")] = 20,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Rates by day and group, why some could not be compared, and the evidence; exit code 1 when there are mismatches."""
    from ofp_platform.offline.parity.parity_store import parity_counts, parity_rates, parity_requests
    from ofp_platform.offline.parity.parity_summary import parity_summary
    from ofp_platform.storage.postgres import open_pool
    from ofp_platform.vocabulary.times import format_time

    with open_pool(resolve(home, profile).dsn("auditor")) as pool:
        request_ids = parity_requests(pool, request)
        if not request_ids:
            problem = f"no comparison begins with {request}" if request else "nothing was compared yet"
            raise CommandRefused(f"{problem}: run `ofp parity run`")
        counts = {request_id: parity_counts(pool, request_id) for request_id in request_ids}
        summary, rates = None, []
        if request and len(request_ids) == 1:
            summary = parity_summary(pool, request_ids[0], mismatches=mismatches)
            rates = parity_rates(pool, request_ids[0])
    requests: list[dict[str, Any]] = [
        {"request_id": request_id, **{outcome: counts[request_id][outcome] for outcome in _OUTCOMES}}
        for request_id in request_ids
    ]
    lines = [
        line
        for row in requests
        for line in item(short(row["request_id"]), *(f"{outcome} {row[outcome]:,}" for outcome in _OUTCOMES))
    ]
    days = [{"day": format_time(rate.day_us)[:10], **{name: getattr(rate, name) for name in _RATE}} for rate in rates]
    if summary is not None:
        lines += table(("day", *_RATE), [list(day.values()) for day in days])
        lines += [f"UNCHECKABLE  {reason}: {count:,}" for reason, count in summary.by_reason.items()]
        lines += [line for record in summary.mismatches for line in _mismatch(record)]
    facts = {
        "requests": requests,
        "days": days,
        "uncheckable": {} if summary is None else summary.by_reason,
        "mismatches": [] if summary is None else summary.mismatches,
    }
    print_facts(facts, lines, as_json=json)
    if any(tally["MISMATCH"] for tally in counts.values()):
        raise typer.Exit(1)


def _mismatch(record: ParityResult) -> Iterator[str]:
    subject = f"decision {record.decision_id}" if record.decision_id else "snapshot"
    details = [f"served {record.online_snapshot_ref}", f"log gives {record.offline_snapshot_ref or 'none'}"]
    first = record.first_difference
    if first is not None:
        place = [first.key_type and first.key_type.value, first.key_id, first.group_name, first.group_version, first.feature]
        where = " ".join([first.where, *(part for part in place if part)])
        details.append(f"{where}: served {first.served}, rebuilt {first.rebuilt}")
    if record.detail:
        details.append(record.detail)
    details += [_event(event) for event in (first.events if first is not None else ())]
    yield from item("MISMATCH", subject, details=details)


def _event(event: EventRef) -> str:
    return f"{event.event_type} {event.event_id} of {event.event_time_utc}, at {event.partition_id}/{event.offset}"
