"""Whatever is in force for a decider: the posture, and the bundles of its environment, as the database has them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

from psycopg import Connection

from ofp_platform.storage.bundle_events import bundle_in_force
from ofp_platform.storage.posture_changes import hold_posture_shared, posture_in_force
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.bundle import BundleInForce, BundleScope, Slot
from ofp_platform.vocabulary.loop.posture import PostureInForce
from ofp_platform.vocabulary.offline.run_facts import TrafficMode


class InForce(NamedTuple):
    """Posture and bundles at one moment; a slot without a bundle is not named."""

    posture: PostureInForce
    bundles: tuple[tuple[Slot, BundleInForce], ...]

    def bundle(self, slot: Slot) -> BundleInForce | None:
        """The bundle of a slot."""
        return dict(self.bundles).get(slot)


@dataclass(frozen=True)
class InForceReader:
    """Of one run; `environment` and `mode`: the scope that its bundles are put in force in."""

    pins: ContextPins
    environment: str
    mode: TrafficMode

    def read(self, connection: Connection[Any]) -> InForce:
        """As it is now."""
        return InForce(posture_in_force(connection, self.pins), self._bundles(connection))

    def hold(self, connection: Connection[Any]) -> InForce:
        """As it is now; the posture stays so until the caller's transaction ends (see `hold_posture_shared`)."""
        return InForce(hold_posture_shared(connection, self.pins), self._bundles(connection))

    def _bundles(self, connection: Connection[Any]) -> tuple[tuple[Slot, BundleInForce], ...]:
        scopes = [(slot, BundleScope(environment=self.environment, mode=self.mode, slot=slot)) for slot in Slot]
        pairs = [(slot, bundle_in_force(connection, self.pins, scope)) for slot, scope in scopes]
        return tuple((slot, in_force) for slot, in_force in pairs if in_force is not None)
