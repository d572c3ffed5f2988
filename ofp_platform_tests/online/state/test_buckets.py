"""Into which chunk each new event goes, as the store has them."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.online.state.binary_rows import Column
from ofp_platform.online.state.buckets import KEY_TYPE_CODES, ChunkTimes, _assign, read_buckets, replace_chunks
from ofp_platform.storage.postgres import open_pool

LOWEST = -(2**63)


@given(
    firsts=st.lists(st.lists(st.integers(-20, 20), min_size=1, max_size=5, unique=True).map(sorted), min_size=1, max_size=4),
    events=st.lists(st.tuples(st.integers(0, 3), st.integers(-25, 25)), max_size=20),
)
def test_an_event_goes_to_the_last_chunk_that_begins_before_it(firsts: list[list[int]], events: list[tuple[int, int]]) -> None:
    events = [(key % len(firsts), ts) for key, ts in events]
    edges = np.cumsum([0, *map(len, firsts)])
    of_event = np.empty(len(events), np.int64)
    keys, times = (np.array([event[part] for event in events], np.int64) for part in (0, 1))
    _assign(edges, np.array([first for part in firsts for first in part], np.int64), keys, times, of_event)
    expected = [edges[key] + max(0, sum(first <= ts for first in firsts[key]) - 1) for key, ts in events]
    assert of_event.tolist() == expected


def test_chunks_are_written_and_found_again_by_key_and_time(dsn: str) -> None:
    key_ids = ["a", "b", "ü😀", "new"]
    texts = Column.of_texts(key_ids)
    owners = np.array([0, 0, 1, 2, 2, 2])
    first = np.array([10, 20, 5, -7, 0, 30])
    contents = [bytes([65 + place]) * (place + 1) for place in range(6)]
    edges = np.cumsum([0, *map(len, contents)])
    summaries = np.arange(12, dtype=np.int64).reshape(6, 1, 2)
    owner = (999_001, "account")
    with open_pool(dsn, max_size=1) as pool, pool.connection() as connection:
        blocks = Column.of_pieces(b"".join(contents), edges)
        none = (texts.take(owners[:0]), first[:0])
        replace_chunks(connection, *owner, none, texts.take(owners), ChunkTimes(first, first + 1, first + 2), summaries, blocks)
        rows = connection.execute(
            "SELECT key_type, key_id, first_ts, last_ts, amended_ts, summaries, block FROM ofp.chunk WHERE projection_id = 999001"
            ' ORDER BY key_id COLLATE "C", first_ts'
        ).fetchall()
        code = KEY_TYPE_CODES["account"]
        assert rows == [
            (code, key_ids[owner], ts, ts + 1, ts + 2, summary.tobytes(), content)
            for owner, ts, summary, content in zip(owners.tolist(), first.tolist(), summaries, contents, strict=True)
        ]
        event_keys = np.array([0, 0, 1, 1, 2, 3, 0])
        event_times = np.array([25, 12, 1, 6, -9, 3, 9])
        buckets = read_buckets(connection, *owner, texts, event_keys, event_times)
        assert buckets.blocks == [contents[0], contents[1], contents[2], contents[3], contents[5], None]
        assert buckets.key.tolist() == [0, 0, 1, 2, 2, 3]
        assert buckets.first_ts.tolist() == [10, 20, 5, -7, 30, LOWEST]
        assert buckets.newest.tolist() == [False, True, True, False, True, True]
        assert buckets.of_event.tolist() == [1, 0, 2, 2, 3, 5, 0]
        old = (texts.take(owners[1:4]), first[1:4])
        replace_chunks(connection, *owner, old, none[0], ChunkTimes(first[:0], first[:0]), summaries[:0], blocks.take(first[:0]))
        kept = connection.execute("SELECT first_ts FROM ofp.chunk WHERE projection_id = 999001 ORDER BY first_ts").fetchall()
        assert kept == [(0,), (10,), (30,)]
        connection.rollback()
