from __future__ import annotations

from dataclasses import FrozenInstanceError

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.kernel.accumulate import EARLIEST, merge_runs, summarise_chunks
from ofp_platform.kernel.native import BoolArray, Int64Array
from ofp_platform.kernel.query import DELAY, WINDOW, LayoutArrays, Query, make_query
from ofp_platform.kernel.windows import (
    NEVER,
    Evaluation,
    EventsMissing,
    Segments,
    evaluate,
    evaluate_state,
    segments_of_chunks,
)
from ofp_platform.registry.layout import KeyLayout, Measure, Predicate, Slot
from ofp_platform_tests.oracle.matrices import (
    SPAN,
    Case,
    cases,
    naive_distinct,
    naive_rows,
    naive_touch,
)


def evaluate_at(arrays: LayoutArrays, matrix: Int64Array, time: int) -> Int64Array:
    """int64[S, 11]: the accumulators of every slot."""
    return evaluate(make_query(arrays, range(arrays.slot_count)), matrix, time).accumulators


def distinct_count(arrays: LayoutArrays, slot: int, token: int, matrix: Int64Array, time: int) -> int:
    """Different values of the token field among the events of the slot's window."""
    return int(evaluate(make_query(arrays, (), [(slot, token)]), matrix, time).distinct[0])


def last_touch(arrays: LayoutArrays, matrix: Int64Array, mask: int, time: int, horizon: int = EARLIEST) -> int:
    """The greatest event time <= `time` and > `horizon` with a predicate of `mask`, or NEVER."""
    return int(evaluate(make_query(arrays, (), (), [mask]), matrix, time, horizon).touches[0])


def needed_chunks(query: Query, time: int, first: Int64Array, last: Int64Array) -> BoolArray:
    """bool[K]: the segments whose events `evaluate_state` must have; the summaries of the others are enough."""
    needed = np.zeros(len(first), np.bool_)
    for slot in query.slot_numbers.tolist():
        high = max(time - int(query.arrays.slots[slot, DELAY]), EARLIEST)
        for edge in (high, max(high - int(query.arrays.slots[slot, WINDOW]), EARLIEST)):
            needed |= (first <= edge) & (last > edge)
    for window, delay in query.distinct[:, 2:4].tolist():
        high = max(time - delay, EARLIEST)
        needed |= (first <= high) & (last > max(high - window, EARLIEST))
    return needed | ((first <= time) & (last > time)) if len(query.masks) else needed


moments = st.integers(-5, 2 * SPAN + 10)


def everything(case: Case, arrays: LayoutArrays, masks: list[int]) -> Query:
    slots = range(len(case.layout.slots))
    return make_query(arrays, slots, [(slot, token) for slot in slots for token in (0, 1)], masks)


@given(cases(), moments)
def test_accumulators_are_the_naive_ones(case: Case, time: int) -> None:
    assert evaluate_at(LayoutArrays.of(case.layout), case.matrix, time).tolist() == naive_rows(case, time)


@given(cases(), moments, st.integers(0, 2**62 - 1), st.integers(-1, SPAN))
def test_distinct_counts_and_touches_are_the_naive_ones(case: Case, time: int, mask: int, horizon: int) -> None:
    arrays = LayoutArrays.of(case.layout)
    for slot in range(len(case.layout.slots)):
        for token in (0, 1):
            assert distinct_count(arrays, slot, token, case.matrix, time) == naive_distinct(case, slot, token, time)
    expected = naive_touch(case, mask, time, horizon)
    assert last_touch(arrays, case.matrix, mask, time, horizon) == (NEVER if expected is None else expected)


@given(cases(), moments, st.data())
def test_a_query_answers_what_it_asks_and_nothing_else(case: Case, time: int, data: st.DataObject) -> None:
    chosen = data.draw(st.sets(st.integers(0, len(case.layout.slots) - 1)))
    found = evaluate(make_query(LayoutArrays.of(case.layout), chosen), case.matrix, time).accumulators.tolist()
    for slot, row in enumerate(naive_rows(case, time)):
        assert found[slot] == (row if slot in chosen else [0] * 11)


def cuts(matrix: Int64Array, wanted: set[int]) -> Int64Array:
    """Offsets of chunks: cut where wanted, but never between equal times."""
    ts = matrix[0]
    inner = [place for place in sorted(wanted) if 0 < place < len(ts) and ts[place - 1] != ts[place]]
    return np.array([0, *inner, len(ts)] if len(ts) else [0], np.int64)


def same(found: Evaluation, expected: Evaluation) -> bool:
    return all(np.array_equal(getattr(found, name), getattr(expected, name)) for name in ("accumulators", "distinct", "touches"))


