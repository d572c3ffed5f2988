"""What a commit reads does not grow with the number of keys, whether or not the tables were ever analysed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ofp_platform.online.projecting.projector import Projector
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform_tests.oracle.rows_read import analyse, rows_read
from ofp_platform_tests.oracle.small_plane import SmallPlane, payment
from ofp_platform_tests.oracle.strategies import SECOND

KEYS = 2_000
TABLES = ("tail", "chunk", "span")


@pytest.fixture
def pool(dsn: str) -> Iterator[Pool]:
    with open_pool(dsn, max_size=1) as opened:
        yield opened


def applied(projector: Projector) -> None:
    receipt = projector.apply_available(max_records=10_000)
    assert receipt is not None
    assert receipt.applied == receipt.records > 0


@pytest.mark.parametrize("analysed", [False, True])
@pytest.mark.parametrize("tail_bytes", [0, 640])
def test_a_commit_of_few_events_reads_the_rows_of_their_keys(pool: Pool, tail_bytes: int, analysed: bool) -> None:
    plane = SmallPlane(
        pool,
        f"rows-{tail_bytes}",
        partitions=1,
        chunk_events=2,
        span_chunks=2,
        tail_bytes=tail_bytes,
        allowed_lateness=5 * SECOND,
    )
    projector = plane.projector()
    for second in range(4):  # every key has chunks, or a tail and, because of late events, chunks
        ts = (10 - second) * SECOND
        plane.append([payment(f"e-{second}-{key}", ts + key, account_id=f"a-{key}", amount=1, shop="s") for key in range(KEYS)])
        applied(projector)
    if analysed:  # one hot key, the shop, is all that has spans
        analyse(pool, TABLES)
    before = rows_read(pool, TABLES)
    few = [
        payment(f"few-{key}-{late}", (11 - late) * SECOND, account_id=f"a-{key}", amount=1, shop="s")
        for key in range(5)
        for late in (0, 3)
    ]
    plane.append([*few, payment("new", 11 * SECOND, account_id="a-new", amount=1, shop="s")])
    applied(projector)
    after = rows_read(pool, TABLES)
    assert {name: after[name] - before[name] for name in after if after[name] - before[name] > 200} == {}
    # and where the horizon moves, pruning looks at as many as it deletes or passes, not at all of them for each
    plane.append([payment("last", 60 * SECOND, account_id="a-new", amount=1, shop="s")])
    applied(projector)
    pruned = rows_read(pool, TABLES)
    assert {name: pruned[name] - after[name] for name in pruned if pruned[name] - after[name] > 1_500} == {}
