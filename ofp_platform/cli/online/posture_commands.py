"""`ofp posture`: the mode in force of who decides: see it, hold and release it, keep it by signals, have deciders prove it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated

import typer

from ofp_platform.cli.environment import resolve
from ofp_platform.cli.options import Actor, AsJson, Home, ProfileSource, Reason
from ofp_platform.cli.process_log import follow_as
from ofp_platform.cli.terminal.printed_facts import item, print_facts, when
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.cli.terminal.stop_signals import stop_on_signals
from ofp_platform.vocabulary.loop.posture import Mode

if TYPE_CHECKING:
    from ofp_platform.online.plane import Plane
    from ofp_platform.posture.challenge import ChallengeOutcome
    from ofp_platform.posture.keeper import KeeperOutcome, PostureKeeper
    from ofp_platform.vocabulary.loop.posture import PostureChange, PosturePolicy

_HEALTH_SECONDS = 1.0
app = typer.Typer(help="See, hold, release and prove the mode in force of who decides.", no_args_is_help=True)


@app.command(short_help="Show the mode in force, and the last changes.")
def show(
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Greatest number of changes to list.")] = 5,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """The mode in force of the profile's run, and the newest changes with what they stood on. Where nobody ever said anything,
    FAIL_CLOSED is in force. And whether somebody watches the signals, where the profile's policy has thresholds for them.
    """
    from ofp_platform.storage.posture_changes import posture_history, posture_in_force
    from ofp_platform.storage.posture_looks import posture_watched

    with resolve(home, profile).open_plane_without_log("auditor") as plane, plane.pool.connection() as connection:
        pins = plane.profile.context_pins
        in_force = posture_in_force(connection, pins)
        changes = [change for change, _ in posture_history(connection, pins, limit)]
        watched = posture_watched(connection, pins, plane.profile.posture)
    lines = [f"{in_force.mode} is in force" if changes else f"{in_force.mode} is in force: nobody ever said anything else"]
    if watched is not None:
        lines.append(watched.words)
    for change in changes:
        lines += _lines(change)
    print_facts({"in_force": in_force, "watched": watched, "changes": changes}, lines, as_json=json)


@app.command(short_help="Hold a mode: the kill switch.")
def hold(
    mode: Annotated[Mode, typer.Argument(metavar="MODE", case_sensitive=False, help="The mode.", show_default=False)],
    reason: Reason,
    actor: Actor = "operator",
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Put a mode in force now, whatever signals say, until it is released. When the command ends, no decision made under the
    former mode can be committed any more. Again with the same reason, nothing happens.
    """
    with resolve(home, profile).open_plane_without_log("decider") as plane:
        outcome = _keeper(plane, actor).hold(mode, reason)
    _print(outcome, json)


@app.command(short_help="Release a mode that is held.")
def release(
    reason: Reason, actor: Actor = "operator", json: AsJson = False, home: Home = None, profile: ProfileSource = None
) -> None:
    """Let signals change the mode again. It stays as it is until they do; where nobody holds it, nothing happens."""
    with resolve(home, profile).open_plane_without_log("decider") as plane:
        outcome = _keeper(plane, actor).release(reason)
    _print(outcome, json)


