"""Totals of a run by what is recorded of it: builds by where they stand, published datasets, anomalies by event type."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from psycopg import Connection

from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.identity import ContextPins

_OF_RUN = "intent::jsonb -> 'context_pins' = %s::jsonb"
_BUILDS = f"""
    SELECT count(*), count(*) FILTER (WHERE state = 'DONE') FROM ofp.build_run WHERE {_OF_RUN}"""
_FAILED = f"""
    SELECT refusal_reason, count(*) FROM ofp.build_run WHERE state = 'FAILED' AND {_OF_RUN} GROUP BY refusal_reason"""
_DATASETS = f"""
    SELECT count(*) FROM ofp.dataset_index JOIN ofp.build_run ON run_key = request_id WHERE {_OF_RUN}"""
_ANOMALIES = "SELECT event_type, count(*) FROM ofp.anomaly WHERE projection_id = %s GROUP BY event_type"


@dataclass(frozen=True)
class RecordedTotals:
    """`failed`: builds that are FAILED now, by reason; one that is tried again and succeeds is none of them any more."""

    requested: int
    completed: int
    failed: Mapping[str, int]
    datasets: int
    anomalies: Mapping[str, int]


def read_recorded_totals(connection: Connection[Any], pins: ContextPins, projection_id: int) -> RecordedTotals:
    """The totals of a run and of its projection.

    Raises:
        psycopg.Error: the database does not answer.
    """
    run = (canonical_bytes(pins.wire()).decode("utf-8"),)
    [(requested, completed)] = connection.execute(_BUILDS, run).fetchall()
    [(datasets,)] = connection.execute(_DATASETS, run).fetchall()
    failed = dict(connection.execute(_FAILED, run).fetchall())
    anomalies = dict(connection.execute(_ANOMALIES, (projection_id,)).fetchall())
    return RecordedTotals(requested, completed, failed, datasets, anomalies)
