"""Windows of local days and months by every path of the kernel, over events and rows around the nights when clocks change."""

from __future__ import annotations

from functools import cache

import numpy as np
import orjson
from hypothesis import given, settings
from hypothesis import strategies as st

from ofp_platform.kernel.columns import ColumnQuery, KeyedEvents, KeyedRows, feature_columns
from ofp_platform.kernel.finalise import group_values, wire
from ofp_platform.kernel.known_rows import evaluate_known
from ofp_platform.kernel.native import Int64Array
from ofp_platform.kernel.query import LayoutArrays, query_of
from ofp_platform.kernel.windows import Segments, evaluate, evaluate_state
from ofp_platform.registry.compile import CompiledRegistry, compile_pack
from ofp_platform.registry.pack import load_pack, pack_content
from ofp_platform.registry.routing import Router
from ofp_platform_tests.oracle.fold import Event, group_features, micros
from ofp_platform_tests.oracle.many_times import evaluate_many

PACK = """
pack_id: days
revision: 1
events:
  payment:
    keys: {account: account_id}
    fields: {amount: integer, shop: string, online: boolean}
groups:
  - name: g
    version: v1
    key_type: account
    ttl_seconds: 60
    features:
      - {name: a, aggregation: count, events: [payment], window: day in Europe/London}
      - {name: b, aggregation: sum, events: [payment], value: amount, window: day in Europe/London, delay: 1h}
      - {name: c, aggregation: count, events: [payment], window: 24h}
      - {name: d, aggregation: distinct_count, events: [payment], value: shop, window: day in Europe/London}
      - {name: e, aggregation: distinct_count, events: [payment], value: shop, window: 25h}
      - {name: f, aggregation: median, events: [payment], value: amount, window: day in Africa/Cairo}
      - {name: g, aggregation: seconds_since_change, events: [payment], condition: {online: true}, window: month in Europe/London}
      - {name: h, aggregation: last, events: [payment], value: shop, window: month in Asia/Kathmandu}
      - name: i
        aggregation: ratio
        window: day in Europe/London
        numerator: {aggregation: count, events: [payment], where: {online: true}}
        denominator: {aggregation: count, events: [payment], window: month in Europe/London}
"""
NIGHTS = tuple(micros(f"2026-{day}T00:00:00Z") for day in ("03-29", "03-31", "04-01", "10-25", "10-26", "11-01"))
MINUTE = 60_000_000
moments = st.builds(
    lambda night, quarter, side: night + quarter * 15 * MINUTE + side,
    st.sampled_from(NIGHTS[:3]) | st.sampled_from(NIGHTS),
    st.integers(-6, 30),
    st.sampled_from((-1, 0, 0, 1)),
)
payments = st.tuples(moments, st.integers(-2, 2), st.sampled_from("xyz"), st.booleans())


@cache
def registry() -> CompiledRegistry:
    return compile_pack(load_pack(PACK))


def matrix_of(events: list[Event]) -> Int64Array:
    """The sorted matrix of the events, from the router."""
    routed = Router(registry()).route(
        ["payment"] * len(events), [str(place) for place in range(len(events))], ["1"] * len(events),
        np.array([event.ts for event in events], np.int64), [event.tie * 2 for event in events],
        [orjson.dumps(event.payload) for event in events], [None] * len(events),
    )  # fmt: skip
    if not events:
        return np.empty((registry().layouts["account"].column_count, 0), np.int64)
    matrix = routed.touched["account"].matrix
    ties = matrix[2:4].view(np.uint64)
    return np.ascontiguousarray(matrix[:, np.lexsort((ties[1], ties[0], matrix[0]))])


def events_of(drawn: list[tuple[int, int, str, bool]]) -> list[Event]:
    """Events in the order of time, at most one at each time."""
    fed = frozenset({("g", "v1")})
    by_time = {row[0]: row for row in drawn}
    return [
        Event(
            ts, place.to_bytes(16, "big"), "payment", {"account_id": "a", "amount": amount, "shop": shop, "online": online}, fed
        )
        for place, (ts, amount, shop, online) in enumerate(by_time[ts] for ts in sorted(by_time))
    ]


@settings(max_examples=30)
@given(st.lists(payments, max_size=30), st.lists(moments, min_size=1, max_size=4))
def test_every_path_has_the_values_of_the_oracle(drawn: list[tuple[int, int, str, bool]], times: list[int]) -> None:
    times.sort()
    events = events_of(drawn)
    matrix, group = matrix_of(events), registry().groups["g", "v1"]
    arrays = LayoutArrays.of(registry().layouts["account"])
    query = query_of(arrays, [group])
    assert query.has_calendars
    content = pack_content(registry().pack)["groups"][0]
    count = len(events)
    whole = np.zeros(min(count, 1), np.int64)
    bounds = matrix[0, :1].copy(), matrix[0, -1:].copy()
    pieces = Segments(*bounds, np.zeros((0, arrays.measure_count, 11), np.int64), whole, whole + count, matrix)
    along = evaluate_many(query, matrix, np.array(times, np.int64))
    column_query = ColumnQuery(arrays, [group])
    keyed = KeyedRows(np.array([0, len(times)]), np.array(times, np.int64))
    columns = feature_columns(column_query, KeyedEvents(matrix, np.array([0]), np.array([count])), keyed)
    for row, time in enumerate(times):
        expected = group_features(content, events, time, {})
        for found in (evaluate(query, matrix, time), evaluate_state(query, pieces, time), along.at(row)):
            assert {name: wire(value) for name, value in group_values(group, query, found, time).items()} == expected
        for column in columns:
            assert bool(column.valid[row]) is (expected[column.name] is not None)
            if column.valid[row] and column.scale is None and column.texts is None:
                assert int(column.low[row]) == expected[column.name]


@settings(max_examples=20)
@given(st.lists(payments, max_size=30), st.lists(moments, min_size=1, max_size=4), st.integers(0, 3))
def test_a_row_that_knows_some_events_has_the_values_over_these(
    drawn: list[tuple[int, int, str, bool]], times: list[int], latest: int
) -> None:
    times.sort()
    events = events_of(drawn)
    matrix, group = matrix_of(events), registry().groups["g", "v1"]
    arrays = LayoutArrays.of(registry().layouts["account"])
    content = pack_content(registry().pack)["groups"][0]
    known_from = np.arange(len(events)) * 7 % 4
    rows = KeyedRows(np.array([0, len(times)]), np.array(times, np.int64), np.full(len(times), latest))
    keyed = KeyedEvents(matrix, np.array([0]), np.array([len(events)]), known_from)
    found = evaluate_known(ColumnQuery(arrays, [group]), keyed, rows, np.full(len(times), -(2**62)))
    known = [event for event, moment in zip(events, known_from.tolist(), strict=True) if moment <= latest]
    query = query_of(arrays, [group])
    for row, time in enumerate(times):
        values = group_values(group, query, found.at(row), time)
        assert {name: wire(value) for name, value in values.items()} == group_features(content, known, time, {})


def test_a_query_without_calendars_is_itself_at_any_time() -> None:
    registry = compile_pack(load_pack(PACK.split("      - {name: d")[0].replace("day in Europe/London", "1d")))
    query = query_of(LayoutArrays.of(registry.layouts["account"]), [registry.groups["g", "v1"]])
    assert not query.has_calendars
    assert query.at(5) is query
    assert query.along() is query
    assert query.arrays.edges(np.array([1, 2])).shape == (2, 0)
