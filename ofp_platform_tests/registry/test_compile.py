"""What a pack compiles to: nothing twice, everything in an order of its own."""

from __future__ import annotations

import pytest

from ofp_platform.registry.aggregations import Aggregation
from ofp_platform.registry.compile import CompiledRegistry, compile_pack
from ofp_platform.registry.layout import CompiledOperand, Measure, Predicate, Slot
from ofp_platform.registry.pack import SHIPPED_PACKS, load_pack, shipped_pack

PACK = """\
pack_id: p
revision: 1
events:
  payment:
    keys: {account: a, card: c}
    fields: {amount: integer, fee: integer, status: string, shop: string}
groups:
  - name: g
    version: v2
    key_type: account
    ttl_seconds: 60
    features:
      - {name: n, aggregation: count, events: [payment], window: 1h, delay: 5m}
      - {name: s, aggregation: sum, events: [payment], value: amount, window: 1h, delay: 5m}
      - {name: m, aggregation: mean, events: [payment], value: amount, window: 60m, delay: 5m, scale: 3}
      - {name: d, aggregation: distinct_count, events: [payment], value: shop, window: 1h}
      - {name: bad, aggregation: sum, events: [payment], value: fee, window: 2h, where: {status: [declined]}}
      - name: r
        aggregation: ratio
        window: 1h
        scale: 4
        numerator: {aggregation: mean, events: [payment], value: fee, where: {status: declined}}
        denominator: {aggregation: count, events: [payment], delay: 1d}
    request: {x: decimal}
    on_demand:
      - {name: o, expression: " request.x * m ", scale: 1}
  - name: g
    version: v1
    key_type: card
    ttl_seconds: 60
    features:
      - {name: l, aggregation: last, events: [payment], value: amount, window: 1h}
"""
HOUR, DAY = 3_600_000_000, 86_400_000_000


@pytest.fixture(scope="module")
def compiled() -> CompiledRegistry:
    return compile_pack(load_pack(PACK))


def test_the_layout_of_a_key_type(compiled: CompiledRegistry) -> None:
    layout = compiled.layouts["account"]
    needs = (("amount", "fee", "shop", "status"),)
    assert layout.predicates == (
        Predicate(("payment",), (), needs),
        Predicate(("payment",), (("status", ("declined",)),), needs),
    )
    assert (layout.integer_fields, layout.token_fields, layout.ties) == (("amount", "fee"), ("shop",), False)
    assert layout.measures == (Measure(0, -1), Measure(0, 0), Measure(1, -1), Measure(1, 1))
    assert layout.slots == (
        Slot(0, HOUR, 0),
        Slot(0, HOUR, HOUR // 12),
        Slot(0, HOUR, DAY),
        Slot(1, HOUR, HOUR // 12),
        Slot(3, HOUR, 0),
        Slot(3, 2 * HOUR, 0),
    )
    assert layout.column_count == 2 + 2 + 2


def test_the_plan_of_a_group(compiled: CompiledRegistry) -> None:
    plan = compiled.groups["g", "v2"]
    features = {feature.name: feature for feature in plan.features}
    assert list(features) == sorted(features)
    assert features["m"].operand == CompiledOperand(Aggregation.MEAN, 3, 3)
    assert features["m"].scale == 3
    assert features["s"].operand == CompiledOperand(Aggregation.SUM, 3)
    assert features["s"].scale is None
    assert features["d"].operand == CompiledOperand(Aggregation.DISTINCT_COUNT, 0, 0, 0)
    assert features["r"].operand == CompiledOperand(Aggregation.MEAN, 4)
    assert features["r"].denominator == CompiledOperand(Aggregation.COUNT, 2)
    assert features["r"].scale == 4
    assert (plan.mask, plan.reach, plan.request_fields) == (0b01, DAY + HOUR, (("x", "decimal"),))
    assert plan.on_demand[0].expression == "request.x * m"
    assert compiled.reach == DAY + HOUR
    assert list(compiled.groups) == [("g", "v1"), ("g", "v2")]


def test_ties_are_kept_only_where_an_order_is_asked_for(compiled: CompiledRegistry) -> None:
    assert compiled.layouts["card"].ties
    assert compiled.layouts["card"].column_count == 4 + 1


@pytest.mark.parametrize("name", SHIPPED_PACKS)
def test_every_reference_holds(name: str) -> None:
    compiled = compile_pack(shipped_pack(name))
    for plan in compiled.groups.values():
        layout = compiled.layouts[plan.key_type]
        for index in range(len(layout.predicates)):
            assert Measure(index, -1) in layout.measures
        used = 0
        for feature in plan.features:
            for operand in (feature.operand, feature.denominator):
                if operand is not None:
                    slot = layout.slots[operand.slot]
                    used |= 1 << layout.measures[slot.measure].predicate
                    assert slot.window + slot.delay <= plan.reach <= compiled.reach
                    assert (operand.token >= 0) == (operand.aggregation is Aggregation.DISTINCT_COUNT)
        feed = layout.predicates[plan.mask.bit_length() - 1]
        assert plan.mask == 1 << layout.predicates.index(feed)
        selected = [predicate for index, predicate in enumerate(layout.predicates) if used >> index & 1]
        assert feed.conditions == ()
        assert set(feed.event_types) == {name for predicate in selected for name in predicate.event_types}
        assert len(set(layout.measures)) == len(layout.measures)
        assert len(set(layout.slots)) == len(layout.slots)
