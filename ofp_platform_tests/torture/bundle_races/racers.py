"""Racers: each asks for random steps of bundles as several actors, against what others ask for at the same time."""

from __future__ import annotations

import random
import time
from collections import Counter
from functools import cache
from unittest.mock import patch

import psycopg

from ofp_platform.bundles import bundle_registry
from ofp_platform.bundles.bundle_file import bundle_source, make_bundle, read_bundle_file
from ofp_platform.bundles.bundle_registry import BundleRegistry, StepOutcome
from ofp_platform.bundles.compatibility import LivePlane
from ofp_platform.bundles.lifecycle import BundleRefused
from ofp_platform.log.port import LogUnavailable
from ofp_platform.online.plane import Plane
from ofp_platform.registry.compile import CompiledRegistry, compile_pack
from ofp_platform.registry.pack import shipped_pack
from ofp_platform.storage.bundle_events import bundle_in_force
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.bundle import Bundle, BundleScope, BundleStep, Slot
from ofp_platform.vocabulary.offline.run_facts import TrafficMode
from ofp_platform.vocabulary.profile import Profile

POINTS = ("bundle.object_put", "bundle.recorded", "bundle.after_commit")
SCOPES = tuple(BundleScope(environment="races", mode=TrafficMode.FRAUD, slot=slot) for slot in Slot)
ACTORS = ("ada", "ben", "cem")
STEPS = (BundleStep.PUBLISHED, BundleStep.APPROVED, BundleStep.ACTIVATED, BundleStep.ROLLED_BACK, BundleStep.RETIRED)
_WEIGHTS = (5, 5, 8, 4, 1)
_WINDOW = 8
"""Bundles that are promoted at a time."""


@cache
def registry() -> CompiledRegistry:
    """Of the pack whose features the bundles ask for."""
    return compile_pack(shipped_pack("card_payments"))


@cache
def _shipped() -> Bundle:
    path = bundle_source("card_payments")
    return make_bundle(path, read_bundle_file(path), registry())


def bundle(number: int) -> Bundle:
    """One of many bundles."""
    return _shipped().model_copy(update={"bundle_name": f"promoted_{number}"})


def profile_of(name: str, folder: str) -> Profile:
    """A run of its own."""
    pins = ContextPins(scenario_id="races", run_id=name, manifest_fingerprint="0" * 64, parameter_hash="1" * 64)
    return Profile(
        profile_name="races",
        stream_name=name,
        control_stream=f"{name}-control",
        partition_key="payload.card_id",
        context_pins=pins,
        pack="card_payments",
        object_store_url=f"file://{folder}",
    )


def race(profile: Profile, dsn: str, seed: int, first: int, asks: int, *, guarded: bool = True) -> Counter[str]:
    """Ask for that many steps, of bundles from number `first` on; what came of them. `guarded`: False for the negative control,
    in which nobody holds the run's line."""
    rng = random.Random(seed)
    outcomes: Counter[str] = Counter()
    lock = bundle_registry.lock_bundles
    with (
        patch.object(bundle_registry, "lock_bundles", lock if guarded else lambda *_: None),
        Plane.open_without_log(profile, dsn, max_connections=2) as plane,
    ):
        control = plane.control_log(create=True)
        for _ in range(asks):
            actor = rng.choice(ACTORS)
            bundles = BundleRegistry(plane.pool, plane.objects, control, profile, actor, lambda: time.time_ns() // 1_000)
            (step,) = rng.choices(STEPS, _WEIGHTS)
            try:
                outcome = _ask(bundles, plane, step, rng, first)
                outcomes[step if outcome.is_new else "again"] += 1
            except BundleRefused as error:
                outcomes[f"refused: {str(error).partition(':')[0]}"] += 1
            except (psycopg.errors.UniqueViolation, LogUnavailable):
                if guarded:
                    raise
                outcomes["collided"] += 1
    return outcomes


def _ask(bundles: BundleRegistry, plane: Plane, step: BundleStep, rng: random.Random, first: int) -> StepOutcome:
    asked = bundle(first + rng.randrange(_WINDOW))
    scope = rng.choice(SCOPES)
    live = LivePlane(registry(), has_identity=False)
    match step:
        case BundleStep.PUBLISHED:
            return bundles.publish(asked, "race")
        case BundleStep.APPROVED:
            return bundles.approve(asked.ref, "race")
        case BundleStep.ACTIVATED:
            return bundles.activate(asked.ref, scope.mode, scope.slot, live, "race")
        case BundleStep.ROLLED_BACK:
            with plane.pool.connection() as connection:
                force = bundle_in_force(connection, plane.profile.context_pins, scope)
            left = asked.ref if force is None else force.bundle
            return bundles.roll_back(left, scope.mode, scope.slot, live, "race")
        case BundleStep.RETIRED:
            return bundles.retire(asked.ref, "race")
