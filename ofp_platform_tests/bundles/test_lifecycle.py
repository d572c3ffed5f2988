"""The steps of bundles against a naive registry that keeps every step and looks at all of them for every question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.bundles.lifecycle import AskedStep, BundleRefused, NextStep, bundle_below, next_step
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.bundle import BundleEvent, BundleRef, BundleScope, BundleStep, Slot
from ofp_platform.vocabulary.loop.bundle_views import RecordedBundleEvent
from ofp_platform.vocabulary.offline.run_facts import TrafficMode
from ofp_platform.vocabulary.position import Position

PINS = ContextPins(scenario_id="s", run_id="r", manifest_fingerprint="0" * 64, parameter_hash="1" * 64)
SCOPED = (BundleStep.ACTIVATED, BundleStep.ROLLED_BACK)
BUNDLES = tuple(BundleRef(bundle_name=name, digest=name * 64) for name in "abc")
SCOPES = tuple(BundleScope(environment="e", mode=TrafficMode.FRAUD, slot=slot) for slot in Slot)


@dataclass
class Line:
    """All steps so far, as a list; every answer is found by looking at it from the end."""

    steps: list[RecordedBundleEvent] = field(default_factory=list)

    def step_of(self, bundle: BundleRef, step: BundleStep) -> RecordedBundleEvent | None:
        return next((one for one in self.steps[::-1] if (one.event.bundle, one.event.step) == (bundle, step)), None)

    def last_in(self, scope: BundleScope) -> RecordedBundleEvent | None:
        return next((one for one in self.steps[::-1] if one.event.scope == scope), None)

    def steps_in(self, scope: BundleScope) -> list[tuple[BundleStep, BundleRef]]:
        return [(one.event.step, one.event.bundle) for one in self.steps if one.event.scope == scope]

    def scopes_of(self, bundle: BundleRef) -> list[str]:
        last = [(scope, self.last_in(scope)) for scope in SCOPES]
        return sorted(scope.key for scope, one in last if one is not None and one.event.bundle == bundle)

    def append(self, asked: AskedStep, step: NextStep) -> None:
        event = BundleEvent(
            context_pins=PINS,
            sequence=len(self.steps),
            step=asked.step,
            bundle=step.bundle,
            scope=asked.scope,
            replaces=step.replaces,
            actor=asked.actor,
            reason="x",
            at_utc="2026-01-01T00:00:00Z",
        )
        position = Position(stream_name="control", partition_id="0000", offset=len(self.steps))
        self.steps.append(RecordedBundleEvent(event=event, position=position))


@dataclass
class Model:
    """What a person with a pencil would keep: who did what to each bundle, and a pile for each scope."""

    published: dict[BundleRef, str] = field(default_factory=dict)
    approved: dict[BundleRef, str] = field(default_factory=dict)
    retired: dict[BundleRef, str] = field(default_factory=dict)
    piles: dict[str, list[BundleRef]] = field(default_factory=lambda: {scope.key: [] for scope in SCOPES})

    def may(self, asked: AskedStep, four_eyes: bool) -> bool:
        """Whether the step changes something."""
        bundle, actor = asked.bundle, asked.actor
        match asked.step:
            case BundleStep.PUBLISHED:
                return bundle not in self.published
            case BundleStep.APPROVED:
                ready = bundle in self.published and bundle not in self.retired and bundle not in self.approved
                return ready and not (four_eyes and self.published[bundle] == actor)
            case BundleStep.RETIRED:
                in_force = any(pile[-1:] == [bundle] for pile in self.piles.values())
                return bundle in self.published and bundle not in self.retired and not in_force
            case BundleStep.ACTIVATED:
                assert asked.scope is not None
                on_top = self.piles[asked.scope.key][-1:] == [bundle]
                return bundle in self.approved and bundle not in self.retired and not on_top
            case BundleStep.ROLLED_BACK:
                assert asked.scope is not None
                pile = self.piles[asked.scope.key]
                return len(pile) > 1 and pile[-1] == bundle and pile[-2] not in self.retired

    def take(self, asked: AskedStep) -> None:
        of_step = {
            BundleStep.PUBLISHED: self.published,
            BundleStep.APPROVED: self.approved,
            BundleStep.RETIRED: self.retired,
        }
        if asked.step in of_step:
            of_step[asked.step][asked.bundle] = asked.actor
        elif asked.scope is not None and asked.step is BundleStep.ACTIVATED:
            self.piles[asked.scope.key].append(asked.bundle)
        elif asked.scope is not None:
            self.piles[asked.scope.key].pop()


@st.composite
def asked_steps(draw: st.DrawFn) -> AskedStep:
    step = draw(st.sampled_from(BundleStep))
    scope = draw(st.sampled_from(SCOPES)) if step in SCOPED else None
    return AskedStep(step, draw(st.sampled_from(BUNDLES)), scope, draw(st.sampled_from(("x", "y"))))


def walk(asks: Sequence[AskedStep], four_eyes: bool) -> tuple[Line, Model]:
    """Ask for each step of the program and of the pencil, and compare after each."""
    line, model = Line(), Model()
    for asked in asks:
        changes = model.may(asked, four_eyes)
        try:
            step = next_step(asked, line, four_eyes=four_eyes)
        except BundleRefused:
            assert not changes
            continue
        if isinstance(step, RecordedBundleEvent):
            assert not changes
            assert (step.event.step, step.event.actor) == (asked.step, asked.actor)
            continue
        assert changes
        if asked.scope is not None:
            pile = model.piles[asked.scope.key]
            assert step.replaces == (pile[-1] if pile else None)
            assert step.bundle == (asked.bundle if asked.step is BundleStep.ACTIVATED else pile[-2])
        line.append(asked, step)
        model.take(asked)
        for scope in SCOPES:
            last = line.last_in(scope)
            assert ([] if last is None else [last.event.bundle]) == model.piles[scope.key][-1:]
            assert bundle_below(line.steps_in(scope)) == (model.piles[scope.key][-2:-1] or [None])[0]
    return line, model


LIFE = (BundleStep.PUBLISHED, BundleStep.APPROVED)


@given(st.lists(asked_steps(), max_size=60), st.booleans())
def test_every_line_of_steps_is_that_of_the_pencil(asks: list[AskedStep], four_eyes: bool) -> None:
    # every bundle is approved before anything else happens in half of them: deep piles are rare otherwise
    ready = [AskedStep(step, bundle, None, actor) for bundle in BUNDLES for step, actor in zip(LIFE, "xy", strict=True)]
    walk([*ready, *asks] if four_eyes else asks, four_eyes)


def test_a_step_is_asked_for_twice() -> None:
    bundle, scope = BUNDLES[0], SCOPES[0]
    asks = [
        AskedStep(BundleStep.PUBLISHED, bundle, None, "x"),
        AskedStep(BundleStep.APPROVED, bundle, None, "y"),
        AskedStep(BundleStep.ACTIVATED, bundle, scope, "x"),
    ]
    line, _ = walk([*asks, *asks], True)
    assert len(line.steps) == 3


def test_the_pencil_finds_out_a_program_that_takes_the_wrong_one_below() -> None:
    steps = [(BundleStep.ACTIVATED, bundle) for bundle in BUNDLES]
    assert bundle_below(steps) == BUNDLES[1]
    assert bundle_below([*steps, (BundleStep.ROLLED_BACK, BUNDLES[1])]) == BUNDLES[0]
    assert bundle_below([*steps, (BundleStep.ROLLED_BACK, BUNDLES[1]), (BundleStep.ROLLED_BACK, BUNDLES[0])]) is None
    assert bundle_below([]) is None
