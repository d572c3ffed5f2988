"""Migrations, and whether the schema is the newest."""

from __future__ import annotations

import subprocess
import sys
import threading

import psycopg
import pytest

from ofp_platform.storage.postgres import DatabaseUnavailable
from ofp_platform.storage.schema import migrate, schema_is_current

NOWHERE = "postgresql://postgres@/postgres?host=/nonexistent"


def test_migrate_is_idempotent_and_known(empty_dsn: str) -> None:
    assert not schema_is_current(empty_dsn)
    migrate(empty_dsn)
    assert schema_is_current(empty_dsn)
    migrate(empty_dsn)
    with psycopg.connect(empty_dsn) as connection:
        tables = connection.execute("SELECT tablename FROM pg_tables WHERE schemaname = 'ofp'").fetchall()
        assert {"alembic_version", "log_stream", "log_head", "log_block"} <= {name for (name,) in tables}
        storage = connection.execute(
            "SELECT attstorage FROM pg_attribute WHERE attrelid = 'ofp.log_block'::regclass AND attname = 'block'"
        ).fetchone()
        assert storage == ("e",)


def test_migrations_of_two_processes_wait_for_each_other(empty_dsn: str) -> None:
    errors: list[BaseException] = []

    def run() -> None:
        try:
            migrate(empty_dsn)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert schema_is_current(empty_dsn)


def test_any_form_of_dsn_works(dsn: str) -> None:
    parts = psycopg.conninfo.conninfo_to_dict(dsn)
    assert schema_is_current(psycopg.conninfo.make_conninfo(**parts))


def test_an_absent_server_is_named() -> None:
    with pytest.raises(DatabaseUnavailable, match="/nonexistent"):
        migrate(NOWHERE)
    with pytest.raises(DatabaseUnavailable, match="/nonexistent"):
        schema_is_current(NOWHERE)


@pytest.mark.parametrize("module", ["offline.runs.builder", "online.plane", "offline.replay.archived_fold", "api.server"])
def test_what_builds_and_serves_starts_without_what_it_may_never_need(module: str) -> None:
    code = f"import sys, ofp_platform.{module}; print({{'alembic', 'sqlalchemy', 'boto3'}} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "set()\n"
