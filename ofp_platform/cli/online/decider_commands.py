"""`ofp decider`: decide on what the log holds, as it comes, and show how far that is."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.installation.local_principals import DECISIONS, local_token
from ofp_platform.cli.options import AsJson, Home, ProfileSource
from ofp_platform.cli.process_log import follow_as
from ofp_platform.cli.terminal.printed_facts import print_facts
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.cli.terminal.stop_signals import stop_on_signals

if TYPE_CHECKING:
    from psycopg import Connection

    from ofp_platform.decisions.decider import Decider, DeciderTally
    from ofp_platform.decisions.in_force import InForceReader
    from ofp_platform.decisions.plane_questions import PlaneQuestions
    from ofp_platform.online.plane import Plane
    from ofp_platform.vocabulary.loop.decision_record import DecisionRecord
    from ofp_platform.vocabulary.position import Basis
    from ofp_platform.vocabulary.profile import DecidingPolicy

app = typer.Typer(help="Decide on the events of the log, or show how far that is.", no_args_is_help=True)
READY = "deciding on "


class Begin(StrEnum):
    """Where a run that nobody decided on yet is begun."""

    OLDEST = "oldest"
    HEAD = "head"


@app.command(short_help="Decide on what comes, until it is stopped.")
def run(
    url: Annotated[str, typer.Option("--url", help="Service that is asked for features.")] = "http://127.0.0.1:8000",
    token: Annotated[str | None, typer.Option("--token", envvar="OFP_API_TOKEN", help="Bearer token of the service.")] = None,
    begin: Annotated[Begin, typer.Option("--begin", help="Where a run without decisions begins.")] = Begin.OLDEST,
    once: Annotated[bool, typer.Option("--once", help="Decide on what is there, and end.")] = False,
    name: Annotated[str, typer.Option("--name", help="Name of this decider, by which it answers challenges.")] = "decider",
    connections: Annotated[int, typer.Option("--connections", min=1, max=256, help="Concurrent requests.")] = 8,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Decide on each event of the type that the profile's `deciding` names, by the bundle and under the posture in force; append
    each decision to the stream of decisions, once. It can be stopped and started at any point; a second decider of a run ends.
    With `--once` it does not begin while the service does not answer.
    """
    from ofp_platform.decisions.following import Follower

    stop = stop_on_signals()
    environment = resolve(home, profile)
    follow_as("decider", environment.load_profile().context_pins, environment, ends=once)
    with (
        environment.open_plane("decider") as plane,
        opened_decider(plane, url, token or local_token(environment, DECISIONS, url), connections) as (decider, questions),
    ):
        if once:
            _demand_service(decider, url)
        if begin is Begin.HEAD:
            decider.begin_at(plane.log.ends())
        follower = Follower(decider, name, lambda tally: typer.echo(words_of(tally)), _tell_trouble, questions.run)
        typer.echo(f"{READY}{decider.reader.event_type} of stream {plane.log.stream_name}")
        if once:
            come = has_come_to(decider, plane.log.ends())
            typer.echo(words_of(questions.run(decider.decide_available(enough=come))))
            follower.answer()
            return
        follower.run(stop)
    typer.echo("stopped")


def _demand_service(decider: Decider, url: str) -> None:
    """Refuse to decide once on everything without the vectors that are to be asked for: those decisions would stand."""
    from ofp_platform.client import OfpClient, ServiceUnreachable
    from ofp_platform.vocabulary.errors import ContractError
    from ofp_platform.vocabulary.loop.bundle import Slot

    with decider.pool.connection() as connection:
        in_force = decider.in_force.read(connection)
    active = in_force.bundle(Slot.ACTIVE)
    if active is None or not decider.bundle_of(active.bundle).groups_under(in_force.posture.mode):
        return
    try:
        with OfpClient(url) as client:
            client.health()
    except ServiceUnreachable as error:
        raise CommandRefused(
            f"the service at {url} does not answer ({error}), so every event would be decided on without its features, for good:"
            " start it (`ofp serve`), or name it with --url; nothing was decided on"
        ) from None
    except ContractError:  # it is there; what it is asked, and what becomes of that, stands in each record
        return


