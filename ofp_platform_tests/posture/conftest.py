"""The posture of a run of its own, in a database that a module shares."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from ofp_platform.online.plane import Plane
from ofp_platform.posture.keeper import PostureKeeper
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.profile import Profile

_numbers = count()
START = 1_800_000_000_000_000


@dataclass
class Clock:
    """Moves when it is told to. Microseconds."""

    at: int = START

    def __call__(self) -> int:
        return self.at

    def pass_seconds(self, seconds: float) -> None:
        self.at += int(seconds * 1_000_000)


@dataclass
class Run:
    """A run with a keeper."""

    plane: Plane
    clock: Clock = field(default_factory=Clock)

    @property
    def pins(self) -> ContextPins:
        return self.plane.profile.context_pins

    def keeper(self, actor: str = "tester") -> PostureKeeper:
        control = self.plane.control_log(create=True)
        return PostureKeeper(self.plane.pool, control, self.pins, self.plane.profile.policy_rev, self.clock, actor)


@pytest.fixture
def new_run(module_dsn: str, tmp_path: Path) -> Iterator[Callable[..., Run]]:
    opened: list[Plane] = []

    def make(**changed: Any) -> Run:
        number = next(_numbers)
        pins = ContextPins(scenario_id="posture", run_id=f"r-{number}", manifest_fingerprint="0" * 64, parameter_hash="1" * 64)
        profile = Profile(
            **{
                "profile_name": "posture",
                "stream_name": f"payments-{number}",
                "control_stream": f"control-{number}",
                "partition_key": "payload.account_id",
                "context_pins": pins,
                "pack": "card_payments",
                "object_store_url": f"file://{tmp_path}/objects-{number}",
                **changed,
            }
        )
        plane = Plane.open_without_log(profile, module_dsn)
        opened.append(plane)
        return Run(plane)

    yield make
    for plane in opened:
        plane.close()


@pytest.fixture
def run(new_run: Callable[..., Run]) -> Run:
    return new_run()
