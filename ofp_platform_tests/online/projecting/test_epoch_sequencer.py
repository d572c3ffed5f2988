"""Processes of key shards, killed anywhere: nothing is half written, and the next ones end where they would have ended."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ofp_platform.online.state.epochs import read_epoch
from ofp_platform.online.state.key_shards import shard_of
from ofp_platform.storage.crash_points import CRASH_POINTS
from ofp_platform.storage.postgres import open_pool
from ofp_platform_tests.oracle.small_plane import SmallPlane, payment
from ofp_platform_tests.oracle.small_shards import set_shards
from ofp_platform_tests.oracle.strategies import SECOND, START

ROOT = Path(__file__).parents[3]
ACCOUNTS = [("account", f"a-{number}") for number in range(6)]
KEYS = [*ACCOUNTS, ("merchant", "m-1")]
GROUPS = [("ratios", "v2"), ("shop", "v1")]
EVENTS = 70
OF_SHARD_0 = tuple(name for name in CRASH_POINTS if name.startswith(("projector.", "sequencer.")))
OF_SHARD_1 = tuple(name for name in CRASH_POINTS if name.startswith("shard."))


def start(dsn: str, shard: str, crash_point: str | None) -> subprocess.Popen[bytes]:
    """The process of a shard."""
    environment = {name: value for name, value in os.environ.items() if name != "OFP_CRASH_POINT"}
    if crash_point is not None:
        environment["OFP_CRASH_POINT"] = crash_point
    command = [sys.executable, "-m", "ofp_platform_tests.oracle.crashing_shard", dsn, "crashing", shard]
    return subprocess.Popen(command, cwd=ROOT, env=environment)


def events() -> list[dict[str, Any]]:
    """One in ten comes twice."""
    numbers = [number - number % 10 // 9 for number in range(EVENTS)]
    return [payment(f"e-{number}", number % 9 * SECOND, account_id=f"a-{number % 6}") for number in numbers]


def test_both_shards_have_keys() -> None:
    assert {shard_of(*key, 2) for key in ACCOUNTS} == {0, 1}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("point", [*OF_SHARD_0, *OF_SHARD_1])
def test_a_shard_killed_there_changes_nothing_in_the_end(dsn: str, point: str) -> None:
    victim = 0 if point in OF_SHARD_0 else 1
    with open_pool(dsn) as pool:
        plane = SmallPlane(pool, "crashing", chunk_events=2, span_chunks=2)
        plane.append(events(), [0, 1, 1])
        set_shards(plane, 2)
        processes = [start(dsn, f"{number}/2", f"{point}:3" if number == victim else None) for number in range(2)]
        try:
            assert processes[victim].wait(120) == -signal.SIGKILL
            assert plane.row().version in (3, 4)  # the third epoch was begun, and the first version is that of the sharding
            with pool.connection() as connection:
                epoch = read_epoch(connection, plane.projection_id)
            for number in range(2):  # what was committed is whole, shard by shard
                keys = [key for key in ACCOUNTS if shard_of(*key, 2) == number]
                answer = plane.reader.answer(plane.request(keys, [GROUPS[0]], START + 5 * SECOND))
                known = [plane.row().basis, *([epoch.basis] if epoch is not None else [])]
                assert answer.hash in {plane.hash_at(basis, keys, [GROUPS[0]], START + 5 * SECOND) for basis in known}
            processes[victim] = start(dsn, f"{victim}/2", None)
            assert [process.wait(120) for process in processes] == [0, 0]
        finally:
            for process in processes:
                process.kill()
                process.wait()
        assert plane.row().basis == plane.log.ends()
        for second in range(15):
            plane.check(KEYS, GROUPS, START + second * SECOND)
        with pool.connection() as connection:
            totals = connection.execute("SELECT sum(records), sum(applied) FROM ofp.projection_partition").fetchone()
            assert read_epoch(connection, plane.projection_id) is None
        assert totals == (EVENTS, len(plane.known(plane.row().basis).events))
