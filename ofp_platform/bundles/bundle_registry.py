"""The registry of bundles: each step is said on control, kept in the table and told as a governance fact, all or nothing.

Who takes a step holds the run's line of steps from the look at it to the commit, so of any number of racers each sees all that
came before it. The history belongs to a run: another run puts bundles in force by steps of its own, of the same objects.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from ofp_platform.bundles.compatibility import LivePlane, incompatibilities
from ofp_platform.bundles.lifecycle import AskedStep, BundleRefused, NextStep, name_of, next_step
from ofp_platform.bundles.publication import put_bundle
from ofp_platform.ingress.own_streams import Message, append_messages
from ofp_platform.log.governance_log import append_facts_with
from ofp_platform.log.postgres import PostgresLog, log_answering
from ofp_platform.storage.bundle_events import (
    BundleDamaged,
    all_in_force,
    append_bundle_event,
    last_bundle_event,
    last_of_scope,
    load_bundle,
    lock_bundles,
    step_of_bundle,
    steps_of_scope,
)
from ofp_platform.storage.crash_points import crash_point
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.bundle import (
    BUNDLE_EVENTS,
    Bundle,
    BundleEvent,
    BundleMessage,
    BundleRef,
    BundleScope,
    BundleStep,
    Slot,
)
from ofp_platform.vocabulary.loop.bundle_views import RecordedBundleEvent
from ofp_platform.vocabulary.offline.governance_fact import BundleStepTaken
from ofp_platform.vocabulary.offline.run_facts import TrafficMode
from ofp_platform.vocabulary.profile import BundlePolicy, Profile
from ofp_platform.vocabulary.times import format_time, parse_time


@dataclass(frozen=True)
class StepOutcome:
    """A step, where control says it, and whether it was taken now."""

    step: RecordedBundleEvent
    is_new: bool


@dataclass(frozen=True)
class StoredHistory:
    """The line of steps of a run as the database has it, over a connection that holds it."""

    connection: Connection[Any]
    pins: ContextPins

    def step_of(self, bundle: BundleRef, step: BundleStep) -> RecordedBundleEvent | None:
        """See `BundleHistory`."""
        return step_of_bundle(self.connection, self.pins, bundle, step)

    def last_in(self, scope: BundleScope) -> RecordedBundleEvent | None:
        """See `BundleHistory`."""
        return last_of_scope(self.connection, self.pins, scope)

    def steps_in(self, scope: BundleScope) -> list[tuple[BundleStep, BundleRef]]:
        """See `BundleHistory`."""
        return steps_of_scope(self.connection, self.pins, scope)

    def scopes_of(self, bundle: BundleRef) -> list[str]:
        """See `BundleHistory`."""
        entries = all_in_force(self.connection, self.pins)
        return [entry.scope.key for entry in entries if entry.in_force.bundle == bundle]


@dataclass(frozen=True)
class BundleRegistry:
    """Of the run of a profile. `control`: its stream of control; `now`: microseconds; `actor`: who asks, for the record.

    Each method raises BundleRefused for a step that cannot be taken, and LogUnavailable | ObjectStoreUnavailable | psycopg.Error
    where nothing was done, or all of it: the same call then finds out.
    """

    pool: Pool
    objects: ObjectStore
    control: PostgresLog
    profile: Profile
    actor: str
    now: Callable[[], int]

    def publish(self, bundle: Bundle, reason: str) -> StepOutcome:
        """Write the bundle, then say PUBLISHED.

        Raises:
            ObjectConflict: other bytes stand under its digest.
        """
        return self._take(AskedStep(BundleStep.PUBLISHED, put_bundle(self.objects, bundle), None, self.actor), reason)

    def approve(self, bundle: BundleRef, reason: str) -> StepOutcome:
        """Say APPROVED: by somebody else than who published it, as the policy has it."""
        return self._take(AskedStep(BundleStep.APPROVED, bundle, None, self.actor), reason)

    def activate(self, bundle: BundleRef, mode: TrafficMode, slot: Slot, live: LivePlane, reason: str) -> StepOutcome:
        """Put an approved bundle in force in a scope, in place of what is there, if it is compatible with what is live."""
        return self._take(AskedStep(BundleStep.ACTIVATED, bundle, self._scope(mode, slot), self.actor), reason, live)

    def roll_back(self, bundle: BundleRef, mode: TrafficMode, slot: Slot, live: LivePlane, reason: str) -> StepOutcome:
        """Leave the bundle that is in force in a scope, and put in force again what was before it, if it is compatible."""
        return self._take(AskedStep(BundleStep.ROLLED_BACK, bundle, self._scope(mode, slot), self.actor), reason, live)

    def retire(self, bundle: BundleRef, reason: str) -> StepOutcome:
        """Say RETIRED of a bundle that is in force nowhere."""
        return self._take(AskedStep(BundleStep.RETIRED, bundle, None, self.actor), reason)

    def _scope(self, mode: TrafficMode, slot: Slot) -> BundleScope:
        return BundleScope(environment=self.profile.profile_name, mode=mode, slot=slot)

    def _take(self, asked_step: AskedStep, reason: str, live: LivePlane | None = None) -> StepOutcome:
        pins = self.profile.context_pins
        policy = self.profile.bundles or BundlePolicy()
        with log_answering(), self.pool.connection() as connection:
            with connection.transaction():
                lock_bundles(connection, pins)
                step = next_step(asked_step, StoredHistory(connection, pins), four_eyes=policy.four_eyes)
                if isinstance(step, RecordedBundleEvent):
                    return StepOutcome(step, is_new=False)
                if live is not None:
                    self._demand_compatible(step.bundle, live)
                recorded_event = self._record(connection, asked_step, step, reason)
                crash_point("bundle.recorded")
            crash_point("bundle.after_commit")
            self.control.tell(connection)
        return StepOutcome(recorded_event, is_new=True)

    def _demand_compatible(self, bundle_ref: BundleRef, live: LivePlane) -> None:
        try:
            faults = incompatibilities(load_bundle(self.objects, bundle_ref), live, self.objects)
        except BundleDamaged as error:
            faults = [str(error)]
        if faults:
            raise BundleRefused("\n".join(f"INCOMPATIBLE: {name_of(bundle_ref)}: {words}" for words in faults))

    def _record(self, connection: Connection[Any], asked_step: AskedStep, step: NextStep, reason: str) -> RecordedBundleEvent:
        """Append the step to control, to the table and to the facts, in the caller's transaction."""
        pins = self.profile.context_pins
        last_step = last_bundle_event(connection, pins)
        # a clock that went back must not put a step before the one that it follows: what was in force at a time is for good
        at = self.now() if last_step is None else max(self.now(), parse_time(last_step.event.at_utc))
        event = BundleEvent(
            context_pins=pins,
            sequence=0 if last_step is None else last_step.event.sequence + 1,
            step=asked_step.step,
            bundle=step.bundle,
            scope=asked_step.scope,
            replaces=step.replaces,
            actor=self.actor,
            reason=reason,
            at_utc=format_time(at),
        )
        payload = BundleMessage(**dict(event), scenario_run_id=pins.scenario_run_id or pins.run_id)
        message = Message(BUNDLE_EVENTS[event.step], event.message_id, pins, event.at_utc, payload)
        [position] = append_messages(connection, self.control, [message])
        append_bundle_event(connection, event, position)
        append_facts_with(connection, [_fact(event, self.control.stream_name)])
        return RecordedBundleEvent(event=event, position=position)


def _fact(event: BundleEvent, stream_name: str) -> BundleStepTaken:
    return BundleStepTaken(
        stream_name=stream_name,
        context_pins=event.context_pins,
        sequence=event.sequence,
        step=event.step.value,
        bundle_name=event.bundle.bundle_name,
        bundle_digest=event.bundle.digest,
        scope=None if event.scope is None else event.scope.key,
        replaces=None if event.replaces is None else event.replaces.digest,
        actor=event.actor,
        reason=event.reason,
        at_utc=event.at_utc,
    )
