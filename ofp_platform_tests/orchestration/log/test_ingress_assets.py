"""From a world to receipts in Dagster: verified, asked for, streamed, reconciled; and what each says when it finds nothing."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ofp_platform.cli.demo.through_door import stream_world
from ofp_platform.cli.files.run_door import entrance_of
from ofp_platform.ingress import receipt_segments
from ofp_platform.online.plane import Plane
from ofp_platform.orchestration.code_location import code_location
from ofp_platform.orchestration.log.event_assets import INGRESS_RECEIPTS
from ofp_platform.orchestration.log.ingress_assets import (
    CONTROL_RUN,
    INGRESS_QUARANTINE,
    WORLD_PACK,
    asked_runs,
    run_steps,
)
from ofp_platform.orchestration.online.sensors import new_offsets
from ofp_platform.orchestration.resources import PlaneResource
from ofp_platform.scenario.runner import ScenarioRunner
from ofp_platform.simulation.rings import RingSimulation
from ofp_platform.storage.run_asks import add_ask, read_ask
from ofp_platform.vocabulary.scenario import RunAsk
from ofp_platform.world.makers import MadeWorld, rings_world
from ofp_platform.world.world_store import seal_world, write_world
from ofp_platform_tests.oracle.simulated_log import write_profile


def yesterday() -> str:
    """The first day of the profile: of today no hour is over, and so no partition, before one o'clock."""
    return (datetime.now(UTC) - timedelta(days=1)).strftime("%Y-%m-%d")


@pytest.fixture
def controlled_resource(dsn: str, tmp_path: Path) -> PlaneResource:
    links = {"pack": "mule_rings", "context_stream": "links", "control_stream": "control"}
    since = {"first_day": yesterday(), "last_day": None}
    return PlaneResource(profile_source=str(write_profile(tmp_path, **links, **since)), database_url=dsn)


@pytest.fixture
def location(controlled_resource: PlaneResource) -> dg.Definitions:
    return code_location(controlled_resource.load_profile(), controlled_resource)


@pytest.fixture
def opened(controlled_resource: PlaneResource) -> Iterator[Plane]:
    with controlled_resource.open("owner") as plane:
        yield plane


def made(plane: Plane) -> MadeWorld:
    pins = plane.profile.context_pins
    small = RingSimulation(pins, accounts=30, families=3, ring=3, days=5, quiet_days=1, linked_after_days=4, amended=4)
    return rings_world(small)


def sealed(plane: Plane, name: str) -> None:
    world = made(plane)
    write_world(plane.objects, name, world.maker, world.outputs)
    seal_world(plane.objects, name)


def run(
    location: dg.Definitions, instance: dg.DagsterInstance, job: str, config: dict[str, Any] | None = None, **more: Any
) -> dg.ExecuteInProcessResult:
    run_config = {} if config is None else {"ops": config}
    return location.resolve_job_def(job).execute_in_process(
        run_config=run_config, instance=instance, raise_on_error=False, **more
    )


def checks(result: dg.ExecuteInProcessResult) -> dict[str, tuple[bool, str | None]]:
    return {one.check_name: (one.passed, one.description) for one in result.get_asset_check_evaluations()}


def test_a_world_is_verified_and_one_that_was_changed_is_told(
    location: dg.Definitions, instance: dg.DagsterInstance, opened: Plane, tmp_path: Path
) -> None:
    config = {"world__pack": {"config": {"world": "rings"}}}
    absent = run(location, instance, "verify_world", config)
    assert checks(absent)["seal_verified"][0] is False
    sealed(opened, "rings")
    result = run(location, instance, "verify_world", config)
    assert (result.success, checks(result)) == (True, {"seal_verified": (True, None)})
    (event,) = result.asset_materializations_for_node("world__pack")
    assert event.asset_key == WORLD_PACK
    assert event.metadata["dagster/row_count"].value
    (file, *_) = sorted((tmp_path / "objects/oracle/rings/stream_view/links").glob("*.parquet"))
    file.write_bytes(file.read_bytes()[:-1])
    passed, words = checks(run(location, instance, "verify_world", config))["seal_verified"]
    assert not passed
    assert "part-00000.parquet" in str(words)


def test_a_run_is_asked_for_and_its_steps_are_reported(
    location: dg.Definitions, instance: dg.DagsterInstance, opened: Plane, controlled_resource: PlaneResource
) -> None:
    def tick(cursor: str | None) -> Any:
        context = dg.build_sensor_context(instance=instance, cursor=cursor, resources={"plane": controlled_resource})
        return run_steps(context)

    assert "nobody asked" in str(tick(None).skip_message)
    waiting = new_offsets(dg.build_sensor_context(instance=instance, resources={"plane": controlled_resource}))
    assert isinstance(waiting, dg.SkipReason)
    assert "is not READY" in str(waiting.skip_message)
    config = {"control__run": {"config": {"world": "rings"}}}
    refused = run(location, instance, "request_run", config)
    assert not refused.success
    assert "no world rings" in str(refused.get_step_failure_events()[0].step_failure_data.error)
    sealed(opened, "rings")
    unknown = {"control__run": {"config": {"world": "rings", "outputs": ["nothing"]}}}
    failed = run(location, instance, "request_run", unknown)
    assert "there is no row to stream" in str(failed.get_step_failure_events()[0].step_failure_data.error)
    first = tick(None)
    assert [event.metadata["state"].value for event in first.asset_events] == ["REFUSED"]
    assert "as reported" in str(tick(first.cursor).skip_message)
    assert run(location, instance, "request_run", config).success  # a run that was refused binds nobody
    assert [event.metadata["state"].value for event in tick(first.cursor).asset_events] == ["READY"]
    taken = run(location, instance, "request_run", {"control__run": {"config": {"world": "rings", "outputs": ["links"]}}})
    assert "PINS_TAKEN" in str(taken.get_step_failure_events()[0].step_failure_data.error)


