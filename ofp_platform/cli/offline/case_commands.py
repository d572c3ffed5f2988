"""`ofp case`: what a person has to look at, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import Actor, AsJson, Home, ProfileSource, Reason
from ofp_platform.cli.process_log import follow_as
from ofp_platform.cli.terminal.printed_facts import item, print_facts, when
from ofp_platform.cli.terminal.refusals import CommandRefused, words_for
from ofp_platform.cli.terminal.stop_signals import stop_on_signals
from ofp_platform.vocabulary.loop.case import CaseTrigger
from ofp_platform.vocabulary.loop.case_standing import CaseState
from ofp_platform.vocabulary.yaml_file import fault_words

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ofp_platform.cases.case_desk import CaseDesk
    from ofp_platform.cases.triggering import CollectReport
    from ofp_platform.online.plane import Plane
    from ofp_platform.vocabulary.loop.case import CaseContent
    from ofp_platform.vocabulary.loop.case_requests import CaseReceipt

app = typer.Typer(help="Look at cases: list, show, open, note, label, close.", no_args_is_help=True)
CaseName = Annotated[
    str,
    typer.Argument(metavar="CASE", help="A case, by id (8 digits or more) or by the id of its event.", show_default=False),
]
Reference = Annotated[
    str | None,
    typer.Option("--ref", help="Name of this request: sent again, it is done once. Default: a new one.", show_default=False),
]
COLLECTING = "collecting cases of"


@app.command("list", short_help="List cases, the most urgent first.")
def list_(
    state: Annotated[CaseState, typer.Option(help="Cases of this state.")] = CaseState.OPEN,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Greatest number of cases to list.")] = 20,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Cases of the profile's run by priority (1 is looked at first), then those that have been open longest."""
    with _desk(home, profile, "auditor") as (desk, _):
        page = desk.cases(state, limit)
    lines = [
        line
        for case in page.cases
        for line in item(
            case.standing.priority,
            case.case_id[:12],
            when(case.standing.opened_at_utc),
            f"{case.event_class} {case.event_id}",
            details=(", ".join([*case.standing.triggers, *(f"{label.word} {label.state}" for label in case.standing.labels)]),),
        )
    ]
    lines = lines or [f"no case is {state}"]
    if page.behind is not None:
        lines.append("there are more: --limit")
    if page.conflicts:
        lines.append(f"CASE_ENTRY_CONFLICT: {page.conflicts:,} entries came again with other content")
    facts = {"cases": page.cases, "conflicts": page.conflicts, "more": page.behind is not None}
    print_facts(facts, lines, as_json=json)


