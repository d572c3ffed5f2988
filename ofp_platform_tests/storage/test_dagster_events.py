"""Old events of Dagster go; what it shows of assets, and runs that go on, stay."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.instance.ref import InstanceRef

from ofp_platform.orchestration.instance_storage import ADDRESS
from ofp_platform.storage.dagster_events import count_old_events, remove_old_events
from ofp_platform.storage.postgres import connect

ROOT = Path(__file__).resolve().parents[2]
YEAR_US = 365 * 86_400_000_000


@pytest.fixture
def instance(empty_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv(ADDRESS, empty_dsn)
    with dg.DagsterInstance.from_ref(InstanceRef.from_dir(str(tmp_path), config_dir=str(ROOT))) as opened:
        yield opened


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a", "b"]))
def thing(context: dg.AssetExecutionContext) -> None:
    """Something with partitions."""
    context.log.info("a line")


def events(dsn: str) -> int:
    with connect(dsn, autocommit=True) as connection:
        row = connection.execute("SELECT count(*) FROM dagster.event_logs").fetchone()
    assert row is not None
    return int(row[0])


def test_what_a_later_event_replaced_goes_and_the_newest_stay(instance: dg.DagsterInstance, empty_dsn: str) -> None:
    for key in ("a", "a", "b"):
        dg.materialize([thing], instance=instance, partition_key=key)
    for number in range(3):
        instance.report_runless_asset_event(dg.AssetObservation("other", metadata={"number": number}))
    going_on = instance.create_run_for_job(dg.Definitions(jobs=[dg.define_asset_job("j")], assets=[thing]).resolve_job_def("j"))
    instance.report_engine_event("under way", going_on)
    before = events(empty_dsn)
    assert count_old_events(empty_dsn, YEAR_US) == 0
    assert remove_old_events(empty_dsn, YEAR_US) == 0
    with connect(empty_dsn, autocommit=True) as connection:
        connection.execute("UPDATE dagster.event_logs SET timestamp = timestamp - interval '2 years'")
    old = count_old_events(empty_dsn, YEAR_US)
    assert 0 < old < before
    assert events(empty_dsn) == before
    assert remove_old_events(empty_dsn, YEAR_US) == old
    assert (events(empty_dsn), count_old_events(empty_dsn, YEAR_US)) == (before - old, 0)
    assert instance.get_materialized_partitions(dg.AssetKey("thing")) == {"a", "b"}
    assert len(instance.fetch_materializations(dg.AssetKey("thing"), limit=9).records) == 2
    (newest,) = instance.fetch_observations(dg.AssetKey("other"), limit=9).records
    assert newest.asset_observation is not None
    assert newest.asset_observation.metadata["number"].value == 2
    assert len(instance.get_runs()) == 4
    assert instance.all_logs(going_on.run_id)  # it goes on


def test_where_dagster_never_ran_nothing_is_old(dsn: str) -> None:
    assert (count_old_events(dsn, 0), remove_old_events(dsn, 0)) == (0, 0)
