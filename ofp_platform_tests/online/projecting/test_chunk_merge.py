from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.kernel import accumulate
from ofp_platform.kernel.native import Int64Array
from ofp_platform.kernel.query import LayoutArrays
from ofp_platform.online.projecting.chunk_merge import CHUNK_EVENTS, MergedChunks, merge, summarise_chunks
from ofp_platform_tests.oracle.matrices import Case, cases

Event = tuple[int, ...]
LIMIT = 4


def matrix_of(events: list[Event]) -> Int64Array:
    return np.array(events, np.int64).reshape(len(events), 5).T.copy()


def ordered(events: list[Event]) -> list[Event]:
    return sorted(events, key=lambda event: (event[0], event[2] % 2**64, event[3] % 2**64))


events_ = st.tuples(
    st.integers(0, 12),
    st.just(1),
    st.sampled_from((-(2**63), -1, 0, 1, 2**63 - 1)),
    st.sampled_from((-1, 0, 1)),
    st.integers(0, 10**6),
)
buckets_ = st.lists(st.tuples(st.lists(events_, max_size=12), st.lists(events_, max_size=12)), max_size=5)


def merged(buckets: list[tuple[list[Event], list[Event]]], order: list[int]) -> MergedChunks:
    old = [event for held, _ in buckets for event in ordered(held)]
    offsets = np.cumsum([0, *(len(held) for held, _ in buckets)])
    new = [(bucket, event) for bucket, (_, arrived) in enumerate(buckets) for event in arrived]
    new = [new[place] for place in order if place < len(new)]
    return merge(
        matrix_of(old),
        offsets,
        np.array([bucket for bucket, _ in new], np.int64),
        matrix_of([event for _, event in new]),
        ties=True,
        limit=LIMIT,
    )


def chunks_of(found: MergedChunks) -> list[tuple[int, list[Event]]]:
    columns = [tuple(column) for column in found.matrix.T.tolist()]
    edges = found.chunk_offsets.tolist()
    assert edges[0] == 0
    assert edges[-1] == len(columns)
    return [
        (bucket, columns[start:end])
        for bucket, start, end in zip(found.chunk_bucket.tolist(), edges[:-1], edges[1:], strict=True)
    ]


@given(buckets_, st.permutations(range(60)))
def test_each_bucket_is_the_sorted_union_well_cut(buckets: list[tuple[list[Event], list[Event]]], order: list[int]) -> None:
    # no event is held twice: the value makes it different
    buckets = [
        ([(*event[:4], 2 * i) for i, event in enumerate(held)], [(*event[:4], 2 * i + 1) for i, event in enumerate(new)])
        for held, new in buckets
    ]
    found = merged(buckets, order)
    chunks = chunks_of(found)
    assert [bucket for bucket, _ in chunks] == sorted(bucket for bucket, _ in chunks)
    for bucket, (held, arrived) in enumerate(buckets):
        own = [events for owner, events in chunks if owner == bucket]
        flat = [event for events in own for event in events]
        assert sorted(flat) == sorted(held + arrived)
        assert [event[:4] for event in flat] == [event[:4] for event in ordered(held + arrived)]
        for left, right in pairwise(own):
            assert left[-1][0] < right[0][0]
        if not arrived:
            assert own == ([ordered(held)] if held else [])
        for events in own if arrived else []:
            assert len(events) <= LIMIT or len({event[0] for event in events}) == 1


def sizes(held: list[int], arrived: list[int]) -> list[int]:
    buckets = [([(ts, 1, 0, 0, 0) for ts in held], [(ts, 1, 0, 0, 1) for ts in arrived])]
    return [len(events) for _, events in chunks_of(merged(buckets, list(range(len(arrived)))))]


def test_appending_fills_chunks_and_inserting_halves_them() -> None:
    assert sizes([1, 2, 3, 4], [5]) == [4, 1]
    assert sizes([], list(range(10))) == [4, 4, 2]
    assert sizes([1, 2, 4, 5], [3]) == [3, 2]
    assert sizes([1, 2, 3, 20], list(range(4, 14))) == [4, 4, 4, 2]
    assert sizes([1, 2, 3], [0]) == [4]
    assert sizes([1, 2, 3, 4, 5, 6, 8], [7]) == [4, 4]


