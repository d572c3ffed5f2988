"""The arrays that the loops read, spelled out."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from ofp_platform.kernel.query import LayoutArrays, make_query, operands_of, query_of
from ofp_platform.registry.aggregations import Aggregation
from ofp_platform.registry.layout import CompiledFeature, CompiledGroup, CompiledOperand, KeyLayout, Measure, Predicate, Slot

PREDICATES = (Predicate(("p",), ()), Predicate(("q",), ()))
MEASURES = (Measure(0, -1), Measure(0, 1), Measure(1, 0))
SLOTS = (Slot(1, 50, 3), Slot(0, 9, 0), Slot(1, 20, 3), Slot(1, 70, 0), Slot(2, 5, 1))


def layout(ties: bool) -> KeyLayout:
    return KeyLayout("account", ties, PREDICATES, ("x", "y"), ("u", "v"), MEASURES, SLOTS)


def test_a_plan_points_at_the_rows_of_the_matrix() -> None:
    plain, tied = LayoutArrays.of(layout(False)), LayoutArrays.of(layout(True))
    assert plain.layout == layout(False)
    assert plain.measures.tolist() == [[0, -1], [0, 3], [1, 2]]
    assert tied.measures.tolist() == [[0, -1], [0, 5], [1, 4]]
    assert plain.slots.tolist() == [[0, 3, 50, 3, 1], [0, -1, 9, 0, 0], [0, 3, 20, 3, 1], [0, 3, 70, 0, 1], [1, 2, 5, 1, 2]]
    assert tied.slots[:, 1].tolist() == [5, -1, 5, 5, 4]
    assert plain.token_rows.tolist() == [4, 6]
    assert tied.token_rows.tolist() == [6, 8]
    assert (plain.slot_count, plain.measure_count) == (5, 3)


def test_a_plan_of_nothing_has_the_shapes_of_one() -> None:
    empty = LayoutArrays.of(KeyLayout("account", False, (), (), (), (), ()))
    assert (empty.slots.shape, empty.measures.shape, empty.token_rows.shape) == ((0, 5), (0, 2), (0,))
    query = make_query(empty, ())
    assert (query.slot_numbers.shape, query.distinct.shape, query.masks.shape) == ((0,), (0, 5), (0,))
    assert (query.distinct_index, query.finalisers) == ({}, {})


def test_windows_with_one_end_follow_each_other_growing() -> None:
    arrays = LayoutArrays.of(layout(False))
    assert make_query(arrays, range(5)).slot_numbers.tolist() == [1, 3, 2, 0, 4]
    assert make_query(arrays, [4, 0, 0, 2, 4]).slot_numbers.tolist() == [2, 0, 4]  # each once


def test_distinct_counts_follow_each_other_likewise_and_are_asked_once() -> None:
    arrays = LayoutArrays.of(layout(False))
    pairs = [(4, 0), (0, 1), (2, 0), (0, 0), (3, 0), (2, 0), (1, 0), (0, 1)]
    query = make_query(arrays, (), pairs, [3, 1])
    assert query.distinct_index == {(4, 0): 0, (0, 1): 1, (2, 0): 2, (0, 0): 3, (3, 0): 4, (1, 0): 5}
    assert query.distinct.tolist() == [
        [0, 4, 9, 0, 5],
        [0, 4, 70, 0, 4],
        [0, 4, 20, 3, 2],
        [0, 4, 50, 3, 3],
        [0, 6, 50, 3, 1],
        [1, 4, 5, 1, 0],
    ]
    assert query.masks.tolist() == [3, 1]
    assert query.slot_numbers.tolist() == []


def test_a_query_of_groups_asks_for_every_operand() -> None:
    count, shops = CompiledOperand(Aggregation.COUNT, 1), CompiledOperand(Aggregation.DISTINCT_COUNT, 2, token=1)
    mean, seen = CompiledOperand(Aggregation.MEAN, 0, 2), CompiledOperand(Aggregation.DISTINCT_COUNT, 4, token=0)
    first = CompiledGroup(
        "a", "v1", "account", 9, 2, 60, (CompiledFeature("c", count, None, None), CompiledFeature("r", mean, shops, 6)), (), ()
    )
    second = CompiledGroup("b", "v1", "account", 9, 1, 60, (CompiledFeature("d", seen, None, None),), (), ())
    assert operands_of(first) == [count, mean, shops]
    query = query_of(LayoutArrays.of(layout(False)), [first, second])
    assert query.slot_numbers.tolist() == [1, 0]
    assert query.distinct_index == {(2, 1): 0, (4, 0): 1}
    assert query.masks.tolist() == [2, 1]
    assert query_of(query.arrays, [second]).masks.tolist() == [1]


def test_values_of_the_third_column_stand_in_the_third_row_of_values() -> None:
    wide = KeyLayout("account", False, PREDICATES, ("x", "y", "z"), ("u",), (Measure(0, 2), Measure(1, 1)), (Slot(0, 5, 0),))
    arrays = LayoutArrays.of(wide)
    assert arrays.measures.tolist() == [[0, 4], [1, 3]]
    assert arrays.slots.tolist() == [[0, 4, 5, 0, 0]]
    assert arrays.token_rows.tolist() == [5]


def test_plans_and_queries_do_not_change_and_are_told_apart() -> None:
    arrays = LayoutArrays.of(layout(False))
    query = make_query(arrays, [0])
    assert arrays != LayoutArrays.of(layout(False))
    assert query != make_query(arrays, [0])
    assert len({arrays, query}) == 2
    with pytest.raises(FrozenInstanceError):
        arrays.slots = arrays.measures  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        query.slot_numbers = query.masks  # type: ignore[misc]
