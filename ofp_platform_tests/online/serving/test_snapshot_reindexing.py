"""Rows of the index that were lost are what they were, from the objects alone."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from ofp_platform.online.serving.snapshot_reindexing import reindex
from ofp_platform.online.serving.snapshot_store import SnapshotStore
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform_tests.oracle.small_plane import SmallPlane, payment
from ofp_platform_tests.oracle.strategies import SECOND, START


def index(pool: Pool) -> list[Any]:
    with pool.connection() as connection:
        return connection.execute("SELECT * FROM ofp.snapshot_index ORDER BY snapshot_hash").fetchall()


@pytest.mark.parametrize("lost", ["everything", "some"])
def test_lost_rows_come_back(dsn: str, tmp_path: Path, lost: str) -> None:
    with open_pool(dsn) as pool:
        plane = SmallPlane(pool, "reindexed", partitions=1)
        plane.append([payment(f"e-{number}", number * SECOND) for number in range(3)])
        plane.drain()
        keys, groups = [("account", "a-1"), ("merchant", "m-1")], [("ratios", "v2"), ("shop", "v1")]
        answers = [plane.reader.answer(plane.request(keys, groups, START + second * SECOND)) for second in range(2, 12)]
        objects = ObjectStore(f"file://{tmp_path}")
        store = SnapshotStore(pool, objects)
        assert reindex(pool, objects).records == 0
        store.log(answers[:5])
        store.log(answers[5:6])
        store.materialise(answers[6:])
        before = index(pool)
        assert len(before) == 10
        with pool.connection() as connection:
            connection.execute("DELETE FROM ofp.snapshot_index WHERE %s OR as_of %% 2 = 0", (lost == "everything",))
            connection.execute("DELETE FROM ofp.snapshot_index WHERE snapshot_hash = %s", (answers[0].hash,))
        missing = 10 - len(index(pool))
        heard: list[tuple[int, int]] = []
        outcome = reindex(pool, objects, lambda read, total: heard.append((read, total)))
        assert (outcome.objects, outcome.records, outcome.indexed, outcome.problems) == (6, 10, missing, ())
        assert heard == [(number, 6) for number in range(1, 7)]
        assert index(pool) == before
        assert [store.load(answer.hash) for answer in answers]
        assert reindex(pool, objects).indexed == 0


def test_a_damaged_object_is_told_and_passed_over(dsn: str, tmp_path: Path) -> None:
    with open_pool(dsn) as pool:
        plane = SmallPlane(pool, "reindexed", partitions=1)
        plane.append([payment("e-1", 0)])
        plane.drain()
        answer = plane.reader.answer(plane.request([("account", "a-1")], [("ratios", "v2")], START + SECOND))
        objects = ObjectStore(f"file://{tmp_path}")
        SnapshotStore(pool, objects).materialise([answer])
        for name, content in (("a", b""), ("b", gzip.compress(b"no frame"))):
            objects.put_if_absent(f"snapshots/packs/{name}.zst", content)
        outcome = reindex(pool, objects)
        assert (outcome.objects, outcome.records, len(outcome.problems)) == (3, 1, 2)
        assert all(problem.startswith("snapshots/packs/") for problem in outcome.problems)
