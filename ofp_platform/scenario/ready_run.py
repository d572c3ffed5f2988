"""A run that is READY, as those read it who act on it: by the facts that READY names, and by nothing else."""

from __future__ import annotations

from dataclasses import dataclass

from ofp_platform.offline.requests.run_facts_view import load_run_facts
from ofp_platform.online.plane import Plane
from ofp_platform.storage.evidence import read_evidence
from ofp_platform.storage.run_states import RunNotReady, read_run_status
from ofp_platform.vocabulary.offline.run_facts import RunFacts, ScenarioFacts
from ofp_platform.vocabulary.scenario import RunPlan, RunState, RunStatus
from ofp_platform.world.world_rows import WorldFault
from ofp_platform.world.world_store import World, open_world


@dataclass(frozen=True)
class ReadyRun:
    """Its last step, its facts with what they say of the scenario, and the plan behind them."""

    status: RunStatus
    facts: RunFacts
    scenario: ScenarioFacts
    plan: RunPlan


def ready_run(plane: Plane) -> ReadyRun:
    """The run of a plane, if it takes events now.

    Raises:
        RunNotReady: it is not READY. BuildRefused: the facts are not those of READY, their evidence does not resolve, or the
            plan says otherwise (READY_DRIFT, FACTS_VIEW_DRIFT).
    """
    profile = plane.profile
    pins = profile.context_pins
    with plane.pool.connection() as connection:
        status = read_run_status(connection, pins)
    if status is None or status.state is not RunState.READY:
        words = "nobody asked for it (`ofp run request WORLD`)" if status is None else f"it is {status.state} (`ofp run show`)"
        raise RunNotReady(f"run {pins.run_id!r} takes no events: {words}")
    assert status.facts_reference is not None
    facts = load_run_facts(plane.pool, status.facts_reference, pins, profile.stream_name)
    assert facts.scenario is not None
    with plane.pool.connection() as connection:
        text = read_evidence(connection, [facts.scenario.plan_digest])[facts.scenario.plan_digest]
    return ReadyRun(status, facts, facts.scenario, RunPlan.model_validate_json(text))


def world_of(plane: Plane, run: ReadyRun) -> World:
    """The world that the facts of a run name.

    Raises:
        WorldFault: it is gone, or another world has its name (FACTS_VIEW_DRIFT). ObjectStoreUnavailable: see there.
    """
    world = open_world(plane.objects, run.scenario.world)
    if world.seal.manifest_digest != run.scenario.manifest_digest:
        raise WorldFault(
            f"FACTS_VIEW_DRIFT: world {run.scenario.world} has manifest {world.seal.manifest_digest}, the facts of the run name"
            f" {run.scenario.manifest_digest}"
        )
    return world
