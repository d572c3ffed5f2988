"""Routing against a naive implementation that looks at one event at a time, and every kind of bad payload."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.registry.apply_failure import ApplyFailureReason
from ofp_platform.registry.compile import CompiledRegistry, compile_pack
from ofp_platform.registry.layout import KeyLayout
from ofp_platform.registry.models import FieldType, event_class
from ofp_platform.registry.pack import load_pack, shipped_pack
from ofp_platform.registry.routing import APPLIED, FAILED, UNKNOWN_TYPE, RoutedBatch, Router, TokenCache
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.raw_identifier import holds_raw_identifier

PACK = """\
pack_id: p
revision: 1
events:
  payment:
    keys: {account: account_id, merchant: merchant_id, device: device_id}
    fields: {amount: integer, class: string, online: boolean, merchant_id: string, step: integer}
  refund:
    class: payment
    keys: {account: account_id}
    fields: {amount: integer, class: string, step: string}
  heartbeat:
    keys: {account: account_id}
groups:
  - name: g
    version: v1
    key_type: account
    ttl_seconds: 60
    features:
      - {name: all, aggregation: count, events: [payment, refund], window: 1h}
      - {name: p, aggregation: sum, events: [payment], value: amount, where: {class: [a, b], online: true}, window: 1h}
      - {name: offline, aggregation: max, events: [payment], value: step, where: {online: false}, window: 1h}
      - {name: two, aggregation: count, events: [payment], where: {step: [0, 1, -2], class: b}, window: 1h}
      - {name: shops, aggregation: distinct_count, events: [payment], value: merchant_id, window: 1h}
      - {name: steps, aggregation: distinct_count, events: [payment, refund], value: step, window: 1h}
      - {name: back, aggregation: last, events: [refund], value: amount, where: {class: a}, window: 1h}
  - name: h
    version: v1
    key_type: merchant
    ttl_seconds: 60
    features:
      - {name: n, aggregation: count, events: [payment], window: 1h}
