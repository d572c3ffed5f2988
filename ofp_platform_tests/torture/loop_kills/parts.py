"""The parts of the loop, each as a task of a child: a few steps of what is there to do, from wherever it stands."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any

from ofp_platform.actions.executing import ActionExecutor
from ofp_platform.actions.webhook import open_webhooks
from ofp_platform.audit.appending import append_records
from ofp_platform.audit.signing_keys import SigningKey
from ofp_platform.bundles.bundle_file import bundle_source, make_bundle, read_bundle_file
from ofp_platform.bundles.bundle_registry import BundleRegistry
from ofp_platform.bundles.compatibility import LivePlane
from ofp_platform.cases.case_desk import CaseDesk
from ofp_platform.cases.label_settlement import settle_labels
from ofp_platform.cases.triggering import Collection, collect
from ofp_platform.cli.demo.replay import project_available
from ofp_platform.cli.files.run_door import door_of
from ofp_platform.cli.online.decider_commands import opened_decider
from ofp_platform.offline.labels.label_intake import LabelIntake
from ofp_platform.offline.labels.label_store import LabelStore
from ofp_platform.online.plane import Plane
from ofp_platform.registry.compile import CompiledRegistry, compile_pack
from ofp_platform.registry.models import event_class
from ofp_platform.registry.pack import shipped_pack
from ofp_platform.storage.bundle_events import bundle_in_force, list_bundle_events
from ofp_platform.vocabulary.loop.action import HOLD_ACCOUNT
from ofp_platform.vocabulary.loop.action_policy import ActionPolicy
from ofp_platform.vocabulary.loop.bundle import Bundle, BundleScope, Comparison, Guardrail, Slot
from ofp_platform.vocabulary.loop.case_requests import LabelAsk
from ofp_platform.vocabulary.loop.case_standing import CaseState
from ofp_platform.vocabulary.loop.outcome import Outcome
from ofp_platform.vocabulary.offline.run_facts import TrafficMode
from ofp_platform_tests.torture.action_kills.provider import SECRET
from ofp_platform_tests.torture.kills.streamer import stream_through

if TYPE_CHECKING:
    from ofp_platform_tests.torture.loop_kills.site import Site

AUDIT_KEY = SigningKey.of_seed(b"l" * 32)
_BUNDLES = 40
_DECLINED_FROM = 4_000
_CASES = 5
_ROUNDS = 40


class _Enough(Exception):
    """A child has sent as much as it was told to."""


def now() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1_000


@cache
def registry() -> CompiledRegistry:
    """The shipped pack, compiled once in the process that children are forked from."""
    return compile_pack(shipped_pack("card_payments"))


@cache
def _bundle() -> Bundle:
    """The shipped one, with a rule that declines often: each decline wants a hold and a message."""
    path = bundle_source("card_payments")
    shipped = make_bundle(path, read_bundle_file(path), registry())
    above = Comparison(field="amount_minor", operator="at_least", value=_DECLINED_FROM)
    rule = Guardrail(reason_code="ABOVE_THE_DRILL", outcome=Outcome.DECLINE, all_of=(above,))
    return shipped.model_copy(update={"guardrails": (rule, *shipped.guardrails)})


def send(site: Site, batches: int) -> None:
    """The door: send some batches of the sealed world, behind what was sent; all of the rest, if that is less."""
    with Plane.open(site.profile, site.dsn, max_connections=3) as plane:
        admit, left = door_of(plane).admit, batches

        def admit_some(envelopes: Sequence[Mapping[str, Any]], *others: Any) -> Any:
            nonlocal left
            if not left:
                raise _Enough
            left -= 1
            return admit(envelopes, *others)

        with suppress(_Enough):
            stream_through(plane, admit_some)


def take_in(site: Site, _: int) -> None:
    """The projector: apply what is in the log."""
    with Plane.open(site.profile, site.dsn, max_connections=3) as plane:
        take_in_all(plane)


def take_in_all(plane: Plane) -> None:
    """The same, of an open plane."""
    project_available(plane.projector(plane.ensure_live()), 40, lambda _: None)


def decide(site: Site, _: int) -> None:
    """The decider: decide on what is in the log, a few events in a step, and record what is wanted."""
    with (
        Plane.open(site.profile, site.dsn, max_connections=4) as plane,
        opened_decider(plane, site.service, site.token, 2) as (decider, questions),
    ):
        questions.run(decider.decide_available(records=15))


def act(site: Site, rounds: int = _ROUNDS) -> None:
    """The executor: do what is wanted, until nothing is due."""
    webhook = {
        "url": f"{site.outside}/do",
        "status_url": f"{site.outside}/status/{{key}}",
        "secret_variable": "SECRET",
        "timeout_ms": 2_000,  # a claim of who was killed is left for eight of them
    }
    policy = ActionPolicy.model_validate(
        {
            "revision": 1,
            "allow_list": [
                {"actor": "decider", "action_type": action, "scope": "*"} for action in (HOLD_ACCOUNT, "tell_payments")
            ],
            "webhooks": {"payments": webhook},
            "attempts": {"most": 50, "first_pause_ms": 20, "longest_pause_ms": 200},
        }
    )
    with (
        Plane.open_without_log(site.profile, site.dsn, max_connections=3) as plane,
        open_webhooks(policy, {"SECRET": SECRET}, now) as webhooks,
    ):
        executor = ActionExecutor(plane.pool, plane.decisions_log(), site.profile.context_pins, policy, webhooks, now)
        for _ in range(rounds):
            if not executor.run_round().total:
                return


def prove(site: Site, _: int) -> None:
    """The appender of the audit log: leaves of what was recorded, under signed heads, a few leaves each."""
    with Plane.open_without_log(site.profile, site.dsn, max_connections=3) as plane:
        append_records(plane.pool, plane.objects, AUDIT_KEY, now, 30)


def look_into(site: Site, cases: int = _CASES) -> None:
    """Cases: open them, label some, and settle labels that wait. The same case gets the same label, whoever does it again."""
    with Plane.open_without_log(site.profile, site.dsn, max_connections=3) as plane:
        pins, events = site.profile.context_pins, registry().pack.events
        collect(plane.pool, Collection(pins, lambda name: event_class(events, name), now))
        desk = CaseDesk(plane.pool, pins, LabelIntake(LabelStore(plane.pool, pins), events), now)
        ask = LabelAsk(label_type="fraud_disposition", word="fraud")
        for case in desk.cases(CaseState.OPEN, cases).cases:
            desk.assert_label(case.case_id, ask, f"torture/{case.case_id[:12]}", "investigator")
        settle_labels(desk, 3, time.sleep)


def promote(site: Site, bundles: int) -> None:
    """The registry: publish, approve and activate the next bundles by several people; each second one is rolled back again."""
    with Plane.open_without_log(site.profile, site.dsn, max_connections=3) as plane:
        scope = BundleScope(environment=site.profile.profile_name, mode=TrafficMode.FRAUD, slot=Slot.ACTIVE)
        live = LivePlane(registry(), has_identity=False)

        def steps_of(actor: str) -> BundleRegistry:
            return BundleRegistry(plane.pool, plane.objects, plane.control_log(), site.profile, actor, now)

        for _ in range(bundles):
            with plane.pool.connection() as connection:
                newest = list_bundle_events(connection, site.profile.context_pins, 1)
                force = bundle_in_force(connection, site.profile.context_pins, scope)
            number = 0 if not newest else (newest[0].event.sequence + 1) // 3 % _BUNDLES
            bundle = _bundle().model_copy(update={"bundle_name": f"promoted_{number}"})
            steps_of("ada").publish(bundle, "torture")
            steps_of("ben").approve(bundle.ref, "torture")
            if force is None or force.bundle != bundle.ref:
                steps_of("ben").activate(bundle.ref, scope.mode, scope.slot, live, "torture")
            if force is not None and force.bundle != bundle.ref and number % 2:
                steps_of("cem").roll_back(bundle.ref, scope.mode, scope.slot, live, "torture")


PARTS: dict[Callable[..., None], tuple[str, ...]] = {
    send: ("ingress.appended", "ingress.recorded", "ingress.after_commit"),
    take_in: ("projector.before_transaction", "projector.after_chunks", "projector.before_commit", "projector.after_commit"),
    decide: ("decision.placed", "decision.recorded", "decision.after_commit"),
    act: ("action.claimed", "action.done", "action.recording", "action.recorded"),
    prove: ("audit.rows_written", "audit.committed", "audit.head_put"),
    look_into: ("label.stored",),
    promote: ("bundle.object_put", "bundle.recorded", "bundle.after_commit"),
}
"""Each part, and the points that it comes by."""
OWN_POINTS = (*PARTS[decide], *PARTS[look_into])
"""Those that no other loop kills at."""
