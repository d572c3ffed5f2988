"""Pages and filters of identities: what goes in comes out, an id is found where it is, and what was changed is refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.online.state.identity_pages import (
    ABSENT,
    OTHER,
    SAME,
    IdentityFilter,
    PageCorrupt,
    SegmentShape,
    Words,
    make_filter,
    pack_pages,
    prefixes,
    search_pages,
    sorted_identities,
    unpack_pages,
)

FAR = 2**64 - 1
WORD = st.one_of(st.integers(0, 3), st.integers(0, FAR), st.sampled_from((FAR, 1 << 63, (1 << 63) - 1)))
ENTRIES = st.lists(st.tuples(WORD, st.integers(0, 1), st.integers(0, 2), st.integers(0, 1), st.just(7), WORD), max_size=40)


def words(rows: list[tuple[int, ...]], width: int = 6) -> Words:
    return np.array(rows, np.uint64).reshape(-1, width)


@given(ENTRIES, st.integers(0, 6))
def test_pages_hold_the_identities_by_id_in_the_order_of_one_id(rows: list[tuple[int, ...]], bits: int) -> None:
    entries = sorted_identities(words(rows))
    assert [tuple(one) for one in entries.tolist()] == sorted(rows, key=lambda row: row[:2])
    pages = pack_pages(entries, 0, 1 << bits, bits)
    assert unpack_pages(pages, 6).tolist() == entries.tolist()
    for page, content in enumerate(pages):
        expected = [row for row in entries.tolist() if row[0] >> (64 - bits) == page]
        assert unpack_pages([content], 6).tolist() == expected


@given(ENTRIES, ENTRIES, st.integers(0, 6))
def test_a_query_is_found_where_it_is(rows: list[tuple[int, ...]], queries: list[tuple[int, ...]], bits: int) -> None:
    entries = sorted_identities(words(rows))
    pages = pack_pages(entries, 0, 1 << bits, bits)
    asked = words([*queries, *rows[:5]])
    status, earliest = np.full(len(asked), ABSENT, np.int8), np.zeros((len(asked), 6), np.uint64)
    search_pages(pages, prefixes(asked[:, 0], bits), np.arange(len(asked)), asked, status, earliest)
    for query, code, first in zip(asked.tolist(), status.tolist(), earliest.tolist(), strict=True):
        same_id = [list(row) for row in rows if list(row[:2]) == query[:2]]
        expected = SAME if any(row[2:4] == query[2:4] for row in same_id) else OTHER if same_id else ABSENT
        assert code == expected
        if code == OTHER:
            assert first == same_id[0]


@given(ENTRIES, st.integers(0, 4), st.integers(1, 3))
def test_a_filter_lets_everything_pass_that_is_there(rows: list[tuple[int, ...]], group_bits: int, group_blocks: int) -> None:
    shape = SegmentShape(5, group_bits, group_blocks)
    entries = sorted_identities(words(rows))
    groups = prefixes(entries[:, 0], group_bits)
    parts = []
    for first in range(0, shape.groups, 2):  # written some groups at a time
        end = min(first + 2, shape.groups)
        parts += make_filter(entries[(groups >= first) & (groups < end)], shape, first, end)
    whole = IdentityFilter(shape, parts)
    assert IdentityFilter.size(shape) == sum(map(len, parts))
    assert whole.passes(entries).all()


def test_a_filter_of_its_shape_holds_back_nearly_everything_else() -> None:
    rng = np.random.default_rng(5)
    entries = sorted_identities(rng.integers(0, FAR, (50_000, 6), np.uint64, endpoint=True))
    shape = SegmentShape.of(len(entries))
    assert 32 <= len(entries) >> shape.page_bits <= 64
    whole = IdentityFilter(shape, make_filter(entries, shape, 0, shape.groups))
    strangers = rng.integers(0, FAR, (50_000, 6), np.uint64, endpoint=True)
    assert whole.passes(entries).all()
    assert whole.passes(strangers).mean() < 0.01


@pytest.mark.parametrize("entries", [0, 1, 63, 64, 2_047, 2_048, 1 << 31, (1 << 31) + 1, 1 << 36])
def test_a_shape_for_any_count(entries: int) -> None:
    shape = SegmentShape.of(entries)
    assert entries / (1 << shape.page_bits) <= 64
    assert 16 * (shape.group_blocks << shape.group_bits) >= entries
    assert shape.pages_of(0, shape.groups) == (0, 1 << shape.page_bits)
    narrow = SegmentShape.of(entries, 2)
    assert narrow.group_bits <= 2
    assert 16 * (narrow.group_blocks << narrow.group_bits) >= entries


def test_what_was_changed_or_is_missing_is_refused() -> None:
    entries = sorted_identities(np.arange(60, dtype=np.uint64).reshape(10, 6))
    (page,) = pack_pages(entries, 0, 1, 0)
    for place in range(0, len(page), 8):
        changed = bytearray(page)
        changed[place] ^= 1
        with pytest.raises(PageCorrupt, match="page 1 of 2"):
            unpack_pages([page, bytes(changed)], 6)
    for wrong in (b"", page[:-1], page[:-8], page + bytes(8)):
        with pytest.raises(PageCorrupt):
            unpack_pages([wrong], 6)
    with pytest.raises(PageCorrupt):
        unpack_pages([page], 8)  # of another log
    shape = SegmentShape(3, 1, 2)
    parts = make_filter(entries, shape, 0, 2)
    for parts_left in (parts[:1], [], [parts[0], parts[1][:-1]]):
        with pytest.raises(PageCorrupt, match="2 parts of 64 bytes"):
            IdentityFilter(shape, parts_left)
