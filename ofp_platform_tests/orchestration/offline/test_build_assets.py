"""Builds as runs: stages with their receipts, checks, refusals in words, and builders that were killed."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ofp_platform.offline.datasets.publication import load_manifest
from ofp_platform.offline.labels.label_store import LabelStore, as_observed
from ofp_platform.offline.requests.intent_file import parse_intent
from ofp_platform.offline.runs import builder
from ofp_platform.offline.runs.run_ledger import RunLedger
from ofp_platform.offline.sources.spark_engine import SparkUnavailable, demand_spark
from ofp_platform.online.plane import profile_pack
from ofp_platform.orchestration.code_location import code_location
from ofp_platform.orchestration.dagster_internals import ASSET_PARTITION_RANGE_END_TAG, ASSET_PARTITION_RANGE_START_TAG
from ofp_platform.orchestration.offline import build_sensors as offline_sensors
from ofp_platform.orchestration.offline.archive_assets import ARCHIVE_SEGMENT
from ofp_platform.orchestration.offline.build_assets import (
    BUILD_PLAN,
    COMPLETENESS,
    COVERAGE,
    DATASET,
    LABELS,
    LEAKAGE,
    MANIFEST,
    MANIFEST_SCHEMA,
    PARITY,
    REPLAY,
    SNAPSHOT,
)
from ofp_platform.orchestration.offline.build_sensors import ATTEMPT, build_intents, build_outcomes
from ofp_platform.orchestration.offline.model_assets import MODEL
from ofp_platform.orchestration.offline.object_reporter import offline_reporter
from ofp_platform.orchestration.offline.parity_assets import CORRECTION_LEDGER, PARITY_REPORT
from ofp_platform.orchestration.partitions import BUILD_REQUEST
from ofp_platform.orchestration.resources import BuildContextResource, PlaneResource
from ofp_platform.registry.compile import compile_pack
from ofp_platform.storage.decision_records import append_decisions
from ofp_platform.storage.governance_facts import read_facts
from ofp_platform.storage.objects import ObjectStore, ObjectStoreUnavailable
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord, decision_id
from ofp_platform.vocabulary.offline.build_intent import intent_wire
from ofp_platform.vocabulary.offline.build_run import RunState
from ofp_platform.vocabulary.offline.label_assertion import LabelAssertion
from ofp_platform.vocabulary.offline.parity_record import Correction
from ofp_platform.vocabulary.profile import BuildLimits
from ofp_platform.vocabulary.times import format_time, parse_time
from ofp_platform_tests.oracle.intents import changed
from ofp_platform_tests.oracle.labelled_plane import LabelledPlane
from ofp_platform_tests.oracle.simulated_log import append, write_profile


@pytest.fixture
def at_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Files under way lie in the home folder: a folder of the test."""
    monkeypatch.setenv("OFP_HOME", str(tmp_path / "home"))


@pytest.fixture
def resource(at_home: None, dsn: str, tmp_path: Path) -> PlaneResource:
    return PlaneResource(profile_source=str(write_profile(tmp_path)), database_url=dsn)


@pytest.fixture
def location(resource: PlaneResource) -> dg.Definitions:
    return code_location(resource.load_profile(), resource)


@pytest.fixture
def builds(resource: PlaneResource) -> BuildContextResource:
    return BuildContextResource(profile_source=resource.profile_source, database_url=resource.database_url)


@pytest.fixture
def world(resource: PlaneResource, dsn: str, tmp_path: Path) -> Iterator[LabelledPlane]:
    """The same plane: log, archive, labels and run facts are there."""
    made = LabelledPlane.prepare(dsn, tmp_path)
    yield made
    made.plane.close()


@pytest.fixture
def training(world: LabelledPlane) -> dict[str, Any]:
    """The intent of a training set that passes every gate."""
    return intent_wire(world.intent())