@app.command(short_help="Keep the posture by signals.")
def watch(
    url: Annotated[str, typer.Option("--url", help="Service whose health is looked at.")] = "http://127.0.0.1:8000",
    once: Annotated[bool, typer.Option("--once", help="Look once, say what was seen, and end.")] = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Look at the signals of the profile's posture policy every second, and change the mode as it says, until SIGTERM or Ctrl-C.
    It can be stopped and started at any point, and run twice.
    """
    from ofp_platform.client import AsyncOfpClient, RetryPolicy
    from ofp_platform.posture.evaluator import asked_mode
    from ofp_platform.posture.signals import HealthQuestions, UnknownSignal, demand_known, read_signals
    from ofp_platform.posture.watching import PostureWatch

    environment = resolve(home, profile)
    follow_as("posture watch", environment.load_profile().context_pins, environment, ends=once)
    with (
        environment.open_plane_without_log("decider") as plane,
        HealthQuestions(AsyncOfpClient(url, retries=RetryPolicy(attempts=1)), _HEALTH_SECONDS) as questions,
    ):
        policy = _policy(plane.profile.posture)
        try:
            demand_known(policy)
        except UnknownSignal as error:
            raise CommandRefused(str(error)) from None
        pins, stream_name = plane.profile.context_pins, plane.profile.stream_name

        def read() -> dict[str, int | None]:
            return read_signals(policy, questions.ask, plane.pool, pins, stream_name)

        keeper = _keeper(plane, "posture-watch")
        if once:
            signals = read()
            outcome = PostureWatch(keeper, policy, lambda: signals).look()
            for name, value in signals.items():
                typer.echo(f"{name}: {'absent' if value is None else value}")
            typer.echo(f"they ask for {asked_mode(signals, policy).mode}")
            lines = ["no change"] if outcome is None else _lines(outcome.change)
            typer.echo("\n".join(lines))
            return
        stop = stop_on_signals()
        typer.echo(f"looking at {', '.join(policy.signals)}")
        PostureWatch(keeper, policy, read).run(stop, lambda outcome: typer.echo("\n".join(_lines(outcome.change))))
    typer.echo("stopped")


@app.command(short_help="Have each decider prove the mode that it decides under.")
def challenge(
    wait: Annotated[float, typer.Option("--wait", min=0.1, max=300, help="Seconds to wait for answers.")] = 5.0,
    actor: Actor = "operator",
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Ask each live decider of the profile's run under which mode it decides. Exit code 1 if one does not answer, or answers with
    another mode than the one in force, or if there is none.
    """
    import secrets

    from ofp_platform.posture.challenge import challenge_deciders

    with resolve(home, profile).open_plane_without_log("decider") as plane, plane.pool.connection() as connection:
        connection.autocommit = True
        pins = plane.profile.context_pins
        outcome = challenge_deciders(connection, pins, nonce=secrets.token_hex(16), actor=actor, wait_seconds=wait)
        connection.execute("UNLISTEN *")
    print_facts(outcome, _challenge_lines(outcome), as_json=json)
    if not outcome.is_proved:
        raise typer.Exit(1)


def _keeper(plane: Plane, actor: str) -> PostureKeeper:
    from ofp_platform.posture.keeper import PostureKeeper

    profile = plane.profile
    control = plane.control_log(create=True)
    return PostureKeeper(plane.pool, control, profile.context_pins, profile.policy_rev, lambda: time.time_ns() // 1_000, actor)


def _policy(policy: PosturePolicy | None) -> PosturePolicy:
    if policy is None or not policy.thresholds:
        raise CommandRefused(
            "the profile declares no posture.thresholds, so there is nothing to keep a mode by: `ofp posture hold MODE` puts one"
            " in force"
        )
    return policy


def _lines(change: PostureChange) -> list[str]:
    is_held = ", held" if change.held else ""
    return list(item(change.sequence, f"{change.mode}{is_held}", when(change.at_utc), change.actor, details=change.reasons))


def _print(outcome: KeeperOutcome, as_json: bool) -> None:
    lines = _lines(outcome.change)
    if not outcome.is_new:
        lines.append("it was so before: nothing was done")
    print_facts({**outcome.change.wire(), "is_new": outcome.is_new}, lines, as_json=as_json)


def _challenge_lines(outcome: ChallengeOutcome) -> list[str]:
    lines = [f"{outcome.in_force.mode} is in force"]
    lines += [f"{answer.answered_by} decides under {answer.mode}" for answer in outcome.answered]
    lines += [f"{answer.answered_by} decides under {answer.mode}: not what is in force" for answer in outcome.otherwise]
    lines += [f"{name} did not answer" for name in outcome.silent]
    if not (outcome.answered or outcome.otherwise or outcome.silent):
        lines.append("no decider is live: nothing was proved")
    return lines