@app.command(short_help="Show one case: where it stands, and its timeline.")
def show(case: CaseName, json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """Each entry with its evidence by reference, as `ofp decision show`, `ofp snapshot show` and `ofp log show` take it."""
    from ofp_platform.cli.offline.case_lines import case_lines

    with _desk(home, profile, "auditor") as (desk, _):
        found_case = desk.case(_case_id(desk, case))
    print_facts(found_case.wire(), case_lines(found_case), as_json=json)


@app.command(short_help="Call attention to an event: open its case.")
def trigger(
    event_id: Annotated[str, typer.Argument(metavar="EVENT_ID", help="Id of the event.", show_default=False)],
    reason: Reason,
    event_class: Annotated[
        str | None,
        typer.Option("--class", metavar="CLASS", help="Class of the event, where the pack has several.", show_default=False),
    ] = None,
    external: Annotated[bool, typer.Option("--external", help="Another system says so, not a person.")] = False,
    ref: Reference = None,
    actor: Actor = "operator",
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Open the case of an event, or add a trigger to it. A case that was closed is open again."""
    from ofp_platform.offline.labels.label_intake import classes_of
    from ofp_platform.online.plane import profile_pack
    from ofp_platform.vocabulary.loop.case import CaseEvent

    with _desk(home, profile, "offline") as (desk, plane):
        classes = classes_of(profile_pack(plane.profile).events)
        if event_class is None and len(classes) == 1:
            event_class = classes[0]
        if event_class not in classes:
            raise CommandRefused(f"--class says of which class the event is: {', '.join(classes)}")
        kind = CaseTrigger.EXTERNAL_SIGNAL if external else CaseTrigger.MANUAL_ASSERTION
        event = CaseEvent(event_class=event_class, event_id=event_id)
        receipt = desk.trigger(event, kind, ref or _new_ref(), reason, actor)
    _print(receipt, json)


@app.command(short_help="Write something down in a case.")
def note(
    case: CaseName,
    text: Annotated[str, typer.Option("--text", help="What to write, without card numbers.", show_default=False)],
    ref: Reference = None,
    actor: Actor = "operator",
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Append a note to the timeline of a case."""
    from ofp_platform.vocabulary.loop.case import Note

    _add(case, lambda: Note(text=text), (ref, actor), json, (home, profile))


@app.command(short_help="Ask for an action about the event of a case.")
def act(
    case: CaseName,
    action: Annotated[str, typer.Option("--action", help="Type of the action.", show_default=False)],
    target: Annotated[str, typer.Option("--target", help="What it is done to, as in account:a-1.", show_default=False)],
    reason: Reason,
    ref: Reference = None,
    actor: Actor = "operator",
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Append ACTION_REQUESTED. Nothing is done by that: an executor does it, or denies it."""
    from ofp_platform.vocabulary.loop.case import ActionRequested

    _add(case, lambda: ActionRequested(action_type=action, target=target, reason=reason), (ref, actor), json, (home, profile))


@app.command("assert", short_help="Assert a label of the event of a case.")
def assert_(
    case: CaseName,
    word: Annotated[str, typer.Argument(metavar="WORD", help="What it is, as in fraud.", show_default=False)],
    label_type: Annotated[str, typer.Option("--type", help="Type of the label.")] = "fraud_disposition",
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="TIME", help="Since when it is so, RFC 3339 with Z; default: now.", show_default=False),
    ] = None,
    ref: Reference = None,
    actor: Actor = "operator",
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Append LABEL_PENDING, ask the label store, append its answer. Exit code 1 if it refused, or did not answer: the label then
    stays pending, and `ofp case settle` asks again.
    """
    from ofp_platform.vocabulary.loop.case import NoSuchLabel, label_value
    from ofp_platform.vocabulary.loop.case_requests import LabelAsk
    from ofp_platform.vocabulary.loop.case_standing import LabelState

    try:
        label_value(label_type, word)
        ask = LabelAsk(label_type=label_type, word=word, effective_time_utc=since)
    except ValueError as error:
        since_words = "--since is RFC 3339 in UTC with Z, as in 2026-02-04T00:00:00Z"
        raise CommandRefused(str(error) if isinstance(error, NoSuchLabel) else since_words) from None
    with _desk(home, profile, "offline") as (desk, _):
        receipt = desk.assert_label(_case_id(desk, case), ask, ref or _new_ref(), actor)
    _print(receipt, json)
    content = receipt.entry.content
    stored = [label for label in receipt.standing.labels if label.assertion_id == getattr(content, "assertion_id", None)]
    if any(label.state is not LabelState.ACCEPTED for label in stored):
        typer.echo(receipt.problem or "the label store refused it: `ofp case show` says why", err=True)
        raise typer.Exit(1)


@app.command(short_help="Close a case: nobody has to look at it any more.")
def close(
    case: CaseName,
    reason: Reason,
    ref: Reference = None,
    actor: Actor = "operator",
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Append CLOSED. Labels that wait for the label store are settled all the same."""
    from ofp_platform.vocabulary.loop.case import Closed

    _add(case, lambda: Closed(reason=reason), (ref, actor), json, (home, profile))


@app.command(short_help="Open a closed case again.")
def reopen(
    case: CaseName,
    reason: Reason,
    ref: Reference = None,
    actor: Actor = "operator",
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Append REOPENED."""
    from ofp_platform.vocabulary.loop.case import Reopened

    _add(case, lambda: Reopened(reason=reason), (ref, actor), json, (home, profile))


@app.command(short_help="Open cases of what was decided or found since.")
def collect(
    every: Annotated[
        float | None,
        typer.Option("--every", metavar="SECONDS", min=1, help="Go on until Ctrl-C, so long between passes.", show_default=False),
    ] = None,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """A trigger for each decision of the run to review or to decline, and for each id with two payloads, that has none yet.

    With --every, what is wrong is told in words, pass by pass, and tried again. Exit code 1 if a record could not be read.
    """
    from ofp_platform.cases.triggering import Collection, Collector
    from ofp_platform.cases.triggering import collect as collect_once
    from ofp_platform.online.plane import profile_pack
    from ofp_platform.registry.models import event_class

    environment = resolve(home, profile)
    with environment.open_plane_without_log("offline") as plane:
        events = profile_pack(plane.profile).events
        collection = Collection(plane.profile.context_pins, lambda event_type: event_class(events, event_type), _now)
        if every is None:
            report = collect_once(plane.pool, collection)
            line = f"{report.triggers:,} triggers, {report.known:,} were there, {report.conflicts:,} conflicts"
            print_facts(report, [line], as_json=json)
            _tell_unreadable(report)
            if report.unreadable:
                raise typer.Exit(1)
            return
        follow_as("case collector", plane.profile.context_pins, environment)
        stop, collector = stop_on_signals(), Collector(plane.pool, collection, time.monotonic)
        typer.echo(f"{COLLECTING} {plane.profile.context_pins.run_id}")
        while not stop.is_set():
            try:
                report = collector.collect()
                if report.triggers or report.conflicts:
                    conflicts = f", {report.conflicts:,} conflicts" if report.conflicts else ""
                    typer.echo(f"collected: {report.triggers:,} triggers{conflicts}")
                _tell_unreadable(report)
            except Exception as error:
                words = words_for(error)
                if words is None:
                    raise
                typer.echo(f"not collected: {words}", err=True)
            stop.wait(every)


@app.command(short_help="Ask the label store again for labels that wait.")
def settle(
    attempts: Annotated[int, typer.Option(min=1, max=100, help="How often a store that does not answer is asked.")] = 5,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Finish labels that are pending, the oldest first. Exit code 1 if the label store did not answer in the end."""
    from ofp_platform.cases.label_settlement import settle_labels

    with _desk(home, profile, "offline") as (desk, _):
        report = settle_labels(desk, attempts, time.sleep)
    line = f"{report.accepted_count:,} accepted, {report.rejected_count:,} rejected, {report.pending:,} pending"
    print_facts(report, [line], as_json=json)
    if report.problem:
        typer.echo(f"the label store does not answer: {report.problem}", err=True)
        raise typer.Exit(1)


def _tell_unreadable(report: CollectReport) -> None:
    for name in report.unreadable:
        typer.echo(f"{name} cannot be read, and has no case: `ofp decision show` looks at it", err=True)


def _add(
    case: str,
    make: Callable[[], CaseContent],
    asked_by: tuple[str | None, str],
    as_json: bool,
    place: tuple[Path | None, str | None],
) -> None:
    ref, actor = asked_by
    with _desk(*place, "offline") as (desk, _):
        receipt = desk.add(_case_id(desk, case), make(), ref or _new_ref(), actor)
    _print(receipt, as_json)


@contextmanager
def _desk(home: Path | None, profile: str | None, role: Literal["auditor", "offline"]) -> Iterator[tuple[CaseDesk, Plane]]:
    """The desk of the profile's run.

    Raises:
        CommandRefused: what is to be written is no such entry; the text names field and fault.
    """
    from pydantic import ValidationError

    from ofp_platform.cases.case_desk import CaseDesk
    from ofp_platform.offline.labels.label_intake import LabelIntake
    from ofp_platform.offline.labels.label_store import LabelStore
    from ofp_platform.online.plane import profile_pack

    with resolve(home, profile).open_plane_without_log(role) as plane:
        pins = plane.profile.context_pins
        intake = LabelIntake(LabelStore(plane.pool, pins), profile_pack(plane.profile).events)
        desk = CaseDesk(plane.pool, pins, intake, _now)
        if role == "auditor":
            yield desk, plane
            return
        try:
            yield desk, plane
        except ValidationError as error:
            raise CommandRefused("; ".join(fault_words(error, "the entry"))) from None


def _case_id(desk: CaseDesk, name: str) -> str:
    """The id of the case that is named by its id or by that of its event.

    Raises:
        CommandRefused: there is none, or there are several.
    """
    ids = desk.find(name)
    if not ids:
        raise CommandRefused(
            f"no case of this run has the id {name!r}, in 8 digits or more, or an event of that id; `ofp case trigger` opens one"
        )
    if len(ids) > 1:
        raise CommandRefused(f"{name!r} names several cases: {', '.join(ids)}")
    return ids[0]


def _now() -> int:
    return time.time_ns() // 1_000


def _new_ref() -> str:
    return f"command/{time.time_ns()}"


def _print(receipt: CaseReceipt, as_json: bool) -> None:
    standing, entry = receipt.standing, receipt.entry
    lines = [
        f"case {receipt.case_id}",
        f"{entry.content.entry_type} by {entry.actor} at {when(entry.at_utc)}",
        f"{standing.state}, priority {standing.priority}, since {when(standing.opened_at_utc)}",
    ]
    lines += [f"label {label.label_type} {label.word}: {label.state}" for label in standing.labels]
    if not receipt.is_new:
        lines.append("it was so before: nothing was done")
    print_facts(receipt.wire(), lines, as_json=as_json)
