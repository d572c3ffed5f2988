"""`ofp run`: ask for the run of the profile, see where it stands, end it or cancel it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import Actor, AsJson, Home, ProfileSource, Reason
from ofp_platform.cli.terminal.printed_facts import item, print_facts, short, when
from ofp_platform.cli.terminal.refusals import CommandRefused, given_in_words
from ofp_platform.vocabulary.offline.run_facts import TrafficMode

if TYPE_CHECKING:
    from ofp_platform.online.plane import Plane
    from ofp_platform.scenario.runner import RunnerOutcome, ScenarioRunner
    from ofp_platform.vocabulary.scenario import RunStatus

app = typer.Typer(help="Ask for a run over a sealed world, and end or cancel it.", no_args_is_help=True)


@app.command(short_help="Ask for the run: READY if every gate passes.")
def request(
    world: Annotated[str, typer.Argument(metavar="WORLD", help="Name of a sealed world.", show_default=False)],
    mode: Annotated[TrafficMode, typer.Option(help="What its traffic holds.")] = TrafficMode.FRAUD,
    output: Annotated[
        list[str] | None,
        typer.Option("--output", metavar="NAME", help="An output to stream; default: all but truth.", show_default=False),
    ] = None,
    speedup: Annotated[str, typer.Option(help="Event time over this; 0: as fast as it goes.")] = "0",
    reference: Annotated[
        str | None,
        typer.Option("--reference", help="Reference of its facts; default: STREAM/RUN_ID of the profile.", show_default=False),
    ] = None,
    actor: Actor = "operator",
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Check the world, its rows, times and types, the pins, the pack, the policy and the stream. Where every gate passes, publish
    the facts of the run and say READY on control: from then on its events are admitted, served and built from. Else exit code 1.

    Asked for again while it is READY, nothing happens.
    """
    from ofp_platform.cli.offline.facts_commands import reference_of
    from ofp_platform.vocabulary.scenario import RunAsk

    asked = {"world": world, "mode": mode, "outputs": output or None, "speedup": speedup, "reference": reference}
    with given_in_words("the request"):
        RunAsk.model_validate({name: value for name, value in asked.items() if value is not None})
    with resolve(home, profile).open_plane("owner", create_stream=True) as plane:
        name = reference or reference_of(plane.profile)
        outcome = _runner(plane, actor).request(world, mode=mode, outputs=output or None, speedup=speedup, reference=name)
    for problem in outcome.problems:
        typer.echo(problem, err=True)
    _print(outcome, json)
    if outcome.problems:
        raise typer.Exit(1)


@app.command(short_help="Answer asks for the run.")
def work(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE.yaml]", help="An ask to answer first: world, mode, outputs, speedup.", show_default=False),
    ] = None,
    actor: Actor = "operator",
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Answer each ask for the profile's run that no runner has answered: those that came over HTTP (`POST /v0/runs`), and that
    of a file. Where every gate passes, the run becomes READY as by `ofp run request`. Exit code 1 if one was refused.
    """
    from ofp_platform.scenario.asked_runs import answer_ask
    from ofp_platform.storage.run_asks import add_ask, pending_asks
    from ofp_platform.vocabulary.scenario import RunAsk, RunAskAnswer
    from ofp_platform.vocabulary.yaml_file import YamlFault, load_yaml

    answers: list[RunAskAnswer] = []
    with resolve(home, profile).open_plane("owner", create_stream=True) as plane:
        pins = plane.profile.context_pins
        plane.control_log(create=True)  # told now, not for each ask
        if file is not None:
            try:
                ask = load_yaml(file, RunAsk)
            except YamlFault as error:
                raise CommandRefused(str(error)) from None
            with plane.pool.connection() as connection:
                add_ask(connection, pins, ask, actor)
        with plane.pool.connection() as connection:
            pending = pending_asks(connection, pins)
        for ask_id in pending:
            answer, _ = answer_ask(plane, ask_id, lambda: time.time_ns() // 1_000)
            answers.append(answer)
    lines = [
        line
        for answer in answers
        for line in item(answer.ask_id, answer.state, answer.ask.world, f"asked by {answer.actor}", details=answer.problems)
    ]
    print_facts([answer.wire() for answer in answers], lines or ["nobody waits for an answer"], as_json=json)
    if any(answer.state == "REFUSED" for answer in answers):
        raise typer.Exit(1)


@app.command(short_help="Show the run of the profile.")
def show(json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """The last step of the profile's run, its facts and what control said. Exit code 1 if nobody asked for it."""
    from ofp_platform.storage.run_states import read_run_status

    with resolve(home, profile).open_plane_without_log("auditor") as plane, plane.pool.connection() as connection:
        pins = plane.profile.context_pins
        status = read_run_status(connection, pins)
    if status is None:
        raise CommandRefused(f"nobody asked for run {pins.run_id!r}: `ofp run request WORLD` does")
    print_facts(status.wire(), _lines(status), as_json=json)


