"""The version of the database's schema: what brings it to the newest one, and whether it is there.

A module of its own: Alembic and SQLAlchemy are a third of what a process would load to begin.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.pool import NullPool

from ofp_platform.storage.postgres import DatabaseUnavailable, unreachable
from ofp_platform.storage.roles import give_rights

SCHEMA = "ofp"
_MIGRATIONS = Path(__file__).parent / "migrations"
_MIGRATION_LOCK = 0x6F66705F6D696772  # "ofp_migr": one migration at a time, whoever starts it


def migrate(dsn: str) -> None:
    """Bring the schema to the newest revision and give each role the rights of its job, in one transaction; again: no change.

    Raises:
        DatabaseUnavailable: PostgreSQL does not answer.
    """
    with _connection(dsn) as connection:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _MIGRATION_LOCK})
        connection.execute(text(f"CREATE SCHEMA IF NOT EXISTS {SCHEMA}"))
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        driver = connection.connection.driver_connection
        assert isinstance(driver, psycopg.Connection)
        give_rights(driver)


def schema_is_current(dsn: str) -> bool:
    """Whether the schema is at the newest revision that this code knows.

    Raises:
        DatabaseUnavailable: PostgreSQL does not answer.
    """
    newest = set(ScriptDirectory.from_config(_config()).get_heads())
    with _connection(dsn) as connection:
        context = MigrationContext.configure(connection, opts={"version_table_schema": SCHEMA})
        return set(context.get_current_heads()) == newest


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    return config


@contextmanager
def _connection(dsn: str) -> Iterator[Connection]:
    """A SQLAlchemy connection in a transaction, over psycopg, so that every form of DSN means the same everywhere."""

    def connect() -> psycopg.Connection[Any]:
        return psycopg.connect(dsn, connect_timeout=10)

    try:
        probe = connect()
    except psycopg.OperationalError as error:
        raise DatabaseUnavailable(unreachable(dsn, error)) from error
    probe.close()
    engine = create_engine("postgresql+psycopg://", creator=connect, poolclass=NullPool)
    try:
        with engine.begin() as connection:
            yield connection
    finally:
        engine.dispose()
