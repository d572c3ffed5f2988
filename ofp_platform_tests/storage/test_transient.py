"""Faults that pass by themselves, by their SQLSTATE and not by the class of the exception."""

from __future__ import annotations

import errno
import select
from collections.abc import Callable

import asyncpg
import psycopg
import pytest
from psycopg import errors
from psycopg_pool import PoolClosed, PoolTimeout

from ofp_platform.storage.postgres import DatabaseUnavailable
from ofp_platform.storage.transient import is_transient, outage_words

PASSING = """
08000 08001 08003 08004 08006 08007 08P01 25006 25P03 25P04 40001 40003 40P01 53000 53100 53200 53300 53400 55000 55P03 57014
57P01 57P02 57P03 57P05
"""
LASTING = "22003 22P02 23505 25001 25P02 26000 28P01 3D000 42501 42703 42P01 54000 57P04 58030 F0000 XX000 XX001"


@pytest.mark.parametrize("state", PASSING.split())
def test_what_passes(state: str) -> None:
    try:
        kind = errors.lookup(state)
    except KeyError:
        kind = type("Unknown", (psycopg.DatabaseError,), {"sqlstate": state})
    assert is_transient(kind("text"))
    assert outage_words(kind("a secret")).startswith(f"SQLSTATE {state}, ")


@pytest.mark.parametrize("state", LASTING.split())
def test_what_does_not(state: str) -> None:
    error = errors.lookup(state)("a secret")
    assert not is_transient(error)
    assert outage_words(error) == f"SQLSTATE {state}"


@pytest.mark.parametrize(
    "error",
    [
        psycopg.OperationalError("server closed the connection unexpectedly"),
        PoolTimeout("no connection"),
        DatabaseUnavailable("no answer"),
        asyncpg.InterfaceError("connection is closed"),
        asyncpg.TargetServerAttributeNotMatched("none of the hosts takes writes"),
        asyncpg.ConnectionDoesNotExistError("closed in the middle"),
        asyncpg.ReadOnlySQLTransactionError("cannot execute INSERT"),
        ConnectionRefusedError(errno.ECONNREFUSED, "no"),
        FileNotFoundError(errno.ENOENT, "no socket"),
        TimeoutError(),
        OSError("Multiple exceptions: ..."),
    ],
)
def test_an_error_of_a_connection_passes(error: Exception) -> None:
    assert is_transient(error)


@pytest.mark.parametrize(
    "error",
    [
        PoolClosed("closed by us"),
        OSError(errno.ENOSPC, "disk full"),
        PermissionError(errno.EACCES, "no"),
        psycopg.InterfaceError("the cursor is closed"),
        psycopg.ProgrammingError("placeholders"),
        asyncpg.UndefinedTableError("no table"),
        ValueError("a defect"),
    ],
)
def test_a_defect_does_not(error: Exception) -> None:
    assert not is_transient(error)


def read_only_write(connection: psycopg.Connection[object]) -> None:
    with connection.transaction():
        connection.execute("SET TRANSACTION READ ONLY")
        connection.execute("CREATE TABLE nothing (n int)")


def idle_in_transaction(connection: psycopg.Connection[object]) -> None:
    with connection.transaction():
        connection.execute("SET LOCAL idle_in_transaction_session_timeout = 1")
        select.select([connection.fileno()], [], [], 30)  # the server's last word,
        connection.pgconn.consume_input()  # taken before anything is sent to where nobody is
        connection.execute("SELECT 1")


@pytest.mark.parametrize(
    ("provoke", "kind"),
    [(read_only_write, errors.ReadOnlySqlTransaction), (idle_in_transaction, errors.IdleInTransactionSessionTimeout)],
)
def test_real_errors_that_are_no_operational_errors(
    dsn: str, provoke: Callable[[psycopg.Connection[object]], None], kind: type[psycopg.Error]
) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        with pytest.raises(kind) as raised:
            provoke(connection)
        assert not isinstance(raised.value, psycopg.OperationalError)  # the class tells nothing
        assert is_transient(raised.value)
