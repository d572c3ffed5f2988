"""Comparisons of one run as lists show them. A comparison is of the run whose decisions it compares."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from psycopg import Connection
from pydantic import ValidationError

from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.offline.overviews import (
    CorrectedGroup,
    ParityComparison,
    ParityDay,
    ParityReport,
    ShownMismatch,
    UncheckableCount,
)
from ofp_platform.vocabulary.offline.parity_record import FeatureDifference, ParityResult
from ofp_platform.vocabulary.serving import Value
from ofp_platform.vocabulary.times import format_time, parse_time

DAYS = 31
MISMATCHES = 20
_DAY_US = 86_400_000_000
_DAY = "floor(as_of::numeric / 86400000000)::bigint"
# a comparison is of decisions of one run: that of any of them is that of all
_COUNTS = """
    WITH counted AS (
        SELECT request_id, max(decision_id) AS decision_id,
            count(*) FILTER (WHERE outcome = 'MATCH') AS matching, count(*) FILTER (WHERE outcome = 'MISMATCH') AS mismatching,
            count(*) FILTER (WHERE outcome = 'UNCHECKABLE') AS uncheckable,
            min(as_of) AS first_as_of, coalesce(max(as_of), -1) AS last_as_of
        FROM ofp.parity_record WHERE %(request_id)s::text IS NULL OR request_id = %(request_id)s GROUP BY request_id)
    SELECT request_id, EXISTS (SELECT FROM ofp.build_run WHERE run_key = request_id), matching, mismatching, uncheckable,
        first_as_of, last_as_of
    FROM counted
    WHERE EXISTS (
        SELECT FROM ofp.decision_record AS decision
        WHERE decision.decision_id = counted.decision_id COLLATE "C" AND decision.pins_digest = %(pins)s)"""
_PAGE = f"""{_COUNTS}
        AND (%(before)s::bigint IS NULL OR (last_as_of, request_id) < (%(before)s, %(before_id)s))
    ORDER BY last_as_of DESC, request_id DESC LIMIT %(limit)s"""
_DAYS = f"""
    SELECT {_DAY} AS day, group_ref, outcome, count(*) FROM ofp.parity_record, unnest(group_refs) AS group_ref
    WHERE request_id = %s AND as_of < %s GROUP BY 1, 2, 3"""
_UNDATED = "SELECT count(*) FROM ofp.parity_record WHERE request_id = %s AND (as_of IS NULL OR group_refs = '{}')"
_REASONS = """
    SELECT reason, count(*) FROM ofp.parity_record WHERE request_id = %s AND reason IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1"""
_MISMATCHES = """
    SELECT record FROM ofp.parity_record WHERE request_id = %s AND outcome = 'MISMATCH'
    ORDER BY as_of, snapshot_hash, decision_id LIMIT %s"""
_CORRECTED = f"""
    SELECT {_DAY} AS day, group_name, group_version, count(DISTINCT decision_id), count(*) FROM ofp.correction
    WHERE request_id = %s AND as_of >= %s AND as_of < %s GROUP BY 1, 2, 3 ORDER BY 1 DESC, 2, 3"""


class MismatchUnreadable(Exception):
    """A mismatch is kept in a form that is not the one of today."""


@dataclass(frozen=True)
class ListedComparison:
    """One, and its place in the list: the newest as-of (microseconds; -1: none is readable) and its id."""

    place: tuple[int, str]
    comparison: ParityComparison


def list_comparisons(
    connection: Connection[Any], pins: ContextPins, limit: int, before: tuple[int, str] | None = None
) -> list[ListedComparison]:
    """At most `limit` comparisons of a run, those of the newest decisions first, behind the place `before`."""
    place, place_id = before or (None, None)
    arguments = {"pins": pins_digest(pins), "before": place, "before_id": place_id, "limit": limit, "request_id": None}
    return [_listed(row) for row in connection.execute(_PAGE, arguments).fetchall()]


def report_of(
    connection: Connection[Any], pins: ContextPins, comparison_id: str, before_us: int | None = None
) -> ParityReport | None:
    """A comparison by day and group: at most DAYS days before that of `before_us`; None: this run has none of that id.

    Raises:
        MismatchUnreadable: an older version kept it.
    """
    row = connection.execute(_COUNTS, {"pins": pins_digest(pins), "request_id": comparison_id}).fetchone()
    if row is None:
        return None
    end = 2**62 if before_us is None else before_us
    counts: dict[tuple[int, str], Counter[str]] = {}
    for day, group, outcome, count in connection.execute(_DAYS, (comparison_id, end)).fetchall():
        counts.setdefault((day, group), Counter())[outcome] = count
    numbers = sorted({day for day, _ in counts}, reverse=True)
    shown = numbers[:DAYS]
    span = (shown[-1] * _DAY_US if shown and len(numbers) > DAYS else -(2**62), end)
    corrected = connection.execute(_CORRECTED, (comparison_id, *span)).fetchall()
    undated = connection.execute(_UNDATED, (comparison_id,)).fetchone()
    assert undated is not None  # an aggregate has one
    reasons = connection.execute(_REASONS, (comparison_id,)).fetchall()
    mismatches = connection.execute(_MISMATCHES, (comparison_id, MISMATCHES)).fetchall()
    return ParityReport(
        comparison=_listed(row).comparison,
        days=tuple(_day(day, group, counts[day, group]) for day, group in sorted(counts, key=_newest_first) if day in shown),
        undated=undated[0],
        uncheckable=tuple(UncheckableCount(reason=reason, count=count) for reason, count in reasons),
        mismatches=tuple(_mismatch(text) for (text,) in mismatches),
        corrected=tuple(
            CorrectedGroup(day=_date(day), group_name=name, group_version=version, decisions=decisions, values=values)
            for day, name, version, decisions, values in corrected
        ),
        next_before=_date(shown[-1]) if len(numbers) > DAYS else None,
    )


def day_start(day: str) -> int:
    """The beginning of a day as a report writes it, microseconds.

    Raises:
        ValueError: it is none.
    """
    return parse_time(f"{day}T00:00:00Z")


def _listed(row: tuple[Any, ...]) -> ListedComparison:
    comparison_id, is_build, match, mismatch, uncheckable, first, last = row
    requested_by: Literal["run", "build"] = "build" if is_build else "run"
    comparison = ParityComparison(
        comparison_id=comparison_id,
        requested_by=requested_by,
        match=match,
        mismatch=mismatch,
        uncheckable=uncheckable,
        first_as_of_utc=None if first is None else format_time(first),
        last_as_of_utc=None if first is None else format_time(last),
    )
    return ListedComparison((last, comparison_id), comparison)


def _newest_first(place: tuple[int, str]) -> tuple[int, str]:
    return -place[0], place[1]


def _date(day: int) -> str:
    return format_time(day * _DAY_US)[:10]


def _day(day: int, group: str, counts: Counter[str]) -> ParityDay:
    name, _, version = group.partition(" ")
    return ParityDay(
        day=_date(day),
        group_name=name,
        group_version=version,
        match=counts["MATCH"],
        mismatch=counts["MISMATCH"],
        uncheckable=counts["UNCHECKABLE"],
    )


def _mismatch(text: str) -> ShownMismatch:
    try:
        result = ParityResult.model_validate_json(text)
    except ValidationError:
        raise MismatchUnreadable(
            "a mismatch was kept by another version of the plane, whose form this one does not read: run `ofp parity run` again"
        ) from None
    first = result.first_difference
    return ShownMismatch(
        decision_id=result.decision_id,
        online_snapshot_ref=result.online_snapshot_ref,
        offline_snapshot_ref=result.offline_snapshot_ref,
        as_of_time_utc=None if result.as_of is None else result.as_of.as_of_time_utc,
        where=None if first is None else first.where,
        key_type=None if first is None else first.key_type,
        key_id=None if first is None else first.key_id,
        group_name=None if first is None else first.group_name,
        group_version=None if first is None else first.group_version,
        feature=None if first is None else first.feature,
        served=None if first is None else _shown(first, first.served),
        rebuilt=None if first is None else _shown(first, first.rebuilt),
        differences=len(result.differences),
        detail=result.detail,
        events=() if first is None else first.events,
    )


def _shown(difference: FeatureDifference, value: Any) -> Value:
    is_value = difference.where == "values" and isinstance(value, list)
    return value if isinstance(value, int | bool | str) or is_value else None
