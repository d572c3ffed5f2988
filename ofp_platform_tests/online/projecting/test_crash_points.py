"""A projector that is killed anywhere: nothing is half written, and the next one ends where it would have ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ofp_platform.storage.postgres import open_pool
from ofp_platform_tests.oracle.small_plane import SmallPlane, payment
from ofp_platform_tests.oracle.strategies import SECOND, START

ROOT = Path(__file__).parents[3]
KEYS = [("account", "a-1"), ("account", "a-2"), ("merchant", "m-1")]
GROUPS = [("ratios", "v2"), ("shop", "v1")]


def project(dsn: str, crash_point: str | None) -> int:
    """Run the projector's process; its exit status (negative: the signal that ended it)."""
    environment = {name: value for name, value in os.environ.items() if name != "OFP_CRASH_POINT"}
    if crash_point is not None:
        environment["OFP_CRASH_POINT"] = crash_point
    command = [sys.executable, "-m", "ofp_platform_tests.oracle.crashing_projector", dsn, "crashing"]
    return subprocess.run(command, cwd=ROOT, env=environment, timeout=120, check=False).returncode


@pytest.mark.parametrize(
    ("point", "commits"),
    [
        ("projector.before_transaction:3", 2),
        ("projector.after_chunks:3", 2),
        ("projector.after_identities:3", 2),
        ("projector.before_commit:3", 2),
        ("projector.after_commit:3", 3),
    ],
)
def test_a_projector_killed_there_changes_nothing_in_the_end(dsn: str, point: str, commits: int) -> None:
    with open_pool(dsn) as pool:
        plane = SmallPlane(pool, "crashing", chunk_events=2, span_chunks=2)
        events = [payment(f"e-{number % 9}", number % 9 * SECOND, account_id=f"a-{number % 3 % 2 + 1}") for number in range(14)]
        plane.append(events, [0, 1, 1])
        assert project(dsn, point) == -signal.SIGKILL
        assert plane.row().version == commits
        plane.check(KEYS, GROUPS, START + 5 * SECOND)  # what was committed is whole
        plane.drain()
        assert plane.row().basis == plane.log.ends()
        for second in range(15):
            plane.check(KEYS, GROUPS, START + second * SECOND)
        with pool.connection() as connection:
            totals = connection.execute("SELECT sum(records), sum(applied) FROM ofp.projection_partition").fetchone()
        assert totals == (14, len(plane.known(plane.row().basis).events))


def test_without_a_crash_point_the_same_process_ends_by_itself(dsn: str) -> None:
    with open_pool(dsn) as pool:
        plane = SmallPlane(pool, "crashing", chunk_events=2, span_chunks=2)
        plane.append([payment("e-1", 0), payment("e-2", 0)], [0, 1])
        assert project(dsn, None) == 0
        assert plane.row().basis == plane.log.ends()
        assert project(dsn, "projector.after_commit") == 0  # there is nothing left to commit
