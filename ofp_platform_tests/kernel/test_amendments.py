"""Amendments against the naive way: event by event, whichever decides."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.kernel.accumulate import EARLIEST, summarise_chunks
from ofp_platform.kernel.amendments import (
    AmendedKeys,
    apply_amendments,
    deciding,
    in_force,
    is_amendment,
    newest_amendments,
    split_amended,
)
from ofp_platform.kernel.columns import ColumnQuery, KeyedEvents, KeyedRows, as_amended
from ofp_platform.kernel.query import LayoutArrays, query_of
from ofp_platform.kernel.windows import EventsMissing, evaluate, evaluate_state, segments_of_chunks
from ofp_platform.registry.compile import compile_pack
from ofp_platform.registry.layout import (
    AMENDMENT_ROWS,
    AMENDS_KIND_ROW,
    AMENDS_MASK_ROW,
    AMENDS_TIME_ROW,
    EVENT,
    FIRST_AMENDMENT_ROW,
    FIXED_ROW,
    MASK_ROW,
    REPLACE,
    TARGET_ROW,
    TIME_ROW,
    VOID,
    KeyLayout,
)
from ofp_platform.registry.pack import load_pack
from ofp_platform_tests.oracle.matrices import SPAN, Matrix, sorted_matrix

REGISTRY = compile_pack(
    load_pack("""
pack_id: amended
revision: 1
events:
  payment:
    keys: {account: account_id}
    fields: {amount: integer, status: string}
    amendments: {by: [payment], may_change: [amount]}
groups:
  - name: sums
    version: v1
    key_type: account
    ttl_seconds: 5
    features:
      - {name: count, aggregation: count, events: [payment], window: 7us}
      - {name: sum, aggregation: sum, events: [payment], value: amount, window: 20us, where: {status: ok}}
      - {name: last, aggregation: last, events: [payment], value: amount, window: 50us, delay: 1us}
      - {name: kinds, aggregation: distinct_count, events: [payment], value: amount, window: 20us}
      - {name: middle, aggregation: median, events: [payment], value: amount, window: 20us}
