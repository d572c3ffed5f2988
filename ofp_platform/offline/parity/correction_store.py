"""Corrections in the database: appended once per request, decision and feature, and what they come to by day."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ofp_platform.offline.sources.store_outage import answering
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.parity_record import Correction
from ofp_platform.vocabulary.times import parse_time

_KEY = "request_id, decision_id, key_type, key_id, group_name, group_version, feature"
_COLUMNS = f"{_KEY}, as_of, record"
_BY_DAY = """
    SELECT floor(as_of::numeric / 86400000000)::bigint AS day, count(DISTINCT decision_id), count(*)
    FROM ofp.correction WHERE request_id = %s GROUP BY day ORDER BY day"""
_DAY_US = 86_400_000_000


@dataclass(frozen=True)
class CorrectedDay:
    """One day of as-ofs (microseconds of its beginning): how many decisions are corrected, in how many features."""

    day_us: int
    decisions: int
    features: int


def store_corrections(pool: Pool, corrections: Sequence[Correction]) -> int:
    """Append corrections; those that are there already stay as they are. How many were new.

    Raises:
        BuildRefused: PARITY_MISMATCH, one of them is there with another content (nothing was appended); STORE_UNAVAILABLE.
    """
    if not corrections:
        return 0
    with answering(), pool.connection() as connection, connection.transaction(), connection.cursor() as cursor:
        cursor.execute(f"CREATE TEMPORARY TABLE corrected ON COMMIT DROP AS SELECT {_COLUMNS} FROM ofp.correction LIMIT 0")
        with cursor.copy(f"COPY corrected ({_COLUMNS}) FROM STDIN") as copy:
            for correction in corrections:
                group = (correction.group_name, correction.group_version, correction.feature)
                text = canonical_bytes(correction.model_dump(mode="json")).decode()
                key = (correction.request_id, correction.decision_id, correction.key_type.value, correction.key_id, *group)
                copy.write_row((*key, parse_time(correction.as_of_time_utc), text))
        # in one order whoever writes, as with parity records
        new_count = cursor.execute(
            f"INSERT INTO ofp.correction ({_COLUMNS}) SELECT {_COLUMNS} FROM corrected ORDER BY {_KEY} ON CONFLICT DO NOTHING"
        ).rowcount
        other = cursor.execute(
            # materialised: in search of a first row that never comes, the planner would compare every pair
            f"WITH other AS MATERIALIZED (SELECT {_KEY} FROM corrected JOIN ofp.correction kept USING ({_KEY})"
            f" WHERE kept.record <> corrected.record) SELECT decision_id, feature FROM other ORDER BY {_KEY} LIMIT 1"
        ).fetchone()
        if other is not None:
            text = f"feature {other[1]} of decision {other[0]} was corrected otherwise by the same request: its sources changed"
            raise BuildRefused(BuildReason.PARITY_MISMATCH, text)
        return new_count


def corrected_days(pool: Pool, request_id: str) -> list[CorrectedDay]:
    """The corrections of a request by day."""
    with answering(), pool.connection() as connection:
        rows = connection.execute(_BY_DAY, (request_id,)).fetchall()
    return [CorrectedDay(day * _DAY_US, decisions, features) for day, decisions, features in rows]
