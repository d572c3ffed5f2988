"""One run of the loop: a sealed world that is READY, a service that answers, and somebody outside who keeps books."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

from ruamel.yaml import YAML

import ofp_platform
from ofp_platform.cli.demo.demo_events import simulated_payments
from ofp_platform.cli.demo.loop_steps import loop_profile
from ofp_platform.cli.environment import Environment
from ofp_platform.cli.offline.facts_commands import reference_of
from ofp_platform.cli.processes import Child, ofp_command
from ofp_platform.online.plane import Plane
from ofp_platform.posture.keeper import PostureKeeper
from ofp_platform.scenario.runner import ScenarioRunner
from ofp_platform.vocabulary.loop.posture import Mode
from ofp_platform.vocabulary.offline.run_facts import TrafficMode
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.world.world_store import seal_world, write_world
from ofp_platform_tests.api.keys import KEY, write_principals
from ofp_platform_tests.torture.action_kills.provider import Provider, serving
from ofp_platform_tests.torture.kills.streamer import SEALED
from ofp_platform_tests.torture.loop_kills.parts import now, promote, take_in_all

_START_SECONDS = 120.0
_DEADLINE_MS = 1_000


@dataclass(frozen=True)
class Site:
    """What the killed are told: the run, the service that is asked for features, and the address of whoever is told outside."""

    profile: Profile
    dsn: str
    service: str
    token: str
    outside: str


@contextmanager
def opened_site(dsn: str, folder: Path, name: str, payments: int, seed: int) -> Iterator[tuple[Site, Provider]]:
    """A run of its own in the database, begun: READY, its first bundle in force, NORMAL."""
    folder.mkdir()
    shipped = Environment(profile="demo").load_profile()
    shipped = shipped.model_copy(update={"object_store_url": f"file://{folder}/objects", "allowed_lateness": "60d"})
    replay = simulated_payments(shipped, payments, log_kind="postgres")
    pins = replay.profile.context_pins.model_copy(update={"run_id": name})
    own = replay.profile.model_copy(update={"stream_name": name, "context_pins": pins})
    profile = loop_profile(own, replay.event_type)
    assert profile.deciding is not None
    # what is not projected yet is decided on without features soon
    profile = profile.model_copy(update={"deciding": profile.deciding.model_copy(update={"deadline_ms": _DEADLINE_MS})})
    provider = Provider(Random(seed), faults=0)
    path = folder / "profile.yaml"
    with path.open("w", encoding="utf-8") as file:
        content = profile.model_dump(mode="json", exclude_none=True, exclude={"tiers"})
        YAML(typ="safe", pure=True).dump(content, file)
    with Plane.open(profile, dsn) as plane:
        made = replay.make_world()
        write_world(plane.objects, SEALED, made.maker, made.outputs)
        seal_world(plane.objects, SEALED)
        outcome = ScenarioRunner(plane, "torture", now).request(SEALED, mode=TrafficMode.FRAUD, reference=reference_of(profile))
        assert not outcome.problems, outcome.problems
        keeper = PostureKeeper(plane.pool, plane.control_log(create=True), pins, profile.policy_rev, now, "operator")
        keeper.hold(Mode.NORMAL, "the drill begins")
        plane.decisions_log(create=True)
        take_in_all(plane)
    variables = {
        "OFP_DATABASE_URL": dsn,
        "OFP_PRINCIPALS": str(write_principals(folder / "principals.json")),
        "PYTHONPATH": ":".join([str(Path(ofp_platform.__file__).parents[1]), *sys.path]),
    }
    command = ofp_command("serve", "--port", "0", "--profile", str(path), "--home", str(folder))
    with serving(provider) as outside, Child("the service", command, variables, folder / "serve.log") as child:
        address = child.wait_for_line("serving at ", _START_SECONDS)
        assert address is not None, (folder / "serve.log").read_text()
        site = Site(profile, dsn, address, KEY, outside)
        promote(site, 1)
        yield site, provider
