"""Ids with several contents: what a projection forgot behind its horizon, a replay finds, and both planes tell the same."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ofp_platform.online.state.progress import read_progress
from ofp_platform.storage.anomaly_records import record_anomalies
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.offline.event_anomaly import EventAnomaly
from ofp_platform_tests.oracle.rebuilt import replayed
from ofp_platform_tests.oracle.small_plane import SmallPlane, payment
from ofp_platform_tests.oracle.strategies import SECOND, START, worlds

STREAMS = (f"anomalies-{number}" for number in itertools.count())
_BEHIND = 10_000 * SECOND
_ADMITTED = START + 2 * _BEHIND


@pytest.fixture(scope="module")
def pool(module_dsn: str) -> Iterator[Pool]:
    with open_pool(module_dsn) as opened:
        yield opened


def append_again(plane: SmallPlane) -> None:
    """An id, then an event past its horizon, then the id with another content."""
    events = [payment("again", 0), payment("between", _BEHIND), payment("again", _BEHIND + SECOND, amount=7)]
    plane.append(events, admitted_at=_ADMITTED)


def found_by_replay(plane: SmallPlane, folder: Path) -> tuple[EventAnomaly, ...]:
    return replayed(plane, folder).knowledge.folded_replay.anomalies


def record(plane: SmallPlane, anomalies: tuple[EventAnomaly, ...], registry_digest: str | None = None) -> int:
    with plane.pool.connection() as connection:
        return record_anomalies(
            connection, plane.log.stream_name, plane.pins, registry_digest or plane.registry.digest, anomalies
        )


def recorded(plane: SmallPlane) -> tuple[int, list[tuple[Any, ...]]]:
    """The counter of the projection, and its rows."""
    with plane.pool.connection() as connection:
        rows = connection.execute(
            "SELECT partition_id, record_offset, event_id, first_partition_id, first_record_offset FROM ofp.anomaly"
            " WHERE projection_id = %s ORDER BY 1, 2",
            (plane.projection_id,),
        ).fetchall()
        return read_progress(connection, plane.projection_id).anomalies, rows


def drain_forgetting(plane: SmallPlane, sizes: Iterator[int]) -> None:
    """Each commit by a projector that has just started, and knows what the store has kept."""
    while plane.projector().apply_available(max_records=next(sizes)) is not None:
        pass


def test_an_id_that_comes_again_behind_the_horizon_is_an_anomaly_in_both_planes(pool: Pool, tmp_path: Path) -> None:
    plane = SmallPlane(pool, next(STREAMS))
    append_again(plane)
    drain_forgetting(plane, itertools.repeat(1))
    assert recorded(plane) == (0, [])
    anomalies = found_by_replay(plane, tmp_path / "fold")
    assert [anomaly.event_id for anomaly in anomalies] == ["again"]
    assert record(plane, anomalies, "another registry") == 0
    assert record(plane, anomalies) == 1
    expected = (1, [("0000", "2", "again", "0000", "0")])
    assert recorded(plane) == expected
    assert record(plane, anomalies) == 0
    assert recorded(plane) == expected


def test_what_the_projection_has_not_read_waits(pool: Pool, tmp_path: Path) -> None:
    plane = SmallPlane(pool, next(STREAMS))
    append_again(plane)
    for _ in range(2):
        plane.projector().apply_available(max_records=1)
    anomalies = found_by_replay(plane, tmp_path / "fold")
    assert record(plane, anomalies) == 0
    drain_forgetting(plane, itertools.repeat(1))
    assert record(plane, anomalies) == 1


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(worlds(max_events=30, partitions=("0000", "0001")), st.lists(st.integers(1, 12), min_size=1, max_size=4), st.booleans())
def test_after_a_replay_the_projection_tells_what_the_oracle_does(pool: Pool, world: Any, sizes: list[int], jump: bool) -> None:
    plane = SmallPlane(pool, next(STREAMS), allowed_lateness=SECOND)
    plane.load(world.records)
    if jump:  # everything so far falls behind the horizon, and its ids come again
        plane.append(
            [payment("between", _BEHIND), payment("e-0", _BEHIND, amount=3), payment("e-1", _BEHIND, amount=4)], [0, 0, 1]
        )
        plane.append([payment("e-0", _BEHIND, amount=5)], [1])
    drain_forgetting(plane, itertools.cycle(sizes))
    with tempfile.TemporaryDirectory() as folder:
        anomalies = found_by_replay(plane, Path(folder) / "fold")
    record(plane, anomalies)
    count, rows = recorded(plane)
    assert count == len(rows) == plane.known(plane.row().basis).anomalies
    assert {row[2] for row in rows} == {anomaly.event_id for anomaly in anomalies}
    assert record(plane, anomalies) == 0
