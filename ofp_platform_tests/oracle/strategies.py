"""Hypothesis strategies for event worlds: few keys, crowded times, every disturbance that a log may show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st

from ofp_platform_tests.oracle.fold import LIMIT, Record, time_text
from ofp_platform_tests.oracle.fold import micros as parse_micros

SECOND = 1_000_000
START = 1_700_000_000 * SECOND
SKEW = 300 * SECOND
LATENESS = 7 * SECOND
SPANS = (1, SECOND, 3 * SECOND, 10 * SECOND)
"""Windows and delays of PACK, microseconds."""

PINS: dict[str, Any] = {
    "scenario_id": "town",
    "run_id": "run-1",
    "manifest_fingerprint": "a" * 64,
    "parameter_hash": "b" * 64,
}
ACCOUNTS = ("a-1", "a-2", "a-3")
MERCHANTS = ("m-1", "m-2")

READABLE_FLOATS = st.floats(allow_nan=False, allow_infinity=False).filter(lambda one: not 2**53 <= abs(one) < 1e21)
"""Without those that are written as integers beyond 2^53-1, which no payload may hold."""

PACK = """
pack_id: oracle
revision: 1
key_patterns: {merchant: "[^7x]+"}
events:
  payment:
    keys: {account: account_id, merchant: merchant_id}
    fields: {amount: integer, status: string, shop: string, online: boolean, unread: integer}
    amendments: {by: [payment, reversal], may_change: [amount, shop, online]}
  refund:
    class: payment
    keys: {account: account_id}
    fields: {amount: integer, shop: string}
    amendments: {by: [refund]}
  reversal:
    keys: {account: account_id}
  report:
    keys: {account: account_id, merchant: merchant_id}
  declared:
    keys: {account: account_id}