def decide_wrongly(world: LabelledPlane) -> None:
    """Record a decision that names a snapshot which the log does not give."""
    profile, ends = world.plane.profile, world.plane.log.ends()
    registry = compile_pack(profile_pack(profile))
    record = {
        "decision_id": decision_id(profile.context_pins, "card_payment", "event-3"),
        "context_pins": profile.context_pins,
        "event_type": "card_payment",
        "event_id": "event-3",
        "event_position": {"stream_name": ends.stream_name, "partition_id": "0000", "offset": 3},
        "as_of_time_utc": "2026-01-03T00:00:00Z",
        "feature_snapshot_hash": "7" * 64,
        "feature_keys": [{"key_type": "account", "key_id": "acc-1"}],
        "feature_groups": [{"group_name": "account_activity", "group_version": "v1"}],
        "feature_definition_set": {"pack_id": registry.pack.pack_id, "revision": 1, "digest": registry.digest},
        "run_config_digest": profile.run_config_digest,
        "input_basis": ends,
        "rule": {"rule_name": "rule", "rule_version": "v1", "digest": "0" * 64},
        "score": 1,
        "outcome": "approve",
        "decided_at_utc": "2026-01-03T00:00:00Z",
    }
    with world.plane.pool.connection() as connection:
        append_decisions(connection, [DecisionRecord.model_validate(record)])


def label_every_payment(world: LabelledPlane) -> None:
    """Every fifth payment is a fraud, which a bank says a minute after it."""
    times = {
        batch.event_ids[index]: int(batch.ts[index])
        for batch in world.batches()
        for index, event_type in enumerate(batch.event_types)
        if event_type == "card_payment"
    }
    LabelStore(world.plane.pool, world.plane.profile.context_pins).append(
        (
            LabelAssertion(
                event_class="card_payment",
                event_id=event_id,
                label_type="fraud",
                value=int(number % 5 == 0),
                effective_time_utc=format_time(ts),
                observed_time_utc=format_time(ts + 60_000_000),
                source="bank",
            )
            for number, (event_id, ts) in enumerate(sorted(times.items()))
        ),
        as_observed,
    )


def submit(location: dg.Definitions, instance: dg.DagsterInstance, intent: object) -> dg.ExecuteInProcessResult:
    config = {"ops": {"submit_intent": {"config": {"intent": intent}}}}
    job = location.resolve_job_def("submit_build")
    return job.execute_in_process(instance=instance, run_config=config, raise_on_error=False)


def asked(location: dg.Definitions, instance: dg.DagsterInstance, intent: object) -> str:
    """Submit it; the key of its run."""
    result = submit(location, instance, intent)
    assert result.success
    (output,) = result.filter_events(lambda event: event.is_successful_output)
    return str(output.step_output_data.metadata["request_id"].value)


def shown_as(instance: dg.DagsterInstance, key: str) -> str:
    """The partition of a request: a name that people read, and the first digits of its key."""
    (partition,) = [one for one in instance.get_dynamic_partitions(str(BUILD_REQUEST.name)) if one.endswith(f".{key[:8]}")]
    return partition


def build(
    location: dg.Definitions, instance: dg.DagsterInstance, key: str, settings: dict[str, str] | None = None, **tags: str
) -> dg.ExecuteInProcessResult:
    job = location.resolve_job_def("build_dataset")
    config = {} if settings is None else {"ops": {"build": {"config": settings}}}
    return job.execute_in_process(
        instance=instance, partition_key=shown_as(instance, key), raise_on_error=False, tags=tags, run_config=config
    )


def materialised(result: dg.ExecuteInProcessResult) -> dict[dg.AssetKey, dg.AssetMaterialization]:
    events = [event.step_materialization_data.materialization for event in result.get_asset_materialization_events()]
    return {event.asset_key: event for event in events}


def checks(result: dg.ExecuteInProcessResult) -> dict[dg.AssetCheckKey, dg.AssetCheckEvaluation]:
    return {one.asset_check_key: one for one in result.get_asset_check_evaluations()}


def failure(result: dg.ExecuteInProcessResult) -> str:
    (event,) = result.filter_events(lambda event: event.is_step_failure)
    found = event.step_failure_data.user_failure_data
    assert found is not None
    return str(found.description)


def tick(
    sensor: dg.SensorDefinition, builds: BuildContextResource, instance: dg.DagsterInstance, cursor: str | None = None
) -> dg.SensorResult | dg.SkipReason:
    context = dg.build_sensor_context(instance=instance, cursor=cursor, resources={"builds": builds})
    found = sensor(context)
    assert isinstance(found, dg.SensorResult | dg.SkipReason)
    return found