""")
)
LAYOUT = REGISTRY.layouts["account"]
ARRAYS = LayoutArrays.of(LAYOUT)
GROUPS = [REGISTRY.groups["sums", "v1"]]
QUERY = query_of(ARRAYS, GROUPS)
REACH = 51  # of the longest window, with its delay, in microseconds


@st.composite
def matrices(draw: st.DrawFn, max_columns: int = 30) -> Matrix:
    """Events and amendments of one key, few targets and crowded times, so that they meet."""
    count = draw(st.integers(0, max_columns))
    columns = []
    for place in range(count):
        column = np.zeros(LAYOUT.column_count, np.int64)
        kind = draw(st.sampled_from((EVENT, EVENT, VOID, REPLACE)))
        column[TIME_ROW] = draw(st.integers(0, SPAN))
        column[2:4] = draw(st.sampled_from((-1, 0, 1))), place
        column[TARGET_ROW : TARGET_ROW + 2] = draw(st.integers(0, 1)), 7
        column[FIXED_ROW : FIXED_ROW + 2] = 5, draw(st.integers(0, 1))
        mask = draw(st.integers(0, 2 ** len(LAYOUT.predicates) - 1))
        if kind == EVENT:
            column[MASK_ROW] = mask
        else:
            column[AMENDS_TIME_ROW] = draw(st.integers(0, SPAN + 10))
            column[AMENDS_KIND_ROW] = kind
            column[AMENDS_MASK_ROW] = mask if kind == REPLACE else 0
        column[LAYOUT.first_integer_row :] = [
            draw(st.integers(-2, 2)) for _ in range(LAYOUT.column_count - LAYOUT.first_integer_row)
        ]
        columns.append(column)
    matrix = np.stack(columns, axis=1) if columns else np.empty((LAYOUT.column_count, 0), np.int64)
    return sorted_matrix(matrix)


def naive(matrix: Matrix, time: int, known: np.ndarray | None = None) -> Matrix:
    """The events alone, as amended."""
    columns = matrix.T.tolist()
    flags = [True] * len(columns) if known is None else known.tolist()
    found = []
    for column, is_known in zip(columns, flags, strict=True):
        if column[AMENDS_KIND_ROW] != EVENT or not is_known:
            continue
        able = [
            (other[AMENDS_TIME_ROW], *(half % 2**64 for half in other[2:4]), other)
            for other, other_known in zip(columns, flags, strict=True)
            if other_known
            and other[AMENDS_KIND_ROW] != EVENT
            and other[AMENDS_TIME_ROW] <= time
            and other[TIME_ROW] == column[TIME_ROW]
            and other[TARGET_ROW:FIXED_ROW] == column[TARGET_ROW:FIXED_ROW]
            and (other[AMENDS_KIND_ROW] == VOID or other[FIXED_ROW:AMENDS_TIME_ROW] == column[FIXED_ROW:AMENDS_TIME_ROW])
        ]
        if able:
            by = max(able)[3]
            first = LAYOUT.first_integer_row
            column = [column[0], by[AMENDS_MASK_ROW], *column[2:first], *by[first:]]
        found.append(column)
    return np.array(found, np.int64).reshape(len(found), LAYOUT.column_count).T.copy()


def same(found: object, wanted: object) -> None:
    assert repr(found) == repr(wanted)


def values(matrix: Matrix, time: int) -> tuple[object, list[int]]:
    made = evaluate(QUERY, matrix, time)
    return made.rows, made.touches.tolist()


def values_since(matrix: Matrix, time: int) -> object:
    """What rows that ask about nothing before the longest window see: an older touch is none."""
    rows, touches = values(matrix, time)
    return rows, [touch if touch > time - REACH else EARLIEST for touch in touches]


def test_the_rows_of_an_amendable_layout() -> None:
    assert LAYOUT.amendable
    assert LAYOUT.ties
    assert LAYOUT.first_integer_row == FIRST_AMENDMENT_ROW + AMENDMENT_ROWS


@given(matrices(), st.integers(-1, SPAN + 12))
def test_the_events_in_force_are_those_of_the_naive_way(matrix: Matrix, time: int) -> None:
    made = in_force(LAYOUT, matrix, time)
    same(made[:, ~is_amendment(made)].tolist(), naive(matrix, time).tolist())
    assert not made[MASK_ROW, is_amendment(made)].any()
    same(in_force(LAYOUT, made, time).tolist(), made.tolist())
    same(values(matrix, time), values(naive(matrix, time), time))


@given(matrices())
def test_no_amendment_decides_where_none_counts(matrix: Matrix) -> None:
    nothing = np.zeros(matrix.shape[1], np.bool_)
    assert (deciding(matrix, nothing) == -1).all()
    assert apply_amendments(LAYOUT, matrix, nothing) is matrix


def test_a_layout_that_is_not_amendable_is_left_alone() -> None:
    plain = KeyLayout("account", False, (), ("x",), (), (), ())
    matrix = np.ones((3, 4), np.int64)
    assert in_force(plain, matrix) is matrix
    assert newest_amendments(plain, matrix, np.array([0, 4])) is None
    keys = AmendedKeys(matrix, np.array([0]), np.array([4]), np.array([0, 1]), None)
    assert split_amended(plain, keys, np.array([9]), None, np.array([0])) is keys


def cuts(matrix: Matrix, most: int) -> list[int]:
    """Where chunks of about that many events begin: never between events of one time."""
    edges = [0]
    for place in range(1, matrix.shape[1]):
        if matrix[TIME_ROW, place] != matrix[TIME_ROW, place - 1] and place - edges[-1] >= most:
            edges.append(place)
    return [*edges, matrix.shape[1]]


@given(matrices(), st.integers(1, 8), st.integers(-1, SPAN + 12), st.integers(0, 2**31))
def test_summaries_of_amended_chunks_are_used_from_the_newest_amendment_on(
    matrix: Matrix, most: int, time: int, seed: int
) -> None:
    if not matrix.shape[1]:
        return
    offsets = np.array(cuts(matrix, most), np.int64)
    newest = newest_amendments(LAYOUT, matrix, offsets)
    assert newest is not None
    summaries = summarise_chunks(in_force(LAYOUT, matrix), offsets, ARRAYS.measures)
    first_ts, last_ts = matrix[TIME_ROW, offsets[:-1]], matrix[TIME_ROW, offsets[1:] - 1]
    edges = {time, *(time - int(row[3]) for row in ARRAYS.slots), *(time - int(row[3]) - int(row[2]) for row in ARRAYS.slots)}
    crossed = np.array([any(low <= edge < high for edge in edges) for low, high in zip(first_ts, last_ts, strict=True)])
    whole = np.random.default_rng(seed).random(len(first_ts)) < 0.5
    counted = QUERY.merged_slots
    has_events = crossed | whole | (newest > time)
    parts = [matrix[:, low:high] for low, high, kept in zip(offsets[:-1], offsets[1:], has_events, strict=True) if kept]
    kept = np.concatenate([matrix[:, :0], *parts], axis=1)
    bounds = np.cumsum([0, *(part.shape[1] for part in parts)])
    segments = segments_of_chunks(first_ts, last_ts, summaries, has_events, np.ascontiguousarray(kept), bounds, None, newest)
    summed = replace(QUERY, distinct=QUERY.distinct[:0], whole=QUERY.whole[:0])  # all that needs no events of its own
    made = evaluate_state(summed, segments, time).accumulators
    same(made[counted].tolist(), evaluate(QUERY, naive(matrix, time), time).accumulators[counted].tolist())
    if (is_early := (newest > time) & (first_ts <= time)).any():
        missing = has_events & ~is_early
        parts = [matrix[:, low:high] for low, high, one in zip(offsets[:-1], offsets[1:], missing, strict=True) if one]
        kept = np.ascontiguousarray(np.concatenate([matrix[:, :0], *parts], axis=1))
        bounds = np.cumsum([0, *(part.shape[1] for part in parts)])
        lacking = segments_of_chunks(first_ts, last_ts, summaries, missing, kept, bounds, None, newest)
        with pytest.raises(EventsMissing, match="was amended after"):
            evaluate_state(summed, lacking, time)


@given(st.lists(matrices(12), min_size=1, max_size=3), st.lists(st.integers(0, SPAN + 12), max_size=12), st.integers(0, 2**31))
def test_rows_see_the_amendments_that_they_know_and_that_count(found: list[Matrix], moments: list[int], seed: int) -> None:
    rng = np.random.default_rng(seed)
    sizes = np.array([matrix.shape[1] for matrix in found])
    ends = np.cumsum(sizes)
    matrix = np.ascontiguousarray(np.concatenate(found, axis=1))
    known_from = rng.integers(0, 4, matrix.shape[1])
    times = np.sort(np.array(moments, np.int64))
    counts = np.full(len(found), len(times))
    offsets = np.concatenate([[0], np.cumsum(counts)])
    rows = KeyedRows(offsets, np.tile(times, len(found)), rng.integers(0, 4, len(found) * len(times)))
    for is_partial in (False, True):
        own_rows = rows if is_partial else KeyedRows(rows.offsets, rows.times)
        events = KeyedEvents(matrix, ends - sizes, ends, known_from if is_partial else None)
        split, questions = as_amended(ColumnQuery(ARRAYS, GROUPS), events, own_rows, own_rows.times - REACH)
        assert questions.offsets[-1] == len(rows.times)
        for key, (begin, end) in enumerate(zip(questions.offsets[:-1], questions.offsets[1:], strict=True)):
            for row in range(begin, end):
                original = found[row // max(len(times), 1)]
                start = int((ends - sizes)[row // len(times)])
                own_known = known_from[start : start + original.shape[1]]
                known = own_known <= rows.known_until[row] if is_partial and rows.known_until is not None else None
                columns = slice(split.starts[key], split.ends[key])
                part = split.matrix[:, columns]
                if split.known_from is not None and rows.known_until is not None:
                    part = part[:, split.known_from[columns] <= rows.known_until[row]]
                time = int(rows.times[row])
                inert = part.copy()
                inert[AMENDS_KIND_ROW] = EVENT
                same(values_since(inert, time), values_since(naive(original, time, known), time))
