"""Whether a history is one line: no gap, each step one that could be taken then, and the same everywhere it is told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from ofp_platform.online.plane import Plane
from ofp_platform.storage.bundle_events import bundle_in_force, bundle_path, list_bundle_events
from ofp_platform.vocabulary.loop.bundle import BUNDLE_EVENTS, BundleEvent, BundleRef, BundleStep
from ofp_platform.vocabulary.loop.bundle_views import RecordedBundleEvent
from ofp_platform.vocabulary.times import parse_time
from ofp_platform_tests.torture.bundle_races.racers import SCOPES
from ofp_platform_tests.torture.kills.check import Checked

_PAGE = 1_000
_FACTS = """
    SELECT content FROM ofp.governance_fact WHERE fact = 'bundle_step' AND content::jsonb #>> '{context_pins,run_id}' = %s
    ORDER BY (content::jsonb ->> 'sequence')::bigint"""


def faults_of(events: Sequence[BundleEvent]) -> list[str]:
    """Everything that no line of steps can hold, by a pencil: who did what to each bundle, and a pile for each scope."""
    faults = []
    done: dict[tuple[BundleRef, BundleStep], str] = {}
    piles: dict[str, list[BundleRef]] = {}
    before = 0
    for place, event in enumerate(events):
        bundle, step = event.bundle, event.step
        where = f"step {place} ({step} of {bundle.bundle_name})"
        if event.sequence != place:
            faults.append(f"{where}: has sequence {event.sequence}")
        if parse_time(event.at_utc) < before:
            faults.append(f"{where}: lies before the step before it")
        before = max(before, parse_time(event.at_utc))
        if event.scope is None:
            in_force = any(pile[-1:] == [bundle] for pile in piles.values())
            if (bundle, step) in done or (step is not BundleStep.PUBLISHED and (bundle, BundleStep.PUBLISHED) not in done):
                faults.append(f"{where}: was taken before, or before it was published")
            if step is BundleStep.APPROVED and done.get((bundle, BundleStep.PUBLISHED)) == event.actor:
                faults.append(f"{where}: two eyes")
            if step is BundleStep.RETIRED and in_force:
                faults.append(f"{where}: was in force")
            done[bundle, step] = event.actor
            continue
        pile = piles.setdefault(event.scope.key, [])
        if (pile[-1] if pile else None) != event.replaces:
            faults.append(f"{where}: does not replace what was in force")
        if (bundle, BundleStep.APPROVED) not in done or (bundle, BundleStep.RETIRED) in done:
            faults.append(f"{where}: is not approved, or retired")
        if step is BundleStep.ACTIVATED:
            pile.append(bundle)
        elif len(pile) < 2 or pile[-2] != bundle:
            faults.append(f"{where}: does not go back to what was before")
        else:
            pile.pop()
    return faults


def check_line(plane: Plane) -> Checked:
    """Hold table, control, facts, objects and resolution of a run against one another."""
    checked = Checked()
    pins = plane.profile.context_pins
    with plane.pool.connection() as connection:
        steps: list[RecordedBundleEvent] = []
        while page := list_bundle_events(connection, pins, _PAGE, steps[-1].event.sequence if steps else None):
            steps += page
        steps.reverse()
        events = [step.event for step in steps]
        checked.compare("line", faults_of(events), [])
        facts = [orjson.loads(content) for (content,) in connection.execute(_FACTS, (pins.run_id,)).fetchall()]
        told = [(fact["sequence"], fact["step"], fact["bundle_digest"], fact["actor"]) for fact in facts]
        checked.compare("facts", told, [(one.sequence, one.step.value, one.bundle.digest, one.actor) for one in events])
        last: dict[str, tuple[BundleRef, int]] = {}
        for event in events:
            if event.scope is not None:
                last[event.scope.key] = event.bundle, event.sequence
            for scope in SCOPES:
                force = bundle_in_force(connection, pins, scope, at_sequence=event.sequence)
                stored = None if force is None else (force.bundle, force.sequence)
                checked.compare("resolution", stored, last.get(scope.key), f"{scope.key} at {event.sequence}")
    messages = _control(plane)
    checked.compare("control", len(messages), len(steps))
    for message, step in zip(messages, steps, strict=False):
        expected = {
            "event_id": step.event.message_id,
            "event_type": BUNDLE_EVENTS[step.event.step],
            "offset": step.position.offset,
            "payload": {**step.event.wire(), "scenario_run_id": pins.run_id},
        }
        checked.compare("control", message, expected, step.event.sequence)
    for event in events:
        if event.step is BundleStep.PUBLISHED:
            checked.compare("objects", plane.objects.exists(bundle_path(event.bundle)), True, event.bundle.bundle_name)
    return checked


def _control(plane: Plane) -> list[Mapping[str, Any]]:
    log = plane.control_log()
    messages: list[Mapping[str, Any]] = []
    for info in log.partitions():
        after = None
        while True:
            batch = log.read(info.partition_id, after, _PAGE)
            if batch.next == after or not len(batch.offsets):
                break
            messages += [
                {
                    "event_id": batch.event_ids[index],
                    "event_type": batch.event_types[index],
                    "offset": offset,
                    "payload": orjson.loads(batch.payloads[index]),
                }
                for index, offset in enumerate(batch.offsets)
            ]
            after = batch.next
    return messages
