"""Anomalies of the live projection that a replay found: ids with several contents, however far apart these came.

A projection sees an anomaly at once while it knows the earlier content, which it forgets behind the horizon. A replay forgets
nothing. What it finds is recorded where the projection records its own, so both tell the same of what both have read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from psycopg import Connection

from ofp_platform.vocabulary.identity import ContextPins, pins_digest
from ofp_platform.vocabulary.offline.event_anomaly import EventAnomaly, Position
from ofp_platform.vocabulary.position import Basis


def record_anomalies(
    connection: Connection[Any], stream_name: str, pins: ContextPins, registry_digest: str, anomalies: Sequence[EventAnomaly]
) -> int:
    """Record what the run's live projection has not recorded, of the records in its basis; return how many rows that made.

    Nothing is recorded for a projection of another registry: what the replay applied, it may not have. Afterwards each id has at
    least one row for each content but one, as if the projection had never forgotten any.
    """
    with connection.transaction():
        # nobody commits to the projection meanwhile
        live = connection.execute(
            "SELECT projection_id, basis FROM ofp.projection"
            " WHERE (stream_name, pins_digest, registry_digest, status) = (%s, %s, %s, 'live') FOR NO KEY UPDATE",
            (stream_name, pins_digest(pins), registry_digest),
        ).fetchone()
        if live is None:
            return 0
        projection_id, basis = live[0], Basis.model_validate_json(live[1])
        stored: dict[str, list[tuple[Position, Position]]] = {}
        for event_id, *row in connection.execute(
            "SELECT event_id, partition_id, record_offset, first_partition_id, first_record_offset FROM ofp.anomaly"
            " WHERE projection_id = %s AND event_id = ANY(%s)",
            (projection_id, sorted({anomaly.event_id for anomaly in anomalies})),
        ):
            stored.setdefault(event_id, []).append(((row[0], row[1]), (row[2], row[3])))
        rows = [
            (projection_id, *record, anomaly.event_id, anomaly.event_type, *first)
            for anomaly in anomalies
            for record, first in _missing_rows(anomaly, basis, stored.get(anomaly.event_id, []))
        ]
        with connection.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO ofp.anomaly (projection_id, partition_id, record_offset, event_id, event_type, first_partition_id,"
                " first_record_offset) VALUES (%s, %s, %s, %s, %s, %s, %s)",
                rows,
            )
            cursor.executemany(
                "UPDATE ofp.projection_partition SET anomalies = anomalies + %s WHERE (projection_id, partition_id) = (%s, %s)",
                [(count, projection_id, name) for name, count in sorted(Counter(row[1] for row in rows).items())],
            )
    return len(rows)


def _missing_rows(
    anomaly: EventAnomaly, basis: Basis, stored: Sequence[tuple[Position, Position]]
) -> Iterator[tuple[Position, Position]]:
    """(record, an earlier record of another content) for each content that has no row of its own, but for one of them."""
    records, firsts = ({pair[side] for pair in stored} for side in (0, 1))
    ends = basis.by_partition()
    contents = [
        [
            (name, offset)
            for name, offset in positions
            if name in ends and ends[name].contains(ends[name].offset_kind.parse(offset))
        ]
        for positions in anomaly.contents
    ]
    missing = [positions for positions in contents if positions and not records.intersection(positions)]
    if len(missing) < 2:
        return
    kept = next((positions for positions in missing if firsts.intersection(positions)), missing[0])
    for positions in missing:
        if positions is not kept:
            yield positions[0], kept[0]
