"""Summaries of parity records and corrections: rates by day and by group, and the first of the evidence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import orjson
from pydantic import ValidationError

from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.offline.parity_record import Correction, ParityResult

_DAY = "to_char(to_timestamp(as_of / 1000000) AT TIME ZONE 'UTC', 'YYYY-MM-DD')"
_BY_DAY = f"""
    SELECT coalesce({_DAY}, 'unknown') AS day, outcome, count(*) FROM ofp.parity_record
    WHERE request_id = %s GROUP BY 1, 2 ORDER BY 1, 2"""
_BY_GROUP = """
    SELECT group_ref, outcome, count(*) FROM ofp.parity_record, unnest(group_refs) AS group_ref
    WHERE request_id = %s GROUP BY 1, 2 ORDER BY 1, 2"""
_BY_REASON = """
    SELECT reason, count(*) FROM ofp.parity_record WHERE request_id = %s AND reason IS NOT NULL GROUP BY 1 ORDER BY 1"""
_MISMATCHES = """
    SELECT record FROM ofp.parity_record WHERE request_id = %s AND outcome = 'MISMATCH'
    ORDER BY as_of, snapshot_hash, decision_id LIMIT %s"""
_CORRECTIONS = """
    SELECT request_id, record FROM ofp.correction WHERE as_of >= %s AND as_of < %s
    ORDER BY as_of, decision_id, key_type, key_id, group_name, group_version, feature, request_id"""


class ParityUnreadable(Exception):
    """A comparison is kept in a form that is not the one of today."""


@dataclass(frozen=True)
class ParitySummary:
    """One request's comparisons. `by_day` and `by_group`: name to outcome to count. `mismatches`: the earliest of them."""

    by_day: dict[str, dict[str, int]]
    by_group: dict[str, dict[str, int]]
    by_reason: dict[str, int]
    mismatches: tuple[ParityResult, ...]


@dataclass(frozen=True)
class CorrectionSummary:
    """Decisions of some time that late events would have changed: by feature, by request, and the corrections themselves."""

    decisions: int
    by_feature: dict[str, int]
    corrections: tuple[Correction, ...]


def parity_summary(pool: Pool, request_id: str, *, mismatches: int = 20) -> ParitySummary:
    """Summarise the records of one request; `mismatches`: how many at most.

    Raises:
        ParityUnreadable: an older version kept them.
    """
    with pool.connection() as connection:
        by_day = _nest_counts(connection.execute(_BY_DAY, (request_id,)).fetchall())
        by_group = _nest_counts(connection.execute(_BY_GROUP, (request_id,)).fetchall())
        by_reason: dict[str, int] = dict(connection.execute(_BY_REASON, (request_id,)).fetchall())
        records = connection.execute(_MISMATCHES, (request_id, mismatches)).fetchall()
    return ParitySummary(by_day, by_group, by_reason, tuple(_result(request_id, row[0]) for row in records))


def _result(request_id: str, text: str) -> ParityResult:
    try:
        return ParityResult.model_validate_json(text)
    except ValidationError:
        raise ParityUnreadable(
            f"comparison {request_id[:12]} was kept by another version of the plane, whose form this one does not read:"
            " run `ofp parity run` again"
        ) from None


def corrections_between(pool: Pool, start_us: int, end_us: int) -> CorrectionSummary:
    """Corrections of decisions whose as-of lies in `[start_us, end_us)`, microseconds, each once whoever found it."""
    with pool.connection() as connection:
        rows = connection.execute(_CORRECTIONS, (start_us, end_us)).fetchall()
    distinct_corrections: dict[tuple[Any, ...], Correction] = {}
    for _, record in rows:
        correction = Correction.model_validate(orjson.loads(record))
        group = (correction.group_name, correction.group_version)
        distinct_corrections.setdefault(
            (
                correction.decision_id,
                correction.key_type,
                correction.key_id,
                *group,
                correction.feature,
                str(correction.corrected),
            ),
            correction,
        )
    by_feature: dict[str, int] = {}
    for correction in distinct_corrections.values():
        name = f"{correction.group_name} {correction.group_version} {correction.feature}"
        by_feature[name] = by_feature.get(name, 0) + 1
    return CorrectionSummary(
        len({correction.decision_id for correction in distinct_corrections.values()}),
        by_feature,
        tuple(distinct_corrections.values()),
    )


def _nest_counts(rows: list[tuple[Any, ...]]) -> dict[str, dict[str, int]]:
    counts_by_name: dict[str, dict[str, int]] = {}
    for name, outcome, count in rows:
        counts_by_name.setdefault(name, {})[outcome] = count
    return counts_by_name
