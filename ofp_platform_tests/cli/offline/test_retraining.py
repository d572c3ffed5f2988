"""Retraining publishes what passes the gate, and puts nothing in force; what fails leaves a report and no bundle."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import count

import orjson
import pytest
from jsonschema import Draft202012Validator

from ofp_platform.api.contract_files import contract_schemas
from ofp_platform.cli.offline.retraining import Retrained, retrain
from ofp_platform.cli.terminal.refusals import CommandRefused
from ofp_platform.learning.payments import protocol_of
from ofp_platform.learning.protocol import Protocol
from ofp_platform.online.plane import NoControlStream
from ofp_platform.storage.bundle_events import all_in_force, bundle_path, list_bundle_events, load_bundle
from ofp_platform.vocabulary.loop.bundle import BundleStep
from ofp_platform.vocabulary.loop.challenger_report import ChallengerReport
from ofp_platform_tests.oracle.learned_plane import LearnedPlane, policy

_times = count(1_800_000_000_000_000, 1_000_000)


@pytest.fixture
def learned(dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LearnedPlane]:
    made = LearnedPlane.prepare(dsn, tmp_path_factory.mktemp("retraining"))
    yield made
    made.world.plane.close()


def protocol(learned: LearnedPlane) -> Protocol:
    return protocol_of(learned.world.objects, learned.manifest)


def retrained(learned: LearnedPlane, actor: str = "ada", **changes: object) -> Retrained:
    plane = learned.world.plane
    plane.profile = plane.profile.model_copy(update={"retraining": policy(**changes)})
    return retrain(plane, learned.manifest, actor, lambda: next(_times))


def steps(learned: LearnedPlane) -> list[tuple[BundleStep, str]]:
    plane = learned.world.plane
    with plane.pool.connection() as connection:
        events = list_bundle_events(connection, plane.profile.context_pins, 100)
    return [(step.event.step, step.event.actor) for step in events]


def test_what_passes_is_published_and_nothing_is_put_in_force(learned: LearnedPlane) -> None:
    plane = learned.world.plane
    active = learned.activate(learned.trained("decision_tree_depth_2", protocol(learned)))
    before = steps(learned)
    with plane.pool.connection() as connection:
        scopes = all_in_force(connection, plane.profile.context_pins)
    outcome = retrained(learned)
    report = outcome.report
    assert report.has_passed, report.problems
    assert outcome.is_new
    assert report.in_force == active.ref
    assert steps(learned) == [(BundleStep.PUBLISHED, "ada"), *before]
    with plane.pool.connection() as connection:
        assert all_in_force(connection, plane.profile.context_pins) == scopes
    assert report.challenger is not None
    bundle = load_bundle(plane.objects, report.challenger)
    assert bundle.model is not None
    assert bundle.model.digest == report.model_digest
    assert bundle.provenance.manifest_digests == (learned.manifest.digest,)
    stored = plane.objects.get(outcome.report_path)
    assert stored == report.stored()
    Draft202012Validator(contract_schemas()["challenger_report_v0.schema.json"]).validate(orjson.loads(stored))
    assert ChallengerReport.model_validate_json(stored) == report

    again = retrained(learned, "ben")  # another asks, and it is there
    assert (again.report, again.report_path, again.is_new) == (report, outcome.report_path, False)
    assert len(steps(learned)) == len(before) + 1


def test_without_a_bundle_in_force_or_a_model_in_it_nothing_is_published(learned: LearnedPlane) -> None:
    nobody = retrained(learned)
    assert nobody.report.problems == [
        "model_in_force: asked for a model in force that scores the same rows, seen no bundle is in force in ranges/fraud/active"
    ]
    assert (nobody.report.challenger, nobody.is_new, steps(learned)) == (None, False, [])
    rules_alone = learned.activate(None)
    before = steps(learned)
    without_model = retrained(learned)
    assert "has no model" in without_model.report.problems[0]
    assert without_model.report.in_force == rules_alone.ref
    assert learned.world.objects.exists(without_model.report_path)
    assert steps(learned) == before


def test_a_bundle_that_is_gone_from_the_store_is_no_pass(learned: LearnedPlane) -> None:
    active = learned.activate(learned.trained("decision_tree_depth_2", protocol(learned)))
    (learned.world.folder / "objects" / bundle_path(active.ref)).unlink()
    before = steps(learned)
    (problem,) = retrained(learned).report.problems
    assert "is not in" in problem
    assert steps(learned) == before


def test_a_file_that_makes_no_bundle_of_the_model_is_no_pass(learned: LearnedPlane) -> None:
    learned.activate(learned.trained("decision_tree_depth_2", protocol(learned)))
    before = steps(learned)
    (problem,) = retrained(learned, bundle="nowhere.yaml").report.problems
    assert problem.startswith("bundle: asked for a bundle of the file and the model, seen ")
    assert "nowhere.yaml" in problem
    assert steps(learned) == before


def test_what_is_below_a_threshold_is_not_published(learned: LearnedPlane) -> None:
    learned.activate(learned.trained("decision_tree_depth_2", protocol(learned)))
    before = steps(learned)
    low = retrained(learned, at_least={"auc_roc": "1.000000"})
    assert not low.report.has_passed
    assert low.report.challenger is None
    assert steps(learned) == before


def test_a_profile_without_thresholds_or_without_control_trains_nothing(learned: LearnedPlane) -> None:
    plane = learned.world.plane
    declared = plane.profile
    plane.profile = declared.model_copy(update={"retraining": None})
    with pytest.raises(CommandRefused, match="declares no `retraining`"):
        retrain(plane, learned.manifest, "ada", lambda: next(_times))
    plane.profile = declared.model_copy(update={"control_stream": None})
    with pytest.raises(NoControlStream):
        retrain(plane, learned.manifest, "ada", lambda: next(_times))