@app.command(short_help="Show how far the decider is, and what is in force.")
def show(json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """Records of the log behind the decider's place, the posture and the bundles in force. Exit code 1 if nothing was decided."""
    from ofp_platform.storage.decider_places import read_places
    from ofp_platform.vocabulary.loop.bundle import Slot

    with resolve(home, profile).open_plane("auditor") as plane:
        _deciding(plane)
        with plane.pool.connection() as connection:
            place = read_places(connection, plane.profile.context_pins, plane.log.stream_name)
            in_force = in_force_reader(plane).read(connection)
        lag = None if place is None else plane.log.ordinal_lag(place)
    active, shadow = in_force.bundle(Slot.ACTIVE), in_force.bundle(Slot.SHADOW)
    lines = [
        "nothing is decided on yet" if lag is None else f"{sum(lag.values()):,} records of the log stand behind its place",
        f"posture {in_force.posture.mode}",
        "no bundle is in force: everything fails closed"
        if active is None
        else f"bundle {active.bundle.bundle_name}/{active.bundle.digest}, step {active.sequence}",
    ]
    if shadow is not None:
        lines.append(f"shadow {shadow.bundle.bundle_name}/{shadow.bundle.digest}, step {shadow.sequence}")
    facts = {"place": place, "lag_records": lag, "posture": in_force.posture, "active": active, "shadow": shadow}
    print_facts(facts, lines, as_json=json)
    if lag is None:
        raise typer.Exit(1)


@contextmanager
def opened_decider(plane: Plane, url: str, token: str | None, connections: int = 8) -> Iterator[tuple[Decider, PlaneQuestions]]:
    """A decider of the plane's run, and its questions to the service at that address, in whose loop it runs.

    Raises:
        CommandRefused: the profile declares none. NoDecisionsStream | LogUnavailable: see there.
    """
    from ofp_platform.actions.intents import record_intents
    from ofp_platform.decisions.decider import Decider, DeciderPolicy
    from ofp_platform.decisions.event_reader import EventReader
    from ofp_platform.decisions.plane_questions import PlaneQuestions
    from ofp_platform.decisions.ready_bundles import ReadyBundles
    from ofp_platform.decisions.wanted_actions import wanted_actions

    deciding, profile = _deciding(plane), plane.profile
    decisions_log = plane.decisions_log(create=True)

    def want_actions(connection: Connection[Any], records: Sequence[DecisionRecord]) -> None:
        record_intents(connection, decisions_log, wanted_actions(records, deciding.actions))

    fail_closed = "review" if profile.posture is None else profile.posture.fail_closed
    policy = DeciderPolicy(profile.policy_rev, fail_closed, deciding.deadline_ms / 1_000, connections)
    with PlaneQuestions(url, token) as questions:
        decider = Decider(
            plane.pool,
            decisions_log,
            EventReader(plane.log, profile.context_pins, deciding.event_type, profile.clock_skew_us),
            questions.ask,
            in_force_reader(plane),
            ReadyBundles(plane.objects).load,
            policy,
            lambda: time.time_ns() // 1_000,
            want_actions,
        )
        yield decider, questions


def has_come_to(decider: Decider, end: Basis) -> Callable[[], bool]:
    """Whether a decider has come to that basis: where traffic goes on, it would decide on what is there for ever."""
    from ofp_platform.vocabulary.position import place

    def has_come() -> bool:
        basis = decider.place()
        parts = {} if basis is None else basis.by_partition()
        return all(place(parts.get(part.partition_id)) >= place(part) for part in end.partitions)

    return has_come


def in_force_reader(plane: Plane) -> InForceReader:
    """The reader of what is in force for the plane's run."""
    from ofp_platform.decisions.in_force import InForceReader
    from ofp_platform.vocabulary.offline.run_facts import TrafficMode

    return InForceReader(plane.profile.context_pins, plane.profile.profile_name, TrafficMode.FRAUD)


def _deciding(plane: Plane) -> DecidingPolicy:
    deciding = plane.profile.deciding
    if deciding is None:
        raise CommandRefused("the profile declares no `deciding`: name the event type, and a decisions_stream")
    return deciding


def words_of(tally: DeciderTally) -> str:
    """A tally as one line."""
    outcomes = ", ".join(f"{count:,} {outcome.value}" for outcome, count in sorted(tally.outcomes.items()))
    parts = [f"{tally.outcomes.total():,} decisions recorded" + (f" ({outcomes})" if outcomes else "")]
    if tally.shadow:
        parts.append(f"{tally.shadow:,} by a shadow")
    if tally.known_events:
        parts.append(f"{tally.known_events:,} events decided on before")
    parts += [f"{count:,} in a lower mode: {reason}" for reason, count in sorted(tally.lowering.items())]
    return ", ".join(parts)


def _tell_trouble(words: str) -> None:
    typer.echo(f"waiting: {words}", err=True)
