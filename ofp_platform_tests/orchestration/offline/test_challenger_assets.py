"""A challenger as a partition of its training set: the gate blocks with figures, and a challenger is never put in force."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from ofp_platform.learning.payments import protocol_of
from ofp_platform.offline.runs.run_ledger import RunLedger
from ofp_platform.orchestration.code_location import code_location
from ofp_platform.orchestration.offline.challenger_assets import GATE
from ofp_platform.orchestration.partitions import BUILD_REQUEST, request_key_of
from ofp_platform.orchestration.resources import PlaneResource
from ofp_platform.storage.bundle_events import all_in_force, bundle_path, list_bundle_events
from ofp_platform.vocabulary.loop.bundle import BundleStep
from ofp_platform_tests.oracle.learned_plane import LEARNING, LearnedPlane
from ofp_platform_tests.oracle.simulated_log import write_profile


@pytest.fixture
def learned(dsn: str, tmp_path: Path) -> Iterator[LearnedPlane]:
    made = LearnedPlane.prepare(dsn, tmp_path)
    yield made
    made.world.plane.close()


@pytest.fixture
def job(learned: LearnedPlane, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dg.JobDefinition:
    monkeypatch.setenv("OFP_HOME", str(tmp_path / "home"))
    plane = PlaneResource(profile_source=str(write_profile(tmp_path, **LEARNING)), database_url=dsn)
    return code_location(plane.load_profile(), plane).resolve_job_def("retrain")


def run(job: dg.JobDefinition, instance: dg.DagsterInstance, partition: str) -> dg.ExecuteInProcessResult:
    instance.add_dynamic_partitions(str(BUILD_REQUEST.name), [partition])
    return job.execute_in_process(instance=instance, partition_key=partition, raise_on_error=False)


def partition_of(learned: LearnedPlane) -> str:
    return request_key_of(RunLedger(learned.world.plane.pool).show(learned.run_key))


def check_of(result: dg.ExecuteInProcessResult) -> dg.AssetCheckEvaluation:
    (evaluation,) = result.get_asset_check_evaluations()
    return evaluation


def test_the_gate_blocks_with_its_reason_then_publishes_and_activates_nothing(
    job: dg.JobDefinition, learned: LearnedPlane, instance: dg.DagsterInstance
) -> None:
    partition = partition_of(learned)
    absent = run(job, instance, partition)
    assert not absent.success  # the check blocks
    assert (check_of(absent).check_name, check_of(absent).passed) == (GATE, False)
    assert "no bundle is in force in ranges/fraud/active" in str(check_of(absent).description)

    protocol = protocol_of(learned.world.objects, learned.manifest)
    active = learned.activate(learned.trained("decision_tree_depth_2", protocol))
    passed = run(job, instance, partition)
    assert passed.success
    assert check_of(passed).passed
    (materialization,) = passed.asset_materializations_for_node("learning__challenger")
    assert materialization.partition == partition
    shown = {name: str(value.value) for name, value in materialization.metadata.items()}
    assert shown["published"].startswith("bundles/card_payments/")
    assert shown["in_force"] == bundle_path(active.ref)
    assert learned.world.objects.exists(shown["report"])
    assert "| behind_active_at_most | auc_roc | no more than 1.000000 below " in shown["gate"]
    plane = learned.world.plane
    with plane.pool.connection() as connection:
        (in_force,) = all_in_force(connection, plane.profile.context_pins)
        newest = list_bundle_events(connection, plane.profile.context_pins, 1)[0].event
    assert in_force.in_force.bundle == active.ref
    assert (newest.step, newest.actor) == (BundleStep.PUBLISHED, "retraining")


def test_a_request_that_published_nothing_and_one_that_nobody_made_fail(
    job: dg.JobDefinition, learned: LearnedPlane, instance: dg.DagsterInstance
) -> None:
    ledger = learned.world.build_context.ledger
    unbuilt = request_key_of(ledger.submit(learned.world.intent("not_built_yet")))
    for partition, words in ((unbuilt, "has published no dataset"), ("nobody.ffffffff", "ffffffff")):
        failed = run(job, instance, partition)
        assert not failed.success
        (event,) = [event for event in failed.all_events if event.is_step_failure]
        assert words in str(event.step_failure_data)
