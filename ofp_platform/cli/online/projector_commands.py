"""`ofp projector`: the continuous driver, and how far the projection is."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import AsJson, Home, ProfileSource
from ofp_platform.cli.process_log import follow_as
from ofp_platform.cli.terminal.printed_facts import item, print_facts, table, when
from ofp_platform.cli.terminal.stop_signals import stop_on_signals

if TYPE_CHECKING:
    from ofp_platform.online.plane import Plane
    from ofp_platform.online.projecting.projector import ApplyReceipt
    from ofp_platform.online.projecting.shard_projector import ShardReceipt
    from ofp_platform.online.state.key_shards import KeyShard
    from ofp_platform.online.state.projection import ProjectionRow

logger = logging.getLogger(__name__)
app = typer.Typer(help="Run the projector, or show how far it is.", no_args_is_help=True)
READY = "applying to projection"
_SAY_SECONDS = 10.0
_LOOK_SECONDS = 0.5
_STEP_SECONDS = 0.02


class _Teller:
    """Says what was applied, at most once in a while."""

    def __init__(self) -> None:
        self._said = time.monotonic()
        self._records = self._applied = self._commits = 0

    def commit(self, receipt: ApplyReceipt | ShardReceipt) -> None:
        """Take note of a commit; a shard other than shard 0 does not know how many records were applied."""
        self._records += receipt.records
        self._applied += getattr(receipt, "applied", 0)
        self._commits += 1
        seconds = time.monotonic() - self._said
        if seconds >= _SAY_SECONDS:
            applied = f", {self._applied} applied" if hasattr(receipt, "applied") else ""
            words = f"{self._commits} commits: {self._records} records{applied}, in {seconds:.0f} s"
            logger.info(words, extra=_place(receipt))
            self._said, self._records, self._applied, self._commits = time.monotonic(), 0, 0, 0


def _place(receipt: ApplyReceipt | ShardReceipt) -> dict[str, object]:
    """The projection as it stands behind a commit, for a line of the log; a shard other than shard 0 does not know the basis."""
    from ofp_platform.telemetry.line_parts import positions

    basis = getattr(receipt, "basis_after", None)
    at = {} if basis is None else positions(basis)
    return {"projection_id": receipt.projection_id, "version": receipt.version, **at}


@app.command(short_help="Run the continuous driver.")
def run(
    metrics_host: Annotated[str, typer.Option(help="Address of the metrics page.")] = "127.0.0.1",
    metrics_port: Annotated[int | None, typer.Option(help="Port of a Prometheus page; default: no page.")] = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/S", help="Apply to key shard I of S alone, I from 0; one process for each. Default: to all."),
    ] = None,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Apply what is appended, as it comes, until SIGTERM or Ctrl-C. It can be stopped and started at any point.

    The keys of a projection can be divided among processes (`ofp projection reshard`). All of them apply the same records
    together; the process of shard 0 reads the log first and says which.
    """
    from prometheus_client import CollectorRegistry, Counter, start_http_server

    from ofp_platform.online.state.key_shards import KeyShard

    stop = stop_on_signals()
    metrics = CollectorRegistry()
    commits = Counter("ofp_projector_commits", "Commits of this process", registry=metrics)
    records = Counter("ofp_projector_records", "Records that its commits took", registry=metrics)
    teller = _Teller()

    def on_commit(receipt: ApplyReceipt | ShardReceipt) -> None:
        commits.inc()
        records.inc(receipt.records)
        teller.commit(receipt)

    key_shard = None if shard is None else KeyShard.parse(shard)
    environment = resolve(home, profile)
    follow_as("projector", environment.load_profile().context_pins, environment)
    with environment.open_plane("projector", create_stream=True) as plane:
        if metrics_port is not None:
            start_http_server(metrics_port, metrics_host, registry=metrics)
        with _following_context(plane, key_shard, stop):
            _drive_live(plane, key_shard, stop, on_commit)
    typer.echo("stopped")


@contextmanager
def _following_context(plane: Plane, shard: KeyShard | None, stop: threading.Event) -> Iterator[None]:
    """Inside the context the links of the run are folded, too, where the profile names a context stream; by shard 0 alone."""
    from ofp_platform.identity.continuous_graph import follow_context
    from ofp_platform.vocabulary.background_tasks import BackgroundTasks

    if plane.profile.context_stream is None or (shard is not None and shard.number):
        yield
        return
    ended = threading.Event()
    tasks = BackgroundTasks(on_end=lambda _task: stop.set())
    follow = partial(follow_context, plane.graph_projector, on_trouble=_tell_trouble)
    follower = tasks.start_thread("context follower", follow, ended)
    try:
        yield
    finally:
        ended.set()
        follower.join()
    if tasks.ended.own:
        raise RuntimeError(tasks.ended.own[0].reason)


def _drive_live(
    plane: Plane,
    key_shard: KeyShard | None,
    stop: threading.Event,
    on_commit: Callable[[ApplyReceipt | ShardReceipt], None],
) -> None:
    """Apply to the live projection, whichever that is, until the event is set."""
    from ofp_platform.online.ranges.shard_driver import drive

    while not stop.is_set():
        row = plane.ensure_live()
        if key_shard is not None:
            key_shard.demand(row)
        of_shard = "" if key_shard is None else f", key shard {key_shard}"
        typer.echo(f"{READY} {row.projection_id} of stream {row.stream_name}, registry {row.registry_digest[:12]}{of_shard}")
        with _until_switched(plane, row, stop) as until_switched:
            drive(
                plane,
                row,
                key_shard,
                stop=until_switched,
                on_commit=on_commit,
                on_trouble=_tell_trouble,
                on_standby=partial(typer.echo, f"standing by: another projector applies to projection {row.projection_id}"),
                on_retired=until_switched.set,  # a commit tells sooner than the watcher looks
            )