def test_asks_are_answered_by_runs_of_their_own(
    location: dg.Definitions, instance: dg.DagsterInstance, opened: Plane, controlled_resource: PlaneResource
) -> None:
    def tick() -> list[Any]:
        return list(asked_runs(dg.build_sensor_context(instance=instance, resources={"plane": controlled_resource})))  # type: ignore[arg-type]

    assert [type(one) for one in tick()] == [dg.SkipReason]
    sealed(opened, "rings")
    pins = opened.profile.context_pins
    with opened.pool.connection() as connection:
        for world in ("nowhere", "rings"):
            add_ask(connection, pins, RunAsk(world=world), "somebody")
    nowhere, rings = tick()
    assert [nowhere.run_key, rings.run_key] == ["ask-1", "ask-2"]
    refused = run(location, instance, "request_run", nowhere.run_config["ops"])
    assert "no world nowhere" in str(refused.get_step_failure_events()[0].step_failure_data.error)
    assert run(location, instance, "request_run", rings.run_config["ops"]).success
    assert [type(one) for one in tick()] == [dg.SkipReason]
    with opened.pool.connection() as connection:
        answers = [read_ask(connection, pins, number) for number in (1, 2)]
    assert [answer and answer.state for answer in answers] == ["REFUSED", "READY"]
    status = answers[1] and answers[1].run
    assert status is not None
    assert status.actor == "somebody"
    again = run(location, instance, "request_run", rings.run_config["ops"])
    assert "was answered before" in str(again.get_step_failure_events()[0].step_failure_data.error)


def test_ready_is_told_with_the_evidence_behind_it(
    location: dg.Definitions, instance: dg.DagsterInstance, opened: Plane, controlled_resource: PlaneResource
) -> None:
    sealed(opened, "rings")
    result = run(location, instance, "request_run", {"control__run": {"config": {"world": "rings"}}})
    assert (result.success, checks(result)) == (True, {"evidence_resolves": (True, None)})
    (event,) = result.asset_materializations_for_node("control__run")
    assert (event.asset_key, event.metadata["state"].value) == (CONTROL_RUN, "READY")
    ScenarioRunner(opened, "tester", lambda: 1_900_000_000_000_000).cancel("wrong")
    context = dg.build_sensor_context(instance=instance, resources={"plane": controlled_resource})
    told = run_steps(context)
    assert isinstance(told, dg.SensorResult)
    assert [event.metadata["state"].value for event in told.asset_events] == ["CANCELLED"]  # type: ignore[union-attr]
    over = run(location, instance, "request_run", {"control__run": {"config": {"world": "rings"}}})
    assert "RUN_OVER" in str(over.get_step_failure_events()[0].step_failure_data.error)


def test_receipts_balance_and_a_record_around_the_door_fails(
    location: dg.Definitions, instance: dg.DagsterInstance, opened: Plane, monkeypatch: pytest.MonkeyPatch
) -> None:
    start, end = f"{yesterday()}-00:00", (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%d-%H:00")
    tags = {"dagster/asset_partition_range_start": start, "dagster/asset_partition_range_end": end}

    def reconcile() -> tuple[bool, str | None]:
        return checks(run(location, instance, "reconcile_ingress", tags=tags))["receipts_balance"]

    opened.context_log(create=True)
    assert reconcile() == (False, "no batch was received for this run")
    (share,) = checks(run(location, instance, "count_quarantine")).values()
    assert share == (False, "nothing was sent")
    from rich.console import Console

    result = stream_world(opened.profile, opened.dsn, lambda: made(opened), Console(quiet=True))
    assert reconcile() == (True, None)
    counted = checks(run(location, instance, "reconcile_ingress", tags=tags))["segments_whole"]
    assert counted[0]
    assert str(counted[1]).startswith("not over yet: ")
    monkeypatch.setattr(
        receipt_segments, "_NOW", receipt_segments._NOW.replace("clock_timestamp()", "clock_timestamp() + interval '3 hours'")
    )
    assert checks(run(location, instance, "reconcile_ingress", tags=tags))["segments_whole"] == (True, None)
    with opened.pool.connection() as connection:
        segments = receipt_segments.read_segments(connection, opened.profile.context_pins)
    assert sum(segment.receipts for segment in segments) == result.sent_count
    for segment in segments:
        assert opened.objects.folder is not None
        (opened.objects.folder / segment.object_path).unlink()
    gone = checks(run(location, instance, "reconcile_ingress", tags=tags))["segments_whole"]
    assert not gone[0]
    assert "restore it" in str(gone[1])
    (share,) = checks(run(location, instance, "count_quarantine")).values()
    assert share == (True, f"0.000% of {result.sent_count:,}")
    assert instance.get_latest_materialization_event(INGRESS_QUARANTINE) is not None
    assert instance.get_latest_materialization_event(INGRESS_RECEIPTS) is not None
    event = {
        "event_id": "around",
        "event_type": "transfer",
        "schema_version": "v1",
        "ts_utc": "2026-01-03T00:00:00Z",
        **opened.profile.context_pins.wire(),
        "payload": {"account_id": "acct-9", "counterparty_id": "acct-1", "amount": "5.00", "currency": "EUR"},
    }
    assert opened.log.append([event]).appended == 1
    passed, words = reconcile()
    assert not passed
    assert str(words).endswith("a record of the run that ingress has not admitted")
    assert entrance_of(opened).door is not None
