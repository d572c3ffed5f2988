"""Processes of key shards, killed anywhere: nothing is half written, and the next ones end where they would have ended."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from ofp_platform.online.state.epochs import read_epoch
from ofp_platform.online.state.key_shards import shard_of
from ofp_platform.storage.crash_points import CRASH_POINTS
from ofp_platform.storage.postgres import open_pool
from ofp_platform_tests.oracle.crashing_projector import warm
from ofp_platform_tests.oracle.crashing_shard import apply_all
from ofp_platform_tests.oracle.small_plane import SmallPlane, payment
from ofp_platform_tests.oracle.small_shards import set_shards
from ofp_platform_tests.oracle.strategies import SECOND, START
from ofp_platform_tests.torture.kills.victim_pool import Death, Kill, VictimPool

ACCOUNTS = [("account", f"a-{number}") for number in range(6)]
KEYS = [*ACCOUNTS, ("merchant", "m-1")]
GROUPS = [("ratios", "v2"), ("shop", "v1")]
EVENTS = 70
OF_SHARD_0 = tuple(name for name in CRASH_POINTS if name.startswith(("projector.", "sequencer.")))
OF_SHARD_1 = tuple(name for name in CRASH_POINTS if name.startswith("shard."))


LONGEST = Kill(seconds=120.0)
"""A process of a shard waits for the other one, which may never come: then time kills it, and the test says so."""


@pytest.fixture(scope="module")
def lanes() -> Iterator[list[VictimPool]]:
    """Where processes are started, one lane for each shard."""
    warming = f"{warm.__module__}:{warm.__name__}"
    with VictimPool(warming) as first, VictimPool(warming) as second:
        yield [first, second]


@pytest.fixture
def starting() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(2) as threads:
        yield threads


def events() -> list[dict[str, Any]]:
    """One in ten comes twice."""
    numbers = [number - number % 10 // 9 for number in range(EVENTS)]
    return [payment(f"e-{number}", number % 9 * SECOND, account_id=f"a-{number % 6}") for number in numbers]


def test_both_shards_have_keys() -> None:
    assert {shard_of(*key, 2) for key in ACCOUNTS} == {0, 1}


@pytest.mark.timeout(180)
@pytest.mark.parametrize("point", [*OF_SHARD_0, *OF_SHARD_1])
def test_a_shard_killed_there_changes_nothing_in_the_end(
    lanes: list[VictimPool], starting: ThreadPoolExecutor, dsn: str, point: str
) -> None:
    victim = 0 if point in OF_SHARD_0 else 1

    def start(number: int, kill: Kill) -> Future[Death]:
        return starting.submit(lanes[number].run, apply_all, dsn, "crashing", f"{number}/2", kill=kill)

    with open_pool(dsn) as pool:
        plane = SmallPlane(pool, "crashing", chunk_events=2, span_chunks=2)
        plane.append(events(), [0, 1, 1])
        set_shards(plane, 2)
        deaths = [start(number, Kill(point, 3) if number == victim else LONGEST) for number in range(2)]
        assert deaths[victim].result().by == point
        assert plane.row().version in (3, 4)  # the third epoch was begun, and the first version is that of the sharding
        with pool.connection() as connection:
            epoch = read_epoch(connection, plane.projection_id)
        for number in range(2):  # what was committed is whole, shard by shard
            keys = [key for key in ACCOUNTS if shard_of(*key, 2) == number]
            answer = plane.reader.answer(plane.request(keys, [GROUPS[0]], START + 5 * SECOND))
            known = [plane.row().basis, *([epoch.basis] if epoch is not None else [])]
            assert answer.hash in {plane.hash_at(basis, keys, [GROUPS[0]], START + 5 * SECOND) for basis in known}
        deaths[victim] = start(victim, LONGEST)
        assert [death.result().by for death in deaths] == ["", ""]
        assert plane.row().basis == plane.log.ends()
        for second in range(15):
            plane.check(KEYS, GROUPS, START + second * SECOND)
        with pool.connection() as connection:
            totals = connection.execute("SELECT sum(records), sum(applied) FROM ofp.projection_partition").fetchone()
            assert read_epoch(connection, plane.projection_id) is None
        assert totals == (EVENTS, len(plane.known(plane.row().basis).events))
