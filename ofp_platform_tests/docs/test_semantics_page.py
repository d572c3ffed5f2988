"""The examples of docs/semantics.md: each value by the kernel of both planes, and by the oracle."""

from __future__ import annotations

import json
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest
from ruamel.yaml import YAML

from ofp_platform.identity.entities import LinkEvent, LinkSet, entity_of
from ofp_platform.kernel.entity_events import merged_in_time
from ofp_platform.kernel.finalise import group_values, wire
from ofp_platform.kernel.query import LayoutArrays, query_of
from ofp_platform.kernel.windows import evaluate
from ofp_platform.registry.aggregations import documentation
from ofp_platform.registry.compile import compile_pack
from ofp_platform.registry.pack import load_pack, pack_content
from ofp_platform.registry.routing import Router
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform_tests.oracle.fold import Event, Record, group_features, in_force, known_events, micros
from ofp_platform_tests.oracle.graph import SaidLink, entity
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


def test_the_example_of_amendments_has_the_values_that_the_page_says() -> None:
    feature = "{aggregation: sum, value: amount, window: 1h}"
    assert f"`{feature}`" in TEXT
    text = (PACK % feature[1:-1]).replace(
        "online: boolean}\n", "online: boolean}\n    amendments: {by: [payment], may_change: [amount]}\n"
    )
    registry = compile_pack(load_pack(text, "semantics.md"))
    first = f"{DAY}T09:10:00Z"
    amends = [
        None,
        *({"event_class": "payment", "event_id": "e-0", "kind": kind, "ts_utc": first} for kind in ("replace", "void")),
    ]
    envelopes = [
        {
            "event_id": f"e-{number}",
            "event_type": "payment",
            "schema_version": "1",
            "ts_utc": f"{DAY}T{time}:00Z",
            "payload": {"account_id": "a-1", "amount": amount},
            **({} if one is None else {"amends": one}),
        }
        for number, (time, amount, one) in enumerate(zip(("09:10", "09:30", "09:50"), (5, 7, 0), amends, strict=True))
    ]
    records = [Record("p0", number, AS_OF, envelope) for number, envelope in enumerate(envelopes)]
    content = pack_content(registry.pack)
    known = known_events(records, {"p0": 3}, {}, content, 0)
    routed = Router(registry).route(
        ["payment"] * 3,
        ["e-0", "e-1", "e-2"],
        ["1"] * 3,
        np.array([micros(f"{DAY}T{time}:00Z") for time in ("09:10", "09:30", "09:50")], np.int64),
        [bytes([number]) * 32 for number in range(3)],
        [orjson.dumps(envelope["payload"]) for envelope in envelopes],
        [None if one is None else canonical_bytes(one) for one in amends],
    )
    group, query = (
        registry.groups["g", "v1"],
        query_of(LayoutArrays.of(registry.layouts["account"]), [registry.groups["g", "v1"]]),
    )
    for time, value in table("| as of | value |"):
        as_of = micros(f"{DAY}T{time}:00Z")
        evaluation = evaluate(query, routed.touched["account"].matrix, as_of)
        assert wire(group_values(group, query, evaluation, as_of)["f"]) == json.loads(value)
        events = list(in_force(known, content, as_of).values())
        assert group_features(content["groups"][0], events, as_of, {}) == {"f": json.loads(value)}


def test_the_example_of_entities_has_the_values_that_the_page_says() -> None:
    feature = "{aggregation: count, window: 1d}"
    assert f"`{feature}`" in TEXT
    text = (PACK % feature[1:-1]).replace("    ttl_seconds: 60\n", "    identity: resolved\n    ttl_seconds: 60\n")
    registry = compile_pack(load_pack(text, "semantics.md"))
    assert registry.groups["g", "v1"].resolves
    links = [("b", "a", "09:20"), ("c", "b", "09:40"), ("c", "z", "09:50")]
    said = [
        SaidLink("account", member, canonical, micros(f"{DAY}T{time}:00Z"), bytes([number]), True)
        for number, (member, canonical, time) in enumerate(links)
    ]
    source = LinkSet([LinkEvent(one.key_type, one.member, one.canonical, one.effective, one.identity, True) for one in said])
    begin = micros(f"{DAY}T09:00:00Z")
    payloads_of = {name: {"account_id": name, "amount": 1, "shop": "a", "city": "x", "online": True} for name in "abc"}
    routed = Router(registry).route(
        ["payment"] * 3, ["e-0", "e-1", "e-2"], ["1"] * 3, np.full(3, begin), [b"\0" * 32] * 3,
        [orjson.dumps(payload) for payload in payloads_of.values()], [None] * 3,
    )  # fmt: skip
    touched = routed.touched["account"]
    query = query_of(LayoutArrays.of(registry.layouts["account"]), [registry.groups["g", "v1"]])
    content, fed = pack_content(registry.pack), frozenset({("g", "v1")})
    rows = table("| at | count | members |")
    assert len(rows) == 4
    for time, value, members in rows:
        as_of = micros(f"{DAY}T{time}:00Z")
        known = entity_of(source, "account", "b", as_of)
        assert ", ".join(known.members) == members == ", ".join(entity(said, "account", "b", as_of)[1])
        parts = [touched.matrix[:, [place]] for place, name in enumerate(touched.key_ids) if name in known.members]
        evaluation = evaluate(query, merged_in_time(parts, ties=registry.layouts["account"].ties), as_of)
        assert wire(group_values(registry.groups["g", "v1"], query, evaluation, as_of)["f"]) == json.loads(value)
        events = [Event(begin, b"", "payment", payloads_of[name], fed) for name in known.members if name in payloads_of]
        assert group_features(content["groups"][0], events, as_of, {}) == {"f": json.loads(value)}