groups:
  - name: every
    version: v1
    key_type: account
    ttl_seconds: 5
    features:
      - {name: a_count, aggregation: count, events: [payment, refund], window: 10s}
      - {name: b_count, aggregation: count, events: [payment, refund], window: 1us}
      - {name: a_sum, aggregation: sum, events: [payment], value: amount, window: 3s, where: {status: [ok, odd]}}
      - {name: a_min, aggregation: min, events: [payment], value: amount, window: 3s, delay: 1s}
      - {name: a_max, aggregation: max, events: [payment, refund], value: amount, window: 10s, delay: 1us}
      - {name: a_mean, aggregation: mean, events: [payment, refund], value: amount, window: 10s, scale: 3}
      - {name: a_stddev, aggregation: stddev, events: [payment], value: amount, window: 10s}
      - {name: b_stddev, aggregation: stddev, events: [payment], value: amount, window: 3s, scale: 0}
      - {name: a_shops, aggregation: distinct_count, events: [payment, refund], value: shop, window: 10s}
      - {name: b_shops, aggregation: distinct_count, events: [payment, refund], value: shop, window: 3s}
      - {name: a_amounts, aggregation: distinct_count, events: [payment], value: amount, window: 10s, delay: 1s}
      - {name: a_first, aggregation: first, events: [payment], value: amount, window: 10s}
      - {name: a_last, aggregation: last, events: [payment, refund], value: amount, window: 3s, where: {amount: [0, 1, 7]}}
      - {name: a_since, aggregation: seconds_since_last, events: [payment], window: 10s, where: {online: true}}
      - {name: b_since, aggregation: seconds_since_first, events: [report], window: 10s, delay: 3s}
    request: {amount: integer}
    on_demand:
      - {name: over_mean, expression: (request.amount - 1) / a_mean}
  - name: ratios
    version: v2
    key_type: account
    ttl_seconds: 1
    features:
      - name: share
        aggregation: ratio
        window: 3s
        numerator: {aggregation: sum, events: [payment], value: amount, where: {status: odd}}
        denominator: {aggregation: mean, events: [payment], value: amount, window: 10s}
      - name: spread
        aggregation: ratio
        window: 10s
        scale: 9
        numerator: {aggregation: stddev, events: [payment], value: amount}
        denominator: {aggregation: distinct_count, events: [payment], value: shop}
      - name: evenness
        aggregation: ratio
        window: 10s
        numerator: {aggregation: mean, events: [payment, refund], value: amount}
        denominator: {aggregation: stddev, events: [payment], value: amount, window: 3s}
      - name: variation
        aggregation: ratio
        window: 3s
        scale: 3
        numerator: {aggregation: stddev, events: [payment], value: amount}
        denominator: {aggregation: mean, events: [payment], value: amount}
  - name: whole
    version: v1
    key_type: account
    ttl_seconds: 2
    features:
      - {name: a_median, aggregation: median, events: [payment, refund], value: amount, window: 10s}
      - {name: a_third, aggregation: quantile, p: 0.333333, events: [payment], value: amount, window: 10s, delay: 1s}
      - {name: a_top, aggregation: quantile, p: "1", events: [payment], value: amount, window: 3s, where: {status: [ok, odd]}}
      - {name: a_pairs, aggregation: distinct_count, events: [payment, refund], value: shop, paired_with: amount, window: 10s}
      - {name: b_pairs, aggregation: distinct_count, events: [payment], value: status, paired_with: shop, window: 3s, delay: 1us}
      - {name: a_change, aggregation: seconds_since_change, events: [payment], condition: {online: true}, window: 10s}
      - name: b_change
        aggregation: seconds_since_change
        events: [payment]
        condition: {status: [ok, no], amount: [0, 1, 7]}
        where: {status: [ok, odd]}
        window: 10s
        delay: 1s
      - name: skewness
        aggregation: ratio
        window: 10s
        numerator: {aggregation: quantile, p: 0.9, events: [payment], value: amount}
        denominator: {aggregation: median, events: [payment, refund], value: amount, window: 3s}
      - name: switching
        aggregation: ratio
        window: 10s
        numerator: {aggregation: seconds_since_change, events: [payment], condition: {online: true}}
        denominator: {aggregation: distinct_count, events: [payment], value: shop, paired_with: status}
  - name: lists
    version: v1
    key_type: account
    ttl_seconds: 3
    features:
      - {name: a_newest, aggregation: last_n, n: 3, events: [payment, refund], value: amount, window: 10s}
      - {name: b_newest, aggregation: last_n, n: 20, events: [payment], value: amount, window: 3s, where: {online: true}}
      - {name: c_newest, aggregation: last_n, n: 1, events: [refund], value: amount, window: 10s, delay: 1us}
      - {name: newest_online, aggregation: last_n, n: 5, events: [payment], value: online, window: 10s}
      - {name: newest_shops, aggregation: last_n, n: 4, events: [payment, refund], value: shop, window: 10s, delay: 1s}
      - {name: newest_statuses, aggregation: last_n, n: 20, events: [payment], value: status, window: 3s}
      - {name: payments, aggregation: count, events: [payment], window: 3s}
      - {name: top_shops, aggregation: top_k, k: 2, events: [payment, refund], category: shop, window: 10s}
      - {name: top_amounts, aggregation: top_k, k: 3, events: [payment], category: amount, window: 3s, delay: 1s}
      - {name: shop_counts, aggregation: count_by, k: 20, events: [payment, refund], category: shop, window: 10s}
      - {name: status_counts, aggregation: count_by, k: 2, events: [payment], category: status, window: 3s, where: {online: true}}
      - {name: online_counts, aggregation: count_by, k: 2, events: [payment], category: online, window: 3s}
      - {name: shop_sums, aggregation: sum_by, k: 3, events: [payment, refund], category: shop, value: amount, window: 10s}
      - {name: flag_sums, aggregation: sum_by, k: 1, events: [payment], category: online, value: amount, window: 10s, delay: 1s}
      - {name: amount_sums, aggregation: sum_by, k: 4, events: [payment], category: amount, value: amount, window: 3s}
  - name: texts
    version: v1
    key_type: account
    ttl_seconds: 4
    features:
      - {name: first_shop, aggregation: first, events: [payment, refund], value: shop, window: 10s}
      - {name: last_shop, aggregation: last, events: [payment, refund], value: shop, window: 3s, delay: 1s}
      - {name: last_shops, aggregation: last, events: [payment, refund], value: shop, window: 10s, delay: 1s}
      - {name: least_shop, aggregation: min, events: [payment, refund], value: shop, window: 10s}
      - {name: greatest_shop, aggregation: max, events: [payment], value: shop, window: 3s, where: {online: true}}
      - {name: last_status, aggregation: last, events: [payment], value: status, window: 10s}
      - {name: shops, aggregation: distinct_count, events: [payment, refund], value: shop, window: 10s}
  - name: switches
    version: v1
    key_type: account
    ttl_seconds: 6
    features:
      - {name: all_online, aggregation: min, events: [payment], value: online, window: 10s}
      - {name: any_online, aggregation: max, events: [payment], value: online, window: 3s, delay: 1s}
      - {name: first_online, aggregation: first, events: [payment], value: online, window: 10s}
      - {name: last_online, aggregation: last, events: [payment], value: online, window: 3s, where: {status: ok}}
  - name: shop
    version: v1
    key_type: merchant
    ttl_seconds: 3
    features:
      - {name: count, aggregation: count, events: [payment], window: 3s, delay: 1s}
      - name: risk
        aggregation: ratio
        window: 3s
        numerator: {aggregation: count, events: [report]}
        denominator: {aggregation: count, events: [payment], delay: 1s}
