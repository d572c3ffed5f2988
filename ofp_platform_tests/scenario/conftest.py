"""A plane with a sealed world of its own, and a runner."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from ofp_platform.cli.files.run_door import door_of
from ofp_platform.ingress.batches import BatchReceipt
from ofp_platform.online.plane import Plane
from ofp_platform.scenario.ready_run import ready_run, world_of
from ofp_platform.scenario.runner import RunnerOutcome, ScenarioRunner
from ofp_platform.simulation.rings import RingSimulation
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.run_facts import TrafficMode
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.world.makers import rings_world
from ofp_platform.world.streamer import Pace, Streamer
from ofp_platform.world.world_store import seal_world, write_world

moments = count(1_800_000_000_000_000, 1_000_000)
AT_ONCE = Pace(0, lambda: 0.0, lambda _: None)
_numbers = count()


@dataclass
class Site:
    """A plane with a sealed world of a small ring, and a runner."""

    plane: Plane
    runner: ScenarioRunner
    folder: Path

    def request(self, **changed: Any) -> RunnerOutcome:
        settings = {"mode": TrafficMode.FRAUD, "reference": f"facts/{self.plane.profile.context_pins.run_id}", **changed}
        return self.runner.request(settings.pop("world", "rings"), **settings)

    def stream(self) -> Counter[str]:
        door = door_of(self.plane)

        def send(envelopes: Sequence[Mapping[str, Any]], admitted_at: Sequence[int] | None) -> Mapping[str, int]:
            return Counter(outcome.outcome.value for outcome in door.admit(envelopes, "world", admitted_at).outcomes)

        run = ready_run(self.plane)
        pins = self.plane.profile.context_pins
        world = world_of(self.plane, run)
        return Streamer(world, pins, self.plane.pool, send, AT_ONCE, True, run.scenario.outputs).run().outcomes

    def admit(self, event_id: str, **more: Any) -> BatchReceipt:
        payload = {"account_id": "acct-9", "counterparty_id": "acct-1", "amount": "5.00", "currency": "EUR"}
        event = {
            "event_id": event_id,
            "event_type": "transfer",
            "schema_version": "v1",
            "ts_utc": "2026-01-03T00:00:00Z",
            **self.plane.profile.context_pins.wire(),
            "payload": payload,
            **more,
        }
        return door_of(self.plane).admit([event], "test")

    def profile(self, **changed: Any) -> Profile:
        return self.plane.profile.model_copy(update=changed)


@pytest.fixture
def new_site(module_dsn: str, tmp_path: Path) -> Iterator[Callable[..., Site]]:
    opened: list[Plane] = []

    def make(**changed: Any) -> Site:
        number = next(_numbers)
        pins = ContextPins(scenario_id="rings", run_id=f"r-{number}", manifest_fingerprint="0" * 64, parameter_hash="1" * 64)
        profile = Profile(
            **{
                "profile_name": "rings",
                "stream_name": f"transfers-{number}",
                "context_stream": f"links-{number}",
                "control_stream": f"control-{number}",
                "partition_key": "payload.account_id",
                "context_pins": pins,
                "pack": "mule_rings",
                "object_store_url": f"file://{tmp_path}/objects-{number}",
                **changed,
            }
        )
        plane = Plane.open(profile, module_dsn)
        opened.append(plane)
        made = rings_world(
            RingSimulation(pins, accounts=30, families=3, ring=3, days=5, quiet_days=1, linked_after_days=4, amended=4)
        )
        write_world(plane.objects, "rings", made.maker, made.outputs)
        seal_world(plane.objects, "rings")
        return Site(plane, ScenarioRunner(plane, "tester", lambda: next(moments)), tmp_path / f"objects-{number}")

    yield make
    for plane in opened:
        plane.close()
