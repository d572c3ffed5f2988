"""Pruning in steps: no commit looks at more than its share, all goes in the end, and only keys that lose state are touched."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from psycopg import RawCursor
from psycopg.types.numeric import Int2, Int8

from ofp_platform.online.projecting import state_writer
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


@pytest.mark.parametrize(("table", "tail_bytes"), [("ofp.tail", 640), ("ofp.chunk", 0)])
def test_old_state_goes_a_step_with_each_commit(pool: Pool, monkeypatch: pytest.MonkeyPatch, table: str, tail_bytes: int) -> None:
    step = pruning.pruning_step
    steps: list[tuple[int, int]] = []

    def watched(connection: Any, projection_id: int, place: Any, horizon: int, chunk_count: int) -> Any:
        pruned_keys = step(connection, projection_id, place, horizon, chunk_count)
        steps.append((chunk_count, sum(map(len, pruned_keys.values()))))
        return pruned_keys

    monkeypatch.setattr(state_writer, "pruning_step", watched)
    plane = SmallPlane(pool, "steps", partitions=1, tail_bytes=tail_bytes, least_step=8)
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
        plane.check([("account", "a-new"), ("account", names[turn % KEYS])], GROUPS, START + at, {"amount": 1})
        left.append(len(rows(plane, f"SELECT 1 FROM {table} WHERE key_id LIKE 'a-%' AND key_id <> 'a-new'")))
    assert all(chunk_count == 8 and pruned_keys <= 8 for chunk_count, pruned_keys in steps)
    assert 6 <= len(steps) <= 8  # and then it is done
    assert left == sorted(left, reverse=True)
    assert left[0] >= KEYS - 8
    assert left[-1] == 0
    assert rows(plane, "SELECT pruning_type, pruning_key, pruning_ts FROM ofp.projection") == [(None, None, None)]
    assert rows(plane, f"SELECT DISTINCT key_id FROM {table} ORDER BY 1") == [("a-new",), ("m-new",)]
    told = [
        np.frombuffer(marks, "<i8").tolist() for (marks,) in rows(plane, "SELECT marks FROM ofp.commit_touched ORDER BY version")
    ]
    assert all(len(marks) <= 8 + 2 for marks in told[1:])
    assert {key_mark("account", name) for name in names} <= {mark for marks in told[1:] for mark in marks}


def test_a_key_whose_tail_went_before_its_last_chunks_gets_a_tail_behind_them(pool: Pool) -> None:
    """A step may end among the chunks of a key: what is new for the key comes behind those that are still there."""
    plane = SmallPlane(pool, "halfway", partitions=1, chunk_events=1, tail_bytes=100, least_step=2)
    for number in range(12):
        plane.append([payment(f"old-{number}", number * SECOND, account_id="a-1", merchant_id="m-1")])
        plane.drain()
    chunks = []
    for turn in range(4):
        at = 1_000 * SECOND + turn
        account_id = "a-1" if turn else "a-0"  # the first one only moves the horizon
        plane.append([payment(f"new-{turn}", at, account_id=account_id, merchant_id="m-2")])
        plane.drain()
        plane.check([("account", "a-1")], GROUPS, START + at, {"amount": 1})
        chunks.append(rows(plane, "SELECT count(*) FROM ofp.chunk WHERE key_id = 'a-1'")[0][0])
    assert chunks[0] > chunks[1] > 0  # the steps are small enough to end there


@pytest.mark.parametrize(
    ("statement", "arguments", "columns"),
    [
        (pruning.NEXT_CHUNKS, (5, 8), "key_type, key_id, first_ts) >"),
        (pruning.NEXT_TAILS.format(behind=">"), (8,), "key_type, key_id) >"),
        (pruning.NEXT_TAILS.format(behind=">="), (8,), "key_type, key_id) >="),
    ],
)
def test_a_step_uses_the_indexes(pool: Pool, statement: str, arguments: tuple[int, ...], columns: str) -> None:
    with pool.connection() as connection, connection.transaction():
        connection.execute("SET LOCAL enable_seqscan = off")
        connection.execute("SET LOCAL enable_sort = off")
        cursor = RawCursor(connection)
        plan = cursor.execute(f"EXPLAIN (COSTS OFF) {statement}", (Int8(1), Int2(1), "a", *arguments)).fetchall()
    text = "\n".join(line for (line,) in plan)
    assert f"AND (ROW({columns}" in text
    assert "Index Cond: ((projection_id = '1'::bigint) AND (ROW(" in text
    assert "Filter" not in text
    assert "Sort" not in text
