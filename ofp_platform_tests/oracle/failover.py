"""What those who are connected see of a server that goes: their sessions end, and who comes then is refused or may not write."""

from __future__ import annotations

from typing import Any

import psycopg
from psycopg import sql

_ENDS_MS = 30_000


def end_sessions(connection: psycopg.Connection[Any], database: str) -> None:
    """End every other session of `database`, and wait until they are gone: one that is told to end may still take a question, and
    ends in the middle of it.
    """
    connection.execute(
        "SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity"
        " WHERE datname = %s AND pid <> pg_backend_pid() AND backend_type = 'client backend'",
        (_ENDS_MS, database),
    )


def set_read_only(dsn: str, value: str) -> None:
    """As a failover does: every session ends, and those that come find a server that takes no writes ("on"), or takes them
    again ("off").
    """
    name = str(psycopg.conninfo.conninfo_to_dict(dsn)["dbname"])
    with psycopg.connect(dsn, dbname="postgres", user="postgres", autocommit=True) as connection:
        setting = sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = {}")
        connection.execute(setting.format(sql.Identifier(name), sql.SQL(value)))
        end_sessions(connection, name)