@given(
    cases(), moments, st.sets(st.integers(1, 60), max_size=20), st.booleans(), st.integers(0, 2**62 - 1), st.integers(-1, SPAN)
)
def test_any_chunking_is_the_whole(case: Case, time: int, places: set[int], distinct: bool, mask: int, horizon: int) -> None:
    arrays = LayoutArrays.of(case.layout)
    query = everything(case, arrays, [mask]) if distinct else make_query(arrays, range(arrays.slot_count), (), [mask])
    offsets = cuts(case.matrix, places)
    summaries = summarise_chunks(case.matrix, offsets, arrays.measures)
    first, last = case.matrix[0, offsets[:-1]], case.matrix[0, offsets[1:] - 1]
    needed = needed_chunks(query, time, first, last)
    kept = [case.matrix[:, offsets[k] : offsets[k + 1]] for k in np.flatnonzero(needed)]
    sizes = np.concatenate([[0], np.cumsum([part.shape[1] for part in kept])]).astype(np.int64)
    empty = np.empty((case.matrix.shape[0], 0), np.int64)
    decoded = np.concatenate([*kept, empty], axis=1)
    segments = segments_of_chunks(first, last, summaries, needed, np.ascontiguousarray(decoded), sizes)
    expected = evaluate(query, case.matrix, time, horizon)
    assert same(evaluate_state(query, segments, time, horizon), expected)
    # with all events there, summaries only save work; without summaries, the events do
    full = segments_of_chunks(first, last, summaries, np.ones(len(first), np.bool_), case.matrix, offsets)
    assert same(evaluate_state(query, full, time, horizon), expected)
    bare = Segments(first, last, summaries[:0], offsets[:-1].copy(), offsets[1:].copy(), case.matrix)
    assert same(evaluate_state(query, bare, time, horizon), expected)
    if not distinct and horizon == -1:
        for chunk in np.flatnonzero(needed):
            missing = segments_of_chunks(first, last, summaries, needed, np.ascontiguousarray(decoded), sizes)
            missing.starts[chunk] = -1
            with pytest.raises(ValueError, match=f"segment {chunk} "):
                evaluate_state(query, missing, time, horizon)


@given(cases(), moments, st.sets(st.integers(1, 60), max_size=20), st.integers(1, 4), st.integers(0, 2**62 - 1))
def test_spans_of_chunks_are_segments_too(case: Case, time: int, places: set[int], width: int, mask: int) -> None:
    arrays = LayoutArrays.of(case.layout)
    query = make_query(arrays, range(arrays.slot_count), (), [mask])
    offsets = cuts(case.matrix, places)
    chunks = len(offsets) - 1
    summaries = summarise_chunks(case.matrix, offsets, arrays.measures)
    runs = np.array([*range(0, chunks, width), chunks] if chunks else [0], np.int64)
    spans = merge_runs(summaries, runs)
    first, last = case.matrix[0, offsets[runs[:-1]]], case.matrix[0, offsets[runs[1:]] - 1]
    open_spans = needed_chunks(query, time, first, last)
    rows, starts, ends, firsts, lasts = [], [], [], [], []
    for span in range(len(runs) - 1):
        if not open_spans[span]:
            rows.append(spans[span])
            starts.append(-1)
            ends.append(-1)
            firsts.append(first[span])
            lasts.append(last[span])
            continue
        for chunk in range(runs[span], runs[span + 1]):
            rows.append(summaries[chunk])
            starts.append(offsets[chunk])
            ends.append(offsets[chunk + 1])
            firsts.append(case.matrix[0, offsets[chunk]])
            lasts.append(case.matrix[0, offsets[chunk + 1] - 1])
    stacked = np.array(rows, np.int64).reshape(len(rows), arrays.measure_count, 11)
    arrays = [np.array(values, np.int64) for values in (firsts, lasts, starts, ends)]
    segments = Segments(arrays[0], arrays[1], stacked, arrays[2], arrays[3], case.matrix)
    assert same(evaluate_state(query, segments, time), evaluate(query, case.matrix, time))


def one_slot(window: int, delay: int) -> LayoutArrays:
    predicate = Predicate(("payment",), ())
    return LayoutArrays.of(KeyLayout("account", False, (predicate,), (), (), (Measure(0, -1),), (Slot(0, window, delay),)))


@pytest.mark.parametrize("time", [EARLIEST, EARLIEST + 1, 2**63 - 1])
def test_no_time_overflows(time: int) -> None:
    arrays = one_slot(window=2**40, delay=2**40)
    matrix = np.array([[-5, 0, 5], [1, 1, 1]], np.int64)
    assert evaluate_at(arrays, matrix, time)[0, 0] == 0
    assert needed_chunks(make_query(arrays, [0]), time, matrix[0, :1], matrix[0, -1:]).tolist() == [False]
    assert last_touch(arrays, matrix, 1, time) == (5 if time > 0 else NEVER)


