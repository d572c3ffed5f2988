"""Databases of a suite's own on the server that it was given."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import conninfo, sql

from ofp_platform.storage.embedded import OWNER_ROLE
from ofp_platform.storage.schema import migrate


def fresh_database(server: str, name: str) -> str:
    """A new, migrated database of that name on a server, whatever was there before; its DSN."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(sql.Identifier(name), sql.Identifier(OWNER_ROLE)))
    dsn = conninfo.make_conninfo(server, dbname=name, user=OWNER_ROLE)
    migrate(dsn)
    return dsn


@contextmanager
def own_database(server: str, *, copy_of: str | None = None) -> Iterator[str]:
    """DSN of a new database: migrated and empty, or the copy of another that nobody is connected to. Dropped afterwards."""
    name = f"torture_{uuid.uuid4().hex}"
    template = "template1" if copy_of is None else conninfo.conninfo_to_dict(copy_of)["dbname"]
    names = map(sql.Identifier, (name, str(template), OWNER_ROLE))
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {} OWNER {}").format(*names)
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(create)
    host = conninfo.conninfo_to_dict(server)["host"]
    dsn = f"postgresql://{OWNER_ROLE}@/{name}?host={host}"
    try:
        if copy_of is None:
            migrate(dsn)
        yield dsn
    finally:
        with psycopg.connect(server, autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
