"""The oracle itself, on worlds small enough to work out by hand."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given

from ofp_platform.registry.pack import load_pack, pack_content
from ofp_platform_tests.oracle.aggregate import Item, aggregate, at_scale, decimal_text, divide, signed_square
from ofp_platform_tests.oracle.fold import (
    BehindHorizon,
    Record,
    known_events,
    last_update,
    micros,
    snapshot,
    time_text,
)
from ofp_platform_tests.oracle.strategies import LATENESS, LIMIT, PACK, PINS, SECOND, SKEW, START, World, worlds

CONTENT = pack_content(load_pack(PACK))
KEY = [("account", "a-1")]
EVERY = [("every", "v1")]


def payment(offset: int, second: float, **changed: Any) -> Record:
    payload = {
        "account_id": "a-1",
        "merchant_id": "m-1",
        "amount": 10,
        "status": "ok",
        "shop": "x",
        "online": True,
        **{name: value for name, value in changed.items() if name not in ("event_id", "event_type", "run_id", "schema_version")},
    }
    ts = START + int(second * SECOND)
    envelope = {
        "event_id": changed.get("event_id", f"e-{offset}"),
        "event_type": changed.get("event_type", "payment"),
        "schema_version": changed.get("schema_version", "1"),
        "ts_utc": time_text(ts),
        **PINS,
        "run_id": changed.get("run_id", PINS["run_id"]),
        "payload": payload,
    }
    return Record("p0", offset, ts, envelope)


def served(records: list[Record], second: float, **options: Any) -> Any:
    known = known_events(records, {"p0": len(records)}, PINS, CONTENT, SKEW)
    return snapshot(
        known,
        CONTENT,
        options.get("keys", KEY),
        options.get("groups", EVERY),
        START + int(second * SECOND),
        allowed_lateness=LATENESS,
        request_context={"amount": 21},
    )


def features(records: list[Record], second: float, **options: Any) -> dict[str, Any]:
    found: dict[str, Any] = served(records, second, **options).by_key[0]["by_group"][0]["features"]
    return found


def test_a_worked_example() -> None:
    records = [
        payment(0, 0, amount=7, shop="y"),
        payment(1, 8, amount=1, status="odd", online=False),
        payment(2, 9.5, amount=10),
        payment(3, 9.5, event_type="report"),
    ]
    assert features(records, 10) == {
        "a_amounts": 2,  # up to 9 s: 7 and 1
        "a_count": 2,
        "a_first": 1,
        "a_last": 1,
        "a_max": 10,
        "a_mean": "5.500",
        "a_min": 1,
        "a_shops": 1,
        "a_since": 0,
        "a_stddev": "4.500000",
        "a_sum": 11,
        "b_count": 0,
        "b_shops": 1,
        "b_since": None,
        "b_stddev": "4",
        "over_mean": "3.636364",
    }
    assert features(records, 12.5)["b_since"] == 3


def test_an_empty_key() -> None:
    answer = served([], 10)
    found = answer.by_key[0]["by_group"][0]["features"]
    zeros = {"a_count", "b_count", "a_sum", "a_shops", "b_shops", "a_amounts"}
    assert found == {name: 0 if name in zeros else None for name in found}
    assert answer.freshness[0]["last_update_event_time"] is None
    assert [warning["code"] for warning in answer.warnings] == ["NO_DATA", "STALE_GROUP"]


def test_freshness_counts_any_event_of_the_group_up_to_the_as_of() -> None:
    records = [payment(0, 1), payment(1, 2, event_type="report"), payment(2, 7.5), payment(3, 3, event_type="declared")]
    fresh = served(records, 7).freshness[0]
    assert fresh["last_update_event_time"] == time_text(START + 2 * SECOND)
    assert (fresh["age_seconds"], fresh["stale"]) == (5, False)
    assert served(records[:2], 8.5).freshness[0]["stale"]


def test_freshness_is_of_types_whatever_a_where_says() -> None:
    every = next(one for one in CONTENT["groups"] if one["name"] == "every")
    group = {**every, "features": [one for one in every["features"] if one["name"] == "a_sum"], "on_demand": []}
    assert group["features"][0]["where"] == {"status": ["odd", "ok"]}
    known = known_events([payment(0, 1, status="no")], {"p0": 1}, PINS, {**CONTENT, "groups": [group]}, SKEW)
    events = list(known.events.values())
    assert last_update(group, events, START + 2 * SECOND) == START + SECOND


def test_what_is_known() -> None:
    records = [
        payment(0, 1),
        payment(1, 1, event_id="e-0"),  # a copy
        payment(2, 1, event_id="e-0", amount=11),  # an anomaly
        payment(3, 1, run_id="run-2"),
        payment(4, 1, event_type="unknown"),
        payment(5, 1, amount=1.5),
        payment(6, 1, account_id="4111111111111111"),
        payment(7, 1, unread="of no type that matters"),
        payment(8, 3, event_type="declared", account_id=None),
        payment(9, 1, account_id=None, merchant_id=None),
        payment(10, 1, schema_version="2"),
        payment(11, 1, event_id="e-5", amount=1.5),  # a copy
    ]
    ahead = Record("p1", 0, START, payment(0, 301, event_id="ahead").envelope)
    known = known_events([*records, ahead], {"p0": 12, "p1": 1}, PINS, CONTENT, SKEW - 1)
    assert (known.duplicates, known.anomalies, known.unknown) == (2, 1, 1)
    assert known.failures == [("p0", 9), ("p0", 10), ("p1", 0)]
    of_amounts = frozenset({("every", "v1"), ("lists", "v1"), ("ratios", "v2"), ("whole", "v1")})
    of_accounts = of_amounts | {("switches", "v1"), ("texts", "v1")}
    assert known.group_failures == {("p0", 5): of_amounts, ("p0", 6): of_accounts, ("p0", 11): of_amounts}
    assert known.watermark == START + SECOND  # what feeds no group is not applied
    assert len(known.events) == 6
    assert not known_events(records, {"p0": 0}, PINS, CONTENT, SKEW).events


def test_an_event_feeds_the_groups_that_can_use_it() -> None:
    records = [payment(0, 1), payment(1, 2, amount="7"), payment(2, 3, account_id=None)]
    assert features(records, 5)["a_count"] == 1
    assert features(records, 5, keys=[("merchant", "m-1")], groups=[("shop", "v1")])["count"] == 2  # up to 4 s, from 1 s on
    known = known_events(records, {"p0": 3}, PINS, CONTENT, SKEW)
    assert known.watermark == START + 3 * SECOND


def test_another_group_changes_no_value() -> None:
    group: Any = {**CONTENT["groups"][0], "name": "more", "on_demand": [], "request": {}}
    group["features"] = [{**group["features"][0], "events": ["payment"], "aggregation": "sum", "value": "unread"}]
    more = {**CONTENT, "groups": [*CONTENT["groups"], group]}
    records = [payment(place, place, **({"unread": place} if place == 2 else {})) for place in range(4)]
    known = known_events(records, {"p0": 4}, PINS, more, SKEW)
    assert set(known.group_failures) == {("p0", 0), ("p0", 1), ("p0", 3)}
    refs, at = [*EVERY, ("more", "v1")], START + 5 * SECOND
    answer = snapshot(known, more, KEY, refs, at, allowed_lateness=LATENESS, request_context={"amount": 21})
    found = {one["group_name"]: one["features"] for one in answer.by_key[0]["by_group"]}
    assert found["every"] == features(records, 5)
    assert list(found["more"].values()) == [2]


def test_the_horizon() -> None:
    # reach 13 s (10 s and a delay of 3 s), lateness 7 s: 20 s behind the watermark
    records = [payment(0, 0), payment(1, 40)]
    served(records, 33)
    with pytest.raises(BehindHorizon):
        served(records, 33 - 0.000001)
    group = next(one for one in CONTENT["groups"] if one["name"] == "every")
    events = list(known_events(records, {"p0": 2}, PINS, CONTENT, SKEW).events.values())
    assert last_update(group, events, START + 39 * SECOND, START - 1) == START
    assert last_update(group, events, START + 39 * SECOND, START) is None


def test_an_integer_out_of_range_is_null_with_a_warning_and_hurts_no_other_value() -> None:
    records = [payment(0, 1, amount=LIMIT), payment(1, 1, amount=1)]
    assert features(records[:1], 2)["a_sum"] == LIMIT
    made = features(records, 2)
    assert (made["a_sum"], made["a_max"], made["a_count"]) == (None, LIMIT, 2)
    warnings = [one for one in served(records, 2).warnings if one["code"] == "VALUE_OUT_OF_RANGE"]
    assert [(one["group_name"], one["feature"]) for one in warnings] == [("every", "a_sum")]


def test_arithmetic() -> None:
    assert [aggregate("stddev", [Item(0, b"", v) for v in values], 0, 2) for values in ([3, 3], [0, 1], [1, 2, 4])] == [
        0,
        Fraction(1, 2),
        Fraction(125, 100),
    ]
    assert [at_scale(Fraction(n, 2), 0) for n in (-3, -1, 1, 3, 5)] == [-2, 0, 0, 2, 2]
    assert decimal_text(Fraction(-1, 20), 3) == "-0.050"
    assert decimal_text(Fraction(7), 0) == "7"
    thirds = [Item(index, b"", value) for index, value in enumerate((0, 0, -1))]
    sides = {name: signed_square(name, thirds, 0) for name in ("min", "max", "mean", "stddev")}
    assert divide(sides["min"], sides["max"], 2) is None
    assert divide(sides["min"], sides["mean"], 6) == 3
    assert divide(sides["stddev"], sides["mean"], 6) == Fraction(-1414214, 10**6)
    assert divide((1, Fraction(1)), (1, Fraction(8**2)), 2) == Fraction(12, 100)
    assert micros("2026-01-02T03:04:05.6Z") - micros("2026-01-02T03:04:05Z") == 600_000


@given(worlds())
def test_worlds_are_dense_logs(world: World) -> None:
    for partition, end in world.basis.items():
        own = [record.offset for record in world.records if record.partition_id == partition]
        assert own == list(range(end))
    assert known_events(world.up_to(0).records, {}, PINS, CONTENT, SKEW).watermark is None


def amendment(offset: int, second: float, kind: str, target: str, at: float, **changes: Any) -> Record:
    """An amendment of a payment at that second."""
    record = payment(offset, second, **changes)
    amends = {"event_class": "payment", "event_id": target, "kind": kind, "ts_utc": time_text(START + int(at * SECOND))}
    return Record(record.partition_id, record.offset, record.admitted_at, {**record.envelope, "amends": amends})


def test_an_amendment_counts_from_its_own_time_on() -> None:
    records = [payment(0, 1, amount=5), amendment(1, 3, "replace", "e-0", 1, amount=7), amendment(2, 5, "void", "e-0", 1)]
    for order in (records, records[::-1]):
        placed = [Record("p0", place, one.admitted_at, one.envelope) for place, one in enumerate(order)]
        assert [features(placed, second)["a_last"] for second in (2, 2.999999)] == [None, None]  # 5 is not selected
        assert [features(placed, second)["a_max"] for second in (2, 2.999999, 3, 4.999999, 5)] == [5, 5, 7, 7, None]
        assert [features(placed, second)["a_count"] for second in (2, 3, 5)] == [1, 1, 0]
        assert served(placed, 5).freshness[0]["last_update_event_time"] is None
    assert known_events(records, {"p0": 3}, PINS, CONTENT, SKEW).watermark == START + 5 * SECOND


def test_of_two_amendments_of_one_time_the_greater_identity_decides() -> None:
    records = [
        payment(0, 1, amount=5),
        amendment(1, 3, "replace", "e-0", 1, amount=7),
        amendment(2, 3, "replace", "e-0", 1, amount=8),
    ]
    known = known_events(records, {"p0": 3}, PINS, CONTENT, SKEW)
    ties = {one.payload["amount"]: one.tie for one in known.amendments.values()}
    assert features(records, 4)["a_max"] == max(ties, key=lambda amount: ties[amount])


@pytest.mark.parametrize(
    "amending",
    [
        amendment(1, 3, "void", "e-9", 1),
        amendment(1, 3, "void", "e-0", 2),
        amendment(1, 3, "void", "e-0", 1, account_id="a-2"),
        amendment(1, 3, "replace", "e-0", 1, status="odd"),
        amendment(1, 3, "void", "e-0", 1, event_type="refund"),
    ],
    ids=["another id", "another time", "another key", "a field that may not change", "another type"],
)
def test_an_amendment_of_nothing_changes_nothing(amending: Record) -> None:
    records = [payment(0, 1, amount=5)]
    assert features([*records, amending], 4) == features(records, 4)
    assert not known_events([*records, amending], {"p0": 2}, PINS, CONTENT, SKEW).failures


def test_an_amendment_is_not_amended() -> None:
    records = [payment(0, 1, amount=5), amendment(1, 2, "replace", "e-0", 1, amount=7), amendment(2, 3, "void", "e-1", 2)]
    assert features(records, 4)["a_max"] == 7


def test_what_may_not_amend_fails() -> None:
    records = [
        payment(0, 1),
        amendment(1, 2, "void", "e-0", 1, event_type="report"),
        amendment(2, 2, "replace", "e-0", 1, event_type="refund"),
        amendment(3, 2, "void", "e-0", 1, account_id=None, merchant_id=None),
        amendment(4, 2, "void", "e-0", 2.000001),
    ]
    known = known_events(records, {"p0": 5}, PINS, CONTENT, SKEW)
    assert known.failures == [("p0", 1), ("p0", 2), ("p0", 3), ("p0", 4)]