def test_a_window_is_open_on_the_left_and_closed_on_the_right() -> None:
    arrays = one_slot(window=10, delay=3)
    matrix = np.array([[86, 87, 88, 97, 98], [1] * 5], np.int64)
    row = evaluate_at(arrays, matrix, 100)[0].tolist()
    assert (row[0], row[9], row[10]) == (2, 88, 97)


def test_arrays_may_be_read_only() -> None:
    arrays = one_slot(window=10, delay=0)
    matrix = np.frombuffer(np.array([[1, 2], [1, 1]], np.int64).tobytes(), np.int64).reshape(2, 2)
    assert evaluate_at(arrays, matrix, 5)[0, 0] == 2


@pytest.mark.parametrize("kind", [Segments, Evaluation])
def test_what_was_found_does_not_change(kind: type) -> None:
    with pytest.raises(FrozenInstanceError):
        object.__new__(kind).matrix = None


@pytest.mark.parametrize("seed", range(6))
def test_only_segments_across_an_edge_are_decoded(seed: int) -> None:
    """Many small chunks, two fields of each kind: the chunks that are needed are those of the definition, and they suffice."""
    random = np.random.default_rng(seed)
    measures = (Measure(0, -1), Measure(0, 0), Measure(1, 1))
    slots = tuple(Slot(measure, window, delay) for measure in range(3) for window in (1, 9, 40) for delay in (0, 6))
    predicates = (Predicate(("p",), ()), Predicate(("q",), ()))
    arrays = LayoutArrays.of(KeyLayout("account", False, predicates, ("x", "y"), ("u", "v"), measures, slots))
    count = 60
    matrix = np.ascontiguousarray(random.integers(-3, 4, (8, count)))
    matrix[0] = np.cumsum(random.integers(0, 3, count))
    matrix[1] = random.integers(0, 4, count)
    offsets = cuts(matrix, set(range(0, count, 3)))
    first, last = matrix[0, offsets[:-1]], matrix[0, offsets[1:] - 1]
    summaries = summarise_chunks(matrix, offsets, arrays.measures)
    counts = [(slot, token) for slot in (2, 9, 16) for token in (0, 1)]
    for time in range(seed - 2, int(matrix[0, -1]) + 8, 6):
        for some, counted, masks in (
            (range(18), [], [1, 2]),
            ([8], [], []),
            ([], counts, []),
            ([], [], [3]),
            (range(18), counts, [3]),
        ):
            query = make_query(arrays, some, counted, masks)
            edges = {time - slots[slot].delay for slot in some}
            edges |= {time - slots[slot].delay - slots[slot].window for slot in some} | ({time} if masks else set())
            across = np.zeros(len(first), np.bool_)
            for edge in edges:
                across |= (first <= edge) & (last > edge)
            for slot, _ in counted:
                high = time - slots[slot].delay
                across |= (first <= high) & (last > high - slots[slot].window)
            needed = needed_chunks(query, time, first, last)
            assert needed.tolist() == across.tolist()
            parts = [matrix[:, offsets[k] : offsets[k + 1]] for k in np.flatnonzero(needed)]
            sizes = np.cumsum([0, *(part.shape[1] for part in parts)]).astype(np.int64)
            decoded = np.ascontiguousarray(np.concatenate([matrix[:, :0], *parts], axis=1))
            segments = segments_of_chunks(first, last, summaries, needed, decoded, sizes)
            horizon = time - 20
            assert same(evaluate_state(query, segments, time, horizon), evaluate(query, matrix, time, horizon))


def small(seed: int) -> tuple[LayoutArrays, Int64Array, Int64Array]:
    """Two predicates over the same fields, windows with one end and with others; four chunks of three events."""
    random = np.random.default_rng(seed)
    measures = (Measure(0, 0), Measure(1, 0), Measure(1, 1))
    slots = tuple(Slot(measure, window, delay) for measure in range(3) for delay in (0, 2) for window in (4, 9))
    predicates = (Predicate(("p",), ()), Predicate(("q",), ()))
    arrays = LayoutArrays.of(KeyLayout("account", False, predicates, ("x", "y"), ("u", "v"), measures, slots))
    matrix = np.ascontiguousarray(random.integers(0, 3, (8, 12)))
    matrix[0], matrix[1] = np.arange(12), random.integers(1, 4, 12)
    return arrays, matrix, np.arange(0, 13, 3)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("slots", [(1,), (0, 1), (1, 5), (0, 1, 5), (2, 3), (0, 2), (5, 9), (1, 3, 5, 7)])
