"""`ofp labels`: what is said about events after the fact."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.offline.build_context import open_build_context
from ofp_platform.cli.options import AsJson, Home, ProfileSource
from ofp_platform.cli.terminal.printed_facts import item, print_facts
from ofp_platform.cli.terminal.progress import bar
from ofp_platform.cli.terminal.refusals import CommandRefused

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ofp_platform.log.port import RecordBatch
    from ofp_platform.offline.labels.label_sources import ReportedLabels
    from ofp_platform.offline.labels.label_store import AppendReceipt
    from ofp_platform.offline.sources.stream_records import StreamRecords
    from ofp_platform.online.plane import Plane
    from ofp_platform.vocabulary.position import Basis

app = typer.Typer(help="Load and show label assertions.", no_args_is_help=True)
_PAGE = 20_000
_SHOWN = 5


@app.command(short_help="Append the labels that the log's fraud reports assert.")
def load(
    handbook: Annotated[
        Path | None,
        typer.Option(
            "--handbook", metavar="FILE.parquet", help="Load the outcomes of a handbook file instead, each observed 7 days later."
        ),
    ] = None,
    world: Annotated[
        str | None,
        typer.Option("--world", metavar="WORLD", help="Load the truth of a sealed world instead.", show_default=False),
    ] = None,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Append label assertions of the profile's run. One that is there already stays as it is.

    A report is observed when its record was admitted to the log; an outcome of a handbook file or of a world, by the simulated
    clock.
    """
    from ofp_platform.offline.labels.label_store import LabelStore, as_observed

    if handbook is not None and world is not None:
        raise CommandRefused("--handbook and --world are two sources: load one, then the other")
    environment = resolve(home, profile)
    with open_build_context(environment) as (plane, build_context):
        unusable: list[tuple[str, int | str]] = []
        if world is not None:
            from ofp_platform.world.world_store import open_world

            sealed_world = open_world(environment.open_objects(), world)
            receipt = LabelStore(plane.pool, plane.profile.context_pins).append(sealed_world.truth(), as_observed)
        elif handbook is not None:
            from ofp_platform.simulation.handbook_labels import handbook_labels

            receipt = LabelStore(plane.pool, plane.profile.context_pins).append(handbook_labels(handbook), as_observed)
        else:
            ends = plane.log.ends()
            records = sum(plane.log.ordinal_lag(ends.model_copy(update={"partitions": ()})).values())
            with bar(Console(stderr=True), "Reading the log", records) as advance:
                report_count, receipt = load_reports(plane, build_context.stream_records, ends, advance)
            unusable = report_count.unusable
    line = f"{receipt.new_count:,} assertions appended, {receipt.known_count:,} were there"
    facts = {"appended": receipt.new_count, "known": receipt.known_count, "unusable": [f"{part}:{at}" for part, at in unusable]}
    print_facts(facts, [line], as_json=json)
    for partition_id, offset in unusable[:_SHOWN]:
        typer.echo(f"{partition_id}:{offset}: a report that names no event", err=True)
    if len(unusable) > _SHOWN:
        typer.echo(f"and {len(unusable) - _SHOWN} more such reports", err=True)


def load_reports(
    plane: Plane,
    stream_records: StreamRecords,
    until: Basis,
    advance: Callable[[int], None],
    label_type: str | None = None,
) -> tuple[ReportedLabels, AppendReceipt]:
    """Append what the reports of the profile's run say, out of archive and log up to a basis; `label_type`: as labels of that
    type, instead of the one that their rule names.

    Raises:
        CommandRefused: nobody declared how this pack's events are read as labels. BuildRefused | LogError: see there.
        ReplayGap | ReceiptDamaged | SegmentMissing | SegmentDamaged: see `ReplayReader.batches`.
    """
    from ofp_platform.offline.labels.label_sources import FRAUD_REPORTS, reported_labels
    from ofp_platform.offline.labels.label_store import LabelStore, as_observed
    from ofp_platform.offline.labels.report_file import FILE_NAME, load_report_rule

    declared_profile = plane.profile
    registry = plane.known_registry()
    pack = declared_profile.pack
    if pack.endswith(".yaml") and (file := Path(pack).with_name(FILE_NAME)).exists():
        rule = load_report_rule(file, registry.pack.events)
    elif registry.pack.pack_id in FRAUD_REPORTS:
        rule = FRAUD_REPORTS[registry.pack.pack_id]
    else:
        raise CommandRefused(
            f"it is not declared which events of pack {registry.pack.pack_id} are labels: write {FILE_NAME} beside the pack;"
            f" one ships for {', '.join(FRAUD_REPORTS)}"
        )
    if label_type is not None:
        rule = replace(rule, label_type=label_type)
    reports = reported_labels(
        _batches(stream_records, until, advance), rule, declared_profile.context_pins, declared_profile.clock_skew_us
    )
    return reports, LabelStore(plane.pool, declared_profile.context_pins).append(reports.assertions, as_observed)


