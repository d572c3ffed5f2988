"""A process in which the program has one aggregation more: `python -m ofp_platform_tests.oracle.fake_aggregation KIND`.

KIND is `without_row` (it is only in the enum), `without_arithmetic` (its row names a finish that the kernel does not have) or
`greatest` (its row is that of max under another name). Prints, for every path that handles aggregations, ["computed", value] or
["refused", the words]; the greatest value of the window is 7.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from ofp_platform.registry import aggregations
from ofp_platform.registry.aggregations import RULES, Aggregation, Finish, Parts

NAME = "fake"


def pack_of(feature: str) -> str:
    """The text of a pack whose only feature `f` is this aggregation with its fields, over an hour."""
    return f"""
pack_id: fakes
revision: 1
events:
  payment:
    keys: {{account: account_id}}
    fields: {{amount: integer}}
groups:
  - name: g
    version: v1
    key_type: account
    ttl_seconds: 60
    features:
      - {{name: f, {feature}, window: 1h}}
"""


PACK = pack_of(f"aggregation: {NAME}, events: [payment], value: amount")


def add_aggregation(kind: str) -> Aggregation:
    """Extend the enum, and the table as far as KIND says; before anything else of the program has read them."""
    fake = str.__new__(Aggregation, NAME)
    fake._name_, fake._value_ = "FAKE", NAME
    Aggregation._member_names_.append("FAKE")
    Aggregation._member_map_["FAKE"] = fake
    Aggregation._value2member_map_[NAME] = fake
    if kind == "greatest":
        RULES[fake] = replace(RULES[Aggregation.MAX], line="greatest value under another name")
    elif kind == "without_arithmetic":
        finish = object.__new__(Finish)
        finish._name_, finish._value_ = "FAKE", (NAME, Parts.EXTREMES)
        finish.label, finish.parts, finish.whole_events = NAME, Parts.EXTREMES, False
        RULES[fake] = replace(RULES[Aggregation.MAX], finish=finish)
    else:
        assert kind == "without_row", kind
    return fake


def outcome(path: Callable[[], Any]) -> tuple[str, Any]:
    """The path's value, or the words with which it refuses."""
    try:
        return "computed", path()
    except Exception as error:
        return "refused", str(error)


def main(kind: str) -> None:
    """Try every path."""
    fake = add_aggregation(kind)
    import numpy as np

    from ofp_platform.kernel.columns import ColumnQuery, KeyedEvents, KeyedRows, feature_columns
    from ofp_platform.kernel.finalise import finaliser, group_values
    from ofp_platform.kernel.query import LayoutArrays, make_query, query_of
    from ofp_platform.kernel.windows import evaluate
    from ofp_platform.registry.compile import compile_pack
    from ofp_platform.registry.layout import CompiledFeature, CompiledGroup, CompiledOperand, KeyLayout, Measure, Predicate, Slot
    from ofp_platform.registry.models import Pack
    from ofp_platform.registry.pack_text import PackText
    from ofp_platform.registry.validation import validate

    source = PackText(PACK, "fakes.yaml")
    written = Pack.model_validate(source.data)
    # by hand, so that each path is tried whatever the ones before it refuse
    layout = KeyLayout(
        "account", False, (Predicate(("payment",), ()),), ("amount",), (), (Measure(0, -1), Measure(0, 0)), (Slot(1, 100, 0),)
    )
    feature = CompiledFeature("f", CompiledOperand(fake, 0), None, None)
    group = CompiledGroup("g", "v1", "account", 60, 1, 100, (feature,), (), ())
    plan = LayoutArrays.of(layout)
    matrix = np.array([[1, 2, 3], [1, 1, 1], [-2, 7, 5]], np.int64)

    def online() -> Any:
        query = query_of(plan, [group])
        return group_values(group, query, evaluate(query, matrix, 10), 10)["f"]

    def online_finish() -> Any:
        found = evaluate(make_query(plan, [0]), matrix, 10)
        return finaliser(feature, {})(*found.rows, 10)

    def offline() -> Any:
        events = KeyedEvents(matrix, np.array([0]), np.array([3]))
        rows = KeyedRows(np.array([0, 1]), np.array([10]))
        [column] = feature_columns(ColumnQuery(plan, [group]), events, rows)
        return int(column.low[0]) if column.valid[0] else None

    def documentation() -> str:
        page = (Path(aggregations.__file__).parents[2] / "docs" / "semantics.md").read_text()
        missing = [line for line in aggregations.documentation() if line not in page]
        if missing:
            raise ValueError(f"docs/semantics.md lacks {missing}")
        return page

    paths: dict[str, Callable[[], Any]] = {
        "validation": lambda: validate(PackText(PACK, "fakes.yaml")).pack_id,
        "compile": lambda: compile_pack(written).groups["g", "v1"].features[0].operand.aggregation.value,
        "online": online,
        "online finish": online_finish,
        "offline": offline,
        "documentation": documentation,
    }
    print(json.dumps({name: outcome(path) for name, path in paths.items()}))


if __name__ == "__main__":
    main(sys.argv[1])