def requests(found: dg.SensorResult | dg.SkipReason) -> list[dg.RunRequest]:
    assert isinstance(found, dg.SensorResult)
    return list(found.run_requests or ())


def test_a_request_from_the_launchpad_to_the_manifest(
    location: dg.Definitions, world: LabelledPlane, training: dict[str, Any], instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    key = asked(location, instance, training)
    result = build(location, instance, key)
    assert result.success
    found = materialised(result)
    assert set(found) == {BUILD_PLAN, REPLAY, PARITY_REPORT, LABELS, DATASET, MANIFEST}
    assert {str(one.partition) for one in found.values()} == {f"fraud_by_payment.{key[:8]}"}
    objects = world.objects
    outcome = RunLedger(world.plane.pool).show(key).outcome
    assert outcome is not None
    manifest = load_manifest(objects, outcome["dataset_name"], outcome["dataset_identity"])
    shown = found[MANIFEST].metadata
    assert shown["manifest_digest"].value == manifest.digest
    assert shown["rows"].value == manifest.row_count == found[DATASET].metadata["dagster/partition_row_count"].value
    schema = found[DATASET].metadata["dagster/column_schema"].value
    assert isinstance(schema, dg.TableSchema)
    assert [(one.name, one.type) for one in schema.columns] == [(one.name, one.type) for one in manifest.columns]
    assert found[BUILD_PLAN].metadata["dataset_identity"].value == manifest.dataset_identity
    replayed = {name: value.value for name, value in found[REPLAY].metadata.items()}
    assert replayed["records"] == sum(replayed[name] for name in ("applied", "duplicates", "failed", "ignored", "other_run"))
    by_day = str(found[LABELS].metadata["coverage_by_day"].value)
    assert "2026-01-02" in by_day
    assert "data:image/png" in str(found[LABELS].metadata["maturity_and_coverage"].value)
    judged = checks(result)
    assert set(judged) == {COMPLETENESS, PARITY, COVERAGE, LEAKAGE, MANIFEST_SCHEMA}
    assert all(one.passed for one in judged.values())
    assert len(objects.list("ofs/reconciliation")) == 1
    assert not (tmp_path / "home" / "builds" / key).exists()


def test_a_finished_build_is_shown_again_and_not_built_again(
    location: dg.Definitions, world: LabelledPlane, training: dict[str, Any], instance: dg.DagsterInstance
) -> None:
    key = asked(location, instance, training)
    first = build(location, instance, key)
    ledger = RunLedger(world.plane.pool)
    before, receipts = ledger.show(key), ledger.receipts(key)
    again = build(location, instance, key)
    assert again.success
    assert set(materialised(again)) == set(materialised(first))
    assert set(checks(again)) == set(checks(first))
    assert (ledger.show(key), ledger.receipts(key)) == (before, receipts)
    assert asked(location, instance, changed(training, note="once more")) == key


def test_an_intent_that_contradicts_itself_is_refused_in_words(
    location: dg.Definitions, world: LabelledPlane, training: dict[str, Any], instance: dg.DagsterInstance
) -> None:
    result = submit(location, instance, changed(training, label=None))
    assert not result.success
    assert "LABEL_ASOF_MISSING (label)" in failure(result)
    assert "INVALID_INTENT" in failure(submit(location, instance, "intent: {"))
    assert "this is a int" in failure(submit(location, instance, 7))
    assert not instance.get_dynamic_partitions(str(BUILD_REQUEST.name))
    assert RunLedger(world.plane.pool).runs() == []


def test_yaml_text_is_an_intent_too(
    location: dg.Definitions, world: LabelledPlane, training: dict[str, Any], instance: dg.DagsterInstance
) -> None:
    key = asked(location, instance, training)
    assert asked(location, instance, json.dumps(training)) == key
    assert len(instance.get_dynamic_partitions(str(BUILD_REQUEST.name))) == 1


def test_labels_below_the_policy_fail_the_run_and_its_check(
    location: dg.Definitions,
    world: LabelledPlane,
    training: dict[str, Any],
    instance: dg.DagsterInstance,
    builds: BuildContextResource,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    early = {**training["label"], "as_of_utc": "2026-01-03T00:00:00Z"}  # no fraud was reported by then
    key = asked(location, instance, changed(training, label=early))
    result = build(location, instance, key)
    assert not result.success
    assert not checks(result)[COVERAGE].passed
    assert checks(result)[COVERAGE].blocking
    assert MANIFEST not in materialised(result)
    objects = world.objects
    assert objects.list("ofs/datasets") == []
    run = RunLedger(world.plane.pool).show(key)
    assert run.refusal is not None
    assert run.refusal.message in failure(result)
    assert run.refusal.reason.value in failure(result)

    monkeypatch.setattr(offline_sensors, "SETTLED_SECONDS", 0.0)
    capsys.readouterr()
    told = tick(build_outcomes, builds, instance)
    assert isinstance(told, dg.SensorResult)
    assert not told.run_requests
    (line,) = [written for written in capsys.readouterr().err.splitlines() if "governance fact" in written]
    assert '"fact": "build_failed"' in line
    assert key in line
    assert "LABEL_COVERAGE_BELOW_POLICY" in line
    (recorded,) = read_facts(world.plane.pool, "build_failed", about=key)
    assert recorded.fact.wire() == json.loads(line.partition("governance fact: ")[2])
    assert isinstance(tick(build_outcomes, builds, instance, told.cursor), dg.SkipReason)


def test_a_plan_that_cannot_be_resolved_fails_with_its_field_and_leaves_no_partition_red(
    location: dg.Definitions,
    world: LabelledPlane,
    training: dict[str, Any],
    instance: dg.DagsterInstance,
    builds: BuildContextResource,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = asked(location, instance, changed(training, run_facts_ref="facts/another"))
    result = build(location, instance, key)
    assert "RUN_FACTS_UNAVAILABLE (run_facts_ref)" in failure(result)
    assert materialised(result) == {}
    monkeypatch.setattr(offline_sensors, "SETTLED_SECONDS", 0.0)
    ended = tick(build_outcomes, builds, instance)
    assert isinstance(ended, dg.SensorResult)
    (removed,) = ended.dynamic_partitions_requests or []
    assert isinstance(removed, dg.DeleteDynamicPartitionsRequest)
    assert list(removed.partition_keys) == [shown_as(instance, key)]


def test_an_event_with_two_contents_fails_completeness(
    location: dg.Definitions, world: LabelledPlane, training: dict[str, Any], instance: dg.DagsterInstance
) -> None:
    append(world.plane.log)  # with conflicts
    training["label"]["as_of_utc"] = "2026-01-02T00:00:00Z"
    training["replay"]["basis"] = world.everything.model_dump(mode="json")
    result = build(location, instance, asked(location, instance, training))
    assert "EVENT_ANOMALY (replay)" in failure(result)
    judged = checks(result)[COMPLETENESS]
    assert not judged.passed
    assert judged.metadata["reason"].value == "EVENT_ANOMALY"
    assert set(materialised(result)) == {BUILD_PLAN}


def test_a_mismatch_blocks_publication(
    location: dg.Definitions,
    world: LabelledPlane,
    training: dict[str, Any],
    instance: dg.DagsterInstance,
) -> None:
    decide_wrongly(world)
    result = build(location, instance, asked(location, instance, training))
    assert not result.success
    assert "PARITY_MISMATCH" in failure(result)
    assert not checks(result)[PARITY].passed
    shown = materialised(result)[PARITY_REPORT].metadata
    assert shown["mismatch"].value == 1
    assert "account_activity v1 | 1 | 1 | 0 | 0.500000" in str(shown["rates_by_group"].value)
    assert "decision" in str(shown["mismatches"].value)
    assert "data:image/png" in str(shown["parity_by_day"].value)
    assert not {DATASET, MANIFEST} & set(materialised(result))
    assert world.objects.list("ofs/datasets") == []


def test_the_sensor_asks_once_for_each_attempt(
    location: dg.Definitions,
    world: LabelledPlane,
    training: dict[str, Any],
    instance: dg.DagsterInstance,
    builds: BuildContextResource,
) -> None:
    assert isinstance(tick(build_intents, builds, instance), dg.SkipReason)
    with builds.open() as build_context:
        key = build_context.ledger.submit(parse_intent(training)).run_key
    found = tick(build_intents, builds, instance)
    (request,) = requests(found)
    assert (request.run_key, request.partition_key) == (f"{key}-0-0", f"fraud_by_payment.{key[:8]}")
    assert isinstance(found, dg.SensorResult)
    added = found.dynamic_partitions_requests or []
    assert [(one.partitions_def_name, list(one.partition_keys)) for one in added] == [
        (BUILD_REQUEST.name, [request.partition_key])
    ]
    assert set(request.asset_selection or ()) == {BUILD_PLAN, REPLAY, LABELS, PARITY_REPORT, DATASET, MANIFEST}
    instance.add_dynamic_partitions(str(BUILD_REQUEST.name), [str(request.partition_key)])
    run = dg.DagsterRun(
        job_name="build_dataset",
        run_id="0" * 8 + "-0000-0000-0000-" + "0" * 12,
        status=dg.DagsterRunStatus.STARTED,
        tags=request.tags,
    )
    instance.add_run(run)
    assert "under way" in str(tick(build_intents, builds, instance).skip_message)  # type: ignore[union-attr]
    # its machine died before it claimed the build: its record says STARTED for ever
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(offline_sensors, "CLAIM_SECONDS", 0.0)
        (again,) = requests(tick(build_intents, builds, instance))
        assert again.run_key == f"{key}-0-0-1"
    assert build(location, instance, key, **request.tags).success
    assert isinstance(tick(build_intents, builds, instance), dg.SkipReason)


def test_builds_that_need_help_keep_no_later_one_waiting(
    world: LabelledPlane,
    training: dict[str, Any],
    instance: dg.DagsterInstance,
    builds: BuildContextResource,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(offline_sensors, "RUNS_PER_ATTEMPT", 1)
    ledger = RunLedger(world.plane.pool, BuildLimits(max_open_intents=1_000))
    for number in range(50):
        key = ledger.submit(parse_intent(changed(training, dataset_name=f"d{number}"))).run_key
        run_id, tags = f"{number:08}-0000-0000-0000-{0:012}", {ATTEMPT: f"{key}-0-0"}
        instance.add_run(dg.DagsterRun("build_dataset", run_id, status=dg.DagsterRunStatus.FAILURE, tags=tags))
    assert "50 builds are under way or need help" in str(tick(build_intents, builds, instance))
    later_key = ledger.submit(parse_intent(training)).run_key
    (request,) = requests(tick(build_intents, builds, instance))
    assert request.run_key == f"{later_key}-0-0"


def test_the_run_of_a_killed_builder_is_picked_up(
    location: dg.Definitions,
    world: LabelledPlane,
    training: dict[str, Any],
    instance: dg.DagsterInstance,
    builds: BuildContextResource,
) -> None:
    key = asked(location, instance, training)
    ledger = RunLedger(world.plane.pool)
    with ledger.claim(key) as lease:
        assert lease is not None
        assert isinstance(tick(build_intents, builds, instance), dg.SkipReason)  # it is held
        held = build(location, instance, key)
        assert "another builder holds" in failure(held)
    # let go of without a word, as when its process was killed
    assert ledger.show(key).state is RunState.RUNNING
    (request,) = requests(tick(build_intents, builds, instance))
    assert request.run_key == f"{key}-1-0"
    assert request.tags["ofp/ledger_state"] == "RUNNING"
    assert request.tags[ATTEMPT] == f"{key}-1-0"
    assert build(location, instance, key, **request.tags).success
    run = ledger.show(key)
    assert (run.state, run.attempts) == (RunState.DONE, 2)


def test_a_build_made_elsewhere_is_shown(
    location: dg.Definitions,
    world: LabelledPlane,
    training: dict[str, Any],
    instance: dg.DagsterInstance,
    builds: BuildContextResource,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    key = asked(location, instance, training)
    with builds.open() as build_context:
        first = builder.build(build_context, key)
        assert first.outcome is not None
        again = changed(
            training,
            supersedes=first.outcome["dataset_identity"],
            label={**training["label"], "as_of_utc": "2026-01-17T00:00:00Z"},
        )
        later = asked(location, instance, again)
        assert builder.build(build_context, later).state is RunState.DONE
    monkeypatch.setattr(offline_sensors, "SETTLED_SECONDS", 0.0)
    capsys.readouterr()
    found = tick(build_outcomes, builds, instance)
    assert [one.partition_key for one in requests(found)] == [shown_as(instance, key), shown_as(instance, later)]
    told = [line for line in capsys.readouterr().err.splitlines() if "governance fact" in line]
    assert len(told) == 3
    assert '"fact": "build_superseded"' in told[2]
    assert first.outcome["dataset_identity"] in told[2]
    with builds.open() as build_context:
        recorded = [item.fact.wire() for item in read_facts(build_context.pool) if item.fact.fact != "labels_published"]
    assert recorded[::-1] == [json.loads(line.partition("governance fact: ")[2]) for line in told]
    shown = build(location, instance, key)
    assert shown.success
    assert "recorded" in materialised(shown)[MANIFEST].metadata
    assert build(location, instance, later).success
    assert isinstance(found, dg.SensorResult)
    anew = tick(build_outcomes, builds, instance)  # as if the cursor had been lost: nothing is built, shown or kept twice
    with builds.open() as build_context:
        assert len(read_facts(build_context.pool)) == 4  # with that of the labels
    assert isinstance(anew, dg.SensorResult)
    assert not anew.run_requests


def test_the_run_of_a_cancelled_build_is_terminated(
    location: dg.Definitions,
    instance: dg.DagsterInstance,
    builds: BuildContextResource,
    training: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = asked(location, instance, training)
    tags = {"dagster/partition": shown_as(instance, key)}
    under_way = instance.create_run_for_job(
        location.resolve_job_def("build_dataset"), status=dg.DagsterRunStatus.STARTED, tags=tags
    )
    terminated: list[str] = []
    monkeypatch.setattr(type(instance.run_coordinator), "cancel_run", lambda _self, run_id: terminated.append(run_id))
    monkeypatch.setattr(offline_sensors, "SETTLED_SECONDS", 0.0)
    with builds.open() as build_context:
        build_context.ledger.cancel(key, "an operator")
    told = tick(build_outcomes, builds, instance)
    assert terminated == [under_way.run_id]
    assert isinstance(told, dg.SensorResult)
    assert isinstance(tick(build_outcomes, builds, instance, told.cursor), dg.SkipReason)
    assert len(terminated) == 1
    assert isinstance(tick(build_intents, builds, instance), dg.SkipReason)
    assert not build(location, instance, key).success


def test_a_store_that_does_not_take_the_dataset_is_tried_again(
    location: dg.Definitions,
    world: LabelledPlane,
    training: dict[str, Any],
    instance: dg.DagsterInstance,
    builds: BuildContextResource,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = asked(location, instance, training)
    real = ObjectStore.put_if_absent

    def refuse(self: ObjectStore, path: str, data: bytes) -> bool:
        raise ObjectStoreUnavailable("the object store is full")

    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "put_if_absent", refuse)
        result = build(location, instance, key)
    assert ObjectStore.put_if_absent is real
    assert "built, not published yet: STORE_UNAVAILABLE" in failure(result)
    assert {BUILD_PLAN, REPLAY, PARITY_REPORT, LABELS, DATASET} == set(materialised(result))
    assert isinstance(tick(build_intents, builds, instance), dg.SkipReason)  # not at once
    monkeypatch.setattr(offline_sensors, "FIRST_PAUSE_SECONDS", 0.0)
    (request,) = requests(tick(build_intents, builds, instance))
    published = build(location, instance, key, **request.tags)
    assert published.success
    assert MANIFEST in materialised(published)
    run = RunLedger(world.plane.pool).show(key)
    assert (run.state, run.attempts, run.publish_attempts) == (RunState.DONE, 1, 1)


def test_a_changed_file_fails_the_check_of_the_manifest(
    location: dg.Definitions, world: LabelledPlane, training: dict[str, Any], instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    key = asked(location, instance, training)
    assert build(location, instance, key).success
    (file,) = (tmp_path / "objects" / "ofs" / "datasets").rglob("part-*.parquet")
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    result = build(location, instance, key)
    assert not result.success
    judged = checks(result)[MANIFEST_SCHEMA]
    assert not judged.passed
    assert "is damaged" in str(judged.metadata["problems"].value)


def test_a_model_is_trained_from_the_manifest(
    location: dg.Definitions,
    world: LabelledPlane,
    training: dict[str, Any],
    instance: dg.DagsterInstance,
    builds: BuildContextResource,
) -> None:
    training["label"] |= {"as_of_utc": "2026-01-20T12:00:00Z", "maturity_seconds": 3600}
    label_every_payment(world)
    training["feature_groups"] += [{"group_name": "card_activity", "group_version": "v1"}]
    key = asked(location, instance, training)
    job = location.resolve_job_def("train_model")
    unbuilt = job.execute_in_process(instance=instance, partition_key=shown_as(instance, key), raise_on_error=False)
    assert "has published no dataset" in failure(unbuilt)
    assert build(location, instance, key).success
    config: dict[str, Any] = {"first_day": "2026-01-01", "trees": 5}

    def train() -> dg.ExecuteInProcessResult:
        given = {"ops": {"learning__model": {"config": config}}}
        return job.execute_in_process(
            instance=instance, partition_key=shown_as(instance, key), run_config=given, raise_on_error=False
        )

    result = train()
    assert result.success
    shown = materialised(result)[MODEL].metadata
    outcome = RunLedger(world.plane.pool).show(key).outcome
    assert outcome is not None
    assert shown["manifest_digest"].value == outcome["manifest_digest"]
    assert "random_forest" in str(shown["scores"].value)
    lineage = str(shown["lineage"].value).removeprefix(f"{world.objects.url}/")
    assert world.objects.exists(lineage)

    reported = tick(offline_reporter, builds, instance)  # the archive is nobody's run; the model is
    assert isinstance(reported, dg.SensorResult)
    assert {event.asset_key for event in reported.asset_events} == {ARCHIVE_SEGMENT}
    with dg.DagsterInstance.ephemeral() as another:
        anew = tick(offline_reporter, builds, another)
        assert isinstance(anew, dg.SensorResult)
        (model,) = [event for event in anew.asset_events if event.asset_key == MODEL]
        assert model.partition == shown_as(instance, key)
        assert {name: value.value for name, value in model.metadata.items() if name != "status"} == {
            name: value.value for name, value in shown.items()
        }
        for event in anew.asset_events:
            assert isinstance(event, dg.AssetMaterialization)
            another.report_runless_asset_event(event)
        assert isinstance(tick(offline_reporter, builds, another), dg.SkipReason)

    config["first_day"] = "2020-01-01"
    assert "both classes are needed" in failure(train())
    config["first_day"] = "yesterday"
    assert "yesterday" in failure(train())


def test_corrections_of_a_day(location: dg.Definitions, world: LabelledPlane, instance: dg.DagsterInstance) -> None:
    correction = {
        "request_id": "1" * 64,
        "decision_id": "decision-1",
        "feature_snapshot_hash": "2" * 64,
        "as_of_time_utc": "2026-01-03T23:59:59.999999Z",
        "key_type": "account",
        "key_id": "acc-1",
        "group_name": "account_activity",
        "group_version": "v1",
        "feature": "count_24h",
        "served": 1,
        "corrected": 2,
        "events": [
            {
                "event_id": "late-1",
                "event_type": "card_payment",
                "event_time_utc": "2026-01-03T12:00:00Z",
                "partition_id": "0000",
                "offset": 7,
            }
        ],
    }
    record = Correction.model_validate(correction)
    with world.plane.pool.connection() as connection:
        for request in ("1" * 64, "3" * 64):  # two requests found the same
            connection.execute(
                "INSERT INTO ofp.correction VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
                (
                    request,
                    record.decision_id,
                    "account",
                    record.key_id,
                    record.group_name,
                    record.group_version,
                    record.feature,
                    parse_time(record.as_of_time_utc),
                    record.model_copy(update={"request_id": request}).model_dump_json(),
                ),
            )
    job = location.resolve_job_def("correction_ledger")

    def ledger(day: str) -> dict[str, Any]:
        result = job.execute_in_process(instance=instance, partition_key=day)
        return {name: value.value for name, value in materialised(result)[CORRECTION_LEDGER].metadata.items()}

    days = location.resolve_asset_graph().get(CORRECTION_LEDGER).partitions_def
    assert days is not None
    whole = {
        ASSET_PARTITION_RANGE_START_TAG: days.get_partition_keys()[0],
        ASSET_PARTITION_RANGE_END_TAG: days.get_partition_keys()[-1],
    }
    everything = job.execute_in_process(instance=instance, tags=whole, raise_on_error=False)
    assert "one run takes at most 366. Nothing was done" in failure(everything)
    assert ledger("2026-01-04")["corrections"] == 0
    found = ledger("2026-01-03")
    assert (found["corrected_decisions"], found["corrections"]) == (1, 1)
    assert "late-1 at 0000/7" in found["first_corrections"]
    assert "data:image/png" in found["by_feature"]


def test_other_kinds_of_intent_show_what_they_have(
    location: dg.Definitions, world: LabelledPlane, training: dict[str, Any], instance: dg.DagsterInstance
) -> None:
    decide_wrongly(world)
    head = {name: training[name] for name in ("kind", "contract_version", "context_pins", "run_facts_ref", "stream_name")}
    head["policy"] = {"policy_id": "analysis", "revision": 1}
    parity = {**head, "intent": "parity_rebuild", "replay": training["replay"]}
    result = build(location, instance, asked(location, instance, parity))
    assert result.success
    assert PARITY_REPORT in materialised(result)
    judged = checks(result)[PARITY]
    assert not judged.passed
    assert judged.severity is dg.AssetCheckSeverity.WARN  # told, and blocks nothing

    forensic = {
        **head,
        "intent": "forensic_rebuild",
        "basis": world.plane.log.ends().model_dump(mode="json"),
        "feature_pack": training["feature_pack"],
        "run_config_digest": world.plane.profile.run_config_digest,
        "feature_keys": [{"key_type": "account", "key_id": "acc-1"}],
        "feature_groups": [{"group_name": "account_activity", "group_version": "v1"}],
        "as_of_time_utc": "2026-01-10T00:00:00Z",
    }
    result = build(location, instance, asked(location, instance, forensic))
    assert result.success
    assert set(materialised(result)) == {BUILD_PLAN, SNAPSHOT}
    assert checks(result) == {}


@pytest.mark.filterwarnings("ignore")  # Spark's own, of its JVM's pipes and its Pandas versions
def test_the_engine_is_run_config(
    location: dg.Definitions,
    world: LabelledPlane,
    training: dict[str, Any],
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    key = asked(location, instance, training)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "pyspark.sql", None)
        assert "engine spark: pyspark is not installed in " in failure(build(location, instance, key, {"engine": "SPARK"}))
    assert world.build_context.ledger.show(key).attempts == 0
    try:
        demand_spark()
    except SparkUnavailable as missing:
        pytest.skip(str(missing))
    result = build(location, instance, key, {"engine": "SPARK"})
    assert result.success
    assert materialised(result)[DATASET].metadata["engine"].value == "spark"
    other = asked(location, instance, changed(training, dataset_name="by_processes"))
    shown = materialised(build(location, instance, other))[DATASET].metadata
    assert shown["engine"].value == "processes"
    assert shown["content_digest"] == materialised(result)[DATASET].metadata["content_digest"]


def test_the_memory_is_run_config(
    location: dg.Definitions, world: LabelledPlane, training: dict[str, Any], instance: dg.DagsterInstance
) -> None:
    key = asked(location, instance, training)
    assert "a memory of 100 MB is too small: a build with " in failure(build(location, instance, key, {"memory": "100MB"}))
    assert "memory: 'plenty' is no amount of memory: write 3GB" in failure(build(location, instance, key, {"memory": "plenty"}))
    assert world.build_context.ledger.show(key).attempts == 0
    assert build(location, instance, key, {"memory": "3GB"}).success
