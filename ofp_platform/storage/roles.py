"""Who may do what in the database: each table, what becomes of its rows, and the rights of each job on it.

The owner of the schema migrates it, trims and prunes; a service connects with a role of its job. Rights are given by the table
below and nothing else: what is not declared is taken back each time they are given.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import psycopg
from psycopg import sql

EVERY_RUN = "*"


class Job(StrEnum):
    """A job of the plane, with a database role of its own."""

    INGRESS = "ingress"
    PROJECTOR = "projector"
    SERVING = "serving"
    OFFLINE = "offline"
    DECIDER = "decider"
    EXECUTOR = "executor"
    AUDITOR = "auditor"


SESSION_LIMITS: dict[Job, dict[str, str]] = {
    Job.INGRESS: {"statement_timeout": "30s", "lock_timeout": "10s", "idle_in_transaction_session_timeout": "1min"},
    Job.PROJECTOR: {"statement_timeout": "2min", "lock_timeout": "30s", "idle_in_transaction_session_timeout": "10min"},
    Job.SERVING: {"statement_timeout": "30s", "lock_timeout": "5s", "idle_in_transaction_session_timeout": "1min"},
    Job.OFFLINE: {"statement_timeout": "10min", "lock_timeout": "1min", "idle_in_transaction_session_timeout": "1h"},
    Job.DECIDER: {"statement_timeout": "30s", "lock_timeout": "10s", "idle_in_transaction_session_timeout": "1min"},
    Job.EXECUTOR: {"statement_timeout": "30s", "lock_timeout": "10s", "idle_in_transaction_session_timeout": "1min"},
    Job.AUDITOR: {"statement_timeout": "10min", "lock_timeout": "5s", "idle_in_transaction_session_timeout": "10min"},
}
"""What a session of a role may take: settings of the role, which an administrator changes by ALTER ROLE and no DSN forgets."""


class Rows(StrEnum):
    """The fate of the rows of a table. Triggers hold it, also where a session calls itself a replica.

    APPENDED: never changed or removed, by nobody. GUARDED: changed along the steps that a trigger allows. WALLED: changed or
    removed by the owner alone. CHANGED: by each role that has the right.
    """

    APPENDED = "appended"
    GUARDED = "guarded"
    WALLED = "walled"
    CHANGED = "changed"


@dataclass(frozen=True, slots=True)
class TableRights:
    """One table. `rights`: by job, as GRANT takes them; the auditor reads everything."""

    rows: Rows
    rights: Mapping[Job, str]
    of_a_run: bool = False
    """Whether a role sees the rows of its own runs alone (row-level security on `pins_digest`)."""


READ, ADD, KEEP, ALL = "SELECT", "SELECT, INSERT", "SELECT, INSERT, UPDATE", "SELECT, INSERT, UPDATE, DELETE"
_INGRESS, _PROJECTOR, _SERVING, _OFFLINE = Job.INGRESS, Job.PROJECTOR, Job.SERVING, Job.OFFLINE
_DECIDER, _EXECUTOR = Job.DECIDER, Job.EXECUTOR
_DECIDES_READING = {_DECIDER: READ, _EXECUTOR: READ}
_EVERYBODY_READS = {_INGRESS: READ, _PROJECTOR: READ, _SERVING: READ, _OFFLINE: READ, **_DECIDES_READING}
_STATE = TableRights(Rows.CHANGED, {_PROJECTOR: ALL, _SERVING: READ, _OFFLINE: READ})
# the first of a stream makes it; whoever finds it on a promoted server begins an incarnation
_STREAM = "SELECT, INSERT, UPDATE (incarnation, server)"
_EVIDENCE_OF_A_SHARD = {_PROJECTOR: KEEP, _OFFLINE: KEEP, _INGRESS: READ, _SERVING: READ}
_DECIDED = {_SERVING: ADD, _OFFLINE: READ, _DECIDER: ADD, _EXECUTOR: READ}
_WANTS_ACTIONS = {_DECIDER: ADD, _INGRESS: ADD, _SERVING: ADD, _EXECUTOR: ADD, _OFFLINE: READ}
_ACTS = {_EXECUTOR: ADD, _DECIDER: READ, _SERVING: READ, _OFFLINE: READ}
_OPENS_CASES = {_SERVING: ADD, _OFFLINE: ADD, _DECIDER: ADD, _EXECUTOR: ADD}
_PROVEN = TableRights(Rows.WALLED, {_OFFLINE: ADD, _SERVING: READ})
_AUDITED = TableRights(Rows.APPENDED, {_OFFLINE: ADD, _SERVING: READ, _DECIDER: READ})

TABLES: dict[str, TableRights] = {
    "alembic_version": TableRights(Rows.CHANGED, _EVERYBODY_READS),
    "database_role": TableRights(Rows.CHANGED, _EVERYBODY_READS),
    # the log
    "log_stream": TableRights(
        Rows.CHANGED,
        {
            _INGRESS: _STREAM,
            _PROJECTOR: _STREAM,
            _SERVING: READ,
            _OFFLINE: READ,
            _DECIDER: _STREAM,
            _EXECUTOR: _STREAM,
        },
    ),
    "log_incarnation": TableRights(
        Rows.WALLED, {_INGRESS: ADD, _PROJECTOR: ADD, _SERVING: READ, _OFFLINE: READ, _DECIDER: ADD, _EXECUTOR: ADD}
    ),
    "log_head": TableRights(
        Rows.CHANGED, {_INGRESS: KEEP, _PROJECTOR: ADD, _SERVING: READ, _OFFLINE: READ, _DECIDER: KEEP, _EXECUTOR: KEEP}
    ),
    "log_block": TableRights(Rows.WALLED, {_INGRESS: ADD, _PROJECTOR: READ, _OFFLINE: READ, _DECIDER: ADD, _EXECUTOR: ADD}),
    # ingress; who streams a world keeps its place
    "admission_run": TableRights(Rows.WALLED, {_INGRESS: ADD, _OFFLINE: READ, _DECIDER: READ}, of_a_run=True),
    "admitted_event": TableRights(Rows.WALLED, {_INGRESS: ADD, _OFFLINE: READ}),
    "admission_batch": TableRights(Rows.WALLED, {_INGRESS: ADD, _OFFLINE: READ, _DECIDER: READ}),
    "admission_publish": TableRights(Rows.CHANGED, {_INGRESS: ALL, _OFFLINE: READ, _DECIDER: READ}),
    "admission_publish_record": TableRights(Rows.CHANGED, {_INGRESS: ALL, _OFFLINE: READ, _DECIDER: READ}),
    "receipt_segment": TableRights(Rows.WALLED, {_INGRESS: READ, _OFFLINE: ADD}),
    "quarantined_record": TableRights(Rows.WALLED, {_INGRESS: ADD, _OFFLINE: READ}),
    "quarantine_replay": TableRights(Rows.WALLED, {_INGRESS: ADD, _OFFLINE: READ}),
    "stream_checkpoint": TableRights(Rows.CHANGED, {_INGRESS: KEEP, _OFFLINE: READ}, of_a_run=True),
    # who may take, serve or build from a run; the runner is the owner's
    "scenario_run": TableRights(Rows.APPENDED, _EVERYBODY_READS, of_a_run=True),
    "run_ask": TableRights(Rows.APPENDED, {_INGRESS: ADD, _OFFLINE: READ}, of_a_run=True),
    "run_ask_outcome": TableRights(Rows.APPENDED, {_INGRESS: READ, _OFFLINE: READ}),
    "run_status": TableRights(Rows.APPENDED, _EVERYBODY_READS, of_a_run=True),
    # the bundles in force, which the owner puts there
    "bundle_event": TableRights(Rows.APPENDED, {_SERVING: READ, _OFFLINE: READ, _DECIDER: READ, _EXECUTOR: READ}, of_a_run=True),
    "log_head_sighting": TableRights(Rows.CHANGED, _EVIDENCE_OF_A_SHARD),
    "log_following_record": TableRights(Rows.WALLED, {**_EVIDENCE_OF_A_SHARD, _PROJECTOR: ADD, _OFFLINE: ADD}),
    "log_accepted_gap": TableRights(Rows.WALLED, _EVERYBODY_READS),
    "range_end": TableRights(Rows.WALLED, {_PROJECTOR: ADD, _SERVING: READ, _OFFLINE: ADD}),
    "archive_ledger": TableRights(Rows.APPENDED, {_OFFLINE: ADD}),
    "archive_conflict": TableRights(Rows.WALLED, {_PROJECTOR: ADD, _OFFLINE: ADD}),
    # definitions; UPDATE is the right to lock the table, for its rows stand behind a wall
    "registry_pack": TableRights(Rows.WALLED, {_PROJECTOR: ADD, _SERVING: READ, _OFFLINE: READ}),
    "registry_group": TableRights(Rows.WALLED, {_PROJECTOR: KEEP, _SERVING: READ, _OFFLINE: READ}),
    # projections; offline locks one while it records anomalies, and the number of a projection cannot be written
    "projection": TableRights(Rows.CHANGED, {_PROJECTOR: KEEP, _SERVING: READ, _OFFLINE: "SELECT, UPDATE (projection_id)"}),
    "projection_partition": TableRights(Rows.CHANGED, {_PROJECTOR: KEEP, _SERVING: READ, _OFFLINE: "SELECT, UPDATE (anomalies)"}),
    "projection_driver": TableRights(Rows.CHANGED, {_PROJECTOR: ALL, _SERVING: READ, _OFFLINE: READ}),
    "projection_shard": _STATE,
    "epoch": _STATE,
    "commit_touched": _STATE,
    "chunk": _STATE,
    "span": _STATE,
    "tail": _STATE,
    "identity_run": _STATE,
    "identity_segment": _STATE,
    "identity_page": _STATE,
    "identity_filter": _STATE,
    "entity_graph": TableRights(Rows.CHANGED, {_PROJECTOR: KEEP, _SERVING: READ, _OFFLINE: READ}, of_a_run=True),
    "entity_link": TableRights(Rows.WALLED, {_PROJECTOR: ADD, _SERVING: READ, _OFFLINE: READ}),
    "entity_link_failure": TableRights(Rows.WALLED, {_PROJECTOR: ADD, _SERVING: READ, _OFFLINE: READ}),
    "failure_total": TableRights(Rows.CHANGED, {_PROJECTOR: KEEP, _SERVING: READ, _OFFLINE: READ}),
    "apply_failure": TableRights(Rows.WALLED, {_PROJECTOR: ADD, _SERVING: READ, _OFFLINE: READ}),
    "anomaly": TableRights(Rows.WALLED, {_PROJECTOR: ADD, _SERVING: READ, _OFFLINE: ADD}),
    # what was served and decided
    "snapshot_index": TableRights(Rows.WALLED, {_SERVING: ADD, _OFFLINE: ADD}, of_a_run=True),
    # the door answers with the decision on an event that it took
    "decision_record": TableRights(Rows.APPENDED, {**_DECIDED, _INGRESS: READ}, of_a_run=True),
    "decision_key": TableRights(Rows.APPENDED, _DECIDED, of_a_run=True),
    "decider_place": TableRights(Rows.CHANGED, {_DECIDER: KEEP, _SERVING: READ, _OFFLINE: READ}, of_a_run=True),
    # actions: who decides, admits or serves wants them, the executor alone does them
    "action_intent": TableRights(Rows.APPENDED, _WANTS_ACTIONS, of_a_run=True),
    "action_intent_conflict": TableRights(Rows.APPENDED, _WANTS_ACTIONS, of_a_run=True),
    "action_open": TableRights(Rows.CHANGED, {**_WANTS_ACTIONS, _EXECUTOR: ALL}, of_a_run=True),
    "action_attempt": TableRights(Rows.APPENDED, _ACTS),
    "action_attempt_end": TableRights(Rows.APPENDED, _ACTS),
    "action_outcome": TableRights(Rows.APPENDED, _ACTS),
    "account_hold": TableRights(Rows.APPENDED, _ACTS, of_a_run=True),
    # cases: whoever decides or executes may open one
    "case_entry": TableRights(Rows.APPENDED, _OPENS_CASES, of_a_run=True),
    "case_standing": TableRights(Rows.CHANGED, dict.fromkeys(_OPENS_CASES, KEEP), of_a_run=True),
    "case_entry_conflict": TableRights(Rows.APPENDED, _OPENS_CASES, of_a_run=True),
    # what builds need and leave
    "label_assertion": TableRights(Rows.APPENDED, {_SERVING: ADD, _OFFLINE: ADD}, of_a_run=True),
    "label_assertion_without_class": TableRights(Rows.APPENDED, {_OFFLINE: READ}, of_a_run=True),
    "run_facts": TableRights(Rows.APPENDED, {_OFFLINE: ADD, _SERVING: READ, _INGRESS: READ}),
    "evidence": TableRights(Rows.APPENDED, {_OFFLINE: ADD, _SERVING: ADD, _DECIDER: ADD, _EXECUTOR: READ, _INGRESS: READ}),
    "governance_fact": TableRights(
        Rows.APPENDED,
        {_INGRESS: ADD, _PROJECTOR: ADD, _OFFLINE: ADD, _SERVING: ADD, _DECIDER: ADD, _EXECUTOR: ADD},
    ),
    "governance_stream": TableRights(Rows.APPENDED, {}),
    "build_run": TableRights(Rows.GUARDED, {_SERVING: KEEP, _OFFLINE: KEEP}),
    "build_receipt": TableRights(Rows.APPENDED, {_OFFLINE: ADD, _SERVING: READ}),
    "parity_record": TableRights(Rows.CHANGED, {_OFFLINE: KEEP, _SERVING: READ}),
    # the mode in force of who decides, and the proof that it is
    "posture_change": TableRights(Rows.APPENDED, {_DECIDER: ADD, _SERVING: READ, _EXECUTOR: READ, _OFFLINE: READ}, of_a_run=True),
    "posture_challenge": TableRights(Rows.APPENDED, {_DECIDER: ADD}, of_a_run=True),
    "posture_answer": TableRights(Rows.APPENDED, {_DECIDER: ADD}),
    "posture_look": TableRights(Rows.CHANGED, {_DECIDER: KEEP, _SERVING: READ, _OFFLINE: READ}, of_a_run=True),
    "decider_seat": TableRights(Rows.CHANGED, {_DECIDER: KEEP}, of_a_run=True),
    "correction": _PROVEN,
    "dataset_index": _PROVEN,
    # the tree over records, and its signed heads
    "audit_leaf": _AUDITED,
    "audit_node": _AUDITED,
    "audit_head": _AUDITED,
    "audit_quarantine": _AUDITED,
}


def rights(table: str, job: Job) -> str:
    """The rights of a job on a table, as GRANT takes them; empty: none."""
    return READ if job is Job.AUDITOR else TABLES[table].rights.get(job, "")


def default_role(job: Job) -> str:
    """The role that has a job where no other was registered."""
    return f"ofp_{job}"


def role_statements(role: str, job: Job) -> list[sql.Composed]:
    """The SQL for a role of a job, run by who may make roles: it has no rights before it is registered."""
    name = sql.Identifier(role)
    create = "CREATE ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS"
    statements = [sql.SQL(create).format(name)]
    for setting, value in SESSION_LIMITS[job].items():
        statements.append(sql.SQL("ALTER ROLE {} SET {} = {}").format(name, sql.Identifier(setting), sql.Literal(value)))
    return statements


def register_role(connection: psycopg.Connection[Any], role: str, job: Job, runs: Iterable[str]) -> None:
    """Give a role that exists the rights of a job, for the runs of these pins digests (`EVERY_RUN`: for all).

    In the caller's transaction, as the owner of the schema. Again, with other runs: those and no others.

    Raises:
        psycopg.errors.UndefinedObject: there is no such role.
    """
    connection.execute(
        "INSERT INTO ofp.database_role (role_name, job, runs) VALUES (%s, %s, %s)"
        " ON CONFLICT (role_name) DO UPDATE SET job = excluded.job, runs = excluded.runs",
        (role, job, sorted(set(runs))),
    )
    _grant(connection, role, job)


def registered_roles(connection: psycopg.Connection[Any]) -> list[tuple[str, Job, list[str]]]:
    """The roles that have a job: name, job, pins digests of their runs."""
    rows = connection.execute("SELECT role_name, job, runs FROM ofp.database_role ORDER BY job, role_name").fetchall()
    return [(name, Job(job), list(runs)) for name, job, runs in rows]


def give_rights(connection: psycopg.Connection[Any]) -> None:
    """Give all registered roles the rights of their jobs; the default roles that exist are registered first, for every run.

    In the caller's transaction. What is not declared is taken back. A role that was dropped is forgotten.
    """
    role_names = {name for (name,) in connection.execute("SELECT rolname FROM pg_roles").fetchall()}
    jobs = {name: job for name, job, _ in registered_roles(connection)}
    for name in jobs.keys() - role_names:
        connection.execute("DELETE FROM ofp.database_role WHERE role_name = %s", (name,))
    for job in Job:
        if (name := default_role(job)) in role_names and name not in jobs:
            register_role(connection, name, job, [EVERY_RUN])
    for name in sorted(jobs.keys() & role_names):
        _grant(connection, name, jobs[name])


Rights = frozenset[tuple[str, str, str | None]]
"""Of one role: table, verb, column; without a column for the whole table."""
_RIGHT = re.compile(r"(\w+)(?: \(([^)]*)\))?")
_HELD = """
    SELECT relname, privilege_type, NULL FROM pg_class, aclexplode(relacl)
    WHERE relnamespace = 'ofp'::regnamespace AND relkind <> 'S' AND grantee = %(role)s::regrole
    UNION ALL
    SELECT relname, privilege_type, attname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid, aclexplode(attacl)
    WHERE relnamespace = 'ofp'::regnamespace AND grantee = %(role)s::regrole"""
_SCHEMA = """
    SELECT coalesce(array_agg(privilege_type), '{}') FROM pg_namespace, aclexplode(nspacl)
    WHERE nspname = 'ofp' AND grantee = %s::regrole"""


def declared_rights(job: Job) -> Rights:
    """Everything that a job may do."""
    return frozenset(
        (table, verb, column or None)
        for table in TABLES
        for verb, columns in _RIGHT.findall(rights(table, job))
        for column in columns.split(", ")
    )


def _grant(connection: psycopg.Connection[Any], role: str, job: Job) -> None:
    """Make the rights of a role those of its job. Nothing is written where they are: plans of running services stay valid."""
    name = sql.Identifier(role)
    role_text = name.as_string(connection)
    present: Rights = frozenset(connection.execute(_HELD, {"role": role_text}).fetchall())
    if present == declared_rights(job) and connection.execute(_SCHEMA, (role_text,)).fetchone() == (["USAGE"],):
        return
    connection.execute(sql.SQL("REVOKE ALL ON ALL TABLES IN SCHEMA ofp FROM {}").format(name))
    connection.execute(sql.SQL("REVOKE ALL ON SCHEMA ofp FROM {}").format(name))
    connection.execute(sql.SQL("GRANT USAGE ON SCHEMA ofp TO {}").format(name))
    by_rights: dict[str, list[str]] = {}
    for table in TABLES:
        if right_text := rights(table, job):
            by_rights.setdefault(right_text, []).append(table)
    for right_text, tables in by_rights.items():
        places = sql.SQL(", ").join(sql.Identifier("ofp", table) for table in tables)
        connection.execute(sql.SQL("GRANT {} ON TABLE {} TO {}").format(sql.SQL(right_text), places, name))
