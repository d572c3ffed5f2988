"""Governance facts in the database, read newest first. They are appended by `ofp_platform.log.governance_log`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.offline.governance_fact import FACT, GovernanceFact


@dataclass(frozen=True)
class RecordedFact:
    """A fact, its digest, and when it was written first (RFC 3339, UTC)."""

    recorded_at_utc: str
    digest: str
    fact: GovernanceFact


def read_facts(pool: Pool, fact: str | None = None, *, about: str = "", limit: int = 20) -> list[RecordedFact]:
    """The newest facts, newest first; `fact`: of that name; `about`: of what has an id that begins so."""
    with pool.connection() as connection:
        rows = connection.execute(
            "SELECT to_char(recorded_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), digest, content"
            " FROM ofp.governance_fact WHERE (%(fact)s::text IS NULL OR fact = %(fact)s)"
            " AND starts_with(coalesce(content::jsonb ->> 'request_id', content::jsonb ->> 'run_id',"
            " content::jsonb ->> 'operation_id', content::jsonb ->> 'bundle_digest', content::jsonb ->> 'to_key_id',"
            " content::jsonb ->> 'idempotency_key', content::jsonb ->> 'rev', content::jsonb ->> 'segment_path',"
            " content::jsonb ->> 'store',"
            " 'labels/' || (content::jsonb ->> 'first_sequence'),"
            " content::jsonb #>> '{adjudication,event_id}', 'quarantine/' || (content::jsonb ->> 'quarantine_id'),"
            " 'posture/' || (content::jsonb ->> 'sequence')), %(about)s)"
            " ORDER BY fact_number DESC LIMIT %(limit)s",
            {"fact": fact, "about": about, "limit": limit},
        ).fetchall()
    return [RecordedFact(recorded_at, digest, FACT.validate_json(content)) for recorded_at, digest, content in rows]


def role_of(connection: Connection[Any]) -> str:
    """The database role that acts, where a fact has nobody else to name."""
    row = connection.execute("SELECT current_user").fetchone()
    assert row is not None
    return str(row[0])
