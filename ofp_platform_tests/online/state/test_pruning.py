"""Pruning in steps: no commit looks at more than its share, all goes in the end, and only keys that lose state are touched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ofp_platform.online.projecting import projector
from ofp_platform.online.state import pruning
from ofp_platform.online.state.touched_keys import key_mark
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform_tests.oracle.small_plane import SmallPlane, payment
from ofp_platform_tests.oracle.strategies import SECOND, START

KEYS = 40
GROUPS = [("ratios", "v2")]


@pytest.fixture
def pool(dsn: str) -> Iterator[Pool]:
    with open_pool(dsn, max_size=2) as opened:
        yield opened


def rows(plane: SmallPlane, query: str) -> list[tuple[Any, ...]]:
    with plane.pool.connection() as connection:
        return connection.execute(query).fetchall()


def test_old_chunks_go_a_step_with_each_commit(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(projector, "LEAST_STEP", 8)
    step = pruning.pruning_step
    steps: list[tuple[int, int]] = []

    def watched(connection: Any, projection_id: int, place: Any, horizon: int, chunk_count: int) -> Any:
        pruned_keys = step(connection, projection_id, place, horizon, chunk_count)
        steps.append((chunk_count, sum(map(len, pruned_keys.values()))))
        return pruned_keys

    monkeypatch.setattr(projector, "pruning_step", watched)
    plane = SmallPlane(pool, "steps", partitions=1)
    names = [f"a-{number:02d}" for number in range(KEYS)]
    plane.append([payment(f"e-{name}", 0, account_id=name, merchant_id="m-old") for name in names])
    plane.drain()
    steps.clear()
    own = plane.projector()
    left = []
    for turn in range(12):
        at = 1_000 * SECOND + turn
        plane.append([payment(f"new-{turn}", at, account_id="a-new", merchant_id="m-new")])
        plane.drain(own if turn % 2 else None)  # another process goes on where the last one stopped
        plane.check([("account", "a-new"), ("account", names[turn])], GROUPS, START + at, {"amount": 1})
        left.append(len(rows(plane, "SELECT 1 FROM ofp.chunk WHERE key_id LIKE 'a-%' AND key_id <> 'a-new'")))
    assert all(chunk_count == 8 and pruned_keys <= 8 for chunk_count, pruned_keys in steps)
    assert 6 <= len(steps) <= 8  # and then it is done
    assert left == sorted(left, reverse=True)
    assert left[0] >= KEYS - 8
    assert left[-1] == 0
    assert rows(plane, "SELECT pruning_type, pruning_key, pruning_ts FROM ofp.projection") == [(None, None, None)]
    assert rows(plane, "SELECT DISTINCT key_id FROM ofp.chunk ORDER BY 1") == [("a-new",), ("m-new",)]
    told = [
        np.frombuffer(marks, "<i8").tolist() for (marks,) in rows(plane, "SELECT marks FROM ofp.commit_touched ORDER BY version")
    ]
    assert all(len(marks) <= 8 + 2 for marks in told[1:])
    assert {key_mark("account", name) for name in names} <= {mark for marks in told[1:] for mark in marks}


def test_a_step_uses_the_index_of_chunks(pool: Pool) -> None:
    with pool.connection() as connection, connection.transaction():
        connection.execute("SET LOCAL enable_seqscan = off")
        connection.execute("SET LOCAL enable_sort = off")
        plan = connection.execute(
            "EXPLAIN (COSTS OFF) SELECT key_type, key_id, first_ts, last_ts FROM ofp.chunk WHERE projection_id = 1"
            " AND (key_type, key_id, first_ts) > (1::smallint, 'a'::text COLLATE \"C\", 5::bigint)"
            " ORDER BY key_type, key_id, first_ts LIMIT 8"
        ).fetchall()
    text = "\n".join(line for (line,) in plan)
    assert "Index Cond: ((projection_id = 1) AND (ROW(key_type, key_id, first_ts) >" in text
    assert "Filter" not in text
    assert "Sort" not in text
