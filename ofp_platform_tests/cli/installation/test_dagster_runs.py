"""Runs of Dagster that died with their machine, told from those that go on."""

from __future__ import annotations

import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dagster._core.instance.ref import InstanceRef

from ofp_platform.cli.installation.checks import State, dagster_runs
from ofp_platform.cli.installation.dagster_runs import lost_runs
from ofp_platform.offline.runs.run_ledger import RunLedger
from ofp_platform.online.projecting.continuous import CATCH_UP, holding
from ofp_platform.orchestration.instance_storage import ADDRESS
from ofp_platform.storage.postgres import connect, open_pool
from ofp_platform_tests.oracle.build_plans import dataset_intent

ROOT = Path(__file__).resolve().parents[3]
BUILD = "a" * 64


@pytest.fixture
def instance(dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """Dagster's own storage, beside the schema of the plane."""
    monkeypatch.setenv(ADDRESS, dsn)
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(tmp_path), config_dir=str(ROOT))) as opened:
        yield opened


def started(instance: dg.DagsterInstance, job_name: str, partition: str | None = None, process_id: int | None = None) -> str:
    """A run that has been going on for a minute, as Dagster sees it."""
    tags = {} if partition is None else {"dagster/partition": partition}
    run = instance.add_run(dg.DagsterRun(job_name=job_name, tags=tags))
    if process_id is not None:
        text = f"Started process for run (pid: {process_id})."
        instance.report_engine_event(text, run, EngineEventData.in_process(process_id))
    a_minute_ago = datetime.now(UTC) - timedelta(seconds=60)
    instance.run_storage.handle_run_event(run.run_id, dg.DagsterEvent("PIPELINE_START", job_name), a_minute_ago)
    return run.run_id


def test_runs_that_hold_what_they_work_on_go_on_and_the_others_are_named(instance: dg.DagsterInstance, dsn: str) -> None:
    catch_up, build = started(instance, "catch_up"), started(instance, "build_dataset", BUILD)
    with holding(dsn, 7, CATCH_UP), connect(dsn, autocommit=True) as builder:
        builder.execute("SELECT pg_advisory_lock(hashtextextended('ofp.build_run/' || %s, 0))", (BUILD,))
        assert lost_runs(dsn) == []
        assert dagster_runs(dsn).state is State.WELL
    assert [run.run_id for run in lost_runs(dsn)] == [catch_up, build]
    finding = dagster_runs(dsn)
    assert finding.state is State.NOTE
    assert f"{catch_up[:8]} of catch_up (it holds nothing of what it works on)" in finding.result
    assert f"{build[:8]} of build_dataset {BUILD[:20]} (it holds" in finding.result
    assert "terminate them" in finding.advice


def test_a_build_is_known_by_the_name_of_its_partition(instance: dg.DagsterInstance, dsn: str) -> None:
    with open_pool(dsn, max_size=2) as pool:
        key = RunLedger(pool).submit(dataset_intent()).run_key
    build = started(instance, "build_dataset", f"fraud_by_payment.{key[:8]}")
    with connect(dsn, autocommit=True) as builder:
        builder.execute("SELECT pg_advisory_lock(hashtextextended('ofp.build_run/' || %s, 0))", (key,))
        assert lost_runs(dsn) == []
    assert [run.run_id for run in lost_runs(dsn)] == [build]


def test_a_run_that_holds_nothing_is_known_by_its_process(instance: dg.DagsterInstance, dsn: str) -> None:
    started(instance, "archive_ranges", process_id=os.getpid())
    started(instance, "archive_ranges")  # nothing says which process it is
    gone = started(instance, "archive_ranges", process_id=4_000_000)
    assert [(run.run_id, run.reason) for run in lost_runs(dsn)] == [(gone, "its process, 4000000, is not on this machine")]


def test_a_run_that_ended_or_has_just_started_is_not_lost(instance: dg.DagsterInstance, dsn: str) -> None:
    ended = instance.get_run_by_id(started(instance, "catch_up"))
    assert ended is not None
    instance.report_run_canceled(ended)
    run = instance.add_run(dg.DagsterRun(job_name="catch_up"))
    instance.run_storage.handle_run_event(run.run_id, dg.DagsterEvent("PIPELINE_START", "catch_up"), datetime.now(UTC))
    assert lost_runs(dsn) == []


def test_where_dagster_never_ran_nothing_is_lost(empty_dsn: str) -> None:
    assert lost_runs(empty_dsn) == []
