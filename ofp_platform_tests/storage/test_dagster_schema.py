"""Dagster's tables have a schema of their own, which a role needs no right on `public` for; earlier ones are moved there."""

from __future__ import annotations

import secrets
from concurrent.futures import ThreadPoolExecutor

import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from ofp_platform.storage.dagster_schema import DAGSTER_SCHEMA, NoDagsterSchema, ensure_dagster_schema
from ofp_platform.storage.postgres import DatabaseUnavailable, connect


def tables(dsn: str) -> dict[str, str]:
    with connect(dsn, autocommit=True) as connection:
        rows = connection.execute(
            "SELECT tablename, schemaname FROM pg_tables WHERE schemaname IN ('public', %s)", (DAGSTER_SCHEMA,)
        ).fetchall()
    return {str(name): str(schema) for name, schema in rows}


def test_tables_of_an_earlier_release_are_moved_with_their_rows_once(empty_dsn: str) -> None:
    with connect(empty_dsn, autocommit=True) as connection:
        for name in ("event_logs", "run_tags", "job_ticks", "runs", "mine"):
            connection.execute(
                sql.SQL("CREATE TABLE public.{} (id bigserial PRIMARY KEY, text text)").format(sql.Identifier(name))
            )
        connection.execute("INSERT INTO public.runs (text) VALUES ('kept')")
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ensure_dagster_schema, [empty_dsn] * 8))
    assert tables(empty_dsn) == dict.fromkeys(("event_logs", "run_tags", "job_ticks", "runs"), DAGSTER_SCHEMA) | {
        "mine": "public"
    }
    with connect(empty_dsn, autocommit=True) as connection:
        connection.execute("INSERT INTO dagster.runs (text) VALUES ('new')")
        assert connection.execute("SELECT id, text FROM dagster.runs ORDER BY id").fetchall() == [(1, "kept"), (2, "new")]


def test_tables_of_somebody_else_with_such_names_stay(empty_dsn: str) -> None:
    with connect(empty_dsn, autocommit=True) as connection:
        connection.execute("CREATE TABLE public.runs (id int)")
        connection.execute("CREATE TABLE public.jobs (id int)")
    ensure_dagster_schema(empty_dsn)
    assert tables(empty_dsn) == {"runs": "public", "jobs": "public"}


def test_a_role_without_the_right_is_told_what_the_owner_does(empty_dsn: str, embedded_server: str) -> None:
    empty_dsn = make_conninfo(embedded_server, dbname=conninfo_to_dict(empty_dsn)["dbname"])
    name = f"plain_{secrets.token_hex(4)}"
    with connect(empty_dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(name)))
        try:
            as_role = make_conninfo(empty_dsn, options=f"-crole={name}")
            with pytest.raises(NoDagsterSchema, match="CREATE SCHEMA dagster AUTHORIZATION the_role"):
                ensure_dagster_schema(as_role)
            connection.execute(sql.SQL("CREATE SCHEMA dagster AUTHORIZATION {}").format(sql.Identifier(name)))
            ensure_dagster_schema(as_role)
        finally:
            connection.execute(sql.SQL("DROP OWNED BY {}").format(sql.Identifier(name)))
            connection.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def test_a_server_that_is_away(tmp_path: object) -> None:
    with pytest.raises(DatabaseUnavailable, match="does not answer"):
        ensure_dagster_schema(f"postgresql://nobody@/none?host={tmp_path}")
