"""Counts of a projection: kept by its commits, equal to the rows that they count, never counted again."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from alembic import command
from sqlalchemy.exc import ProgrammingError

from ofp_platform.online.state.progress import Totals, read_progress
from ofp_platform.storage import schema
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform_tests.oracle.small_plane import SmallPlane, envelope, payment
from ofp_platform_tests.oracle.strategies import SECOND


@pytest.fixture
def pool(dsn: str) -> Iterator[Pool]:
    with open_pool(dsn, max_size=2) as opened:
        yield opened


def without_merchant(event_id: str) -> dict[str, Any]:
    event = payment(event_id, 0)
    return {**event, "payload": {name: value for name, value in event["payload"].items() if name != "merchant_id"}}


def mixed_plane(pool: Pool) -> SmallPlane:
    """Three commits and more with failures of both kinds and anomalies, in two partitions."""
    plane = SmallPlane(pool, "progress", partitions=2)
    for turn in range(3):
        plane.append(
            [
                payment("e-1", 0, amount=turn),
                payment(f"e-{turn}-2", 100_000 * SECOND),
                payment("e-1", SECOND, amount=turn),
                without_merchant(f"m-{turn}"),
                envelope("payment", f"p-{turn}", 0, {}) | {"run_id": "another"},
            ],
            [0, 1, 1],
        )
        plane.drain(sizes=itertools.repeat(2))
    return plane


def counted(connection: psycopg.Connection[Any]) -> tuple[Counter[Any], Counter[Any]]:
    """Failures by (partial, reason) and anomalies by partition, counted from their rows."""
    failures = connection.execute("SELECT partial, reason FROM ofp.apply_failure").fetchall()
    return Counter(failures), Counter(name for (name,) in connection.execute("SELECT partition_id FROM ofp.anomaly"))


def kept(totals: Totals) -> tuple[Counter[Any], Counter[Any]]:
    kinds = {False: totals.failures, True: totals.group_failures}
    failures = Counter({(kind, reason): count for kind, reasons in kinds.items() for reason, count in reasons.items()})
    return failures, Counter({part.partition_id: part.anomalies for part in totals.partitions if part.anomalies})


def test_the_counts_are_those_of_the_rows_and_no_row_is_read(pool: Pool) -> None:
    plane = mixed_plane(pool)
    with pool.connection() as connection:
        failures, anomalies = counted(connection)
        assert len(failures) > 2
        assert len(anomalies) == 2
        totals = read_progress(connection, plane.projection_id)
        assert kept(totals) == (failures, anomalies)
        assert totals.anomalies == sum(anomalies.values())
        connection.execute("DELETE FROM ofp.apply_failure")
        connection.execute("DELETE FROM ofp.anomaly")
        assert read_progress(connection, plane.projection_id) == totals


def test_what_was_stored_before_is_counted_by_the_migration(pool: Pool, dsn: str) -> None:
    plane = mixed_plane(pool)
    with pool.connection() as connection:
        totals = read_progress(connection, plane.projection_id)
    with schema._connection(dsn) as migrating:
        config = schema._config()
        config.attributes["connection"] = migrating
        with pytest.raises(ProgrammingError, match="tails of keys hold events that the older form has no place for"):
            command.downgrade(config, "0015")
    with pool.connection() as connection:
        connection.execute("DELETE FROM ofp.tail")  # the counts are not of the state
    with schema._connection(dsn) as migrating:
        config.attributes["connection"] = migrating
        command.downgrade(config, "0015")
    schema.migrate(dsn)
    with pool.connection() as connection:
        assert read_progress(connection, plane.projection_id) == totals


def test_failures_of_a_range_are_found_without_those_of_others(pool: Pool) -> None:
    mixed_plane(pool)
    with pool.connection() as connection, connection.transaction():
        connection.execute("SET LOCAL enable_seqscan = off")
        for table in ("apply_failure", "anomaly"):
            plan = connection.execute(
                f"EXPLAIN (COSTS OFF) SELECT 1 FROM ofp.{table} WHERE projection_id = 1 AND partition_id = '0000'"
                " AND record_offset::numeric > 5 AND record_offset::numeric <= 6"
            ).fetchall()
            text = "\n".join(line for (line,) in plan)
            assert f"{table}_place" in text
            assert "Filter" not in text
