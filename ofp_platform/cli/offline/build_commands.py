"""`ofp build`: build what was asked for, here and now."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.offline.build_context import open_build_context
from ofp_platform.cli.offline.run_line import line_of
from ofp_platform.cli.options import AsJson, Home, ProfileSource
from ofp_platform.cli.terminal.printed_facts import item, print_facts, short
from ofp_platform.cli.terminal.progress import done, wheel
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.vocabulary.offline.feature_engine import FeatureEngine

if TYPE_CHECKING:
    from ofp_platform.offline.runs.build_context import BuildContext
    from ofp_platform.offline.runs.run_lease import RunLease
    from ofp_platform.vocabulary.offline.build_run import BuildRun

app = typer.Typer(help="Build datasets and rebuilds.", no_args_is_help=True)
Workers = Annotated[
    int | None,
    typer.Option("--workers", min=1, max=256, help="Threads that compute features; default: one per core.", show_default=False),
]


Memory = Annotated[
    str | None,
    typer.Option(
        "--memory",
        metavar="AMOUNT",
        help="Memory of all processes together, such as 3GB: the replay is cut into as many parts as that takes.",
        show_default=False,
    ),
]


@app.callback()
def group() -> None:
    """The builder."""


@app.command(short_help="Build one run, or every waiting run.")
def run(
    key: Annotated[
        str | None,
        typer.Argument(metavar="[RUN]", help="Key of a run; its first 8 digits are enough.", show_default=False),
    ] = None,
    waiting: Annotated[bool, typer.Option("--waiting", help="Build every waiting run, oldest first.")] = False,
    workers: Workers = None,
    engine: Annotated[
        FeatureEngine,
        typer.Option("--engine", help="What the build runs on: this machine, or Spark (extra `spark`, Java 17)."),
    ] = FeatureEngine.PROCESSES,
    memory: Memory = None,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Take a run through all its stages. One that another builder holds, or that is finished, stays as it is.

    Every engine and every amount of memory give the same bytes, so neither is part of an intent.

    Exit code 1 when a run is not DONE in the end.
    """
    if (key is None) is not waiting:
        raise CommandRefused("name a run (`ofp intent list` shows them), or say --waiting")
    console = Console(stderr=True)
    amount = None if memory is None else _memory(memory)
    with open_build_context(resolve(home, profile), workers or os.cpu_count() or 1, engine, amount) as (_, build_context):
        runs = (
            list(_waiting(build_context, console))
            if key is None
            else [build_run(build_context, build_context.ledger.show(key).run_key, console)]
        )
    print_facts(runs, [line_of(run_) for run_ in runs] or ["nothing waits"], as_json=json)
    if not all(run_.state.value == "DONE" for run_ in runs):
        raise typer.Exit(1)


@app.command(short_help="Remove the folders of builds that ended or were killed.")
def prune(
    apply: Annotated[bool, typer.Option("--apply", help="Remove them; without it they are listed only.")] = False,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """List the folders of unfinished builds that nobody needs any more, and remove them.

    Those that a process builds in stay, and the files of a dataset that waits to be published. A build removes them, too,
    when it begins.
    """
    from ofp_platform.offline.runs.run_ledger import RunLedger
    from ofp_platform.offline.runs.scratch_folders import dead_folders
    from ofp_platform.storage.postgres import open_pool

    environment = resolve(home, profile)
    with open_pool(environment.dsn("offline")) as pool:
        folders = dead_folders(environment.folder / "builds", RunLedger(pool), remove=apply)
    lines = [line for folder in folders for line in item(short(folder.name), f"{folder.bytes:,} bytes", details=(folder.why,))]
    removed = "removed" if apply else "to remove with --apply"
    lines.append(f"{len(folders)} folders, {sum(folder.bytes for folder in folders):,} bytes {removed}")
    print_facts({"removed": apply, "folders": folders}, lines, as_json=json)


def _memory(text: str) -> int:
    from ofp_platform.offline.replay.memory_budget import memory_bytes

    try:
        return memory_bytes(text)
    except ValueError as error:
        raise CommandRefused(f"--memory: {error}") from None


def build_run(build_context: BuildContext, run_key: str, console: Console) -> BuildRun:
    """Build one run, telling its stages; the run as it stands then.

    Raises:
        UnknownRun: there is none. LeaseLost: another builder took it over.
    """
    with build_context.ledger.claim(run_key) as lease:
        if lease is not None:
            _stages(build_context, lease, console)
    return build_context.ledger.show(run_key)


def _waiting(build_context: BuildContext, console: Console) -> Iterator[BuildRun]:
    tried_keys: set[str] = set()
    while True:
        with build_context.ledger.claim_next() as lease:
            if lease is None or lease.run_key in tried_keys:
                return
            tried_keys.add(lease.run_key)
            console.print(f"{lease.run_key} {lease.run.intent.intent}", highlight=False)
            _stages(build_context, lease, console)
            run_key = lease.run_key
        yield build_context.ledger.show(run_key)


def _stages(build_context: BuildContext, lease: RunLease, console: Console) -> None:
    from ofp_platform.offline.runs.builder import stages

    start = time.monotonic()
    with wheel(console, "Building") as doing:
        doing("plan")
        for stage in stages(build_context, lease):
            now = time.monotonic()
            done(console, f"  {stage.name}", f"{now - start:.1f} s  {stage.digest}")
            start = now
            doing(f"after {stage.name}")
