"""A run with a stream of control and an object store, and registries of its bundles for whoever acts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from ofp_platform.bundles.bundle_file import BundleFile, bundle_source, make_bundle, read_bundle_file
from ofp_platform.bundles.bundle_registry import BundleRegistry
from ofp_platform.bundles.compatibility import LivePlane
from ofp_platform.online.plane import Plane
from ofp_platform.registry.compile import CompiledRegistry, compile_pack
from ofp_platform.registry.pack import shipped_pack
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.bundle import Bundle, BundleScope, Slot
from ofp_platform.vocabulary.offline.run_facts import TrafficMode
from ofp_platform.vocabulary.profile import Profile

START = 1_800_000_000_000_000
_numbers = count()
FRAUD_ACTIVE = BundleScope(environment="card-desk", mode=TrafficMode.FRAUD, slot=Slot.ACTIVE)
FRAUD_SHADOW = BundleScope(environment="card-desk", mode=TrafficMode.FRAUD, slot=Slot.SHADOW)


@dataclass
class Desk:
    """A run, and who acts on its bundles. `clock`: what it says next, microseconds."""

    plane: Plane
    clock: Callable[[], int]
    registry: CompiledRegistry

    def by(self, actor: str, **changed: Any) -> BundleRegistry:
        """The registry as one actor has it."""
        profile = self.plane.profile.model_copy(update=changed)
        return BundleRegistry(
            self.plane.pool, self.plane.objects, self.plane.control_log(create=True), profile, actor, self.clock
        )

    @property
    def live(self) -> LivePlane:
        return LivePlane(self.registry, has_identity=False)

    def bundle(self, name: str = "card_payments", **changed: Any) -> Bundle:
        """The shipped bundle under another name: other content, another digest."""
        path = bundle_source("card_payments")
        content = {**read_bundle_file(path).model_dump(mode="json"), "name": name, **changed}
        return make_bundle(path, BundleFile.model_validate(content), self.registry)

    def approved(self, name: str) -> Bundle:
        bundle = self.bundle(name)
        self.by("maker").publish(bundle, "made")
        self.by("checker").approve(bundle.ref, "looked at")
        return bundle

    def activated(self, name: str, scope: BundleScope = FRAUD_ACTIVE) -> Bundle:
        bundle = self.approved(name)
        self.by("owner").activate(bundle.ref, scope.mode, scope.slot, self.live, "go")
        return bundle


@pytest.fixture(scope="session")
def card_registry() -> CompiledRegistry:
    return compile_pack(shipped_pack("card_payments"))


@pytest.fixture
def desk(module_dsn: str, tmp_path: Path, card_registry: CompiledRegistry) -> Iterator[Desk]:
    number = next(_numbers)
    profile = Profile(
        profile_name="card-desk",
        stream_name=f"cards-{number}",
        control_stream=f"control-{number}",
        partition_key="payload.card_id",
        context_pins=ContextPins(
            scenario_id="cards", run_id=f"b-{number}", manifest_fingerprint="0" * 64, parameter_hash="1" * 64
        ),
        pack="card_payments",
        object_store_url=f"file://{tmp_path}/objects",
    )
    moments = count(START, 1_000_000)
    with Plane.open_without_log(profile, module_dsn) as plane:
        yield Desk(plane, lambda: next(moments), card_registry)
