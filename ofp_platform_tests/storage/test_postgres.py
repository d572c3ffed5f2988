"""Pools and migrations."""

from __future__ import annotations

import threading

import psycopg
import pytest

from ofp_platform.storage.postgres import DatabaseUnavailable, connect, migrate, open_pool, schema_is_current

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


def test_pool_connections_commit_by_themselves(dsn: str) -> None:
    with open_pool(dsn, max_size=2) as pool:
        with pool.connection() as connection:
            connection.execute("CREATE TABLE seen (n int)")
        with pool.connection() as connection, pool.connection() as other, connection.transaction():
            connection.execute("INSERT INTO seen VALUES (1)")
            assert other.execute("SELECT count(*) FROM seen").fetchone() == (0,)


def test_a_killed_connection_is_replaced(dsn: str) -> None:
    with open_pool(dsn, max_size=1) as pool:
        with pool.connection() as connection:
            victim = connection.info.backend_pid
        with psycopg.connect(dsn, autocommit=True) as killer:
            killer.execute("SELECT pg_terminate_backend(%s, 5000)", (victim,))
        with pool.connection() as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)


def test_an_absent_server_is_named() -> None:
    with pytest.raises(DatabaseUnavailable, match="/nonexistent"):
        open_pool(NOWHERE, timeout_seconds=0.2)
    with pytest.raises(DatabaseUnavailable, match="/nonexistent"):
        migrate(NOWHERE)
    with pytest.raises(DatabaseUnavailable, match="/nonexistent"):
        schema_is_current(NOWHERE)


def test_a_server_that_is_silent_is_an_error_in_time(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ofp_platform.storage.postgres.SILENT_SECONDS", 0.2)
    with open_pool(dsn, max_size=1) as pool:
        with pytest.raises(psycopg.OperationalError, match=r"not answered for 0\.2 s"), pool.connection() as connection:
            connection.execute("SELECT pg_sleep(60)")
        with pool.connection() as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
    with connect(dsn, autocommit=True) as own, pytest.raises(psycopg.OperationalError, match="not answered"):
        own.execute("SELECT pg_sleep(60)")
    assert own.closed


def test_what_the_dsn_says_of_its_connections_holds(dsn: str) -> None:
    with connect(dsn, autocommit=True) as connection:
        assert connection.info.get_parameters()["keepalives_idle"] == "15"
    with connect(psycopg.conninfo.make_conninfo(dsn, keepalives_idle=77), autocommit=True) as connection:
        assert connection.info.get_parameters()["keepalives_idle"] == "77"
