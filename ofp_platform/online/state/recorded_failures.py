"""Records that a projection did not apply, and ids that it saw again with another payload: where they stand, and why.

Nothing here comes out of a payload: a detail names fields and types, and an event id stays where it is, in the log.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from ofp_platform.vocabulary.position import order
from ofp_platform.vocabulary.times import format_time

Place = tuple[str, int | str]
"""Partition id and offset of a record."""


@dataclass(frozen=True)
class RecordedFailure:
    """A record that feeds no group (`groups` is empty), or feeds other groups than these. `detail` names the fields at fault."""

    partition_id: str
    offset: str
    event_time_utc: str | None
    reason: str
    detail: str
    groups: str
    partial: bool


@dataclass(frozen=True)
class RecordedAnomaly:
    """A record that brings another payload under an id that is known from the record at `first_offset`."""

    partition_id: str
    offset: str
    first_partition_id: str
    first_offset: str


def read_failures(
    connection: Connection[Any], projection_id: int, *, after: Place | None, limit: int, reason: str | None = None
) -> list[RecordedFailure]:
    """At most `limit` failures behind the record at `after`, in the order of partitions and offsets."""
    rows = connection.execute(
        "SELECT partition_id, record_offset, event_id <> '' AS readable, ts, reason, detail, groups, partial"
        f" FROM ofp.apply_failure WHERE {_BEHIND} AND (%(reason)s::text IS NULL OR reason = %(reason)s) {_ORDER}",
        {**_arguments(projection_id, after, limit), "reason": reason},
    ).fetchall()
    return [
        RecordedFailure(partition_id, offset, format_time(ts) if readable else None, why, detail, groups, partial)
        for partition_id, offset, readable, ts, why, detail, groups, partial in rows
    ]


def read_anomalies(connection: Connection[Any], projection_id: int, *, after: Place | None, limit: int) -> list[RecordedAnomaly]:
    """At most `limit` anomalies behind the record at `after`, in the order of partitions and offsets."""
    rows: Sequence[tuple[str, str, str, str]] = connection.execute(
        f"SELECT partition_id, record_offset, first_partition_id, first_record_offset FROM ofp.anomaly WHERE {_BEHIND} {_ORDER}",
        _arguments(projection_id, after, limit),
    ).fetchall()
    return [RecordedAnomaly(*row) for row in rows]


# the index apply_failure_place (and anomaly_place) leads there: a page costs its own rows, whatever stands before it
_BEHIND = "projection_id = %(projection)s AND (partition_id, record_offset::numeric) > (%(partition)s, %(offset)s::numeric)"
_ORDER = "ORDER BY partition_id, record_offset::numeric LIMIT %(limit)s"


def _arguments(projection_id: int, after: Place | None, limit: int) -> dict[str, Any]:
    partition_id, offset = after or ("", "")
    return {"projection": projection_id, "partition": partition_id, "offset": order(offset), "limit": limit}
