"""Every aggregation of the table by every path: online, offline and the oracle alike; and one that only some parts know."""

from __future__ import annotations

import json
import subprocess
import sys
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ofp_platform
from ofp_platform.kernel.accumulate import EARLIEST
from ofp_platform.kernel.columns import ColumnQuery, FeatureColumn, KeyedEvents, KeyedRows, feature_columns
from ofp_platform.kernel.finalise import group_values
from ofp_platform.kernel.query import LayoutArrays, query_of
from ofp_platform.kernel.windows import evaluate
from ofp_platform.registry.aggregations import RULES, Aggregation, Finish, Reads
from ofp_platform.registry.compile import CompiledRegistry, compile_pack
from ofp_platform.registry.exact_value import ExactValue
from ofp_platform.registry.pack import load_pack
from ofp_platform_tests.oracle.aggregate import Item, aggregate, divide, signed_square
from ofp_platform_tests.oracle.fake_aggregation import pack_of

ROOT = Path(ofp_platform.__file__).parent.parent
HOUR = 3_600_000_000
EXTRAS = {"p": "0.9", "condition": "{amount: [1, 2, 3]}", "n": "4", "k": "4", "category": "amount"}
"""The fields that some aggregations cannot do without."""


def of_one(aggregation: Aggregation) -> CompiledRegistry:
    """A pack whose only feature is of this aggregation."""
    part = "aggregation: {}, events: [payment]{}"
    one = part.format(aggregation, "" if RULES[aggregation].reads is Reads.NOTHING else ", value: amount")
    one += "".join(f", {name}: {EXTRAS[name]}" for name in RULES[aggregation].takes)
    if RULES[aggregation].reads is Reads.OPERANDS:
        sides = (part.format("sum", ", value: amount"), part.format("count", ""))
        one = f"aggregation: {aggregation}, numerator: {{{sides[0]}}}, denominator: {{{sides[1]}}}"
    return compile_pack(load_pack(pack_of(one)))


def served(value: ExactValue) -> Any:
    return Fraction(value[0], 10 ** value[1]) if isinstance(value, tuple) else value


def in_column(column: FeatureColumn, row: int) -> Any:
    if not column.valid[row]:
        return None
    number = int(column.low[row])
    if column.items is not None:
        begin = int(column.low[:row].sum())
        items = column.items[begin : begin + number].tolist()
        if column.numbers is None:
            return items
        numbers = column.numbers[begin : begin + number].tolist()
        return [{"category": category, "value": value} for category, value in zip(items, numbers, strict=True)]
    return number if column.scale is None else Fraction(number, 10**column.scale)


def expected(aggregation: Aggregation, items: list[Item], time: int) -> Any:
    if RULES[aggregation].reads is Reads.OPERANDS:
        return divide(signed_square("sum", items, time), signed_square("count", items, time), 6)
    if "condition" in RULES[aggregation].takes:
        items = [item._replace(value=item.value in (1, 2, 3)) for item in items]
    if "category" in RULES[aggregation].takes and RULES[aggregation].reads is Reads.INTEGER:
        items = [item._replace(value=(item.value, item.value)) for item in items]
    return aggregate(aggregation, items, time, 6, Fraction(9, 10), 4)


def test_every_aggregation_and_every_finish_is_in_the_table() -> None:
    assert set(RULES) == set(Aggregation)
    assert {rule.finish for rule in RULES.values()} == set(Finish)


@pytest.mark.parametrize("aggregation", Aggregation)
def test_online_offline_and_oracle_agree(aggregation: Aggregation) -> None:
    registry = of_one(aggregation)
    layout, group = registry.layouts["account"], registry.groups["g", "v1"]
    rule = RULES[aggregation]
    assert layout.ties == rule.ordered
    assert (group.features[0].scale is not None) == rule.decimal
    rng = np.random.default_rng(1)
    count = 60
    ts = np.sort(rng.choice(np.arange(1, 12 * HOUR, 1_000), count, replace=False))
    amounts = rng.integers(-50, 50, count)
    matrix = np.zeros((layout.column_count, count), np.int64)
    matrix[0], matrix[1] = ts, 0
    for place, predicate in enumerate(layout.predicates):
        (allowed,) = dict(predicate.conditions).values() or [amounts.tolist()]
        matrix[1] |= np.isin(amounts, allowed).astype(np.int64) << place
    for row in range(2, layout.column_count):
        matrix[row] = amounts
    times = np.sort(np.concatenate([ts[::3], ts[::4] + HOUR, np.array([0, 20 * HOUR])]))
    query = query_of(LayoutArrays.of(layout), [group])
    [column] = feature_columns(
        ColumnQuery(LayoutArrays.of(layout), [group]),
        KeyedEvents(matrix, np.array([0]), np.array([count])),
        KeyedRows(np.array([0, len(times)]), times),
    )
    for row, time in enumerate(times.tolist()):
        items = [
            Item(moment, b"", amount)
            for moment, amount in zip(ts.tolist(), amounts.tolist(), strict=True)
            if time - HOUR < moment <= time
        ]
        value = expected(aggregation, items, time)
        assert served(group_values(group, query, evaluate(query, matrix, time, EARLIEST), time)["f"]) == value
        assert in_column(column, row) == value
        if not items:
            assert value == rule.empty


def paths_with(kind: str) -> dict[str, list[Any]]:
    command = [sys.executable, "-m", "ofp_platform_tests.oracle.fake_aggregation", kind]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=300, cwd=ROOT)
    return dict(json.loads(done.stdout))


PATHS = {"validation", "compile", "online", "online finish", "offline", "documentation"}


def test_an_aggregation_without_a_row_is_refused_by_every_path() -> None:
    paths = paths_with("without_row")
    assert paths == {path: ["refused", "aggregation 'fake' has no row in registry/aggregations.py"] for path in PATHS}


def test_an_aggregation_without_arithmetic_is_refused_by_every_path_that_computes() -> None:
    paths = paths_with("without_arithmetic")
    for name in ("online", "online finish", "offline"):
        kind, words = paths.pop(name)
        assert kind == "refused"
        assert "<Finish.FAKE" in words
    kind, words = paths.pop("documentation")
    assert (kind, "`fake`" in words) == ("refused", True)
    # these two do no arithmetic: they go by the row
    assert paths == {"validation": ["computed", "fakes"], "compile": ["computed", "fake"]}


def test_an_aggregation_with_a_row_and_arithmetic_is_computed_by_every_path() -> None:
    paths = paths_with("greatest")
    kind, words = paths.pop("documentation")
    assert (kind, "`fake`" in words) == ("refused", True)
    assert paths == {
        "validation": ["computed", "fakes"],
        "compile": ["computed", "fake"],
        "online": ["computed", 7],
        "online finish": ["computed", 7],
        "offline": ["computed", 7],
    }
