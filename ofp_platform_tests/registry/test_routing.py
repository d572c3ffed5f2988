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
from ofp_platform.vocabulary.raw_identifier import is_raw_key

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
  - name: i
    version: v1
    key_type: account
    ttl_seconds: 60
    features:
      - {name: all, aggregation: count, events: [payment, refund], window: 1h}
      - {name: classes, aggregation: count, events: [refund], where: {class: [b, a]}, window: 1h}
"""
COMPILED = compile_pack(load_pack(PACK))
HASH = b"\x07" * 32


@dataclass
class Event:
    event_type: str
    payload: Any
    event_id: str = "e1"
    ts: int = 1_000_000
    schema_version: str = "v1"
    amends: bytes | None = None


def route(events: list[Event], router: Router | None = None) -> RoutedBatch:
    payloads = [event.payload if isinstance(event.payload, bytes) else canonical(event.payload) for event in events]
    return (router or Router(COMPILED)).route(
        [event.event_type for event in events],
        [event.event_id for event in events],
        [event.schema_version for event in events],
        np.array([event.ts for event in events], dtype=np.int64),
        [HASH] * len(events),
        payloads,
        [event.amends for event in events],
    )


def canonical(payload: Any) -> bytes:
    return json.dumps(payload, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode()


@dataclass
class Need:
    """What one group reads of an event type, from the pack itself: the field of its key, and fields with their types."""

    key_type: str
    key: str
    fields: dict[str, FieldType]
    predicates: list[tuple[tuple[str, ...], dict[str, Any]]]


def naive_needs(compiled: CompiledRegistry, event_type: str) -> dict[tuple[str, str], Need]:
    """Group version to its need, for the groups that use the event type."""
    routing = compiled.pack.events[event_type]
    needs: dict[tuple[str, str], Need] = {}
    for group in compiled.pack.groups:
        need = Need(group.key_type.value, routing.keys.get(group.key_type, ""), {}, [])
        types: set[str] = set()
        for feature in group.features:
            for part in (feature, feature.numerator, feature.denominator):
                types |= set(part.events or ()) if part is not None else set()
                if part is not None and part.events is not None and event_type in part.events:
                    need.predicates.append((tuple(part.events), dict(part.where)))
                    for name in [*part.where, *([part.value] if part.value else [])]:
                        need.fields[name] = routing.fields[name]
        if need.predicates:
            need.predicates.append((tuple(types), {}))  # what feeds the group at all: freshness is of it
            needs[group.name, group.version] = need
    return needs


def naive_fails(payload: Any, need: Need) -> bool:
    if not isinstance(payload, dict):
        return True
    value = payload.get(need.key)
    if not isinstance(value, str) or not 1 <= len(value) <= 128 or is_raw_key(value):
        return True
    if any(not "!" <= char <= "~" for char in value):
        return True
    types = {FieldType.INTEGER: int, FieldType.STRING: str, FieldType.BOOLEAN: bool}
    return any(
        type(payload.get(name)) is not types[kind] or (kind is FieldType.INTEGER and not -(2**53) < payload[name] < 2**53)
        for name, kind in need.fields.items()
    )


def halves(data: bytes) -> tuple[int, int]:
    digest = hashlib.sha256(data).digest()
    return int.from_bytes(digest[:8], "big"), int.from_bytes(digest[8:16], "big")


def signed(number: int) -> int:
    return number - 2**64 if number >= 2**63 else number


def usable(payload: Any, name: str, kind: FieldType) -> bool:
    return not naive_fails({**payload, "key": "k"}, Need("", "key", {name: kind}, []))


def meets(payload: Any, conditions: dict[str, Any]) -> bool:
    return all(any(type(v) is type(payload.get(name)) and v == payload[name] for v in vs) for name, vs in conditions.items())


def naive_column(layout: KeyLayout, event: Event, fed: list[Need], needs: list[Need], tie: tuple[int, int]) -> list[int]:
    """One column of a matrix. A predicate bit stands for every group that has the same predicate and the same fields to read."""
    mask = 0
    for bit, predicate in enumerate(layout.predicates):
        for need in fed:
            if any(
                tuple(sorted(types)) == predicate.event_types
                for types, where in need.predicates
                if meets(event.payload, where)
                and sorted(where) == [name for name, _ in predicate.conditions]
                and all(set(where[name]) == set(values) for name, values in predicate.conditions)
            ) and predicate.needs_of(event.event_type) == tuple(sorted(need.fields)):
                mask |= 1 << bit
    column = [event.ts, mask]
    if layout.ties:
        column += [signed(tie[0]), signed(tie[1])]
    fields = {name: kind for need in needs for name, kind in need.fields.items()}
    for name in layout.integer_fields:
        has = fields.get(name) is FieldType.INTEGER and usable(event.payload, name, FieldType.INTEGER)
        column.append(event.payload[name] if has else 0)
    for name in layout.token_fields:
        zero = {FieldType.INTEGER: 0, FieldType.STRING: ""}
        token = (0, 0)
        if name in fields:  # what no bit of the mask lets anybody read is the zero of its type
            value = event.payload[name] if usable(event.payload, name, fields[name]) else zero[fields[name]]
            token = halves(canonical_bytes(value))
        column += [signed(token[0]), signed(token[1])]
    return column


def assert_equal_to_naive(events: list[Event], routed: RoutedBatch, compiled: CompiledRegistry) -> None:
    expected: dict[str, list[tuple[int, str, list[int]]]] = {}
    lacking: dict[int, tuple[tuple[str, str], ...]] = {}
    for index, event in enumerate(events):
        name = event_class(compiled.pack.events, event.event_type).encode() + b"\0" + event.event_id.encode()
        tie = halves(name + b"\0" + HASH)
        assert tuple(routed.id_digest[index].tolist()) == halves(name)
        assert tuple(routed.tie_digest[index].tolist()) == tie
        if event.event_type not in compiled.pack.events:
            assert routed.status[index] == UNKNOWN_TYPE
            continue
        needs = naive_needs(compiled, event.event_type)
        if event.schema_version not in ("1", "1.0", "v1", "v1.0"):
            assert routed.status[index] == FAILED
            lacking[index] = ()
            continue
        fed = {ref: need for ref, need in needs.items() if not naive_fails(event.payload, need)}
        if len(fed) < len(needs):
            lacking[index] = tuple(sorted(needs.keys() - fed.keys())) if isinstance(event.payload, dict) else ()
        assert routed.status[index] == (FAILED if needs and not fed else APPLIED)
        assert routed.feeds[index] == bool(fed)
        for key_type in {need.key_type for need in fed.values()}:
            own = [need for need in needs.values() if need.key_type == key_type]
            column = naive_column(
                compiled.layouts[key_type], event, [need for need in fed.values() if need.key_type == key_type], own, tie
            )
            expected.setdefault(key_type, []).append((index, event.payload[own[0].key], column))
    assert [failure.index for failure in routed.failures] == np.flatnonzero(routed.status == FAILED).tolist()
    assert [failure.index for failure in routed.group_failures] == [i for i in sorted(lacking) if routed.status[i] == APPLIED]
    assert {failure.index: failure.groups for failure in (*routed.failures, *routed.group_failures)} == lacking
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
        lambda pair, event_id, ts, version: Event(pair[0], pair[1], event_id, ts, version),
        st.one_of(
            st.tuples(st.just("payment"), good_payments),
            st.tuples(st.just("refund"), good_refunds),
            st.tuples(st.just("payment"), spoilt()),
            st.tuples(st.sampled_from(["payment", "refund", "heartbeat", "transfer"]), payloads),
        ),
        st.sampled_from(["e1", "e2", "evt-000000000000000000000000000000000000000000000000000000"]),
        st.integers(-(2**53), 2**53),
        st.sampled_from(["v1", "v1", "1", "1.0", "2"]),
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
def test_a_bad_field_feeds_the_groups_that_do_not_need_it_and_says_why(
    change: dict[str, Any], reason: ApplyFailureReason, detail: str
) -> None:
    """Group g needs all of it, h the merchant alone, i the account alone."""
    events = [Event("payment", GOOD), Event("payment", GOOD | change), Event("payment", GOOD)]
    routed = route(events)
    (failure,) = routed.group_failures
    assert (failure.index, failure.reason, failure.detail) == (1, reason, detail)
    unfed = {"account_id": ("g", "i"), "merchant_id": ("h",)}.get(next(iter(change)), ("g",))
    assert failure.groups == tuple((name, "v1") for name in unfed)
    assert routed.status.tolist() == [APPLIED, APPLIED, APPLIED]
    assert routed.touched["account"].record_index.tolist() == ([0, 2] if "i" in unfed else [0, 1, 2])
    assert routed.touched["merchant"].record_index.tolist() == ([0, 2] if "h" in unfed else [0, 1, 2])


@pytest.mark.parametrize(
    "change",
    [
        {"account_id": "4111111111111111", "merchant_id": 1},
        {"account_id": None, "merchant_id": None},
        {"account_id": "me@example.com", "merchant_id": "2001:db8::1"},
        {"account_id": "DE89370400440532013000", "merchant_id": "0f" * 16},
    ],
)
def test_a_payload_that_no_group_can_use_touches_nothing(change: dict[str, Any]) -> None:
    routed = route([Event("payment", GOOD), Event("payment", GOOD | change), Event("payment", GOOD)])
    (failure,) = routed.failures
    assert (failure.index, failure.groups, routed.group_failures) == (1, (("g", "v1"), ("h", "v1"), ("i", "v1")), [])
    assert failure.detail.count("; ") == 1  # each of the two is told
    assert routed.status.tolist() == [APPLIED, FAILED, APPLIED]
    assert routed.touched["account"].record_index.tolist() == [0, 2]
    assert routed.touched["merchant"].record_index.tolist() == [0, 2]


def test_an_amendment_fails_where_the_pack_does_not_say_what_may_be_amended() -> None:
    amends = b'{"event_class":"payment","event_id":"e1","kind":"void","ts_utc":"2026-01-01T00:00:00Z"}'
    amending = [Event(name, payload, amends=amends) for name, payload in (("payment", GOOD), ("heartbeat", {}), ("transfer", {}))]
    routed = route([Event("payment", GOOD), *amending, Event("payment", GOOD)])
    assert routed.status.tolist() == [APPLIED, FAILED, FAILED, UNKNOWN_TYPE, APPLIED]
    assert [(one.index, one.reason, one.groups) for one in routed.failures] == [
        (1, ApplyFailureReason.AMENDMENT_NOT_DECLARED, ()),
        (2, ApplyFailureReason.AMENDMENT_NOT_DECLARED, ()),
    ]
    assert routed.failures[0].detail == "it amends an event of class payment, and the pack does not say that payment may"
    assert routed.touched["account"].record_index.tolist() == [0, 4]


def test_a_schema_version_that_the_pack_does_not_list_fails_the_whole_event() -> None:
    text = PACK.replace("  heartbeat:\n", "  heartbeat:\n    schema_versions: [v2, v3]\n")
    router = Router(compile_pack(load_pack(text)))
    good = [Event("payment", GOOD, schema_version=version) for version in ("1", "1.0", "v1", "v1.0", "2", "v10", "1.1")]
    beats = [Event("heartbeat", {}, schema_version=version) for version in ("v1", "v2", "v3")]
    routed = route([*good, *beats, Event("transfer", {}, schema_version="9")], router)
    assert routed.status.tolist() == [APPLIED] * 4 + [FAILED] * 3 + [FAILED, APPLIED, APPLIED, UNKNOWN_TYPE]
    assert {(failure.reason, failure.groups) for failure in routed.failures} == {(ApplyFailureReason.UNKNOWN_SCHEMA_VERSION, ())}
    assert routed.failures[-1].detail == "schema version 'v1'; of heartbeat the pack understands v2, v3"
    assert routed.touched["account"].record_index.tolist() == [0, 1, 2, 3]


def test_another_group_changes_no_column_of_an_event_for_the_others() -> None:
    more = """\
  - name: more
    version: v1
    key_type: account
    ttl_seconds: 60
    features:
      - {name: n, aggregation: sum, events: [payment], value: points, window: 1h}
