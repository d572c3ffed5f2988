"""Pools and connections."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg_pool import ConnectionPool
from sqlalchemy import make_url

from benchmarks.delaying_proxy import delayed
from ofp_platform.storage import postgres
from ofp_platform.storage.postgres import (
    AnsweredConnection,
    DatabaseUnavailable,
    connect,
    keeps_sessions,
    open_pool,
    sqlalchemy_url,
)

FORMS = [
    ("postgres://me:s%40c@db.example:5433/plane", "postgresql://me:s%40c@db.example:5433/plane"),
    ("postgresql://me@/plane?host=/run/pg", "postgresql://me@/plane?host=/run/pg"),
    ("host=db.example port=5433 user=me password='a @/b' dbname=plane sslmode=require",
     "postgresql://me:a%20%40%2Fb@/plane?host=db.example&port=5433&sslmode=require"),
    ("dbname=plane", "postgresql:///plane"),
]  # fmt: skip
NOWHERE = "postgresql://postgres@/postgres?host=/nonexistent"


def test_pool_connections_commit_by_themselves(dsn: str) -> None:
    with open_pool(dsn, max_size=2) as pool:
        with pool.connection() as connection:
            connection.execute("CREATE TABLE seen (n int)")
        with pool.connection() as connection, pool.connection() as other, connection.transaction():
            connection.execute("INSERT INTO seen VALUES (1)")
            assert other.execute("SELECT count(*) FROM seen").fetchone() == (0,)


def test_every_session_of_a_pool_has_its_settings(dsn: str) -> None:
    settings = {"plan_cache_mode": "force_generic_plan"}
    with open_pool(dsn, max_size=2, settings=settings) as pool, pool.connection() as connection, pool.connection() as other:
        modes = [one.execute("SHOW plan_cache_mode").fetchone() for one in (connection, other)]
    assert modes == [("force_generic_plan",)] * 2


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


def test_times_are_read_whatever_the_session_writes(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGDATESTYLE", "SQL, DMY")
    monkeypatch.setenv("PGTZ", "Asia/Tokyo")
    asked, expected = "SELECT timestamptz '2026-01-02 03:04:05+00'", datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    with open_pool(dsn, max_size=1) as pool, pool.connection() as connection:
        assert connection.execute(asked).fetchone() == (expected,)
    for autocommit in (False, True):
        with connect(dsn, autocommit=autocommit) as connection:
            assert connection.execute(asked).fetchone() == (expected,)


@pytest.mark.parametrize(("dsn", "url"), FORMS)
def test_sqlalchemy_reads_every_form_of_a_dsn_as_libpq_does(dsn: str, url: str) -> None:
    assert sqlalchemy_url(dsn) == url
    arguments = make_url(url).get_dialect()().create_connect_args(make_url(url))[1]
    assert {name: str(value) for name, value in arguments.items()} == psycopg.conninfo.conninfo_to_dict(dsn)


def test_a_server_keeps_the_session_of_a_connection(dsn: str) -> None:
    assert keeps_sessions(dsn)


@pytest.mark.parametrize(
    "told",
    [
        pytest.param([7, 7, 8, 9, 10, 11, 12], id="another connection is given the session that this one had"),
        pytest.param([7, 8, 9, 10, 11, 12, 13], id="this connection is given another session"),
    ],
)
def test_a_pooler_of_transactions_shows(dsn: str, told: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    processes = iter(told)
    monkeypatch.setattr("ofp_platform.storage.postgres._server_process", lambda _connection: next(processes))
    assert not keeps_sessions(dsn)


@pytest.mark.skipif(shutil.which("pgbouncer") is None, reason="pgbouncer is not installed here (Debian: apt install pgbouncer)")
@pytest.mark.parametrize(("mode", "keeps"), [("transaction", False), ("session", True)])
def test_pgbouncer(dsn: str, mode: str, keeps: bool) -> None:
    # it refuses to run as root, and the server lets nobody in but the user of this process, as which the relay comes
    with delayed(dsn, 0.0) as (relayed, _), tempfile.TemporaryDirectory(prefix="ofp-pooler-") as folder:
        _try_pooler(relayed, Path(folder), mode, keeps)


def _try_pooler(dsn: str, folder: Path, mode: str, keeps: bool) -> None:
    parts = psycopg.conninfo.conninfo_to_dict(dsn)
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    (folder / "users.txt").write_text(f'"{parts["user"]}" ""\n')
    where = " ".join(f"{name}={parts[name]}" for name in ("host", "port", "dbname", "user"))
    (folder / "pgbouncer.ini").write_text(
        f"[databases]\n{parts['dbname']} = {where}\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\nauth_file = {folder}/users.txt\npool_mode = {mode}\n"
    )
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    folder.chmod(0o755)
    with subprocess.Popen(["pgbouncer", "-q", *user, str(folder / "pgbouncer.ini")]) as pooler:
        try:
            pooled = psycopg.conninfo.make_conninfo(dsn, host="127.0.0.1", port=port)
            deadline = time.monotonic() + 30
            while True:
                try:
                    assert keeps_sessions(pooled) is keeps
                    break
                except psycopg.OperationalError:
                    assert time.monotonic() < deadline
                    time.sleep(0.05)
        finally:
            pooler.terminate()


def test_a_connection_that_has_just_answered_is_not_asked_again(dsn: str) -> None:
    checks: list[bool] = []

    class Counted(ConnectionPool[Any]):
        @staticmethod
        def check_connection(conn: Any) -> None:
            checks.append(True)
            ConnectionPool.check_connection(conn)

    with pytest.MonkeyPatch.context() as patch, open_pool(dsn, max_size=1) as pool:
        patch.setattr(postgres, "ConnectionPool", Counted)
        for _ in range(5):
            with pool.connection() as connection:
                connection.execute("SELECT 1")
                assert isinstance(connection, AnsweredConnection)
                assert connection.has_just_answered
        first = len(checks)
        assert first <= 1
        patch.setattr(postgres, "_FRESH_SECONDS", -1.0)
        with pool.connection() as connection:
            connection.execute("SELECT 1")
        assert len(checks) == first + 1


def test_a_connection_that_ended_meanwhile_is_replaced_at_once(dsn: str) -> None:
    with open_pool(dsn, max_size=1) as pool, psycopg.connect(dsn, autocommit=True) as other:
        with pool.connection() as connection:
            before = connection.info.backend_pid
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (before,))
        with pool.connection() as connection:
            assert connection.execute("SELECT pg_backend_pid()").fetchone() != (before,)