def test_a_run_of_equal_times_is_never_cut() -> None:
    assert sizes([1, 2, 3, 3], [3]) == [2, 3]
    assert sizes([7] * 6, [7]) == [7]
    assert sizes([7] * 6, [8, 8]) == [6, 2]
    assert sizes([1] + [7] * 6, [8]) == [1, 6, 1]


@pytest.mark.parametrize("half", [2, 3])
@pytest.mark.parametrize(("first", "second"), [*pairwise([0, 1, 2**62, 2**63 - 1, -(2**63), -2, -1])])
def test_ties_are_compared_as_unsigned_in_both_halves(half: int, first: int, second: int) -> None:
    def event(tie: int, value: int) -> Event:
        return (5, 1, tie, 0, value) if half == 2 else (5, 1, 3, tie, value)

    for held, arrives in (((first, 1), (second, 2)), ((second, 2), (first, 1))):
        found = merge(matrix_of([event(*held)]), np.array([0, 1]), np.array([0]), matrix_of([event(*arrives)]), ties=True)
        assert found.matrix[4].tolist() == [1, 2]


def test_an_appended_chunk_leaves_the_full_one_unchanged() -> None:
    held = matrix_of([(ts, 1, 0, 0, 0) for ts in range(CHUNK_EVENTS)])
    new = matrix_of([(CHUNK_EVENTS, 1, 0, 0, 1)])
    found = merge(held, np.array([0, CHUNK_EVENTS]), np.array([0]), new, ties=True)
    assert found.chunk_offsets.tolist() == [0, CHUNK_EVENTS, CHUNK_EVENTS + 1]
    assert found.matrix[:, :CHUNK_EVENTS].tolist() == held.tolist()


def test_only_the_buckets_with_new_events_change() -> None:
    def event(ts: int) -> Event:
        return (ts, 1, ts, 0, 0)

    for chosen in range(3):
        arrived: list[list[Event]] = [[], [], []]
        arrived[chosen] = [event(9)]
        held = [[event(1)], [event(2), event(3)], [event(4)]]
        found = merged(list(zip(held, arrived, strict=True)), [0])
        assert found.chunk_bucket.tolist() == [0, 1, 2]
        same = [events == held[bucket] for bucket, events in chunks_of(found)]
        assert same == [bucket != chosen for bucket in range(3)]


def test_many_small_buckets() -> None:
    buckets: list[tuple[list[Event], list[Event]]] = [([], [(bucket, 1, 0, 0, bucket)]) for bucket in range(LIMIT - 1)]
    assert [bucket for bucket, _ in chunks_of(merged(buckets, list(range(len(buckets)))))] == list(range(LIMIT - 1))


def test_without_ties_equal_times_keep_the_order_of_arrival() -> None:
    old = np.array([[5, 5], [1, 1], [9, 8]], np.int64)
    new = np.array([[5, 4, 5], [1, 1, 1], [3, 2, 1]], np.int64)
    found = merge(old, np.array([0, 2]), np.array([0, 0, 0]), new, ties=False)
    assert found.matrix[2].tolist() == [2, 9, 8, 3, 1]


@given(cases(), st.lists(st.integers(0, 60), max_size=6))
def test_summaries_are_of_each_chunk(case: Case, places: list[int]) -> None:
    plan = LayoutArrays.of(case.layout)
    count = case.matrix.shape[1]
    offsets = np.array([0, *sorted(min(place, count) for place in places), count], np.int64)
    found = summarise_chunks(plan, case.matrix, offsets)
    assert found.shape == (len(offsets) - 1, plan.measure_count, 11)
    for chunk, (start, end) in enumerate(pairwise(offsets)):
        part = np.ascontiguousarray(case.matrix[:, start:end])
        assert np.array_equal(found[chunk], accumulate.summarise_chunks(part, np.array([0, end - start]), plan.measures)[0])