"""
    text = PACK.replace("step: integer}", "step: integer, points: integer}") + more
    compiled = compile_pack(load_pack(text))
    events = [Event("payment", GOOD), Event("payment", GOOD | {"points": 3}), Event("payment", GOOD | {"points": "3"})]
    before, after = route(events), route(events, Router(compiled))
    assert [failure.groups for failure in after.group_failures] == [(("more", "v1"),)] * 2
    for name, fed in (("g", [True] * 3), ("i", [True] * 3), ("more", [False, True, False])):
        masks = after.touched["account"].matrix[1]
        assert ((masks & compiled.groups[name, "v1"].mask) != 0).tolist() == fed
    besides_points = [2, 3, 4, *range(6, 11)]
    assert before.touched["account"].matrix[2:].tolist() == after.touched["account"].matrix[besides_points].tolist()


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
    assert [failure.reason for failure in route([Event("payment", payload)]).group_failures] == [ApplyFailureReason.WRONG_TYPE]


def test_only_what_is_read_is_asked_for() -> None:
    assert "device" not in COMPILED.layouts  # a key that no group has is not asked for either
    refund = {"account_id": "a", "amount": 1, "class": "a", "step": "s"}
    routed = route([Event("payment", GOOD | {"unread": 1.5}), Event("refund", refund)])
    assert (routed.failures, routed.group_failures) == ([], [])
    assert route([Event("heartbeat", b"not even JSON")]).status.tolist() == [APPLIED]


def test_an_empty_batch() -> None:
    routed = route([])
    assert (routed.status.shape, routed.id_digest.shape, routed.tie_digest.shape) == ((0,), (0, 2), (0, 2))
    assert (routed.failures, routed.touched) == ([], {})


def test_columns_of_different_lengths_are_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError):
        Router(COMPILED).route(["payment"], [], ["v1"], np.zeros(1, dtype=np.int64), [HASH], [b"{}"], [None])


PATTERNS = PACK.replace("revision: 1", "revision: 1\nkey_patterns: {account: 'acc_[0-9a-f]{16}', device: '[0-9a-f]{32}'}")
CANONICAL = "acc_0123456789abcdef"


@pytest.mark.parametrize(
    ("account_id", "reason"),
    [
        ("acc_0123456789abcdeg", ApplyFailureReason.INVALID_KEY),
        ("xacc_0123456789abcdef", ApplyFailureReason.INVALID_KEY),
        ("0f" * 16, ApplyFailureReason.INVALID_KEY),
        ("me@example.com", ApplyFailureReason.RAW_IDENTIFIER),
    ],
)
def test_a_key_beside_the_pattern_of_its_type_fails_and_says_which(account_id: str, reason: ApplyFailureReason) -> None:
    router = Router(compile_pack(load_pack(PATTERNS)))
    for _ in range(2):
        good = Event("payment", GOOD | {"account_id": CANONICAL})
        routed = route([good, Event("payment", GOOD | {"account_id": account_id}), good], router)
        assert routed.touched["account"].record_index.tolist() == [0, 2]
        assert routed.touched["merchant"].record_index.tolist() == [0, 1, 2]
        (failure,) = routed.group_failures
        assert failure.reason is reason
        assert account_id not in failure.detail
        if reason is ApplyFailureReason.INVALID_KEY:
            assert failure.detail.endswith("does not match the pattern of account keys in the pack, acc_[0-9a-f]{16}")


def test_a_key_of_one_type_is_not_taken_for_one_of_another() -> None:
    router = Router(compile_pack(load_pack(PATTERNS)))
    for _ in range(2):
        routed = route([Event("payment", GOOD | {"account_id": CANONICAL, "merchant_id": CANONICAL})], router)
        assert not routed.group_failures
        routed = route([Event("payment", GOOD | {"account_id": "m1", "merchant_id": "m1"})], router)
        assert [failure.reason for failure in routed.group_failures] == [ApplyFailureReason.INVALID_KEY]


def test_the_key_cache_never_lets_a_raw_identifier_through() -> None:
    router = Router(COMPILED)
    for _ in range(3):
        routed = route([Event("payment", GOOD), Event("payment", GOOD | {"account_id": "4111111111111111"})], router)
        assert routed.touched["account"].record_index.tolist() == [0]
        assert [failure.reason for failure in routed.group_failures] == [ApplyFailureReason.RAW_IDENTIFIER]


def test_tokens_do_not_confuse_types_and_survive_a_full_cache() -> None:
    for limit in (0, 1, 100):
        tokens = TokenCache(limit)
        for _ in range(2):
            high, low = tokens.columns(["1", 1, "x", "1"])
            expected = [tuple(map(signed, halves(data))) for data in (b'"1"', b"1", b'"x"', b'"1"')]
            assert list(zip(high.tolist(), low.tolist(), strict=True)) == expected


TEXT_PACK = """
pack_id: texts
revision: 1
events:
  payment:
    keys: {account: account_id}
    fields: {channel: string, online: boolean}
