"""`ofp action`: list what was wanted and done, do it, settle what nobody knows, ask for an action by hand."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ofp_platform.cli.environment import Environment, resolve
from ofp_platform.cli.options import Actor, AsJson, Home, ProfileSource, Reason
from ofp_platform.cli.process_log import follow_as
from ofp_platform.cli.terminal.printed_facts import item, print_facts, short, when
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.cli.terminal.stop_signals import stop_on_signals
from ofp_platform.vocabulary.loop.action import ActionState

if TYPE_CHECKING:
    from psycopg import Connection

    from ofp_platform.actions.executing import ActionExecutor, Round
    from ofp_platform.online.plane import Plane
    from ofp_platform.vocabulary.loop.action import ActionRecord, ActionTarget
    from ofp_platform.vocabulary.loop.action_policy import ActionPolicy
    from ofp_platform.vocabulary.profile import Profile

app = typer.Typer(help="List actions, do them, settle what nobody knows, or ask for one.", no_args_is_help=True)
ACTING = "acting on"
POLICY_FILE = "actions.yaml"
_LOOK_SECONDS = 1.0
_TOGETHER_SECONDS = 0.025
_SAY_SECONDS = 10.0
Key = Annotated[
    str, typer.Argument(metavar="KEY", help="Its idempotency key; the first 8 or more digits do.", show_default=False)
]
PolicyPath = Annotated[
    Path | None,
    typer.Option(
        "--policy",
        metavar="FILE",
        help=f"Action policy; default: {POLICY_FILE} beside the profile's pack, or in the home where that is shipped.",
        show_default=False,
    ),
]


@app.command("list", short_help="List intents and where they stand.")
def list_(
    state: Annotated[
        ActionState | None, typer.Option("--state", help="Those that stand there alone.", show_default=False)
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, max=10_000, help="Greatest number of intents to list.")] = 20,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Intents of the profile's run, the newest first, under the counts of all. UNKNOWN: an attempt was begun, and nobody knows
    yet whether it was done.
    """
    from ofp_platform.storage.action_records import count_actions, list_actions

    with resolve(home, profile).open_plane_without_log("auditor") as plane, plane.pool.connection() as connection:
        pins, has_stream = plane.profile.context_pins, plane.profile.decisions_stream is not None
        counts = count_actions(connection, pins)
        records = list_actions(connection, pins, state, limit)
    nothing = "nothing was wanted" if has_stream else "the profile names no decisions_stream: nothing can be wanted"
    lines = [", ".join(f"{counts[name]:,} {name}" for name in ActionState if name in counts) or nothing]
    for record in records:
        intent = record.intent
        head = (short(intent.idempotency_key), record.state, intent.action_type, _target_words(intent.target))
        lines += item(*head, details=(f"{intent.actor}, {when(intent.at_utc)}", *filter(None, [_last_words(record)])))
    facts = {"counts": {name.value: count for name, count in counts.items()}, "actions": records}
    print_facts(facts, lines, as_json=json)


@app.command(short_help="Show an intent with its attempts and outcome.")
def show(key: Key, json: AsJson = False, home: Home = None, profile: ProfileSource = None) -> None:
    """An intent, each attempt at it, how it ended; and whether its account is held now."""
    from ofp_platform.storage.action_records import held_accounts
    from ofp_platform.vocabulary.identity import FeatureKey, KeyType

    with resolve(home, profile).open_plane_without_log("auditor") as plane, plane.pool.connection() as connection:
        record = _record_of(connection, plane, key)
        lines, target = _lines(record), record.intent.target
        if isinstance(target, FeatureKey) and target.key_type is KeyType.ACCOUNT:
            is_held = bool(held_accounts(connection, plane.profile.context_pins, [target.key_id]))
            lines.append(f"  {_target_words(target)} is {'held' if is_held else 'not held'} now")
    print_facts(record.wire(), lines, as_json=json)


