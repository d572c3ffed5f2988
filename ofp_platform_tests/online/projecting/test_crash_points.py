"""A projector that is killed anywhere: nothing is half written, and the next one ends where it would have ended."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ofp_platform.storage.postgres import open_pool
from ofp_platform_tests.oracle.crashing_projector import project_all, warm
from ofp_platform_tests.oracle.small_plane import SmallPlane, payment
from ofp_platform_tests.oracle.strategies import SECOND, START
from ofp_platform_tests.torture.kills.victim_pool import Kill, VictimPool

KEYS = [("account", "a-1"), ("account", "a-2"), ("merchant", "m-1")]
GROUPS = [("ratios", "v2"), ("shop", "v1")]


@pytest.fixture(scope="module")
def victims() -> Iterator[VictimPool]:
    with VictimPool(f"{warm.__module__}:{warm.__name__}") as pool:
        yield pool


@pytest.mark.parametrize(
    ("point", "commits"),
    [
        ("projector.before_transaction", 2),
        ("projector.after_chunks", 2),
        ("projector.after_identities", 2),
        ("projector.before_commit", 2),
        ("projector.after_commit", 3),
    ],
)
def test_a_projector_killed_there_changes_nothing_in_the_end(victims: VictimPool, dsn: str, point: str, commits: int) -> None:
    with open_pool(dsn) as pool:
        plane = SmallPlane(pool, "crashing", chunk_events=2, span_chunks=2)
        events = [payment(f"e-{number % 9}", number % 9 * SECOND, account_id=f"a-{number % 3 % 2 + 1}") for number in range(14)]
        plane.append(events, [0, 1, 1])
        assert victims.run(project_all, dsn, "crashing", kill=Kill(point, 3)).by == point
        assert plane.row().version == commits
        plane.check(KEYS, GROUPS, START + 5 * SECOND)  # what was committed is whole
        plane.drain()
        assert plane.row().basis == plane.log.ends()
        for second in range(15):
            plane.check(KEYS, GROUPS, START + second * SECOND)
        with pool.connection() as connection:
            totals = connection.execute("SELECT sum(records), sum(applied) FROM ofp.projection_partition").fetchone()
        assert totals == (14, len(plane.known(plane.row().basis).events))


def test_without_a_crash_point_the_same_process_ends_by_itself(victims: VictimPool, dsn: str) -> None:
    with open_pool(dsn) as pool:
        plane = SmallPlane(pool, "crashing", chunk_events=2, span_chunks=2)
        plane.append([payment("e-1", 0), payment("e-2", 0)], [0, 1])
        assert victims.run(project_all, dsn, "crashing").by == ""
        assert plane.row().basis == plane.log.ends()
        # there is nothing left to commit
        assert victims.run(project_all, dsn, "crashing", kill=Kill("projector.after_commit")).by == ""
