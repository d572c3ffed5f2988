"""The schema of Dagster's tables: its own, so that a role needs no right on `public` and no other table is among them.

Releases before had them in `public`; they are moved once, with all that is in them.
"""

from __future__ import annotations

import psycopg
from psycopg import sql

from ofp_platform.storage.postgres import DatabaseUnavailable, connect, unreachable

DAGSTER_SCHEMA = "dagster"
_TABLES = (
    "alembic_version",
    "asset_check_executions",
    "asset_daemon_asset_evaluations",
    "asset_event_tags",
    "asset_keys",
    "backfill_tags",
    "bulk_actions",
    "concurrency_limits",
    "concurrency_slots",
    "daemon_heartbeats",
    "dynamic_partitions",
    "event_logs",
    "instance_info",
    "instigators",
    "job_ticks",
    "jobs",
    "kvs",
    "pending_steps",
    "run_tags",
    "runs",
    "schedule_ticks",
    "schedules",
    "secondary_indexes",
    "snapshots",
)
_LOCK = 0x0F9_DA6


class NoDagsterSchema(Exception):
    """The schema is not there, and the role may not make it; the text says what to do."""


def ensure_dagster_schema(dsn: str) -> None:
    """Make the schema where it is missing, and move the tables of an earlier release into it. Safe to call from many processes.

    Raises:
        NoDagsterSchema: see there. DatabaseUnavailable: the server does not answer.
    """
    try:
        with connect(dsn) as connection:
            if _is_there(connection):
                return
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
            if _is_there(connection):
                return
            connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(DAGSTER_SCHEMA)))
            for name in _earlier_tables(connection):
                connection.execute(
                    sql.SQL("ALTER TABLE public.{} SET SCHEMA {}").format(sql.Identifier(name), sql.Identifier(DAGSTER_SCHEMA))
                )
    except psycopg.errors.InsufficientPrivilege as error:
        raise NoDagsterSchema(
            f"the role may not make the schema {DAGSTER_SCHEMA} for Dagster's tables ({str(error).splitlines()[0]}); whoever owns"
            f" the database says once: CREATE SCHEMA {DAGSTER_SCHEMA} AUTHORIZATION the_role"
        ) from None
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(unreachable(dsn, error)) from error


def _is_there(connection: psycopg.Connection[tuple[object, ...]]) -> bool:
    # by a scan: what a cache says was true before the lock was waited for
    return connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", (DAGSTER_SCHEMA,)).fetchone() is not None


def _earlier_tables(connection: psycopg.Connection[tuple[object, ...]]) -> list[str]:
    """Dagster's tables in `public`, if it is Dagster's that lie there: of no other program are all three."""
    rows = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' AND relname = ANY(%s)",
        (list(_TABLES),),
    ).fetchall()
    names = {str(name) for (name,) in rows}
    return sorted(names) if {"event_logs", "run_tags", "job_ticks"} <= names else []