@app.command(short_help="Do what is wanted, until SIGTERM or Ctrl-C.")
def run(
    once: Annotated[bool, typer.Option("--once", help="Do what is due now, and stop.")] = False,
    policy: PolicyPath = None,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Do the intents of the profile's run that the action policy allows, as they come. Any number of these processes may run side
    by side, be killed and started again: nothing is done twice. The policy is read at the start.

    What is wrong is told in words and tried again; with `--once`, exit code 1.
    """
    from ofp_platform.actions.case_requests import CaseRequests
    from ofp_platform.actions.executing import run_until_done
    from ofp_platform.cli.terminal.refusals import words_for

    stop = stop_on_signals()
    environment = resolve(home, profile)
    follow_as("executor", environment.load_profile().context_pins, environment, ends=once)
    with _action_executor(environment, policy) as (plane, executor):
        teller = _Teller()
        requests = CaseRequests(plane.pool, executor.log, executor.pins, plane.profile.policy_rev, time.monotonic)
        typer.echo(f"{ACTING} stream {executor.log.stream_name}, action policy {executor.policy.revision}")
        while not stop.is_set():
            try:
                plane.demand_ready()
                basis = executor.log.ends()
                requests.collect()
                if once:
                    run_until_done(executor, teller.take)
                    break
                latest = executor.run_round()
                teller.take(latest)
                if not latest.total and executor.log.wait(basis, _LOOK_SECONDS):
                    # few decisions want an action, and what is done together costs less
                    stop.wait(_TOGETHER_SECONDS)
            except Exception as error:
                words = words_for(error)
                if words is None or once:
                    raise
                typer.echo(f"not done: {words}", err=True)
                stop.wait(_LOOK_SECONDS)
        teller.tell()
    typer.echo("stopped")


@app.command(short_help="Say whether an attempt that nobody knows of was done.")
def settle(
    key: Key,
    reason: Reason,
    is_done: Annotated[
        bool, typer.Option("--done/--not-done", help="It was done; or not, and is tried again.", show_default=False)
    ],
    actor: Actor = "operator",
    policy: PolicyPath = None,
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """End an attempt whose executor cannot be asked, or does not know. Find out first: what is tried again may be done twice."""
    from ofp_platform.actions.settling import Settlement
    from ofp_platform.actions.settling import settle as settle_attempt
    from ofp_platform.storage.action_records import read_action

    environment = resolve(home, profile)
    with environment.open_plane_without_log("executor") as plane:
        log, pins = plane.decisions_log(), plane.profile.context_pins
        action_policy = _load_policy(environment, plane, policy)
        with plane.pool.connection() as connection:
            whole_key = _record_of(connection, plane, key).intent.idempotency_key
            settlement = Settlement(whole_key, is_done, actor, reason, _now)
            with connection.transaction():
                settle_attempt(connection, log, pins, action_policy, settlement)
            log.tell(connection)
            record = read_action(connection, pins, whole_key)
    assert record is not None
    print_facts(record.wire(), _lines(record), as_json=json)


@app.command(short_help="Ask for an action by hand.")
def request(
    action_type: Annotated[str, typer.Argument(metavar="TYPE", help="As in hold_account.", show_default=False)],
    target: Annotated[
        str, typer.Argument(metavar="TARGET", help="KEY_TYPE:KEY_ID, or webhook:NAME of the action policy.", show_default=False)
    ],
    reference: Annotated[
        str,
        typer.Option(
            "--reference", help="Name of the request, as a ticket: the same again is the same action.", show_default=False
        ),
    ],
    reason: Reason,
    actor: Actor = "operator",
    json: AsJson = False,
    home: Home = None,
    profile: ProfileSource = None,
) -> None:
    """Record an intent; whether it is allowed is looked at when it is to be done. Asked for again, nothing more happens; with
    another reason or actor it is refused: INTENT_CONFLICT.
    """
    from pydantic import ValidationError

    from ofp_platform.actions.intents import record_intents
    from ofp_platform.storage.action_records import read_action
    from ofp_platform.vocabulary.identity import pins_digest
    from ofp_platform.vocabulary.loop.action import ActionIntent, ActionOrigin, OriginKind, target_of
    from ofp_platform.vocabulary.times import format_time
    from ofp_platform.vocabulary.yaml_file import fault_words

    with resolve(home, profile).open_plane_without_log("ingress") as plane:
        pins = plane.profile.context_pins
        try:
            # a ticket may come up in two runs, and a webhook knows actions by their key alone
            origin = ActionOrigin(origin_kind=OriginKind.OPERATOR, reference=f"{short(pins_digest(pins))}/{reference}")
            intent = ActionIntent.create(
                origin=origin,
                action_type=action_type,
                target=target_of(target),
                context_pins=pins,
                actor=actor,
                reason=reason,
                policy_rev=plane.profile.policy_rev,
                at_utc=format_time(_now()),
            )
        except ValidationError as error:
            raise CommandRefused("\n".join(fault_words(error, "the request"))) from None
        except ValueError as error:
            raise CommandRefused(str(error)) from None
        log = plane.decisions_log(create=True)
        with plane.pool.connection() as connection:
            with connection.transaction():
                receipt = record_intents(connection, log, [intent])
            log.tell(connection)
            receipt.demand_no_conflict()
            record = read_action(connection, pins, intent.idempotency_key)
    assert record is not None
    print_facts(record.wire(), _lines(record), as_json=json)


class _Teller:
    """Says what was done, at most once in a while."""

    def __init__(self) -> None:
        from ofp_platform.actions.executing import Round

        self._told_at, self._total = time.monotonic(), Round()

    def take(self, latest: Round) -> None:
        """Take note of a round."""
        self._total += latest
        if time.monotonic() - self._told_at >= _SAY_SECONDS:
            self.tell()

    def tell(self) -> None:
        """Say what was done since the last time; nothing of nothing."""
        from ofp_platform.actions.executing import Round

        if self._total.total:
            parts = [f"{count:,} {kind}" for kind, count in sorted(self._total.outcomes.items())]
            parts += [f"{self._total.waiting:,} tried again later"] if self._total.waiting else []
            parts += [f"{self._total.for_people:,} for `ofp action settle`"] if self._total.for_people else []
            typer.echo(", ".join(parts))
        self._told_at, self._total = time.monotonic(), Round()


@contextmanager
def _action_executor(environment: Environment, policy: Path | None) -> Iterator[tuple[Plane, ActionExecutor]]:
    from ofp_platform.actions.executing import ActionExecutor
    from ofp_platform.actions.webhook import open_webhooks
    from ofp_platform.log.policy_facts import note_policy

    with environment.open_plane_without_log("executor") as plane:
        action_policy = _load_policy(environment, plane, policy)
        log = plane.decisions_log(create=True)
        with plane.pool.connection() as connection, connection.transaction():
            note_policy(connection, plane.profile.context_pins, "action_policy", action_policy.rev)
        with open_webhooks(action_policy, os.environ, _now) as webhooks:
            yield plane, ActionExecutor(plane.pool, log, plane.profile.context_pins, action_policy, webhooks, _now)


def action_policy_file(environment: Environment, profile: Profile) -> Path:
    """The file of the action policy where none is named: beside the profile's pack, or in the home where that is shipped."""
    from ofp_platform.registry.pack import SHIPPED_PACKS

    pack = profile.pack
    return environment.folder / POLICY_FILE if pack in SHIPPED_PACKS else Path(pack).with_name(POLICY_FILE)


def _load_policy(environment: Environment, plane: Plane, path: Path | None) -> ActionPolicy:
    from ofp_platform.actions.allow_list import load_action_policy

    return load_action_policy(path or action_policy_file(environment, plane.profile))


def _now() -> int:
    return time.time_ns() // 1_000


def _record_of(connection: Connection, plane: Plane, digits: str) -> ActionRecord:
    """The intent whose key begins so."""
    from ofp_platform.storage.action_records import keys_beginning, read_action

    pins = plane.profile.context_pins
    keys = keys_beginning(connection, pins, digits) if len(digits) >= 8 else []
    if len(keys) != 1:
        if keys:
            why = "several begin so, write more of it"
        else:
            why = "`ofp action list` shows them" if len(digits) >= 8 else "write 8 digits or more"
        raise CommandRefused(f"no one intent {digits} in run {pins.run_id!r}: {why}")
    record = read_action(connection, pins, keys[0])
    assert record is not None
    return record


def _target_words(target: ActionTarget) -> str:
    from ofp_platform.vocabulary.loop.action import WebhookTarget

    return f"webhook:{target.webhook}" if isinstance(target, WebhookTarget) else f"{target.key_type.value}:{target.key_id}"


def _last_words(record: ActionRecord) -> str:
    return record.waiting if record.outcome is None else record.outcome.reason


def _lines(record: ActionRecord) -> list[str]:
    intent, outcome = record.intent, record.outcome
    lines = [
        f"intent {intent.idempotency_key}",
        f"{intent.action_type} {_target_words(intent.target)} {record.state}",
        f"wanted by {intent.actor} at {when(intent.at_utc)}, {intent.origin.origin_kind.value} {intent.origin.reference}",
    ]
    lines += [f"  because: {intent.reason}"] if intent.reason else []
    for attempt in record.attempts:
        end = "no end" if attempt.end is None else f"{attempt.end} at {when(attempt.ended_at_utc)}"
        words = f": {attempt.reason}" if attempt.reason else ""
        lines.append(f"  attempt {attempt.attempt} by {attempt.executor} at {when(attempt.started_at_utc)}: {end}{words}")
    if outcome is not None:
        words = f": {outcome.reason}" if outcome.reason else ""
        lines.append(f"  {outcome.outcome} at {when(outcome.at_utc)}, action policy {short(outcome.action_policy_rev)}{words}")
    elif record.waiting:
        lines.append(f"  waiting: {record.waiting}")
    if record.conflicts:
        lines.append(f"  {record.conflicts} others under this key were refused: INTENT_CONFLICT")
    return lines
