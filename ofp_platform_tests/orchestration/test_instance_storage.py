"""dagster.yaml at the top of the repository is a whole configuration, with an address and without one."""

import os
from pathlib import Path

import pytest
import yaml
from dagster import DagsterInstance
from dagster._core.instance.ref import InstanceRef
from dagster._core.run_coordinator import QueuedRunCoordinator
from dagster_postgres import PostgresRunStorage
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ofp_platform.orchestration import instance_storage
from ofp_platform.orchestration.instance_storage import ADDRESS, PlatformPostgresStorage, with_search_path
from ofp_platform.storage.dagster_schema import DAGSTER_SCHEMA
from ofp_platform.storage.postgres import connect

ROOT = Path(__file__).resolve().parents[2]


def test_dagster_takes_the_configuration_of_the_repository(
    empty_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(ADDRESS, empty_dsn)
    with DagsterInstance.from_ref(InstanceRef.from_dir(str(tmp_path), config_dir=str(ROOT))) as instance:
        assert isinstance(instance.run_storage, PostgresRunStorage)
        assert instance.run_storage.postgres_url == with_search_path(empty_dsn)
        assert instance.get_runs() == []
        assert isinstance(instance.run_coordinator, QueuedRunCoordinator)
        pools = instance.get_concurrency_config().pool_config
        assert (pools.default_pool_limit, str(pools.pool_granularity.value)) == (1, "run")
        assert not instance.telemetry_enabled
        # what the daemon, the web server and the run workers receive leads them to the same storage
        with DagsterInstance.from_ref(instance.get_ref()) as other:
            assert isinstance(other.run_storage, PostgresRunStorage)
            assert other.run_storage.postgres_url == with_search_path(empty_dsn)
    with connect(empty_dsn, autocommit=True) as connection:
        rows = connection.execute(
            "SELECT DISTINCT schemaname FROM pg_tables WHERE tablename IN ('runs', 'event_logs', 'job_ticks')"
        )
        assert rows.fetchall() == [(DAGSTER_SCHEMA,)]


@pytest.mark.parametrize("form", ["postgres://", "pairs"])
def test_every_form_of_an_address_leads_to_the_storage(
    empty_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    pairs = make_conninfo(**conninfo_to_dict(empty_dsn))
    address = pairs if form == "pairs" else empty_dsn.replace("postgresql://", form)
    assert address != empty_dsn
    monkeypatch.setenv(ADDRESS, address)
    with DagsterInstance.from_ref(InstanceRef.from_dir(str(tmp_path), config_dir=str(ROOT))) as instance:
        assert instance.get_runs() == []


def test_without_an_address_the_embedded_server_is_used(empty_dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Path] = []

    def start(folder: Path) -> str:
        asked.append(folder)
        return empty_dsn

    monkeypatch.setenv(ADDRESS, "")
    monkeypatch.setenv("OFP_HOME", str(tmp_path))
    monkeypatch.setattr(instance_storage, "start_embedded", start)
    assert PlatformPostgresStorage.from_config_value(None, {}).postgres_url == with_search_path(empty_dsn)
    assert asked == [tmp_path / "postgres"]
    assert os.environ[ADDRESS] == empty_dsn  # for the processes that this one starts


def test_the_workspace_names_the_definitions() -> None:
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text(encoding="utf-8"))
    module = workspace["load_from"][0]["python_module"]
    assert module["module_name"] == "ofp_platform.definitions"
    # `dagster dev` and `ofp up` load the module by itself, under its own name; the state of sensors goes by that name
    assert module["location_name"] == module["module_name"]


def test_options_of_an_address_stay() -> None:
    url = with_search_path("postgresql://who:a%2Fb@host/db?sslmode=require&options=-cstatement_timeout%3D5000")
    assert conninfo_to_dict(url) == {
        "user": "who",
        "password": "a/b",
        "host": "host",
        "dbname": "db",
        "sslmode": "require",
        "options": f"-cstatement_timeout=5000 -csearch_path={DAGSTER_SCHEMA}",
    }
