"""The spans of keys in a shard against a search of every event; digests that share their high half too."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.offline.replay.event_index import _key_ranges
from ofp_platform.offline.replay.key_shards import EventShard

KEYS = st.tuples(st.integers(-2, 2), st.integers(-3, 3))
TIMES = st.integers(-4, 4)


@given(
    st.dictionaries(KEYS, st.lists(TIMES, max_size=5), max_size=8),
    st.lists(st.tuples(KEYS, TIMES, TIMES), max_size=12),
)
def test_a_span_is_what_a_search_of_all_events_finds(
    held: dict[tuple[int, int], list[int]], asked: list[tuple[tuple[int, int], int, int]]
) -> None:
    keys = sorted(held)
    sizes = np.array([len(held[key]) for key in keys], np.int64)
    ends = np.cumsum(sizes, dtype=np.int64)
    times = np.array([time for key in keys for time in sorted(held[key])], np.int64)
    nothing = np.zeros(0, np.int64)
    halves = np.array(keys, np.int64).reshape(-1, 2)
    shard = EventShard(
        np.ascontiguousarray(halves[:, 0]),
        np.ascontiguousarray(halves[:, 1]),
        ends - sizes,
        ends,
        np.stack([times, np.zeros_like(times)]),
        nothing,
        nothing,
        nothing,
    )
    wanted = np.array([key for key, _, _ in asked], np.int64).reshape(-1, 2)
    after = np.array([min(limits) for _, *limits in asked], np.int64)
    until = np.array([max(limits) for _, *limits in asked], np.int64)
    begin, end = _key_ranges(shard, wanted[:, 0].copy(), wanted[:, 1].copy(), after, until)
    owner = [key for key in keys for _ in held[key]]
    for place, (key, *_) in enumerate(asked):
        naive = [
            event for event, time in enumerate(times.tolist()) if owner[event] == key and after[place] < time <= until[place]
        ]
        assert list(range(begin[place], end[place])) == naive
