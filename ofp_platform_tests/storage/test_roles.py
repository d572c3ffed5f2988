"""Each role tries every verb on every table: what it may is what is declared, and nothing forgotten passes."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from ofp_platform.storage.embedded import SUPERUSER, as_role
from ofp_platform.storage.roles import (
    EVERY_RUN,
    SESSION_LIMITS,
    TABLES,
    Job,
    Rows,
    declared_rights,
    default_role,
    give_rights,
    register_role,
    registered_roles,
)
from ofp_platform.storage.schema import migrate
from ofp_platform.storage.transient import is_transient

WHAT_TO_DO = (
    "declare it in TABLES of ofp_platform/storage/roles.py: what becomes of its rows, and which job needs which rights (none: an"
    " empty mapping)"
)
TRIGGERS = {
    Rows.APPENDED: "append_only",
    Rows.WALLED: "wall",
    Rows.GUARDED: "guard",
}


def connected(dsn: str, role: str) -> psycopg.Connection:
    return psycopg.connect(as_role(dsn, role), autocommit=True)


def tables_of(connection: psycopg.Connection) -> list[str]:
    rows = connection.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'ofp'::regnamespace AND relkind IN ('r', 'p', 'v', 'm', 'f')"
        " AND NOT relispartition ORDER BY 1"
    ).fetchall()
    return [name for (name,) in rows]


def columns_of(connection: psycopg.Connection, table: str) -> list[str]:
    rows = connection.execute(
        "SELECT attname FROM pg_attribute WHERE attrelid = ('ofp.' || %s)::regclass AND attnum > 0 AND NOT attisdropped",
        (table,),
    ).fetchall()
    return [name for (name,) in rows]


@pytest.fixture(scope="module")
def owner(module_dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(module_dsn, autocommit=True) as connection:
        yield connection


def test_every_table_has_declared_rights(owner: psycopg.Connection) -> None:
    tables = set(tables_of(owner))
    assert tables - TABLES.keys() == set(), f"a table without declared rights: {WHAT_TO_DO}"
    assert TABLES.keys() - tables == set(), "a table that is gone: take it out of TABLES of ofp_platform/storage/roles.py"


def test_every_table_has_the_triggers_that_its_rows_need(owner: psycopg.Connection) -> None:
    rows = owner.execute(
        "SELECT relname, tgname, tgenabled::text FROM pg_trigger JOIN pg_class ON pg_class.oid = tgrelid"
        " WHERE relnamespace = 'ofp'::regnamespace AND NOT tgisinternal"
    ).fetchall()
    assert {(table, name) for table, name, enabled in rows if enabled != "A"} == set(), (
        "a session that calls itself a replica passes these triggers: ALTER TABLE ... ENABLE ALWAYS TRIGGER, in a migration"
    )
    names = {(table, name) for table, name, _ in rows}
    expected = {(table, TRIGGERS[declared.rows]) for table, declared in TABLES.items() if declared.rows in TRIGGERS}
    assert expected - names == set(), "a table whose rows are declared kept has no trigger that keeps them: see migration 0028"
    held = {(table, name) for table, name in names if name in ("append_only", "wall")}
    assert held - expected == set(), "a table with a trigger that keeps its rows is declared otherwise in TABLES"


def test_rows_of_a_run_are_behind_a_policy(owner: psycopg.Connection) -> None:
    secured = owner.execute(
        "SELECT relname FROM pg_class WHERE relnamespace = 'ofp'::regnamespace AND relrowsecurity ORDER BY 1"
    ).fetchall()
    assert [name for (name,) in secured] == sorted(name for name, declared in TABLES.items() if declared.of_a_run)
    for table in set(tables_of(owner)) - {"projection"}:
        assert ("pins_digest" in columns_of(owner, table)) == TABLES[table].of_a_run, (
            f"ofp.{table} has rows of runs: give it the policy of migration 0028 and declare of_a_run, or say here why not"
        )


def may(connection: psycopg.Connection, statement: sql.Composed) -> bool:
    """Whether a statement gets past the rights; whatever else stops it, and nothing of it stays."""
    try:
        with connection.transaction(force_rollback=True):
            connection.execute(statement)
    except psycopg.errors.InsufficientPrivilege:
        return False
    except psycopg.Error:
        pass
    return True


@pytest.mark.parametrize("job", list(Job))
def test_a_role_may_do_what_is_declared_and_nothing_else(module_dsn: str, owner: psycopg.Connection, job: Job) -> None:
    differing = []
    declared = declared_rights(job)
    with connected(module_dsn, default_role(job)) as connection:
        for table in tables_of(owner):
            place = sql.Identifier("ofp", table)
            columns = columns_of(owner, table)
            allowed = {verb for name, verb, column in declared if name == table and column is None}
            allowed |= {f"{verb} ({column})" for name, verb, column in declared if name == table and column is not None}
            if "UPDATE" in allowed:
                allowed |= {f"UPDATE ({column})" for column in columns}
            verbs = {
                "SELECT": sql.SQL("SELECT FROM {} LIMIT 1").format(place),
                "INSERT": sql.SQL("INSERT INTO {} DEFAULT VALUES").format(place),
                "DELETE": sql.SQL("DELETE FROM {} WHERE false").format(place),
                "TRUNCATE": sql.SQL("TRUNCATE {}").format(place),
                "TRIGGER": sql.SQL(
                    "CREATE TRIGGER own BEFORE INSERT ON {} EXECUTE FUNCTION ofp.refuse_change_of_record()"
                ).format(place),
                "ALTER": sql.SQL("ALTER TABLE {} ADD COLUMN own int").format(place),
                "DISABLE": sql.SQL("ALTER TABLE {} DISABLE TRIGGER ALL").format(place),
                "DROP": sql.SQL("DROP TABLE {} CASCADE").format(place),
            }
            verbs |= {
                f"UPDATE ({name})": sql.SQL("UPDATE {} SET {} = DEFAULT WHERE false").format(place, sql.Identifier(name))
                for name in columns
            }
            for verb, statement in verbs.items():
                expected = verb in allowed
                if may(connection, statement) is not expected:
                    differing.append((table, verb, "declared" if expected else "not declared"))
    assert differing == []


@pytest.mark.parametrize("job", list(Job))
def test_a_role_makes_nothing_and_becomes_nobody(module_dsn: str, job: Job) -> None:
    with connected(module_dsn, default_role(job)) as connection:
        for statement in (
            "CREATE TABLE ofp.own (n int)",
            "CREATE TABLE public.own (n int)",
            "CREATE SCHEMA own",
            "CREATE FUNCTION ofp.own() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "SET ROLE ofp_owner",
            "SET session_replication_role = replica",
            "CREATE ROLE own",
            "DROP POLICY runs_of_role ON ofp.snapshot_index",
            "UPDATE ofp.database_role SET runs = '{*}'",
            "COPY (SELECT 1) TO PROGRAM 'cat'",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                connection.execute(statement)


@pytest.mark.parametrize("table", [name for name, declared in TABLES.items() if declared.rows is not Rows.CHANGED])
def test_a_wall_stands_behind_a_right_that_was_given_by_mistake(module_dsn: str, owner: psycopg.Connection, table: str) -> None:
    place = sql.Identifier("ofp", table)
    column = sql.Identifier(columns_of(owner, table)[0])
    statements = [sql.SQL("TRUNCATE {} CASCADE").format(place)]
    if TABLES[table].rows is not Rows.GUARDED:  # a guard looks at each row, and there is none here
        statements += [
            sql.SQL("DELETE FROM {} WHERE false").format(place),
            sql.SQL("UPDATE {} SET {} = DEFAULT WHERE false").format(place, column),
        ]
    with psycopg.connect(as_role(module_dsn, SUPERUSER)) as connection:
        connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA ofp TO ofp_offline")
        connection.execute("GRANT SET ON PARAMETER session_replication_role TO ofp_offline")
        connection.execute("SET LOCAL ROLE ofp_offline")
        for replica in ("origin", "replica"):
            connection.execute(sql.SQL("SET LOCAL session_replication_role = {}").format(replica))
            for statement in statements:
                with (
                    pytest.raises((psycopg.errors.RestrictViolation, psycopg.errors.CheckViolation)),
                    connection.transaction(),
                ):
                    connection.execute(statement)
        connection.rollback()


def test_the_owner_passes_a_wall_and_not_what_is_only_appended(owner: psycopg.Connection) -> None:
    owner.execute("DELETE FROM ofp.log_block WHERE false")
    with pytest.raises(psycopg.errors.RestrictViolation):
        owner.execute("DELETE FROM ofp.evidence WHERE false")


def test_a_role_sees_the_rows_of_its_runs(dsn: str) -> None:
    insert = "INSERT INTO ofp.snapshot_index VALUES (%s, %s, 0, '', 0, '', '', %s)"
    role = default_role(Job.SERVING)
    with psycopg.connect(dsn, autocommit=True) as connection:
        column_count = len(columns_of(connection, "snapshot_index"))
        assert column_count == 8
        names = columns_of(connection, "snapshot_index")
        for run in ("a", "b"):
            row = dict.fromkeys(names, run) | {"as_of": 0, "snapshot_hash": run * 64, "graph_version": 1}
            insert = f"INSERT INTO ofp.snapshot_index ({', '.join(row)}) VALUES ({', '.join(f'%({name})s' for name in row)})"
            connection.execute(insert, row)

        def seen() -> list[str]:
            with connected(dsn, role) as theirs:
                return sorted(run for (run,) in theirs.execute("SELECT pins_digest FROM ofp.snapshot_index").fetchall())

        assert seen() == ["a", "b"]
        with connection.transaction():
            register_role(connection, role, Job.SERVING, ["a"])
        assert seen() == ["a"]
        migrate(dsn)
        assert seen() == ["a"]  # what was registered stays
        row = dict.fromkeys(names, "b") | {"as_of": 1, "snapshot_hash": "c" * 64, "graph_version": 1}
        with connected(dsn, role) as theirs, pytest.raises(psycopg.errors.InsufficientPrivilege, match="row-level security"):
            theirs.execute(insert, row)
        with connection.transaction():
            register_role(connection, role, Job.SERVING, [])
        assert seen() == []
        connection.execute("DELETE FROM ofp.database_role WHERE role_name = %s", (role,))
        assert seen() == []  # a role that nobody registered sees no run


def test_rights_that_are_not_declared_are_taken_back(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("GRANT ALL ON ofp.log_block TO ofp_auditor")
        connection.execute("GRANT UPDATE (block) ON ofp.log_block TO ofp_auditor")
        connection.execute("INSERT INTO ofp.database_role VALUES ('a role that was dropped', 'serving', '{*}')")
        give_rights(connection)
        row = connection.execute(
            "SELECT has_table_privilege('ofp_auditor', 'ofp.log_block', 'DELETE'),"
            " has_any_column_privilege('ofp_auditor', 'ofp.log_block', 'UPDATE')"
        ).fetchone()
        assert row == (False, False)
        assert registered_roles(connection) == [(default_role(job), job, [EVERY_RUN]) for job in sorted(Job)]


def test_rights_that_are_there_are_not_written_again(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        give_rights(connection)
        writes = "SELECT sum(n_tup_ins + n_tup_upd + n_tup_del) FROM pg_stat_xact_sys_tables"
        assert connection.execute(writes).fetchone() == (0,)


@pytest.mark.parametrize("job", list(Job))
def test_a_session_that_waits_or_idles_too_long_is_ended(dsn: str, job: Job) -> None:
    role = default_role(job)
    with connected(dsn, role) as session:
        for setting, value in SESSION_LIMITS[job].items():
            assert session.execute("SELECT current_setting(%s)", (setting,)).fetchone() == (value,)
    database = sql.Identifier(str(psycopg.conninfo.conninfo_to_dict(dsn)["dbname"]))
    with psycopg.connect(as_role(dsn, SUPERUSER), autocommit=True) as connection:
        for setting in SESSION_LIMITS[job]:  # of this database alone: the same, at once
            alter = sql.SQL("ALTER ROLE {} IN DATABASE {} SET {} = '50ms'")
            connection.execute(alter.format(sql.Identifier(role), database, sql.Identifier(setting)))
    with psycopg.connect(dsn) as owner, connected(dsn, role) as session:
        with pytest.raises(psycopg.errors.QueryCanceled) as cancelled:
            session.execute("SELECT pg_sleep(60)")
        session.execute("SET statement_timeout = 0")
        owner.execute("LOCK TABLE ofp.alembic_version")
        with pytest.raises(psycopg.errors.LockNotAvailable) as waited:
            session.execute("SELECT * FROM ofp.alembic_version")
        owner.rollback()
        session.execute("BEGIN")
        pid = session.info.backend_pid
        while owner.execute("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,)).fetchone() is not None:
            owner.execute("SELECT pg_stat_clear_snapshot(), pg_sleep(0.01)")
        with pytest.raises(psycopg.errors.IdleInTransactionSessionTimeout) as idled:
            session.execute("SELECT 1")
    for caught in (cancelled, waited, idled):
        assert is_transient(caught.value)  # tried again, and told as an outage: no defect
