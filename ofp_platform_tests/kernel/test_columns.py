"""Columns of many keys and times against one key at one time: the same values, whatever a row may know."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, dataclass
from functools import cache

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ofp_platform.kernel import columns
from ofp_platform.kernel.columns import ColumnQuery, FeatureColumn, KeyedEvents, KeyedRows, feature_columns
from ofp_platform.kernel.finalise import group_values
from ofp_platform.kernel.query import LayoutArrays, query_of
from ofp_platform.kernel.windows import evaluate
from ofp_platform.registry.aggregations import Aggregation
from ofp_platform.registry.compile import CompiledRegistry, compile_pack
from ofp_platform.registry.exact_value import ExactValue, Unservable
from ofp_platform.registry.layout import (
    CompiledFeature,
    CompiledGroup,
    CompiledOperand,
    KeyLayout,
    Measure,
    Predicate,
    Slot,
)
from ofp_platform.registry.pack import load_pack
from ofp_platform.registry.text_words import TEXT_WORDS, text_of, words_of
from ofp_platform.vocabulary.canonical import MAX_INTEGER
from ofp_platform_tests.oracle.matrices import sorted_matrix
from ofp_platform_tests.oracle.strategies import PACK, SECOND, SHOPS, START

SIZES = {"tiny": 3, "cents": 100_000, "large": 2**45}


@cache
def registry() -> CompiledRegistry:
    return compile_pack(load_pack(PACK))


def groups_of(key_type: str) -> list[CompiledGroup]:
    return [group for _, group in sorted(registry().groups.items()) if group.key_type == key_type]


@dataclass(frozen=True)
class Crowd:
    """Events and questions of a few keys."""

    events: KeyedEvents
    rows: KeyedRows


def crowd(key_type: str, seed: int, keys: int, most: int, size: int, knowing: bool) -> Crowd:
    """Crowded times at the edges of windows, ties, a key without events and one without rows among the others."""
    rng = np.random.default_rng(seed)
    layout = registry().layouts[key_type]
    parts, starts, ends, offsets, times = [], [], [], [0], []
    for _ in range(keys):
        count = int(rng.integers(0, most + 1))
        matrix = np.zeros((layout.column_count, count), np.int64)
        matrix[0] = START + rng.integers(0, 25, count) * SECOND + rng.choice((-1, 0, 0, 0, 1), count)
        matrix[1] = rng.integers(0, 2 ** len(layout.predicates), count)
        if layout.ties:
            matrix[2:4] = rng.integers(-(2**63), 2**63 - 1, (2, count))
        for row in range(layout.first_integer_row, layout.first_token_row):
            is_boolean = layout.integer_fields[row - layout.first_integer_row] == "online"
            matrix[row] = rng.integers(0, 2, count) if is_boolean else rng.integers(-size, size + 1, count)
        tokens = slice(layout.first_token_row, layout.first_text_row)
        matrix[tokens] = rng.integers(0, 3, (layout.first_text_row - layout.first_token_row, count))
        for row in range(layout.first_text_row, layout.column_count, TEXT_WORDS):
            matrix[row : row + TEXT_WORDS] = words_of(rng.choice(SHOPS, count).tolist())
        parts.append(sorted_matrix(matrix) if layout.ties else matrix[:, np.argsort(matrix[0], kind="stable")])
        starts.append(ends[-1] if ends else 0)
        ends.append(starts[-1] + count)
        asked = np.sort(START + rng.integers(0, 40, int(rng.integers(0, 6))) * SECOND + rng.choice((-1, 0, 1)))
        times.append(asked)
        offsets.append(offsets[-1] + len(asked))
    matrix = np.ascontiguousarray(np.concatenate(parts, axis=1))
    moments = np.concatenate(times)
    known_from = rng.integers(0, 12, matrix.shape[1]) if knowing else None
    known_until = rng.integers(-1, 13, len(moments)) if knowing else None
    return Crowd(
        KeyedEvents(matrix, np.array(starts, np.int64), np.array(ends, np.int64), known_from),
        KeyedRows(np.array(offsets, np.int64), moments, known_until),
    )


def value_of(column: FeatureColumn, row: int) -> ExactValue:
    if not column.valid[row]:
        assert column.low[row] == 0
        assert column.high is None or column.high[row] == 0
        return None
    low = int(column.low[row])
    if column.items is not None:
        begin = int(column.low[:row].sum())
        items = column.items[begin : begin + low].tolist()
        items = items if column.texts is None else [text_of(column.texts[rank]) for rank in items]
        if column.numbers is None:
            return items
        numbers = column.numbers[begin : begin + low].tolist()
        return [{"category": category, "value": value} for category, value in zip(items, numbers, strict=True)]
    if column.texts is not None:
        return text_of(column.texts[low])
    if column.high is None:
        return low
    assert column.scale is not None
    return (int(column.high[row]) << 64) + (low & (2**64 - 1)), column.scale


def expected(key_type: str, crowd: Crowd) -> list[dict[tuple[tuple[str, str], str], ExactValue]]:
    groups = groups_of(key_type)
    query = query_of(LayoutArrays.of(registry().layouts[key_type]), groups)
    events, rows = crowd.events, crowd.rows
    found = []
    for key in range(len(events.starts)):
        own = events.matrix[:, events.starts[key] : events.ends[key]]
        for row in range(int(rows.offsets[key]), int(rows.offsets[key + 1])):
            known = np.ones(own.shape[1], np.bool_)
            if events.known_from is not None and rows.known_until is not None:
                known = events.known_from[events.starts[key] : events.ends[key]] <= rows.known_until[row]
            time = int(rows.times[row])
            evaluation = evaluate(query, np.ascontiguousarray(own[:, known]), time)
            values = {}
            for group in groups:
                for name, value in group_values(group, query, evaluation, time).items():
                    values[(group.name, group.version), name] = value
            found.append(values)
    return found


def hold(key_type: str, crowd: Crowd) -> None:
    plan = ColumnQuery(LayoutArrays.of(registry().layouts[key_type]), groups_of(key_type))
    values = expected(key_type, crowd)
    wanted = [{name: None if isinstance(value, Unservable) else value for name, value in row.items()} for row in values]
    made = feature_columns(plan, crowd.events, crowd.rows)
    for column in made:
        assert column.beyond == sum(isinstance(row[column.group, column.name], Unservable) for row in values)
        assert column.items is None or len(column.items) == column.low.sum()
    got = [{(column.group, column.name): value_of(column, row) for column in made} for row in range(len(crowd.rows.times))]
    assert got == wanted


@given(
    st.sampled_from(("account", "merchant")),
    st.integers(0, 2**32),
    st.integers(1, 4),
    st.integers(0, 30),
    st.sampled_from((*SIZES.values(), MAX_INTEGER)),
    st.booleans(),
)
@example("account", 1, 3, 30, SIZES["cents"], True)
@example("account", 2, 3, 30, SIZES["large"], False)
def test_columns_are_what_the_kernel_says_row_by_row(
    key_type: str, seed: int, keys: int, most: int, size: int, knowing: bool
) -> None:
    hold(key_type, crowd(key_type, seed, keys, most, size, knowing))


@pytest.mark.parametrize("knowing", [False, True])
def test_pieces_do_not_show(monkeypatch: pytest.MonkeyPatch, knowing: bool) -> None:
    monkeypatch.setattr(columns, "PIECE_ROWS", 4)
    monkeypatch.setattr(columns, "LARGE_PIECE_ROWS", 3)
    for seed in range(20):
        hold("account", crowd("account", seed, 6, 40, SIZES["cents"], knowing))
    for seed in range(6):  # values that machine words cannot hold, in every piece
        hold("account", crowd("account", seed, 6, 12, 2**50, knowing))


def test_what_machine_words_cannot_hold_is_computed_all_the_same() -> None:
    undecided = 0
    for size in (2**45, 2**50):
        case = crowd("account", 7, 6, 40, size, False)
        hold("account", case)
        plan = ColumnQuery(LayoutArrays.of(registry().layouts["account"]), groups_of("account"))
        made = feature_columns(plan, case.events, case.rows)
        undecided += sum(int((column.high[column.valid] > 0).sum()) for column in made if column.high is not None)
    assert undecided > 0


def test_knowledge_is_told_of_events_and_of_rows() -> None:
    case = crowd("account", 3, 2, 5, 3, True)
    plan = ColumnQuery(LayoutArrays.of(registry().layouts["account"]), groups_of("account"))
    with pytest.raises(ValueError, match="come together"):
        feature_columns(plan, case.events, KeyedRows(case.rows.offsets, case.rows.times))
    silent = KeyedEvents(case.events.matrix, case.events.starts, case.events.ends)
    with pytest.raises(ValueError, match="come together"):
        feature_columns(plan, silent, case.rows)


@pytest.mark.parametrize(
    ("offsets", "wanted"),
    [
        ([0], []),
        ([0, 0], [(0, 1, 0, [0, 0])]),
        ([0, 4], [(0, 1, 0, [0, 4])]),
        ([0, 2, 4, 5], [(0, 2, 0, [0, 2, 4]), (2, 3, 4, [0, 1])]),
        ([0, 1, 1, 6, 9], [(0, 2, 0, [0, 1, 1]), (2, 3, 1, [0, 3]), (2, 3, 4, [0, 2]), (3, 4, 6, [0, 3])]),
        ([0, 3, 9, 10], [(0, 1, 0, [0, 3]), (1, 2, 3, [0, 3]), (1, 2, 6, [0, 3]), (2, 3, 9, [0, 1])]),
    ],
)
def test_a_piece_is_some_whole_keys_or_a_part_of_one(
    monkeypatch: pytest.MonkeyPatch, offsets: list[int], wanted: list[tuple[int, int, int, list[int]]]
) -> None:
    monkeypatch.setattr(columns, "PIECE_ROWS", 4)
    monkeypatch.setattr(columns, "LARGE_PIECE_ROWS", 3)
    times = np.arange(100, 100 + offsets[-1])
    pieces = list(columns._pieces(KeyedRows(np.array(offsets, np.int64), times, times + 1)))
    assert [(piece.keys.start, piece.keys.stop, piece.first, piece.offsets.tolist()) for piece in pieces] == wanted
    assert np.concatenate([times[:0], *(piece.times for piece in pieces)]).tolist() == times.tolist()
    for piece in pieces:
        assert piece.known_until is not None
        assert piece.known_until.tolist() == (piece.times + 1).tolist()


def wide_plan(delay: int = 3) -> ColumnQuery:
    layout = KeyLayout("account", False, (Predicate((), ()),), ("x",), ("u",), (Measure(0, 0),), (Slot(0, 50, delay),))
    total, count, shops = (
        CompiledOperand(Aggregation.SUM, 0),
        CompiledOperand(Aggregation.COUNT, 0),
        CompiledOperand(Aggregation.DISTINCT_COUNT, 0, token=0),
    )
    features = (CompiledFeature("each", total, count, 20), CompiledFeature("shops", shops, None, None))
    return ColumnQuery(LayoutArrays.of(layout), [CompiledGroup("g", "v1", "account", 9, 1, 53, features, (), ())])


@pytest.mark.parametrize(("value", "fits"), [(10**18 - 1, True), (1 - 10**18, True), (10**18, False), (-(10**18), False)])
def test_a_decimal_has_at_most_38_digits(value: int, fits: bool) -> None:
    plan = wide_plan()
    matrix = np.array([[5], [1], [value], [0], [0]], np.int64)
    events = KeyedEvents(matrix, np.array([0]), np.array([1]))
    rows = KeyedRows(np.array([0, 3]), np.array([7, 8, 90], np.int64))
    each, shops = feature_columns(plan, events, rows)
    assert [value_of(each, row) for row in range(3)] == [None, (value * 10**20, 20) if fits else None, None]
    assert (each.beyond, shops.beyond) == (int(not fits), 0)
    assert [value_of(shops, row) for row in range(3)] == [0, 1, 0]


def test_a_ratio_of_what_no_word_holds_and_of_nothing_is_null_in_every_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "PIECE_ROWS", 1)
    slots = (Slot(0, 50, 0), Slot(0, 1, 0))
    layout = KeyLayout("account", False, (Predicate((), ()),), ("x",), (), (Measure(0, 0),), slots)
    ratio = CompiledFeature("ratio", CompiledOperand(Aggregation.SUM, 0), CompiledOperand(Aggregation.COUNT, 1), 0)
    share = CompiledFeature("share", CompiledOperand(Aggregation.SUM, 0), CompiledOperand(Aggregation.COUNT, 0), 0)
    plan = ColumnQuery(LayoutArrays.of(layout), [CompiledGroup("g", "v1", "account", 9, 1, 50, (ratio, share), (), ())])
    matrix = np.array([[5, 5], [1, 1], [2**62, 2**62]], np.int64)
    events = KeyedEvents(matrix, np.array([0, 0]), np.array([2, 2]))
    of_few, of_all = feature_columns(plan, events, KeyedRows(np.array([0, 1, 2]), np.array([5, 20], np.int64)))
    assert [value_of(of_few, row) for row in range(2)] == [(2**62, 0), None]
    assert [value_of(of_all, row) for row in range(2)] == [(2**62, 0), (2**62, 0)]


def test_the_reach_is_that_of_the_longest_window_with_its_delay() -> None:
    assert wide_plan(3).reach == 53
    assert wide_plan(0).reach == 50
    shops_only = wide_plan(7)
    group = CompiledGroup("g", "v1", "account", 9, 1, 57, (shops_only.features[1][1],), (), ())
    assert ColumnQuery(shops_only.arrays, [group]).reach == 57
    assert ColumnQuery(shops_only.arrays, []).reach == 0


@pytest.mark.parametrize("kind", [KeyedEvents, KeyedRows, FeatureColumn])
def test_columns_do_not_change_and_are_told_apart(kind: type) -> None:
    with pytest.raises(FrozenInstanceError):
        object.__new__(kind).times = None
    assert object.__new__(kind) != object.__new__(kind)
