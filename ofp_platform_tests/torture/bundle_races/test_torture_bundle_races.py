"""Racing promotions, short; and the check of the line finds out what is no line."""

from __future__ import annotations

import pytest

from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.bundle import BundleEvent, BundleRef, BundleStep
from ofp_platform_tests.torture.bundle_races.line import faults_of
from ofp_platform_tests.torture.bundle_races.racers import SCOPES
from ofp_platform_tests.torture.bundle_races.suite import SUITE

PINS = ContextPins(scenario_id="s", run_id="r", manifest_fingerprint="0" * 64, parameter_hash="1" * 64)
FIRST, SECOND = (BundleRef(bundle_name=name, digest=name * 64) for name in "ab")


def test_bundle_races(embedded_server: str) -> None:
    figures = SUITE.run(size=0.02, seed=5, dsn=embedded_server)
    assert all(row.reached for row in figures.rows), figures.table()
    assert len(figures.rows) == 9


def line() -> list[BundleEvent]:
    steps = [(BundleStep.PUBLISHED, FIRST, None), (BundleStep.PUBLISHED, SECOND, None)]
    steps += [(BundleStep.APPROVED, FIRST, None), (BundleStep.APPROVED, SECOND, None)]
    steps += [(BundleStep.ACTIVATED, FIRST, None), (BundleStep.ACTIVATED, SECOND, FIRST), (BundleStep.ROLLED_BACK, FIRST, SECOND)]
    steps += [(BundleStep.RETIRED, SECOND, None)]
    scoped = (BundleStep.ACTIVATED, BundleStep.ROLLED_BACK)
    return [
        BundleEvent(
            context_pins=PINS,
            sequence=sequence,
            step=step,
            bundle=bundle,
            scope=SCOPES[0] if step in scoped else None,
            replaces=replaces,
            actor="y" if step is BundleStep.APPROVED else "x",
            reason="x",
            at_utc=f"2026-01-01T00:00:0{sequence}Z",
        )
        for sequence, (step, bundle, replaces) in enumerate(steps)
    ]


def test_a_line_is_one() -> None:
    assert faults_of(line()) == []
    assert faults_of([]) == []


@pytest.mark.parametrize(
    ("place", "changed", "words"),
    [
        (3, {"sequence": 2}, "has sequence 2"),
        (5, {"replaces": None}, "does not replace what was in force"),
        (5, {"at_utc": "2025-01-01T00:00:00Z"}, "lies before the step before it"),
        (6, {"bundle": SECOND}, "does not go back to what was before"),
        (2, {"actor": "x"}, "two eyes"),
        (1, {"bundle": FIRST}, "was taken before"),
        (2, {"step": BundleStep.RETIRED}, "is not approved, or retired"),
        (7, {"bundle": FIRST}, "was in force"),
    ],
)
def test_what_is_no_line_is_found_out(place: int, changed: dict[str, object], words: str) -> None:
    steps = line()
    steps[place] = steps[place].model_copy(update=changed)
    assert any(words in fault for fault in faults_of(steps)), faults_of(steps)
    del steps[place]
    assert place == 7 or faults_of(steps)