def _tell_trouble(words: str) -> None:
    typer.echo(words, err=True)


@contextmanager
def _until_switched(plane: Plane, row: ProjectionRow, stop: threading.Event) -> Iterator[threading.Event]:
    """An event that is set when the process is to stop, or when another projection became the live one."""
    from ofp_platform.storage.transient import is_transient
    from ofp_platform.vocabulary.background_tasks import BackgroundTasks

    switch = threading.Event()

    def watch(switch: threading.Event) -> None:
        look_due = time.monotonic() + _LOOK_SECONDS
        while not switch.is_set() and not stop.wait(_STEP_SECONDS):  # either event ends it soon
            if time.monotonic() < look_due:
                continue
            look_due = time.monotonic() + _LOOK_SECONDS
            try:
                live = plane.live()
            except Exception as error:
                if not is_transient(error):
                    raise
                continue  # the driver itself tells of an outage, and waits it out
            if live is not None and live.projection_id != row.projection_id:
                break
        switch.set()

    tasks = BackgroundTasks(on_end=lambda _task: switch.set())
    watcher = tasks.start_thread("switch watcher", watch, switch)
    try:
        yield switch
    finally:
        switch.set()
        watcher.join()
    if tasks.ended.own:
        # without it a switch would not be followed; whoever started this process sees that it ended, and why
        raise RuntimeError(tasks.ended.own[0].reason)


@app.command("catch-up", short_help="Apply what the log holds, then stop.")
def catch_up(json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """Apply what the log holds now, in large commits, and stop. A continuous driver beside it goes on where this one stopped."""
    from rich.console import Console

    from ofp_platform.cli.terminal.progress import bar
    from ofp_platform.online.projecting.apply_until import apply_until

    with resolve(home, profile).open_plane("projector", create_stream=True) as plane:
        row = plane.ensure_live()
        if plane.profile.context_stream is not None:
            plane.graph_projector().drain()
        with bar(Console(stderr=True), "Projecting", sum(plane.log.ordinal_lag(row.basis).values())) as advance:
            commits = apply_until(
                plane.projector(row), plane.log.ends(), plane.profile.batch_records, lambda receipt: advance(receipt.records)
            )
    records, applied = sum(receipt.records for receipt in commits), sum(receipt.applied for receipt in commits)
    line = f"{records:,} records, {applied:,} applied; projection {row.projection_id} is at the head"
    print_facts({"projection_id": row.projection_id, "records": records, "applied": applied}, [line], as_json=json)


@app.command(short_help="Show counts, lag and watermark.")
def status(json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """Show the live projection: counts, lag and watermark, partition by partition; exit code 1 when there is none."""
    from ofp_platform.online.projecting.continuous import driver_died, holds_projection
    from ofp_platform.online.projecting.epoch_barrier import holding_shards, missing_shards
    from ofp_platform.online.state.key_shards import read_shards, shard_words
    from ofp_platform.online.state.progress import read_progress
    from ofp_platform.vocabulary.times import format_time

    with resolve(home, profile).open_plane_without_log("auditor") as plane:
        row = plane.live()
        if row is None:
            typer.echo("no live projection of this run: `ofp projector run` makes one", err=True)
            raise typer.Exit(1)
        with plane.pool.connection() as connection:
            totals = read_progress(connection, row.projection_id)
            shards = {0: row.version} | {part.shard: part.version for part in read_shards(connection, row.projection_id).values()}
            missing = missing_shards(connection, row.projection_id, row.shards)
            holding = holding_shards(connection, row)
        lag = plane.log.ordinal_lag(row.basis)
        driven, died = holds_projection(plane.pool, row.projection_id), driver_died(plane.pool, row.projection_id)
    columns = ("records", "applied", "duplicates", "late", "failed", "ignored")
    progress: dict[str, Any] = {part.partition_id: part for part in totals.partitions}
    partitions: list[dict[str, Any]] = [
        {
            "partition_id": name,
            **{column: getattr(progress.get(name), column, 0) for column in columns},
            "lag": lag.get(name, 0),
        }
        for name in sorted({*progress, *lag})
    ]
    driver = "a continuous driver runs" if driven else "no continuous driver runs"
    if died:
        driver += ", and the last one was not stopped: it died (start it again: `ofp projector run`)"
    head = f"projection {row.projection_id} of stream {row.stream_name}"
    lines = [*item(f"{head}: version {row.version}, watermark {when(row.watermark)}, {driver}")]
    lines += table(("partition", *columns, "lag"), [list(part.values()) for part in partitions])
    if row.shards > 1:
        for number, version in shards.items():
            process = "no process of its own" if number in missing else "a process attends to it"
            lines.append(f"key shard {number}/{row.shards}: version {version}, {process}")
        if holding:
            lines.append(f"the next epoch waits for key {shard_words(holding)}")
    lines += [f"not applied, {reason}: {count}" for reason, count in totals.failures.items()]
    lines += [f"applied, but not to every group, {reason}: {count}" for reason, count in totals.group_failures.items()]
    if totals.anomalies:
        lines.append(f"anomalies (an id seen again with another payload): {totals.anomalies}")
    facts = {
        "projection_id": row.projection_id,
        "stream_name": row.stream_name,
        "version": row.version,
        "watermark_utc": None if row.watermark is None else format_time(row.watermark),
        "driver": "running" if driven else "died" if died else "stopped",
        "partitions": partitions,
        "shards": [
            {"shard": number, "version": version, "attended": number not in missing} for number, version in shards.items()
        ],
        "waits_for_shards": sorted(holding),
        "failures": totals.failures,
        "group_failures": totals.group_failures,
        "anomalies": totals.anomalies,
    }
    print_facts(facts, lines, as_json=json)