@pytest.mark.parametrize("tokens", [(0,), (1,), (0, 1), (1, 0)])
def test_each_distinct_count_is_its_own(seed: int, slots: tuple[int, ...], tokens: tuple[int, ...]) -> None:
    arrays, matrix, offsets = small(seed)
    counts = [(slot, token) for token in tokens for slot in slots]
    query = make_query(arrays, (), counts)
    first, last = matrix[0, offsets[:-1]], matrix[0, offsets[1:] - 1]
    bare = Segments(
        first, last, summarise_chunks(matrix, offsets, arrays.measures)[:0], offsets[:-1].copy(), offsets[1:].copy(), matrix
    )
    for time in range(-1, 26, 3):
        wanted = []
        for slot, token in counts:
            predicate, _, window, delay, _ = arrays.slots[slot].tolist()
            inside = (matrix[0] > time - delay - window) & (matrix[0] <= time - delay) & ((matrix[1] >> predicate) & 1 == 1)
            wanted.append(len(set(zip(*matrix[4 + 2 * token : 6 + 2 * token, inside].tolist(), strict=True))))
        assert evaluate(query, matrix, time).distinct.tolist() == wanted
        assert evaluate_state(query, bare, time).distinct.tolist() == wanted


@pytest.mark.parametrize(
    ("slots", "counts", "masks"), [((0, 3), (), ()), ((), ((0, 0), (3, 1)), ()), ((), (), (1, 2)), ((0,), ((3, 0),), (3,))]
)
def test_what_is_missing_is_named(slots: tuple[int, ...], counts: tuple[tuple[int, int], ...], masks: tuple[int, ...]) -> None:
    arrays, matrix, offsets = small(1)
    query = make_query(arrays, slots, counts, masks)
    first, last = matrix[0, offsets[:-1]], matrix[0, offsets[1:] - 1]
    summaries = summarise_chunks(matrix, offsets, arrays.measures)
    missed = set()
    for time in range(-1, 16):
        needed = needed_chunks(query, time, first, last)
        for chunk in np.flatnonzero(needed).tolist():
            starts = offsets[:-1].copy()
            starts[chunk] = -1
            with pytest.raises(EventsMissing, match=f"segment {chunk} are needed at {time},"):
                evaluate_state(query, Segments(first, last, summaries, starts, offsets[1:].copy(), matrix), time)
            missed.add(chunk)
        starts = np.where(needed, offsets[:-1], -1)
        found = evaluate_state(query, Segments(first, last, summaries, starts, offsets[1:].copy(), matrix), time)
        assert same(found, evaluate(query, matrix, time))
    assert missed == {0, 1, 2, 3}


def test_without_summaries_every_segment_must_have_its_events() -> None:
    arrays, matrix, offsets = small(2)
    first, last = matrix[0, offsets[:-1]], matrix[0, offsets[1:] - 1]
    none = summarise_chunks(matrix, offsets, arrays.measures)[:0]
    matrix[1, 3:] = 0  # the mask is met in the first chunk only
    starts = offsets[:-1].copy()
    starts[1] = -1
    segments = Segments(first, last, none, starts, offsets[1:].copy(), matrix)
    with pytest.raises(EventsMissing, match="segment 1 "):
        evaluate_state(make_query(arrays, (), (), [3]), segments, 11)
    with pytest.raises(EventsMissing, match="segment 1 "):
        evaluate_state(make_query(arrays, [1]), segments, 8)
    assert evaluate_state(make_query(arrays, (), (), [3]), segments, 11, 5).touches.tolist() == [NEVER]


def test_a_touch_at_the_horizon_of_a_whole_matrix_does_not_count() -> None:
    arrays = one_slot(window=10, delay=0)
    matrix = np.array([[1, 2], [1, 1]], np.int64)
    query = make_query(arrays, [0], (), [1])
    assert evaluate(query, matrix, 5, 1).touches.tolist() == [2]
    assert evaluate(query, matrix, 5, 2).touches.tolist() == [NEVER]


@pytest.mark.parametrize(("horizon", "touched"), [(9, 10), (10, NEVER), (11, NEVER)])
def test_a_touch_at_the_horizon_does_not_count_though_a_later_event_stands_there(horizon: int, touched: int) -> None:
    predicates = (Predicate(("p",), ()), Predicate(("q",), ()))
    arrays = LayoutArrays.of(KeyLayout("account", False, predicates, (), (), (Measure(0, -1), Measure(1, -1)), (Slot(0, 5, 0),)))
    matrix = np.array([[10, 20], [1, 2]], np.int64)
    assert last_touch(arrays, matrix, 1, 30, horizon) == touched
    assert last_touch(arrays, matrix, 2, 30, horizon) == 20