"""
COMPILED = compile_pack(load_pack(PACK))
HASH = b"\x07" * 32


@dataclass
class Event:
    event_type: str
    payload: Any
    event_id: str = "e1"
    ts: int = 1_000_000


def route(events: list[Event], router: Router | None = None) -> RoutedBatch:
    payloads = [event.payload if isinstance(event.payload, bytes) else canonical(event.payload) for event in events]
    return (router or Router(COMPILED)).route(
        [event.event_type for event in events],
        [event.event_id for event in events],
        np.array([event.ts for event in events], dtype=np.int64),
        [HASH] * len(events),
        payloads,
    )


def canonical(payload: Any) -> bytes:
    return json.dumps(payload, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


def naive_reads(compiled: CompiledRegistry, event_type: str) -> tuple[dict[str, str], dict[str, FieldType]]:
    """Key type to payload field, and field to type, of what any feature asks of an event type, from the pack itself."""
    routing = compiled.pack.events[event_type]
    keys, fields = {}, {}
    for group in compiled.pack.groups:
        for feature in group.features:
            for part in (feature, feature.numerator, feature.denominator):
                if part is not None and part.events is not None and event_type in part.events:
                    keys[group.key_type.value] = routing.keys[group.key_type]
                    for name in [*part.where, *([part.value] if part.value else [])]:
                        fields[name] = routing.fields[name]
    return keys, fields


def naive_fails(payload: Any, keys: dict[str, str], fields: dict[str, FieldType]) -> bool:
    if not isinstance(payload, dict):
        return True
    for name in keys.values():
        value = payload.get(name)
        if not isinstance(value, str) or not 1 <= len(value) <= 128 or holds_raw_identifier(value):
            return True
        if any(not "!" <= char <= "~" for char in value):
            return True
    types = {FieldType.INTEGER: int, FieldType.STRING: str, FieldType.BOOLEAN: bool}
    return any(
        type(payload.get(name)) is not types[kind] or (kind is FieldType.INTEGER and not -(2**53) < payload[name] < 2**53)
        for name, kind in fields.items()
    )


def halves(data: bytes) -> tuple[int, int]:
    digest = hashlib.sha256(data).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:16], "big")


def signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


def naive_column(layout: KeyLayout, event: Event, fields: dict[str, FieldType], tie: tuple[int, int]) -> list[int]:
    mask = 0
    for bit, predicate in enumerate(layout.predicates):
        if event.event_type in predicate.event_types and all(
            any(type(value) is type(event.payload[name]) and value == event.payload[name] for value in allowed)
            for name, allowed in predicate.conditions
        ):
            mask |= 1 << bit
    column = [event.ts, mask]
    if layout.ties:
        column += [signed(tie[0]), signed(tie[1])]
    for name in layout.integer_fields:
        column.append(event.payload[name] if fields.get(name) is FieldType.INTEGER else 0)
    for name in layout.token_fields:
        token = halves(canonical_bytes(event.payload[name])) if name in fields else (0, 0)
        column += [signed(token[0]), signed(token[1])]
    return column


def assert_equal_to_naive(events: list[Event], routed: RoutedBatch, compiled: CompiledRegistry) -> None:
    expected: dict[str, list[tuple[int, str, list[int]]]] = {}
    for index, event in enumerate(events):
        name = event_class(compiled.pack.events, event.event_type).encode() + b"\0" + event.event_id.encode()
        tie = halves(name + b"\0" + HASH)
        assert tuple(routed.id_digest[index].tolist()) == halves(name)
        assert tuple(routed.tie_digest[index].tolist()) == tie
        if event.event_type not in compiled.pack.events:
            assert routed.status[index] == UNKNOWN_TYPE
            continue
        keys, fields = naive_reads(compiled, event.event_type)
        if keys and naive_fails(event.payload, keys, fields):
            assert routed.status[index] == FAILED
            continue
        assert routed.status[index] == APPLIED
        for key_type, field in keys.items():
            column = naive_column(compiled.layouts[key_type], event, fields, tie)
            expected.setdefault(key_type, []).append((index, event.payload[field], column))
    assert [failure.index for failure in routed.failures] == np.flatnonzero(routed.status == FAILED).tolist()
    assert set(routed.touched) == set(expected)
    for key_type, rows in expected.items():
        touched = routed.touched[key_type]
        assert touched.matrix.dtype == np.int64
        assert touched.matrix.shape == (compiled.layouts[key_type].column_count, len(rows))
        assert touched.record_index.tolist() == [row[0] for row in rows]
        assert touched.key_ids == [row[1] for row in rows]
        assert touched.matrix.T.tolist() == [row[2] for row in rows]


key_values = st.sampled_from(["k1", "k2", "acct:7/x", "~"])
bad_values = st.sampled_from(
    [None, "", "a b", "é", "x" * 129, "4111111111111111", 1, 0, True, False, 2**53, -(2**53), 10**30, 1.5, [], {}, "1"]
)
payloads = st.fixed_dictionaries(
    {},
    optional={
        "account_id": key_values,
        "merchant_id": key_values,
        "amount": st.integers(-(2**53) + 1, 2**53 - 1),
        "class": st.sampled_from(["a", "b", "c"]),
        "online": st.booleans(),
        "step": st.one_of(st.integers(-3, 3), st.sampled_from(["0", "1"])),
        "unread": bad_values,
    },
)
good_payments = st.fixed_dictionaries(
    {
        "account_id": key_values,
        "merchant_id": key_values,
        "amount": st.integers(-(2**53) + 1, 2**53 - 1),
        "class": st.sampled_from(["a", "b", "c"]),
        "online": st.booleans(),
        "step": st.integers(-3, 3),
    }
)


@st.composite
def spoilt(draw: st.DrawFn) -> dict[str, Any]:
    payload = draw(good_payments)
    payload[draw(st.sampled_from(sorted(payload)))] = draw(bad_values)
    return payload


good_refunds = good_payments.map(lambda payload: payload | {"step": str(payload["step"])})
event_lists = st.lists(
    st.builds(
        lambda pair, event_id, ts: Event(pair[0], pair[1], event_id, ts),
        st.one_of(
            st.tuples(st.just("payment"), good_payments),
            st.tuples(st.just("refund"), good_refunds),
            st.tuples(st.just("payment"), spoilt()),
            st.tuples(st.sampled_from(["payment", "refund", "heartbeat", "transfer"]), payloads),
        ),
        st.sampled_from(["e1", "e2", "evt-000000000000000000000000000000000000000000000000000000"]),
        st.integers(-(2**53), 2**53),
    ),
    max_size=12,
)


@given(batches=st.lists(event_lists, min_size=1, max_size=3), limit=st.integers(0, 3))
def test_equal_to_one_event_at_a_time(batches: list[list[Event]], limit: int) -> None:
    router = Router(COMPILED, cache_limit=limit)  # so small that the caches are emptied all the time
    for events in batches:
        assert_equal_to_naive(events, route(events, router), COMPILED)


def test_shipped_pack_with_many_events() -> None:
    compiled = compile_pack(shipped_pack("card_payments"))
    events = [
        Event(
            "fraud_report" if index % 7 == 0 else "card_payment",
            {
                **{f"{name}_id": f"{name}-{index % 5}" for name in ("account", "card", "customer", "device", "merchant")},
                "amount_minor": index,
                "status": "declined" if index % 3 == 0 else "approved",
            },
            f"e{index}",
            index,
        )
        for index in range(200)
    ]
    assert_equal_to_naive(events, route(events, Router(compiled)), compiled)


GOOD: dict[str, Any] = {
    "account_id": "a1",
    "merchant_id": "m1",
    "amount": 5,
    "class": "a",
    "online": True,
    "step": 1,
}


@pytest.mark.parametrize(
    ("change", "reason", "detail"),
    [
        (
            {"account_id": None},
            ApplyFailureReason.MISSING_KEY,
            "payload field 'account_id', the account key, is missing",
        ),
        ({"account_id": ""}, ApplyFailureReason.MISSING_KEY, "payload field 'account_id', the account key, is missing"),
        (
            {"account_id": 17},
            ApplyFailureReason.WRONG_TYPE,
            "payload field 'account_id', the account key, must be a string",
        ),
        (
            {"merchant_id": "4111 1111 1111 1111"},
            ApplyFailureReason.RAW_IDENTIFIER,
            "payload field 'merchant_id', the merchant key, is a raw identifier",
        ),
        (
            {"merchant_id": "shop 1"},
            ApplyFailureReason.INVALID_KEY,
            "payload field 'merchant_id', the merchant key, must be 1 to 128 printable ASCII characters without spaces",
        ),
        ({"amount": None}, ApplyFailureReason.MISSING_FIELD, "payload field 'amount' is missing"),
        ({"amount": 12.5}, ApplyFailureReason.WRONG_TYPE, "payload field 'amount' must be an integer"),
        ({"amount": "12"}, ApplyFailureReason.WRONG_TYPE, "payload field 'amount' must be an integer"),
        ({"amount": True}, ApplyFailureReason.WRONG_TYPE, "payload field 'amount' must be an integer"),
        ({"online": 1}, ApplyFailureReason.WRONG_TYPE, "payload field 'online' must be a boolean"),
        ({"class": 1}, ApplyFailureReason.WRONG_TYPE, "payload field 'class' must be a string"),
        ({"amount": 2**53}, ApplyFailureReason.INTEGER_OUT_OF_RANGE, "payload field 'amount' is beyond ±(2^53-1)"),
        ({"amount": -(10**40)}, ApplyFailureReason.INTEGER_OUT_OF_RANGE, "payload field 'amount' is beyond ±(2^53-1)"),
    ],
)
def test_a_bad_payload_touches_nothing_and_says_why(change: dict[str, Any], reason: ApplyFailureReason, detail: str) -> None:
    events = [Event("payment", GOOD), Event("payment", GOOD | change), Event("payment", GOOD)]
    routed = route(events)
    (failure,) = routed.failures
    assert (failure.index, failure.reason, failure.detail) == (1, reason, detail)
    assert routed.status.tolist() == [APPLIED, FAILED, APPLIED]
    assert routed.touched["account"].record_index.tolist() == [0, 2]
    assert routed.touched["merchant"].record_index.tolist() == [0, 2]


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'{"account_id":"a"} x',
        b"\xff",
        b'{"account_id":"\xff"}',
        b'{"x":nul}',
        b"[" * 100_000,
    ],
)
def test_what_is_not_a_json_object(payload: bytes) -> None:
    routed = route([Event("payment", payload)])
    assert [failure.reason for failure in routed.failures] == [ApplyFailureReason.MALFORMED_PAYLOAD]
    assert routed.touched == {}


@pytest.mark.parametrize("surprise", [b'"\\ud800"', b"NaN", b"-Infinity"])
def test_json_that_is_not_i_json(surprise: bytes) -> None:
    payload = canonical(GOOD)[:-1] + b',"unread":' + surprise + b"}"
    assert [failure.reason for failure in route([Event("payment", payload)]).failures] == ([ApplyFailureReason.MALFORMED_PAYLOAD])


def test_a_float_that_is_whole_is_still_a_float() -> None:
    payload = canonical(GOOD).replace(b'"amount":5', b'"amount":5.0')
    assert [failure.reason for failure in route([Event("payment", payload)]).failures] == [ApplyFailureReason.WRONG_TYPE]


def test_only_what_is_read_is_asked_for() -> None:
    assert "device" not in COMPILED.layouts  # a key that no group has is not asked for either
    refund = {"account_id": "a", "amount": 1, "class": "a", "step": "s"}
    assert route([Event("payment", GOOD | {"unread": 1.5}), Event("refund", refund)]).failures == []
    assert route([Event("heartbeat", b"not even JSON")]).status.tolist() == [APPLIED]


def test_an_empty_batch() -> None:
    routed = route([])
    assert (routed.status.shape, routed.id_digest.shape, routed.tie_digest.shape) == ((0,), (0, 2), (0, 2))
    assert (routed.failures, routed.touched) == ([], {})


def test_columns_of_different_lengths_are_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError):
        Router(COMPILED).route(["payment"], [], np.zeros(1, dtype=np.int64), [HASH], [b"{}"])


def test_the_key_cache_never_lets_a_raw_identifier_through() -> None:
    router = Router(COMPILED)
    for _ in range(3):
        routed = route([Event("payment", GOOD), Event("payment", GOOD | {"account_id": "4111111111111111"})], router)
        assert routed.status.tolist() == [APPLIED, FAILED]


def test_tokens_do_not_confuse_types_and_survive_a_full_cache() -> None:
    for limit in (0, 1, 100):
        tokens = TokenCache(limit)
        for _ in range(2):
            high, low = tokens.columns(["1", 1, "x", "1"])
            expected = [tuple(map(signed, halves(data))) for data in (b'"1"', b"1", b'"x"', b'"1"')]
            assert list(zip(high.tolist(), low.tolist(), strict=True)) == expected
