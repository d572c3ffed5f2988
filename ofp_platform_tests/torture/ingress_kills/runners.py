"""Runners that are killed while they ask for a run: READY is said once, with facts and evidence, or nothing is there."""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from random import Random

from ofp_platform.log.port import StreamNotFound
from ofp_platform.online.plane import Plane
from ofp_platform.scenario.ready_run import ready_run, world_of
from ofp_platform.scenario.runner import ScenarioRunner
from ofp_platform.simulation.disturbances import Disturbances
from ofp_platform.simulation.payments import PaymentSimulation
from ofp_platform.storage.objects import open_objects
from ofp_platform.storage.run_states import read_run_status
from ofp_platform.vocabulary.offline.run_facts import TrafficMode
from ofp_platform.vocabulary.position import order
from ofp_platform.vocabulary.profile import Profile
from ofp_platform.vocabulary.scenario import RUN_END, RUN_READY, RunState
from ofp_platform.world.makers import payments_world
from ofp_platform.world.world_store import seal_world, write_world
from ofp_platform_tests.torture.kills.check import Checked
from ofp_platform_tests.torture.kills.streamer import SEALED
from ofp_platform_tests.torture.kills.victim_pool import Kill, VictimPool
from ofp_platform_tests.torture.kills.world import World

_PAYMENTS = 60


def ask_and_end(profile: Profile, dsn: str) -> str:
    """Ask for a run, and end it when it is READY; its state then."""
    with Plane.open(profile, dsn, max_connections=3) as plane:
        runner = ScenarioRunner(plane, "killed", lambda: time.time_ns() // 1_000)
        reference = f"{profile.stream_name}/{profile.context_pins.run_id}"
        outcome = runner.request(SEALED, mode=TrafficMode.FRAUD, reference=reference)
        if outcome.status.state is RunState.READY:
            outcome = runner.end("over")
        return outcome.status.state.value


def kill_runners(world: World, victim_pool: VictimPool, folder: Path, kills: int, rng: Random) -> tuple[Counter[str], Checked]:
    """Ask for runs by runners that are killed, so often; each run is asked for until it has ended."""
    deaths: Counter[str] = Counter()
    checked = Checked()
    number, usual = 0, 0.3
    while deaths.total() < kills:
        name = f"killed-runs-{number}"
        profile = _with_plain_world(world, name, folder / name, number)
        number += 1
        is_over = False
        while not is_over:
            kill = Kill(seconds=rng.uniform(0.0, 1.5 * usual)) if deaths.total() < kills else Kill()
            death = victim_pool.run(ask_and_end, profile, world.dsn, kill=kill)
            is_over = not death.by
            if death.by:
                deaths[death.by] += 1
            else:
                usual += 0.2 * (death.seconds - usual)
            _check(profile, world.dsn, checked)
        checked.compare("state at the end", _state(profile, world.dsn), RunState.ENDED, name)
    return deaths, checked


def _with_plain_world(world: World, name: str, folder: Path, seed: int) -> Profile:
    """The profile of a run of its own, with a stream of control and a sealed world in which every gate passes."""
    folder.mkdir()
    pins = world.profile.context_pins.model_copy(update={"run_id": name})
    streams = {"stream_name": name, "control_stream": f"{name}-control"}
    update = {**streams, "context_pins": pins, "object_store_url": f"file://{folder / 'objects'}"}
    profile = world.profile.model_copy(update=update)
    made = payments_world(PaymentSimulation(pins, payments=_PAYMENTS, seed=seed, disturbances=Disturbances.none()))
    write_world(open_objects(profile), SEALED, made.maker, made.outputs)
    seal_world(open_objects(profile), SEALED)
    return profile


def _state(profile: Profile, dsn: str) -> RunState | None:
    with Plane.open(profile, dsn, max_connections=3) as plane, plane.pool.connection() as connection:
        status = read_run_status(connection, profile.context_pins)
        return None if status is None else status.state


def _check(profile: Profile, dsn: str, checked: Checked) -> None:
    """Control says what the run's steps say, each once; a run that is READY has facts and a plan that resolve."""
    with Plane.open(profile, dsn, max_connections=3) as plane:
        with plane.pool.connection() as connection:
            status = read_run_status(connection, profile.context_pins)
        told: Counter[str] = Counter()
        with suppress(StreamNotFound):
            log = plane.control_log()
            for part in log.ends().partitions:
                if order(part.offset) > 0:
                    told.update(log.read(part.partition_id, log.position_kind.start(part.partition_id), 100).event_types)
        state = None if status is None else status.state
        expected = {None: [], RunState.READY: [RUN_READY], RunState.ENDED: [RUN_READY, RUN_END]}[state]
        checked.compare("control", told, Counter(expected), profile.stream_name)
        if state is RunState.READY:
            run = ready_run(plane)
            checked.compare("facts", world_of(plane, run).manifest.digest, run.plan.request.manifest_digest, profile.stream_name)
