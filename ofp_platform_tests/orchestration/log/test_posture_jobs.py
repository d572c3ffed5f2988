"""The kill switch from Dagster, and the check beside `control/run`; and what each says when it cannot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ofp_platform.orchestration.code_location import code_location
from ofp_platform.orchestration.log.posture_jobs import POSTURE, posture_is_normal
from ofp_platform.orchestration.resources import PlaneResource
from ofp_platform.posture.keeper import PostureKeeper
from ofp_platform.storage.posture_changes import posture_in_force
from ofp_platform.vocabulary.loop.posture import Mode, PostureInForce, PosturePolicy
from ofp_platform_tests.oracle.simulated_log import write_profile

Execute = Callable[..., dg.ExecuteInProcessResult]


@pytest.fixture
def resource(dsn: str, tmp_path: Path) -> PlaneResource:
    return PlaneResource(profile_source=str(write_profile(tmp_path, control_stream="control")), database_url=dsn)


@pytest.fixture
def execute(resource: PlaneResource) -> Execute:
    location = code_location(resource.load_profile(), resource)

    def run(job: str, op: str, **config: Any) -> dg.ExecuteInProcessResult:
        run_config = {"ops": {op: {"config": config}}}
        return location.get_job_def(job).execute_in_process(run_config=run_config, raise_on_error=False)

    return run


def in_force(resource: PlaneResource) -> PostureInForce:
    with resource.open_without_log("auditor") as plane, plane.pool.connection() as connection:
        return posture_in_force(connection, plane.profile.context_pins)


def check(resource: PlaneResource) -> dg.AssetCheckResult:
    result = posture_is_normal(resource)
    assert isinstance(result, dg.AssetCheckResult)
    assert result.check_name in (None, POSTURE)
    return result


def test_a_mode_is_held_and_released(resource: PlaneResource, execute: Execute) -> None:
    before = check(resource)
    assert (before.passed, before.description) == (False, "nobody ever said anything of it: FAIL_CLOSED is in force")
    assert execute("hold_posture", "hold_mode", mode="NORMAL", reason="begin").success
    assert in_force(resource).mode is Mode.NORMAL
    assert check(resource).passed
    assert execute("hold_posture", "hold_mode", mode="HOLD", reason="stop", actor="somebody").success
    held_check = check(resource)
    assert not held_check.passed
    assert held_check.metadata["actor"] == dg.MetadataValue.text("somebody")
    assert "HOLD, held since " in str(held_check.description)
    assert execute("release_posture", "release_mode", reason="over").success
    assert (in_force(resource).mode, in_force(resource).sequence) == (Mode.HOLD, 2)
    assert "held" not in str(check(resource).description)


def test_normal_is_not_fine_while_nobody_watches(dsn: str, tmp_path: Path) -> None:
    thresholds = [{"signal": "lag_records", "at_least": 9, "mode": "REDUCED"}]
    path = write_profile(tmp_path, control_stream="control", posture={"thresholds": thresholds})
    resource = PlaneResource(profile_source=str(path), database_url=dsn)
    with resource.open_without_log("decider") as plane:
        pins = plane.profile.context_pins
        keeper = PostureKeeper(plane.pool, plane.control_log(create=True), pins, plane.profile.policy_rev, lambda: 0, "operator")
        keeper.hold(Mode.NORMAL, "begin")
        never = check(resource)
        assert not never.passed
        assert "NORMAL, held since" in str(never.description)
        assert "nobody ever looked at the signals: `ofp posture watch`" in str(never.description)
        keeper.look({"lag_records": 0}, keeper_policy(resource), 0)
        watched = check(resource)
        assert watched.passed, watched.description
        assert "watched: the last look at the signals was" in str(watched.description)
        with plane.pool.connection() as connection:
            connection.execute("UPDATE ofp.posture_look SET looked_at = looked_at - 3600000000")
        assert not check(resource).passed


def keeper_policy(resource: PlaneResource) -> PosturePolicy:
    policy = resource.load_profile().posture
    assert policy is not None
    return policy


def test_what_cannot_be_fails_in_words(resource: PlaneResource, execute: Execute) -> None:
    for job, op, config, words in (
        ("hold_posture", "hold_mode", {"mode": "PANIC", "reason": "x"}, "there is no mode PANIC; there are NORMAL"),
        ("hold_posture", "hold_mode", {"mode": "HOLD", "reason": " "}, "say why"),
        ("release_posture", "release_mode", {"reason": "x"}, "nothing to release"),
    ):
        outcome = execute(job, op, **config)
        assert not outcome.success
        [failure] = [event for event in outcome.all_events if event.is_step_failure]
        assert words in str(failure.event_specific_data)
    assert in_force(resource).sequence is None
