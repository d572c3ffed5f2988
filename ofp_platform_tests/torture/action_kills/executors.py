"""Executors that record intents and do them, until nothing is left but what waits for people; and what must hold of it then."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from hashlib import sha256

from psycopg import Connection

from ofp_platform.actions.executing import ActionExecutor
from ofp_platform.actions.intents import record_intents
from ofp_platform.actions.ports import Done, Executor, NotDone, Unknown
from ofp_platform.actions.settling import Settlement, settle
from ofp_platform.actions.webhook import SignedWebhook, open_webhooks
from ofp_platform.online.plane import Plane
from ofp_platform.storage.action_records import list_actions
from ofp_platform.vocabulary.identity import FeatureKey, KeyType, pins_digest
from ofp_platform.vocabulary.loop.action import (
    HOLD_ACCOUNT,
    ActionIntent,
    ActionOrigin,
    ActionState,
    OriginKind,
    OutcomeKind,
    WebhookTarget,
)
from ofp_platform.vocabulary.loop.action_policy import ActionPolicy
from ofp_platform.vocabulary.profile import Profile
from ofp_platform_tests.torture.action_kills.provider import SECRET, TIMEOUT_MS, Provider
from ofp_platform_tests.torture.kills.check import Checked

_BATCH = 100
_LOOK_SECONDS = 0.02
_RECORDED = "SELECT count(*) FROM ofp.action_intent WHERE pins_digest = %s"
_LEFT = "SELECT count(*) FROM ofp.action_open WHERE pins_digest = %s AND NOT for_people"
_OUTCOMES = """
    SELECT i.idempotency_key, o.outcome, i.content::jsonb -> 'target' ? 'webhook'
    FROM ofp.action_intent AS i LEFT JOIN ofp.action_outcome AS o USING (intent_id) WHERE i.pins_digest = %s"""
_HOLDS = "SELECT idempotency_key FROM ofp.account_hold WHERE pins_digest = %s"


@dataclass(frozen=True)
class Drill:
    """A run of `count` intents in front of a provider. `forgets`: its executors do not ask before they try again."""

    profile: Profile
    dsn: str
    address: str
    count: int
    forgets: bool = False

    def intents(self, start: int, stop: int) -> list[ActionIntent]:
        """Those numbers: half are holds, one in ten goes to a webhook that cannot be asked, the others to one that can."""
        return [self._intent(number) for number in range(start, min(stop, self.count))]

    def _intent(self, number: int) -> ActionIntent:
        is_hold = number % 2 == 0
        webhook = "mute" if number % 10 == 1 else "cases"
        return ActionIntent.create(
            origin=ActionOrigin(origin_kind=OriginKind.DECISION, reference=sha256(str(number).encode()).hexdigest()),
            action_type=HOLD_ACCOUNT if is_hold else "notify_decision",
            target=FeatureKey(key_type=KeyType.ACCOUNT, key_id=f"a-{number}") if is_hold else WebhookTarget(webhook=webhook),
            context_pins=self.profile.context_pins,
            actor="decider",
            policy_rev=self.profile.policy_rev,
            at_utc="2026-02-01T00:00:00Z",
        )

    def policy(self) -> ActionPolicy:
        """Everything is allowed; pauses are short."""
        webhook = {"url": f"{self.address}/do", "secret_variable": "SECRET", "timeout_ms": TIMEOUT_MS}
        return ActionPolicy.model_validate(
            {
                "revision": 1,
                "allow_list": [
                    {"actor": "decider", "action_type": HOLD_ACCOUNT, "scope": "*"},
                    {"actor": "decider", "action_type": "notify_decision", "scope": "*"},
                ],
                "webhooks": {"cases": {**webhook, "status_url": f"{self.address}/status/{{key}}"}, "mute": webhook},
                "attempts": {"most": 6, "first_pause_ms": 2 * TIMEOUT_MS, "longest_pause_ms": 3 * TIMEOUT_MS},
            }
        )


class Forgetful(SignedWebhook):
    """It says that nothing was done, without asking: the negative control."""

    def find(self, key: str) -> Done | NotDone | Unknown:
        return NotDone("who knows")


def now() -> int:
    return time.time_ns() // 1_000


@contextmanager
def _opened(drill: Drill) -> Iterator[tuple[Plane, ActionExecutor]]:
    policy = drill.policy()
    with (
        Plane.open_without_log(drill.profile, drill.dsn, max_connections=3) as plane,
        open_webhooks(policy, {"SECRET": SECRET}, now) as shipped,
    ):
        webhooks: dict[str, Executor] = dict(shipped)
        if drill.forgets:
            webhooks = {name: Forgetful(one.webhook, one.secret, one.client, one.now) for name, one in shipped.items()}
        log, pins = plane.decisions_log(), drill.profile.context_pins
        yield plane, ActionExecutor(plane.pool, log, pins, policy, webhooks, now)


def record_and_act(drill: Drill) -> int:
    """Record the next intents and do what is due, by turns, until only those are left that wait for people; how many rounds."""
    rounds = 0
    with _opened(drill) as (plane, executor):
        while True:
            with plane.pool.connection() as connection:
                recorded = _count(connection, _RECORDED, drill)
                if recorded < drill.count:
                    with connection.transaction():
                        # whoever else does the same at this moment records them, or finds them
                        record_intents(connection, executor.log, drill.intents(recorded, recorded + _BATCH))
                elif not _count(connection, _LEFT, drill):
                    return rounds
            rounds += 1
            if not executor.run_round().total:
                time.sleep(_LOOK_SECONDS)


def _count(connection: Connection, query: str, drill: Drill) -> int:
    row = connection.execute(query, (pins_digest(drill.profile.context_pins),)).fetchone()
    assert row is not None
    return int(row[0])


def check(drill: Drill, provider: Provider) -> tuple[Checked, int]:
    """Hold ledger, stream and the provider's books against each other; how many are unknown."""
    checked = Checked()
    digest, name = pins_digest(drill.profile.context_pins), drill.profile.context_pins.run_id
    with _opened(drill) as (plane, executor), plane.pool.connection() as connection:
        rows = connection.execute(_OUTCOMES, (digest,)).fetchall()
        holds = Counter(key for (key,) in connection.execute(_HOLDS, (digest,)).fetchall())
        unknown = {
            record.intent.idempotency_key
            for record in list_actions(connection, drill.profile.context_pins, ActionState.UNKNOWN, drill.count)
        }
        told = _told(executor)
    wanted = {intent.idempotency_key for intent in drill.intents(0, drill.count)}
    checked.compare("intents lost", {key for key, _, _ in rows}, wanted, name)
    for key, outcome, is_outside in rows:
        done = provider.done[key] if is_outside else holds[key]
        checked.compare("done twice", done > 1, False, key)
        if outcome is None:
            checked.compare("unknown and not listed", key in unknown, True, key)
        else:
            checked.compare("outcome and books", (outcome, outcome == OutcomeKind.EXECUTED), (outcome, done == 1), key)
            checked.compare("ended and listed as unknown", key in unknown, False, key)
    ended = Counter(f"{sha256(f'outcome|{key}'.encode()).hexdigest()}" for key, outcome, _ in rows if outcome is not None)
    checked.compare("stream", told, Counter(key for key, _, _ in rows) + ended, name)
    return checked, len(unknown)


def _told(executor: ActionExecutor) -> Counter[str]:
    """How often each id stands in the stream."""
    told: Counter[str] = Counter()
    (part,) = executor.log.ends().partitions
    at = executor.log.position_kind.start(part.partition_id)
    while len(batch := executor.log.read(part.partition_id, at, 50_000).event_ids):
        told.update(batch)
        at = executor.log.position_kind.basis(part.partition_id, int(at.offset) + len(batch))
    return told


def settle_by_the_books(drill: Drill, provider: Provider) -> Checked:
    """Settle what is unknown as the provider's books have it, do what was not done, and check that nothing is left."""
    with _opened(drill) as (plane, executor), plane.pool.connection() as connection:
        pins = drill.profile.context_pins
        for record in list_actions(connection, pins, ActionState.UNKNOWN, drill.count):
            key = record.intent.idempotency_key
            settlement = Settlement(key, provider.done[key] > 0, "operator", "their books", now)
            with connection.transaction():
                settle(connection, executor.log, pins, executor.policy, settlement)
    provider.faults = 0
    record_and_act(replace(drill, forgets=False))
    checked, unknown = check(drill, provider)
    checked.compare("left at the end", unknown, 0, drill.profile.context_pins.run_id)
    return checked