groups:
  - name: values
    version: v1
    key_type: account
    ttl_seconds: 1
    features:
      - {name: last, aggregation: last, events: [payment], value: channel, window: 1h}
      - {name: count, aggregation: count, events: [payment], window: 1h}
  - name: others
    version: v1
    key_type: account
    ttl_seconds: 1
    features:
      - {name: different, aggregation: distinct_count, events: [payment], value: channel, window: 1h}
      - {name: online, aggregation: last, events: [payment], value: online, window: 1h}
"""


@pytest.mark.parametrize("channel", ["é" * 33, "x" * 65, "x" * 10_000])
def test_a_long_text_fails_the_groups_with_a_value_of_the_field_and_no_other(channel: str) -> None:
    compiled = compile_pack(load_pack(TEXT_PACK))
    fits = Event("payment", {"account_id": "a", "channel": "é" * 32, "online": True}, "e1")
    long = Event("payment", {"account_id": "a", "channel": channel, "online": True}, "e2")
    batch = route([fits, long], Router(compiled))
    (failure,) = batch.group_failures
    assert (failure.index, failure.reason, failure.groups) == (1, ApplyFailureReason.TEXT_TOO_LONG, (("values", "v1"),))
    assert "'channel' is longer than 64 bytes of UTF-8" in failure.detail
    assert channel not in failure.detail
    feeds = {name: compiled.groups[name, "v1"].mask for name in ("values", "others")}
    masks = batch.touched["account"].matrix[1].tolist()
    assert [bool(mask & feeds["values"]) for mask in masks] == [True, False]
    assert [bool(mask & feeds["others"]) for mask in masks] == [True, True]
    only_values = load_pack(TEXT_PACK[: TEXT_PACK.index("  - name: others")])
    assert [one.reason for one in route([long], Router(compile_pack(only_values))).failures] == [ApplyFailureReason.TEXT_TOO_LONG]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"channel": None}, ApplyFailureReason.MISSING_FIELD),
        ({"channel": 1}, ApplyFailureReason.WRONG_TYPE),
        ({"online": 1}, ApplyFailureReason.WRONG_TYPE),
        ({"online": "true"}, ApplyFailureReason.WRONG_TYPE),
        ({"online": None}, ApplyFailureReason.MISSING_FIELD),
    ],
)
def test_a_value_of_another_type_is_never_read_as_one(change: dict[str, Any], reason: ApplyFailureReason) -> None:
    payload = {"account_id": "a", "channel": "web", "online": True, **change}
    batch = route([Event("payment", payload)], Router(compile_pack(load_pack(TEXT_PACK))))
    (failure,) = batch.failures + batch.group_failures
    assert failure.reason is reason