"""
"""Every aggregation, conditions of each type, delays, ratios, values of each type, an on-demand feature, a shared event class,
a pattern of keys."""


PLAIN_PACK = "\n".join(line for line in PACK.split("\n") if "amendments:" not in line).replace(
    "pack_id: oracle", "pack_id: plain"
)
"""The same where nothing may be amended; then not all of its layouts have ties."""


def times(until: int = 30) -> st.SearchStrategy[int]:
    """Times that meet at the edges of windows: whole spans from the start, and a microsecond beside them."""
    edge = st.builds(lambda whole, side: START + whole * SECOND + side, st.integers(0, until), st.sampled_from((-1, 0, 0, 0, 1)))
    return st.one_of(edge, st.integers(START, START + until * SECOND))


SHOPS = (
    "x",
    "y",
    "z",
    "",
    "a",
    "a\0",
    "a\0b",
    "é",
    "\uffff",
    "\U0001f600",
    '"\\/\b\t\n\x1f\x7f',
    "%s",
    "s" * 64,
    "é" * 32,
    "s" * 65,
    "é" * 33,
)
"""Texts that end alike or begin alike, of which the order differs between encodings, that JSON escapes, and around the limit."""


def integers() -> st.SearchStrategy[int]:
    """Small and extreme integers within ±(2^53-1)."""
    return st.one_of(st.sampled_from((0, 1, 7, LIMIT, -LIMIT, LIMIT - 1)), st.integers(-LIMIT, LIMIT))


def _payload(event_type: str) -> st.SearchStrategy[dict[str, Any]]:
    account, merchant = st.sampled_from(ACCOUNTS), st.sampled_from(MERCHANTS)
    if event_type == "payment":
        return st.fixed_dictionaries(
            {
                "account_id": account,
                "merchant_id": merchant,
                "amount": integers(),
                "status": st.sampled_from(("ok", "odd", "no")),
                "shop": st.sampled_from(SHOPS),
                "online": st.booleans(),
            }
        )
    if event_type == "refund":
        return st.fixed_dictionaries({"account_id": account, "amount": integers(), "shop": st.sampled_from(SHOPS)})
    return st.fixed_dictionaries({"account_id": account, "merchant_id": merchant})


@st.composite
def envelopes(draw: st.DrawFn, event_ids: st.SearchStrategy[str]) -> dict[str, Any]:
    """One envelope, sometimes of an unknown or merely declared type, broken, an amendment of anything, or of another run."""
    event_type = draw(st.sampled_from(("payment",) * 6 + ("refund",) * 3 + ("report", "report", "declared", "unknown")))
    payload = dict(draw(_payload(event_type)))
    defect = draw(st.sampled_from((None,) * 12 + ("missing", "wrong", "foreign", "amends", "amends")))
    if defect == "missing":
        payload.pop(draw(st.sampled_from(sorted(payload))))
    elif defect == "wrong":
        payload[draw(st.sampled_from(sorted(payload)))] = draw(st.sampled_from((None, 1.5, "7", True, [], LIMIT)))
    pins = {**PINS, "run_id": "run-2"} if defect == "foreign" else PINS
    envelope = {
        "event_id": draw(event_ids),
        "event_type": event_type,
        "schema_version": "1",
        "ts_utc": time_text(draw(times())),
        **pins,
        "payload": payload,
    }
    if defect == "amends":
        envelope["amends"] = draw(amends(event_ids.map(lambda name: (name, "payment")), times()))
    return envelope


@st.composite
def amends(draw: st.DrawFn, targets: st.SearchStrategy[tuple[str, str]], at: st.SearchStrategy[int]) -> dict[str, str]:
    """What an amendment says of an event, by its id and class, at a time."""
    event_id, event_class = draw(targets)
    kind = draw(st.sampled_from(("void", "replace", "replace")))
    return {"event_class": event_class, "event_id": event_id, "kind": kind, "ts_utc": time_text(draw(at))}


@st.composite
def amendments(draw: st.DrawFn, event: dict[str, Any], event_ids: st.SearchStrategy[str]) -> dict[str, Any]:
    """An amendment of an event that there is: its payload with some fields changed, sometimes a key, or with too little."""
    payload = dict(event["payload"])
    change = draw(st.sampled_from(("allowed",) * 6 + ("status", "account_id", "missing")))
    others = draw(_payload("payment"))
    if change == "allowed":
        payload |= {name: others[name] for name in ("amount", "shop", "online") if name in payload and draw(st.booleans())}
    elif change in payload:
        payload[change] = others[change]
    elif change == "missing" and payload:
        payload.pop(draw(st.sampled_from(sorted(payload))))
    at = parse_micros(event["ts_utc"])
    return {
        **event,
        "event_id": draw(event_ids),
        "event_type": draw(st.sampled_from(("payment", "payment", "reversal", "refund"))),
        "ts_utc": time_text(draw(st.one_of(times(), st.just(at), st.just(at + SECOND)))),
        "amends": draw(amends(st.just((event["event_id"], "payment")), st.sampled_from((at, at, at, at, at + 1)))),
        "payload": payload,
    }


@dataclass(frozen=True)
class World:
    """A log of PACK's events: its records in the order of admission, and the basis that holds all of them."""

    records: tuple[Record, ...]

    @property
    def basis(self) -> Mapping[str, int]:
        """Partition -> exclusive next offset."""
        ends: dict[str, int] = {}
        for record in self.records:
            ends[record.partition_id] = record.offset + 1
        return ends

    def up_to(self, count: int) -> World:
        """The first `count` records."""
        return World(self.records[:count])


@st.composite
def worlds(draw: st.DrawFn, max_events: int = 40, partitions: Sequence[str] = ("p0", "p1")) -> World:
    """Disorder, ties, copies of one event, one id with two payloads, events from the future, several partitions."""
    ids = st.integers(0, 2 * max_events).map(lambda number: f"e-{number}")
    events = draw(st.lists(envelopes(ids), max_size=max_events))
    amended = draw(st.lists(st.sampled_from(events), max_size=8)) if events else []
    events += [draw(amendments(event, ids)) for event in amended]
    copies = draw(st.lists(st.sampled_from(events), max_size=8)) if events else []
    order = draw(st.permutations(events + copies))
    ends = dict.fromkeys(partitions, 0)
    records = []
    for envelope in order:
        partition = draw(st.sampled_from(tuple(partitions)))
        early = draw(st.sampled_from((0,) * 9 + (1,)))
        # the skew is counted from the event's own time; one microsecond more is too much
        ts = START + 30 * SECOND if not early else START - SKEW + draw(st.integers(0, 30)) * SECOND
        records.append(Record(partition, ends[partition], ts, envelope))
        ends[partition] += 1
    return World(tuple(records))
