"""`ofp governance`: the facts that are kept for good, and the sums over the loop."""

from __future__ import annotations

from typing import Annotated

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import AsJson, Home, ProfileSource
from ofp_platform.cli.terminal.printed_facts import item, print_facts, when
from ofp_platform.cli.terminal.refusals import CommandRefused

app = typer.Typer(
    help="List governance facts: builds, bundles, postures, runs of Dagster that failed; sum up the loop.",
    no_args_is_help=True,
)


@app.command("list", short_help="List the newest governance facts.")
def show_list(
    fact: Annotated[
        str | None,
        typer.Option(
            "--fact",
            help="Name of the facts to list, such as build_completed, build_failed, dagster_run_failed or id_adjudicated.",
            show_default=False,
        ),
    ] = None,
    about: Annotated[str, typer.Option("--about", help="First digits of a request or of a run of Dagster.")] = "",
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Greatest number of facts to list.")] = 20,
    json: AsJson = False,
    home: Home = None,
) -> None:
    """The newest facts, newest first."""
    from ofp_platform.storage.governance_facts import read_facts
    from ofp_platform.storage.postgres import open_pool
    from ofp_platform.vocabulary.offline.governance_fact import FACTS, gist, subject

    if fact is not None and fact not in FACTS:
        raise CommandRefused(f"there is no fact {fact!r}; there are {', '.join(FACTS)}")
    with open_pool(resolve(home).dsn("auditor")) as pool:
        recorded_facts = read_facts(pool, fact, about=about, limit=limit)
    lines = [
        line
        for recorded in recorded_facts
        for line in item(
            when(recorded.recorded_at_utc), recorded.fact.fact, subject(recorded.fact)[:12], details=(gist(recorded.fact),)
        )
    ]
    asked = "".join((f" {fact}" if fact else "", f" about {about}" if about else ""))
    print_facts(
        [{"recorded_at_utc": recorded.recorded_at_utc, **recorded.fact.wire()} for recorded in recorded_facts],
        lines or [f"no fact{asked} is recorded"],
        as_json=json,
    )


@app.command(short_help="Sum up the loop of the run, to the unit.")
def reconcile(
    keep: Annotated[bool, typer.Option("--keep", help="Write the report to the object store, under its digest.")] = False,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Hold the events of the log that the decider came by against its decisions, intents of actions against their outcomes,
    decisions against the audit log, labels of cases against the answers of the label store, governance facts against their
    stream. Exit code 1 if something is missing
    or left over (its names are printed), or if nothing was ever decided.
    """
    from ofp_platform.cli.offline.loop_sums import sum_up_loop
    from ofp_platform.governance.loop_reconciliation import keep_reconciliation

    with resolve(home, profile).open_plane("auditor") as plane:
        report = sum_up_loop(plane)
        path = keep_reconciliation(plane.objects, report) if keep else None
    intents = f"{report.executed:,} executed + {report.denied:,} denied + {report.failed:,} failed + {report.open_intents:,} open"
    leaves = (
        f"{report.decision_leaves:,} leaves + {report.unproven_decisions:,} unproven + {report.quarantined_decisions:,} set aside"
    )
    labels = f"{report.labels_accepted:,} accepted + {report.labels_rejected:,} rejected + {report.labels_pending:,} pending"
    lines = [
        f"traffic    {report.traffic:,} events; {report.decisions:,} decisions, and {report.shadow_decisions:,} of a shadow",
        f"intents    {report.intents:,} = {intents}",
        f"decisions  {report.decisions + report.shadow_decisions:,} = {leaves}",
        f"labels     {report.labels_asserted:,} = {labels}",
        f"facts      {report.governance_facts:,} of the database; {report.governance_messages:,} messages on their stream",
        *report.differences,
    ]
    lines += [] if report.differences else ["it balances to the unit"]
    lines += [] if path is None else [f"kept as {path}"]
    print_facts({**report.model_dump(mode="json"), "path": path}, lines, as_json=json)
    if report.differences:
        raise typer.Exit(1)
