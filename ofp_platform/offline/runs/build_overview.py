"""Builds of one run as lists show them: from their columns, so that one whose plan is of an older form is listed too."""

from __future__ import annotations

from typing import Any

from psycopg import Connection
from psycopg.rows import dict_row

from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.build_run import RunState
from ofp_platform.vocabulary.offline.overviews import BuildEntry, ShownRefusal, ShownSize, ShownStage
from ofp_platform.vocabulary.times import format_time, to_micros

_STAGE = "stage, attempt, publish_attempt, digest, recorded_at"
_BUILDS = f"""
    SELECT build.run_number, build.run_key, build.state, build.intent_kind, build.submitted_by, build.publish_only,
        build.intent::jsonb ->> 'dataset_name' AS dataset_name,
        build.outcome::jsonb ->> 'dataset_identity' AS dataset_identity,
        build.attempts, build.attempt_limit, build.publish_attempts, build.publish_attempt_limit,
        build.refusal_reason, build.refusal_field, build.refusal_message, build.submitted_at, build.changed_at,
        size.content::jsonb AS size, newest.stage, newest.attempt, newest.publish_attempt, newest.digest, newest.recorded_at
    FROM ofp.build_run AS build
    LEFT JOIN LATERAL (
        SELECT content FROM ofp.build_receipt WHERE run_key = build.run_key AND stage = 'size'
        ORDER BY receipt_number DESC LIMIT 1) AS size ON true
    LEFT JOIN LATERAL (
        SELECT {_STAGE} FROM ofp.build_receipt WHERE run_key = build.run_key
        ORDER BY receipt_number DESC LIMIT 1) AS newest ON true
    WHERE build.intent::jsonb -> 'context_pins' = %(pins)s::jsonb"""
_PAGE = f"""{_BUILDS}
        AND (%(state)s::text IS NULL OR build.state = %(state)s)
        AND (%(before)s::bigint IS NULL OR build.run_number < %(before)s)
    ORDER BY build.run_number DESC LIMIT %(limit)s"""
_ONE = f"{_BUILDS} AND build.run_key = %(run_key)s"
_STAGES = f"SELECT {_STAGE} FROM ofp.build_receipt WHERE run_key = %s ORDER BY receipt_number"


def list_builds(
    connection: Connection[Any], pins: ContextPins, limit: int, *, state: RunState | None = None, before: int | None = None
) -> list[tuple[int, BuildEntry]]:
    """At most `limit` builds of a run, the newest first, each with its number. `before`: those with a smaller number."""
    arguments = {"pins": _json(pins), "state": state, "before": before, "limit": limit}
    with connection.cursor(row_factory=dict_row) as cursor:
        return [(row["run_number"], _entry(row)) for row in cursor.execute(_PAGE, arguments)]


def find_build(connection: Connection[Any], pins: ContextPins, run_key: str) -> tuple[BuildEntry, tuple[ShownStage, ...]] | None:
    """One build of a run, and the stages of all its attempts that ended, in order; None: this run has none of that key."""
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(_ONE, {"pins": _json(pins), "run_key": run_key}).fetchone()
        if row is None:
            return None
        stages = cursor.execute(_STAGES, (run_key,)).fetchall()
    return _entry(row), tuple(_stage(stage) for stage in stages)


def _json(pins: ContextPins) -> str:
    return canonical_bytes(pins.wire()).decode()


def _entry(row: dict[str, Any]) -> BuildEntry:
    refusal = None
    if row["refusal_reason"] is not None:
        refusal = ShownRefusal(reason=row["refusal_reason"], field=row["refusal_field"], message=row["refusal_message"])
    copied = (
        *("run_key", "state", "dataset_name", "submitted_by", "publish_only", "dataset_identity"),
        *("attempts", "attempt_limit", "publish_attempts", "publish_attempt_limit"),
    )
    return BuildEntry(
        intent=row["intent_kind"],
        refusal=refusal,
        size=None if row["size"] is None else ShownSize(**{name: row["size"][name] for name in ("records", "rows", "bytes")}),
        newest_stage=None if row["stage"] is None else _stage(row),
        submitted_at_utc=format_time(to_micros(row["submitted_at"])),
        changed_at_utc=format_time(to_micros(row["changed_at"])),
        **{name: row[name] for name in copied},
    )


def _stage(row: dict[str, Any]) -> ShownStage:
    return ShownStage(
        recorded_at_utc=format_time(to_micros(row["recorded_at"])),
        **{name: row[name] for name in ("stage", "attempt", "publish_attempt", "digest")},
    )
