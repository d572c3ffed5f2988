"""Records of a tail: every int64 comes back, in the order of arrival, and no changed byte is read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.online.state.chunk_codec import ChunkCorrupt
from ofp_platform.online.state.tail_codec import read_records, write_records

INT64 = st.one_of(
    st.integers(-(2**63), 2**63 - 1),
    st.sampled_from((0, -1, 1, 63, 64, -64, -65, 2**62, -(2**63), 2**63 - 1)),
    st.integers(-9, 9),
)


@given(st.integers(1, 6).flatmap(lambda columns: st.lists(st.lists(INT64, min_size=columns, max_size=columns), max_size=9)))
def test_events_come_back_in_the_order_of_their_arrival(events: list[list[int]]) -> None:
    columns = len(events[0]) if events else 3
    tail = b""
    for event in events:  # each in front of what is there
        record, offsets = write_records(np.array([event], np.int64).T.copy())
        assert offsets.tolist() == [0, len(record)]
        tail = record + tail
    matrix, offsets = read_records([b"", tail, tail], columns)
    assert offsets.tolist() == [0, 0, len(events), 2 * len(events)]
    assert matrix.T.tolist() == events + events


def test_a_changed_byte_or_a_cut_is_corrupt() -> None:
    tail, offsets = write_records(np.array([[1 << 50, 5], [-3, 1 << 20], [0, -(2**63)]], np.int64))
    assert read_records([tail], 3)[1].tolist() == [0, 2]
    for place in range(len(tail)):
        changed = bytearray(tail)
        changed[place] ^= 0x10
        with pytest.raises(ChunkCorrupt, match="tail 1 of 2"):
            read_records([b"", bytes(changed)], 3)
    for size in range(1, len(tail)):
        if size != offsets[1]:
            with pytest.raises(ChunkCorrupt):
                read_records([tail[:size]], 3)
    with pytest.raises(ChunkCorrupt):
        read_records([tail], 2)
