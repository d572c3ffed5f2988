"""A plane with a stream of decisions, intents, and executors that do as they are told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import pytest

from ofp_platform.actions.executing import ActionExecutor, Round
from ofp_platform.actions.intents import Recorded, record_intents
from ofp_platform.actions.ports import Done, Executor, NotDone, Report, Unknown
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.online.plane import Plane
from ofp_platform.storage.action_records import read_action
from ofp_platform.vocabulary.identity import ContextPins, FeatureKey, KeyType
from ofp_platform.vocabulary.loop.action import ActionIntent, ActionOrigin, ActionRecord, OriginKind, WebhookTarget
from ofp_platform.vocabulary.loop.action_policy import ActionPolicy
from ofp_platform.vocabulary.profile import Profile

POLICY_REV = f"1.{'0' * 64}"
POLICY: dict[str, Any] = {
    "revision": 3,
    "allow_list": [
        {"actor": "decider", "action_type": "hold_account", "scope": "account"},
        {"actor": "decider", "action_type": "release_account", "scope": "*"},
        {"actor": "decider", "action_type": "notify_decision", "scope": "cases"},
        {"actor": "decider", "action_type": "notify_decision", "scope": "elsewhere"},
    ],
    "webhooks": {"cases": {"url": "http://127.0.0.1:1/actions", "secret_variable": "SECRET", "timeout_ms": 10}},
    "attempts": {"most": 3, "first_pause_ms": 1, "longest_pause_ms": 1},
}
_numbers = count()


def policy(**changed: Any) -> ActionPolicy:
    return ActionPolicy.model_validate({**POLICY, **changed})


@dataclass
class Scripted:
    """Does each intent once and answers from a script, the last answer for ever; `find` answers from another."""

    answers: list[Report] = field(default_factory=lambda: [Done()])
    findings: list[Done | NotDone | Unknown] = field(default_factory=list)
    executed: Counter[str] = field(default_factory=Counter)
    questions: Counter[str] = field(default_factory=Counter)
    meanwhile: Callable[[], None] = lambda: None

    @property
    def can_find(self) -> bool:
        return bool(self.findings)

    def execute(self, intent: ActionIntent) -> Report:
        self.executed[intent.idempotency_key] += 1
        self.meanwhile()
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def find(self, key: str) -> Done | NotDone | Unknown:
        self.questions[key] += 1
        return self.findings.pop(0) if len(self.findings) > 1 else self.findings[0]


@dataclass
class Site:
    """A run with a stream of decisions."""

    plane: Plane
    log: PostgresLog
    moments: Iterator[int] = field(default_factory=lambda: count(1_800_000_000_000_000, 1_000_000))

    @property
    def pins(self) -> ContextPins:
        return self.plane.profile.context_pins

    def intent(self, reference: str, action_type: str = "hold_account", **changed: Any) -> ActionIntent:
        target = FeatureKey(key_type=KeyType.ACCOUNT, key_id="acct-1")
        fields: dict[str, Any] = {
            "origin": ActionOrigin(origin_kind=OriginKind.DECISION, reference=reference),
            "action_type": action_type,
            "target": WebhookTarget(webhook="cases") if action_type == "notify_decision" else target,
            "context_pins": self.pins,
            "actor": "decider",
            "policy_rev": POLICY_REV,
            "at_utc": "2026-02-01T00:00:00Z",
        }
        return ActionIntent.create(**{**fields, **changed})

    def record(self, *intents: ActionIntent) -> Recorded:
        with self.plane.pool.connection() as connection, connection.transaction():
            return record_intents(connection, self.log, intents)

    def executor(self, executors: Mapping[str, Executor] | None = None, **changed: Any) -> ActionExecutor:
        return ActionExecutor(
            self.plane.pool, self.log, self.pins, policy(**changed), executors or {}, lambda: next(self.moments)
        )

    def rounds(self, executor: ActionExecutor, most: int = 20) -> Round:
        """Rounds until nothing is left but what waits for people; every pause is over at once."""
        total = Round()
        for _ in range(most):
            self.make_due()
            latest = executor.run_round()
            if not latest.total:
                return total
            total += latest
        raise AssertionError("it does not end")

    def make_due(self) -> None:
        """End every pause and lease."""
        with self.plane.pool.connection() as connection:
            connection.execute("UPDATE ofp.action_open SET due_at = 0")

    def read(self, intent: ActionIntent) -> ActionRecord:
        with self.plane.pool.connection() as connection:
            record = read_action(connection, intent.context_pins, intent.idempotency_key)
        assert record is not None
        return record

    def stream(self) -> list[tuple[str, str]]:
        """Event type and id of all that the stream of decisions has."""
        (part,) = self.log.ends().partitions
        batch = self.log.read(part.partition_id, self.log.position_kind.start(part.partition_id), 10_000)
        return list(zip(batch.event_types, batch.event_ids, strict=True))

    def payloads(self) -> Sequence[bytes]:
        (part,) = self.log.ends().partitions
        return self.log.read(part.partition_id, self.log.position_kind.start(part.partition_id), 10_000).payloads

    def other_run(self) -> Site:
        pins = self.pins.model_copy(update={"run_id": f"{self.pins.run_id}-other"})
        return replace(self, plane=replace(self.plane, profile=self.plane.profile.model_copy(update={"context_pins": pins})))


def site_profile(folder: object, **changed: Any) -> Profile:
    number = next(_numbers)
    pins = ContextPins(scenario_id="acts", run_id=f"acts-{number}", manifest_fingerprint="0" * 64, parameter_hash="1" * 64)
    fields: dict[str, Any] = {
        "profile_name": "acts",
        "stream_name": f"payments-{number}",
        "control_stream": f"control-{number}",
        "decisions_stream": f"decisions-{number}",
        "partition_key": "payload.account_id",
        "context_pins": pins,
        "pack": "card_payments",
        "object_store_url": f"file://{folder}/objects",
    }
    return Profile(**{**fields, **changed})


@pytest.fixture
def site(module_dsn: str, tmp_path: object) -> Iterator[Site]:
    with Plane.open_without_log(site_profile(tmp_path), module_dsn) as plane:
        yield Site(plane, plane.decisions_log(create=True))