@app.command("list", short_help="List runs that were asked for.")
def list_(
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Greatest number of runs to list.")] = 20,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """The last step of each run in the database, the newest first."""
    from ofp_platform.storage.run_states import list_run_status

    with resolve(home, profile).open_plane_without_log("auditor") as plane, plane.pool.connection() as connection:
        steps = list_run_status(connection, limit)
    lines = [
        line
        for step in steps
        for line in item(
            step.context_pins.run_id,
            step.state,
            when(step.at_utc),
            step.scenario_run_id,
            details=(f"{step.actor}: {step.reason}",),
        )
    ]
    print_facts([step.wire() for step in steps], lines or ["nobody asked for a run"], as_json=json)


@app.command(short_help="End the run: no more events are admitted.")
def end(
    reason: Reason, actor: Actor = "operator", json: AsJson = False, home: Home = None, profile: ProfileSource = None
) -> None:
    """Say RUN_END on control. What was admitted is served and built from; events that come later are set aside."""
    with resolve(home, profile).open_plane_without_log("owner") as plane:
        outcome = _runner(plane, actor).end(reason)
    _print(outcome, json)


@app.command(short_help="Cancel the run: nothing of it is served or built from.")
def cancel(
    reason: Reason, actor: Actor = "operator", json: AsJson = False, home: Home = None, profile: ProfileSource = None
) -> None:
    """Say RUN_CANCEL on control. Services answer as if the run were not there, within seconds; no dataset is built from it. It
    cannot be taken back: a run of another session takes its place.
    """
    with resolve(home, profile).open_plane_without_log("owner") as plane:
        outcome = _runner(plane, actor).cancel(reason)
    _print(outcome, json)


def _runner(plane: Plane, actor: str) -> ScenarioRunner:
    from ofp_platform.scenario.runner import ScenarioRunner

    return ScenarioRunner(plane, actor, lambda: time.time_ns() // 1_000)


def _print(outcome: RunnerOutcome, as_json: bool) -> None:
    lines = _lines(outcome.status)
    lines += [f"  {gate.check} {gate.status.value} {gate.evidence_digest}" for gate in outcome.evidence]
    if not outcome.is_new:
        lines.append("it was so before: nothing was done")
    facts = {**outcome.status.wire(), "is_new": outcome.is_new}
    if outcome.evidence:
        facts["evidence"] = [gate.model_dump(mode="json") for gate in outcome.evidence]
    print_facts(facts, lines, as_json=as_json)


def _lines(status: RunStatus) -> list[str]:
    lines = [
        f"run {status.context_pins.run_id} {status.state} since {when(status.at_utc)}, {status.actor}: {status.reason}",
        f"scenario run {status.scenario_run_id}, plan {short(status.plan_digest)}, record {short(status.record_digest)}",
    ]
    if status.position is not None and status.message_id is not None:
        at = f"{status.position.stream_name} {status.position.partition_id}/{status.position.offset}"
        lines.append(f"facts {status.facts_reference}; message {short(status.message_id)} at {at}")
    return lines
