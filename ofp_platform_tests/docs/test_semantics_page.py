"""The examples of docs/semantics.md, section 3: each value by the kernel of both planes, and by the oracle."""

from __future__ import annotations

import json
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from ruamel.yaml import YAML

from ofp_platform.kernel.finalise import group_values, wire
from ofp_platform.kernel.query import LayoutArrays, query_of
from ofp_platform.kernel.windows import evaluate
from ofp_platform.registry.aggregations import documentation
from ofp_platform.registry.compile import compile_pack
from ofp_platform.registry.pack import load_pack, pack_content
from ofp_platform.registry.routing import Router
from ofp_platform_tests.oracle.fold import Event, group_features, micros
from ofp_platform_tests.oracle.many_times import evaluate_many

TEXT = (Path(__file__).resolve().parents[2] / "docs" / "semantics.md").read_text(encoding="utf-8")
DAY = "2026-03-02"
AS_OF = micros(f"{DAY}T10:00:00Z")
PACK = """
pack_id: examples
revision: 1
events:
  payment:
    keys: {account: account_id}
    fields: {amount: integer, shop: string, city: string, online: boolean}
groups:
  - name: g
    version: v1
    key_type: account
    ttl_seconds: 60
    features: [{name: f, events: [payment], %s}]
"""


def table(head: str) -> list[list[str]]:
    """The rows of the table of the page that begins with that line, without the back quotes around a cell."""
    lines = TEXT.splitlines()
    rows = takewhile(lambda line: line.startswith("|"), lines[lines.index(head) + 2 :])
    return [[cell.strip().strip("`") for cell in row.strip("|").split("|")] for row in rows]


PAYMENTS = table("| time | amount | shop | city | online |")
EXAMPLES = table("| feature | value |")


def payloads() -> list[tuple[int, dict[str, Any]]]:
    return [
        (
            micros(f"{DAY}T{time}:00Z"),
            {"account_id": "a-1", "amount": int(amount), "shop": shop, "city": city, "online": online == "true"},
        )
        for time, amount, shop, city, online in PAYMENTS
    ]


def test_the_table_of_aggregations_is_that_of_the_code() -> None:
    assert [line for line in documentation() if line not in TEXT] == []


@pytest.mark.parametrize(("feature", "value"), EXAMPLES)
def test_every_example_has_the_value_that_the_page_says(feature: str, value: str) -> None:
    registry = compile_pack(load_pack(PACK % feature[1:-1], "semantics.md"))
    events = payloads()
    routed = Router(registry).route(
        ["payment"] * len(events),
        [str(number) for number in range(len(events))],
        ["1"] * len(events),
        np.array([ts for ts, _ in events], np.int64),
        [bytes([number]) * 32 for number in range(len(events))],
        [orjson.dumps(payload) for _, payload in events],
        [None] * len(events),
    )
    assert not routed.failures
    group, matrix = registry.groups["g", "v1"], routed.touched["account"].matrix
    query = query_of(LayoutArrays.of(registry.layouts["account"]), [group])
    expected = json.loads(value)
    for evaluation in (evaluate(query, matrix, AS_OF), evaluate_many(query, matrix, np.array([AS_OF], np.int64)).at(0)):
        assert wire(group_values(group, query, evaluation, AS_OF)["f"]) == expected
    content = pack_content(registry.pack)
    fed = frozenset({("g", "v1")})
    known = [Event(ts, bytes([number]), "payment", payload, fed) for number, (ts, payload) in enumerate(events)]
    assert group_features(content["groups"][0], known, AS_OF, {}) == {"f": expected}
    assert YAML(typ="safe", pure=True).load(feature)["aggregation"] in TEXT
