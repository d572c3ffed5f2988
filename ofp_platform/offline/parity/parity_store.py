"""Parity records in the database: appended once per request and snapshot. A comparison that was made never changes.

One that could not be made may be made later, under the same request: then its record takes the place of the UNCHECKABLE one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ofp_platform.offline.sources.store_outage import answering
from ofp_platform.storage.postgres import Pool
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.parity_record import ParityOutcome, ParityResult
from ofp_platform.vocabulary.times import parse_time

_COLUMNS = "request_id, snapshot_hash, decision_id, outcome, reason, as_of, group_refs, record"
_KEY = "request_id, snapshot_hash, decision_id"
_ROOM = f"CREATE TEMPORARY TABLE compared ON COMMIT DROP AS SELECT {_COLUMNS} FROM ofp.parity_record LIMIT 0"
# in one order whoever writes: two that compared the same snapshots must not wait for each other in a circle
_TAKE_OVER = f"""
    INSERT INTO ofp.parity_record AS kept ({_COLUMNS})
    SELECT DISTINCT ON ({_KEY}) {_COLUMNS} FROM compared ORDER BY {_KEY}
    ON CONFLICT ({_KEY}) DO UPDATE
    SET (outcome, reason, as_of, group_refs, record)
        = (excluded.outcome, excluded.reason, excluded.as_of, excluded.group_refs, excluded.record)
    WHERE kept.outcome = 'UNCHECKABLE' AND excluded.outcome <> 'UNCHECKABLE'"""
# materialised: in search of a first row that never comes, the planner would compare every pair
_OTHERWISE = f"""
    WITH other AS MATERIALIZED (
        SELECT {_KEY}, kept.outcome AS kept_outcome, compared.outcome AS compared_outcome
        FROM compared JOIN ofp.parity_record kept USING ({_KEY})
        WHERE kept.outcome <> compared.outcome)
    SELECT snapshot_hash, kept_outcome, compared_outcome FROM other ORDER BY {_KEY} LIMIT 1"""
_RATES = """
    SELECT floor(as_of::numeric / 86400000000)::bigint, group_ref, outcome, count(*)
    FROM ofp.parity_record, unnest(group_refs) AS group_ref
    WHERE request_id = %s AND as_of IS NOT NULL GROUP BY 1, 2, 3 ORDER BY 1, 2, 3"""
_DAY_US = 86_400_000_000


@dataclass(frozen=True)
class ParityRate:
    """How one group's snapshots of one day (of their as-of; microseconds of its beginning) compared."""

    day_us: int
    group: str
    match: int
    mismatch: int
    uncheckable: int


def store_records(pool: Pool, records: Sequence[ParityResult]) -> int:
    """Append records; those that are there already stay as they are. How many were new.

    Raises:
        BuildRefused: PARITY_MISMATCH, the same request had another outcome for a snapshot before: log, archive or pack are not
            what they were (nothing was appended); STORE_UNAVAILABLE.
    """
    if not records:
        return 0
    with answering(), pool.connection() as connection, connection.transaction(), connection.cursor() as cursor:
        cursor.execute(_ROOM)
        with cursor.copy(f"COPY compared ({_COLUMNS}) FROM STDIN") as copy:
            for record in records:
                as_of = None if record.as_of is None else parse_time(record.as_of.as_of_time_utc)
                groups = [f"{group.group_name} {group.group_version}" for group in record.feature_groups or ()]
                text = canonical_bytes(record.wire()).decode()
                copy.write_row(
                    (
                        record.comparison_id,
                        record.online_snapshot_ref,
                        record.decision_id or "",
                        record.outcome.value,
                        None if record.reason is None else record.reason.value,
                        as_of,
                        groups,
                        text,
                    )
                )
        new = cursor.execute(_TAKE_OVER).rowcount
        # a statement of its own sees what another writer has committed meanwhile
        other = cursor.execute(_OTHERWISE).fetchone()
        if other is not None:
            text = f"snapshot {other[0]} compared as {other[1]} before and as {other[2]} now: what it is rebuilt from has changed"
            raise BuildRefused(BuildReason.PARITY_MISMATCH, text)
        return new


def parity_rates(pool: Pool, request_id: str) -> list[ParityRate]:
    """Rates by day and group, in their order. A snapshot without readable provenance has neither and is not in them."""
    with answering(), pool.connection() as connection:
        rows = connection.execute(_RATES, (request_id,)).fetchall()
    counts: dict[tuple[int, str], Counter[str]] = {}
    for day, group, outcome, count in rows:
        counts.setdefault((day, group), Counter())[outcome] = count
    match, mismatch, uncheckable = (outcome.value for outcome in ParityOutcome)
    return [
        ParityRate(day * _DAY_US, group, outcomes[match], outcomes[mismatch], outcomes[uncheckable])
        for (day, group), outcomes in counts.items()
    ]


def parity_counts(pool: Pool, request_id: str) -> Counter[str]:
    """How many of each outcome a request has."""
    with answering(), pool.connection() as connection:
        query = "SELECT outcome, count(*) FROM ofp.parity_record WHERE request_id = %s GROUP BY 1"
        return Counter(dict(connection.execute(query, (request_id,)).fetchall()))


def parity_requests(pool: Pool, prefix: str = "") -> list[str]:
    """The requests that have records and begin with `prefix`, sorted."""
    with answering(), pool.connection() as connection:
        query = "SELECT DISTINCT request_id FROM ofp.parity_record WHERE starts_with(request_id, %s) ORDER BY 1"
        return [request_id for (request_id,) in connection.execute(query, (prefix,)).fetchall()]
