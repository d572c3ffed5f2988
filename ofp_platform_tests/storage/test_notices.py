"""Notices: sent after the commit, lost without harm, and no commit waits for that of another because of them."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

import ofp_platform
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.storage.embedded import SUPERUSER, as_role, start_embedded, stop_embedded
from ofp_platform.storage.notices import LOG_CHANNEL, send_notice
from ofp_platform.storage.postgres import connect, open_pool
from ofp_platform.storage.schema import migrate
from ofp_platform_tests.oracle.strategies import PINS

_WAIT_FOR_A_STANDBY = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"


@pytest.fixture(scope="module")
def own_server() -> Iterator[str]:
    """A server whose standby never comes: a commit waits for it for ever, if its session says so (`slow`)."""
    with tempfile.TemporaryDirectory(prefix="ofp-notices-") as name:
        folder = Path(name) / "pg"
        dsn = start_embedded(folder)
        try:
            with psycopg.connect(as_role(dsn, SUPERUSER), autocommit=True) as connection:
                connection.execute("ALTER SYSTEM SET synchronous_commit = local")
                connection.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
            stop_embedded(folder)
            migrate(start_embedded(folder))
            yield dsn
        finally:
            stop_embedded(folder)


def slow(dsn: str) -> str:
    """The same server; commits wait for the standby."""
    return f"{dsn}&options=-c%20synchronous_commit%3Don"


@contextmanager
def one_commit_waits(dsn: str) -> Iterator[None]:
    """Inside the block one commit waits for the standby; at its end it waits no more."""
    with psycopg.connect(dsn, autocommit=True) as operator:
        deadline = time.monotonic() + 30
        while len(operator.execute(_WAIT_FOR_A_STANDBY).fetchall()) != 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        try:
            yield
        finally:
            operator.execute(
                "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE backend_type = 'client backend'"
                " AND pid <> pg_backend_pid() AND wait_event = 'SyncRep'"
            )


def event(number: int) -> dict[str, Any]:
    fields = {"event_id": f"e-{number}", "event_type": "payment", "schema_version": "v1", "ts_utc": "2024-05-01T10:00:00Z"}
    return {**fields, **PINS, "payload": {"account_id": f"a-{number}"}}


def of_other_partitions(log: PostgresLog, count: int) -> list[dict[str, Any]]:
    """Events of as many partitions."""
    events = {log.partition_of(f"e-{number}"): event(number) for number in range(100)}
    return list(events.values())[:count]


def test_appends_do_not_wait_for_each_other(own_server: str) -> None:
    with open_pool(slow(own_server), max_size=1) as slow_pool, open_pool(own_server, max_size=1) as pool:
        log = PostgresLog.create(pool, "held", 8, "event_id")
        first, second = of_other_partitions(log, 2)
        with ThreadPoolExecutor(2) as threads:
            waiting = threads.submit(PostgresLog.open(slow_pool, "held").append, [first], lambda _: 1)
            with one_commit_waits(own_server):
                assert threads.submit(log.append, [second], lambda _: 1).result(30).appended == 1
                assert not waiting.done()
            assert waiting.result(30).appended == 1


def test_a_notice_that_cannot_be_sent_fails_no_append(own_server: str) -> None:
    with psycopg.connect(slow(own_server)) as hanging, open_pool(own_server, max_size=1) as pool:
        log = PostgresLog.create(pool, "unheard", 1, "event_id")
        hanging.execute("CREATE TABLE written (n int)")
        hanging.execute("SELECT pg_notify('something', 'inside')")
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(hanging.commit)
            with one_commit_waits(own_server):
                assert log.append([event(1)], lambda _: 1).appended == 1  # although nobody can be told
                assert not waiting.done()
            waiting.result(30)
        assert sum(log.ordinal_lag(log.retention_floor()).values()) == 1


def test_a_notice_reaches_who_listens(dsn: str) -> None:
    with connect(dsn, autocommit=True) as sender, psycopg.connect(dsn, autocommit=True) as listener:
        listener.execute(f"LISTEN {LOG_CHANNEL}")
        send_notice(sender, LOG_CHANNEL, "payments")
        (notice,) = listener.notifies(timeout=30, stop_after=1)
        assert (notice.channel, notice.payload) == (LOG_CHANNEL, "payments")
        assert sender.execute("SHOW lock_timeout").fetchone() == ("0",)


def test_a_notice_inside_a_transaction_is_refused(dsn: str) -> None:
    with connect(dsn, autocommit=True) as connection, connection.transaction():
        with pytest.raises(RuntimeError, match="after the commit"):
            send_notice(connection, LOG_CHANNEL, "payments")
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_lost_connection_is_no_error(dsn: str) -> None:
    with connect(dsn, autocommit=True) as sender, psycopg.connect(dsn, autocommit=True) as other:
        other.execute("SELECT pg_terminate_backend(%s, 30000)", (sender.info.backend_pid,))
        send_notice(sender, LOG_CHANNEL, "payments")
        assert sender.closed


def test_only_one_module_sends_notices() -> None:
    root = Path(ofp_platform.__file__).parent
    senders = [path.relative_to(root).as_posix() for path in root.rglob("*.py") if "pg_notify" in path.read_text()]
    assert senders == ["storage/notices.py"]
