"""The network of the benchmarks: every byte comes, in its order, later by the delay of each way."""

from __future__ import annotations

import time

import psycopg
import pytest

from benchmarks.delaying_proxy import delayed

DELAY = 0.02


def test_a_statement_takes_both_ways_and_nothing_is_lost_or_mixed_up(dsn: str) -> None:
    with delayed(dsn, DELAY) as (late_dsn, _), psycopg.connect(late_dsn, autocommit=True) as connection:
        began = time.perf_counter()
        assert connection.execute("SELECT 1").fetchone() == (1,)
        assert time.perf_counter() - began >= 2 * DELAY
        content = bytes(range(256)) * 40_000
        row = connection.execute("SELECT md5(%(c)s::bytea), %(c)s::bytea", {"c": content}).fetchone()
        assert row is not None
        assert row[1] == content
        with connection.cursor() as cursor, cursor.copy("COPY (SELECT generate_series(1, 100000)) TO STDOUT") as copy:
            assert [int(bytes(line)) for line in copy] == list(range(1, 100_001))


def test_two_clients_wait_side_by_side(dsn: str) -> None:
    with delayed(dsn, DELAY) as (late_dsn, _), psycopg.connect(late_dsn) as first, psycopg.connect(late_dsn) as second:
        assert first.info.backend_pid != second.info.backend_pid
        with second.pipeline():
            cursors = [second.execute("SELECT %s::int", (number,)) for number in range(50)]
        assert [cursor.fetchone() for cursor in cursors] == [(number,) for number in range(50)]


def test_a_client_sees_the_end_of_its_server(dsn: str) -> None:
    with delayed(dsn, DELAY) as (late_dsn, _), psycopg.connect(late_dsn, autocommit=True) as connection:
        pid = connection.info.backend_pid
        with psycopg.connect(dsn, autocommit=True) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (pid,))
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")
