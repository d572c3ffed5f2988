"""The steps that a bundle may take next. Pure: of who asks, and of the line of steps so far.

PUBLISHED, then APPROVED, then ACTIVATED in as many scopes as it is wanted in. In a scope, ACTIVATED lays a bundle on top of those
before, ROLLED_BACK takes the top away and puts in force what lies below. RETIRED is for good: such a bundle is put in force
nowhere again. A step that was taken, asked for again by who took it, is that step; asked for by somebody else, it is refused.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from ofp_platform.vocabulary.loop.bundle import BundleRef, BundleScope, BundleStep
from ofp_platform.vocabulary.loop.bundle_views import RecordedBundleEvent


class BundleRefused(Exception):
    """A step that a bundle cannot take; the text says why and what to do."""


@dataclass(frozen=True)
class AskedStep:
    """A step as it is asked for. `bundle`: of ROLLED_BACK the one that is left; `scope`: of ACTIVATED and ROLLED_BACK."""

    step: BundleStep
    bundle: BundleRef
    scope: BundleScope | None
    actor: str


@dataclass(frozen=True)
class NextStep:
    """A step that may be taken. `bundle`: of one with a scope, what is in force from then on."""

    bundle: BundleRef
    replaces: BundleRef | None = None


class BundleHistory(Protocol):
    """The line of steps so far."""

    def step_of(self, bundle: BundleRef, step: BundleStep) -> RecordedBundleEvent | None:
        """The last step of that kind that a bundle took."""
        ...

    def last_in(self, scope: BundleScope) -> RecordedBundleEvent | None:
        """The step that says what is in force in a scope."""
        ...

    def steps_in(self, scope: BundleScope) -> list[tuple[BundleStep, BundleRef]]:
        """The bundles that were put in force in a scope, and how, the oldest first."""
        ...

    def scopes_of(self, bundle: BundleRef) -> list[str]:
        """The keys of the scopes in which a bundle is in force, sorted."""
        ...


def next_step(asked_step: AskedStep, history: BundleHistory, *, four_eyes: bool) -> NextStep | RecordedBundleEvent:
    """The step that comes of what is asked; a step that was taken before, where the same actor asks for the same again.

    Raises:
        BundleRefused: it cannot be taken.
    """
    match asked_step.step:
        case BundleStep.PUBLISHED:
            return _again(asked_step, history) or NextStep(asked_step.bundle)
        case BundleStep.APPROVED:
            return _approval(asked_step, history, four_eyes)
        case BundleStep.ACTIVATED:
            return _activation(asked_step, history)
        case BundleStep.ROLLED_BACK:
            return _roll_back(asked_step, history)
        case BundleStep.RETIRED:
            return _retirement(asked_step, history)


def bundle_below(steps: Iterable[tuple[BundleStep, BundleRef]]) -> BundleRef | None:
    """The bundle under the one in force, which a roll-back puts in force; None: there is none. `steps`: see `steps_in`."""
    pile: list[BundleRef] = []
    for step, bundle in steps:
        if step is BundleStep.ACTIVATED:
            pile.append(bundle)
        else:
            pile.pop()
    return pile[-2] if len(pile) > 1 else None


def name_of(bundle: BundleRef) -> str:
    """A bundle as commands take it."""
    return f"{bundle.bundle_name}/{bundle.digest[:12]}"


def _again(asked_step: AskedStep, history: BundleHistory) -> RecordedBundleEvent | None:
    """The same step of the same actor, if it was taken."""
    before = history.step_of(asked_step.bundle, asked_step.step)
    if before is not None and before.event.actor != asked_step.actor:
        raise BundleRefused(
            f"ALREADY_{asked_step.step}: {name_of(asked_step.bundle)} was {asked_step.step} by {before.event.actor} at"
            f" {before.event.at_utc}: there is nothing left to do"
        )
    return before


def _approval(asked_step: AskedStep, history: BundleHistory, four_eyes: bool) -> NextStep | RecordedBundleEvent:
    published_step = _demand_published(asked_step.bundle, history)
    _demand_not_retired(asked_step.bundle, history)
    if (before := _again(asked_step, history)) is not None:
        return before
    if four_eyes and published_step.event.actor == asked_step.actor:
        raise BundleRefused(
            f"FOUR_EYES: {name_of(asked_step.bundle)} was published by {asked_step.actor}: somebody else approves it (or the"
            " profile says `bundles: {four_eyes: false}`)"
        )
    return NextStep(asked_step.bundle)


def _activation(asked_step: AskedStep, history: BundleHistory) -> NextStep | RecordedBundleEvent:
    assert asked_step.scope is not None
    _demand_published(asked_step.bundle, history)
    _demand_not_retired(asked_step.bundle, history)
    if history.step_of(asked_step.bundle, BundleStep.APPROVED) is None:
        raise BundleRefused(f"NOT_APPROVED: {name_of(asked_step.bundle)}: `ofp bundle approve` comes first")
    before = history.last_in(asked_step.scope)
    if before is not None and before.event.bundle == asked_step.bundle:
        if before.event.step is BundleStep.ACTIVATED and before.event.actor == asked_step.actor:
            return before
        raise BundleRefused(
            f"ALREADY_IN_FORCE: {name_of(asked_step.bundle)} is in force in {asked_step.scope.key} by {before.event.actor} since"
            f" {before.event.at_utc}: there is nothing left to do"
        )
    return NextStep(asked_step.bundle, None if before is None else before.event.bundle)


def _roll_back(asked_step: AskedStep, history: BundleHistory) -> NextStep | RecordedBundleEvent:
    assert asked_step.scope is not None
    key = asked_step.scope.key
    before = history.last_in(asked_step.scope)
    if before is None:
        raise BundleRefused(f"NOT_IN_FORCE: nothing is in force in {key}, so there is nothing to roll back")
    event = before.event
    if event.bundle != asked_step.bundle:
        if (event.step, event.replaces, event.actor) == (BundleStep.ROLLED_BACK, asked_step.bundle, asked_step.actor):
            return before
        raise BundleRefused(
            f"NOT_IN_FORCE: {name_of(asked_step.bundle)} is not in force in {key}, {name_of(event.bundle)} is, by {event.actor}"
            f" since {event.at_utc}: name that one to leave it"
        )
    below = bundle_below(history.steps_in(asked_step.scope))
    if below is None:
        raise BundleRefused(
            f"NOTHING_BEFORE: nothing was in force in {key} before {name_of(event.bundle)}: activate another bundle, or hold the"
            " posture"
        )
    _demand_not_retired(below, history)
    return NextStep(below, asked_step.bundle)


def _retirement(asked_step: AskedStep, history: BundleHistory) -> NextStep | RecordedBundleEvent:
    _demand_published(asked_step.bundle, history)
    if (before := _again(asked_step, history)) is not None:
        return before
    if scopes := history.scopes_of(asked_step.bundle):
        raise BundleRefused(
            f"IN_FORCE: {name_of(asked_step.bundle)} is in force in {', '.join(scopes)}: activate another bundle there first"
        )
    return NextStep(asked_step.bundle)


def _demand_published(bundle: BundleRef, history: BundleHistory) -> RecordedBundleEvent:
    published_step = history.step_of(bundle, BundleStep.PUBLISHED)
    if published_step is None:
        raise BundleRefused(f"NOT_PUBLISHED: {name_of(bundle)} is not known to this run: `ofp bundle publish` comes first")
    return published_step


def _demand_not_retired(bundle: BundleRef, history: BundleHistory) -> None:
    if (retired_step := history.step_of(bundle, BundleStep.RETIRED)) is not None:
        raise BundleRefused(
            f"RETIRED: {name_of(bundle)} was retired by {retired_step.event.actor} at {retired_step.event.at_utc}"
            f" ({retired_step.event.reason}): it is put in force nowhere again; publish another"
        )