def _batches(stream_records: StreamRecords, until: Basis, advance: Callable[[int], None]) -> Iterator[RecordBatch]:
    """All records up to a basis, partition by partition; the archive has those that were trimmed off the log."""
    from ofp_platform.vocabulary.offline.replay_basis import ReplayBasis

    for span in ReplayBasis.up_to(until).partitions if until.partitions else ():
        for batch in stream_records.reader.batches(span, _PAGE):
            yield batch
            advance(len(batch))


@app.command(short_help="Show labels, as of a time or in all.")
def show(
    label_type: Annotated[str, typer.Option("--type", help="Type of label.")] = "fraud",
    as_of: Annotated[
        str | None,
        typer.Option("--as-of", metavar="TIME", help="Count assertions observed by then, RFC 3339 with Z.", show_default=False),
    ] = None,
    event: Annotated[
        str | None,
        typer.Option("--event", metavar="EVENT_ID", help="Show every assertion about one event.", show_default=False),
    ] = None,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """How many events have which label, and since when nothing more was heard; or every assertion about one event."""
    import pyarrow.compute as pc

    from ofp_platform.offline.labels.label_store import LabelStore
    from ofp_platform.vocabulary.times import format_time, parse_time, to_micros

    try:
        until = None if as_of is None else parse_time(as_of)
    except ValueError:
        raise CommandRefused("--as-of is RFC 3339 in UTC with Z, as in 2026-02-04T00:00:00Z") from None
    with open_build_context(resolve(home, profile)) as (plane, _):
        table = LabelStore(plane.pool, plane.profile.context_pins).assertions(label_type)
        run = plane.profile.context_pins.run_id
    if until is not None:
        table = table.filter(pc.less_equal(pc.cast(table["observed_time"], "int64"), until))
    if event is not None:
        assertions = table.filter(pc.equal(table["event_id"], event)).to_pylist()
        if not assertions:
            raise CommandRefused(f"nobody has said anything of type {label_type} about {event}")
        times = [name for name in table.column_names if name.endswith("_time")]
        rows = [{**row, **{name: format_time(to_micros(row[name])) for name in times}} for row in assertions]
        about_event = (
            line
            for row in rows
            for line in item(row["observed_time"], row["value"], row["event_class"], details=(str(row["assertion_id"]),))
        )
        print_facts(rows, about_event, as_json=json)
        return
    # in the order of (class, event, observed time, assertion id): the last one about an event is the one that holds
    events = zip(table["event_class"].to_pylist(), table["event_id"].to_pylist(), strict=True)
    resolved_labels = dict(zip(events, table["value"].to_pylist(), strict=True))
    counts = sorted(Counter(resolved_labels.values()).items())
    last = format_time(to_micros(pc.max(table["observed_time"]).as_py())) if table.num_rows else None
    about = f"{table.num_rows:,} assertions of type {label_type} about {len(resolved_labels):,} events"
    lines = [*item(f"run {run}: {about}"), *(f"  {value}: {count:,} events" for value, count in counts)]
    if last is not None:
        lines.append(f"  last heard of at {last}")
    facts = {
        "run_id": run,
        "label_type": label_type,
        "assertions": table.num_rows,
        "events": len(resolved_labels),
        "by_value": {str(value): count for value, count in counts},
        "last_observed_utc": last,
    }
    print_facts(facts, lines, as_json=json)
