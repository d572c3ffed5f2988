"""Asks for runs, answered by a runner: each gate is looked at, and what came of it is kept beside the ask."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from ofp_platform.offline.requests.run_facts_view import RunFactsConflict
from ofp_platform.online.plane import Plane
from ofp_platform.online.state.projection import RegistryRefused
from ofp_platform.scenario.runner import RunnerOutcome, RunRefused, ScenarioRunner
from ofp_platform.storage.run_asks import add_outcome, read_ask
from ofp_platform.vocabulary.offline.run_facts import TrafficMode
from ofp_platform.vocabulary.scenario import RunAskAnswer, RunState
from ofp_platform.world.world_rows import WorldFault


class NoSuchAsk(Exception):
    """There is no ask of that number for the run of the profile."""


def answer_ask(plane: Plane, ask_id: int, now: Callable[[], int]) -> tuple[RunAskAnswer, RunnerOutcome | None]:
    """Look at an ask and keep what came of it; where it stands then, and the runner's outcome: None where the ask was answered
    before, or refused before any gate. Cut off in between, it is looked at again, and a run that is READY stays so.

    Raises:
        NoSuchAsk: see there. NoControlStream | LogUnavailable | ObjectStoreUnavailable: as `ScenarioRunner.request`.
    """
    pins = plane.profile.context_pins
    answer = _read(plane, ask_id)
    if answer.state != "PENDING":
        return answer, None
    ask, outcome = answer.ask, None
    runner = ScenarioRunner(plane, answer.actor, now)
    reference = ask.reference or f"{plane.profile.stream_name}/{pins.run_id}"
    try:
        outcome = runner.request(
            ask.world, mode=TrafficMode(ask.mode), outputs=ask.outputs, speedup=ask.speedup, reference=reference
        )
        problems = tuple(outcome.problems)
        state: Literal["REFUSED", "READY"] = "READY" if outcome.status.state is RunState.READY else "REFUSED"
    except (RunRefused, WorldFault, RunFactsConflict, RegistryRefused, ValueError) as error:
        state, problems = "REFUSED", (str(error),)
    with plane.pool.connection() as connection:
        add_outcome(connection, ask_id, state, problems)
    return _read(plane, ask_id), outcome


def _read(plane: Plane, ask_id: int) -> RunAskAnswer:
    pins = plane.profile.context_pins
    with plane.pool.connection() as connection:
        answer = read_ask(connection, pins, ask_id)
    if answer is None:
        raise NoSuchAsk(f"run {pins.run_id!r} has no ask {ask_id}")
    return answer
