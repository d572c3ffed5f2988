"""Amendments in a pack: what may be declared, what it changes, and what an amendment touches."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from typing import Any

import msgspec
import numpy as np
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.registry.amending import AmendableType
from ofp_platform.registry.apply_failure import ApplyFailureReason
from ofp_platform.registry.compile import CompiledRegistry, compile_pack
from ofp_platform.registry.layout import (
    AMENDS_KIND_ROW,
    AMENDS_MASK_ROW,
    AMENDS_TIME_ROW,
    EVENT,
    FIXED_ROW,
    MASK_ROW,
    REPLACE,
    TARGET_ROW,
    TIME_ROW,
    VOID,
)
from ofp_platform.registry.models import amended_type
from ofp_platform.registry.pack import group_digests, load_pack, pack_digest
from ofp_platform.registry.pack_text import PackErrors
from ofp_platform.registry.routing import APPLIED, FAILED, RoutedBatch, Router
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.envelope import ijson_bytes
from ofp_platform.vocabulary.times import format_time

TEXT = """
pack_id: amended
revision: 1
events:
  payment:
    class: paid
    keys: {account: account_id, merchant: merchant_id}
    fields: {amount: integer, status: string, shop: string}
    amendments: {by: [payment, reversal], may_change: [amount]}
  reversal:
    keys: {account: account_id}
  report:
    keys: {account: account_id}
groups:
  - {name: a, version: v1, key_type: account, ttl_seconds: 5, features: [
      {name: sum, aggregation: sum, events: [payment], value: amount, window: 7us, where: {status: ok}}]}
  - {name: m, version: v1, key_type: merchant, ttl_seconds: 5, features: [
      {name: shops, aggregation: distinct_count, events: [payment], value: shop, window: 7us}]}
  - {name: r, version: v1, key_type: account, ttl_seconds: 5, features: [
      {name: reports, aggregation: count, events: [report], window: 7us}]}
"""
PLAIN = TEXT.replace("    amendments: {by: [payment, reversal], may_change: [amount]}\n", "")
GOOD = {"account_id": "a-1", "merchant_id": "m-1", "amount": 5, "status": "ok", "shop": "x"}


def registry(text: str = TEXT) -> CompiledRegistry:
    return compile_pack(load_pack(text, "pack.yaml"))


def amends(kind: str = "void", target: str = "e-0", at: int = 10, event_class: str = "paid") -> bytes:
    return canonical_bytes({"event_class": event_class, "event_id": target, "kind": kind, "ts_utc": format_time(at)})


def route(*records: tuple[str, dict[str, Any] | bytes, bytes | None], text: str = TEXT) -> RoutedBatch:
    """Records of these types, payloads and amendments at 10, 11, ... microseconds, with ids e-0, e-1, ..."""
    types, payloads, amending = zip(*records, strict=True)
    return Router(registry(text)).route(
        list(types),
        [f"e-{number}" for number in range(len(records))],
        ["1"] * len(records),
        np.arange(10, 10 + len(records)),
        [bytes([number]) * 32 for number in range(len(records))],
        [one if isinstance(one, bytes) else orjson.dumps(one) for one in payloads],
        list(amending),
    )


def test_a_pack_without_amendments_has_the_digests_and_layouts_that_it_had() -> None:
    plain, amended = registry(PLAIN), registry()
    assert [layout.amendable for layout in plain.layouts.values()] == [False, False]
    assert [(name, layout.amendable, layout.ties) for name, layout in amended.layouts.items()] == [
        ("account", True, True),
        ("merchant", True, True),
    ]
    assert pack_digest(plain.pack) != pack_digest(amended.pack)
    before, after = group_digests(plain.pack), group_digests(amended.pack)
    assert [name for name, digest in before.items() if after[name] != digest] == [("a", "v1"), ("m", "v1")]


def test_an_amendment_stands_at_the_time_of_its_event() -> None:
    changed = {**GOOD, "amount": 7}
    routed = route(
        ("payment", GOOD, None), ("payment", changed, amends("replace")), ("reversal", {"account_id": "a-1"}, amends())
    )
    assert routed.status.tolist() == [APPLIED] * 3
    assert (routed.failures, routed.group_failures, routed.amends.tolist()) == ([], [], [False, True, True])
    account = routed.touched["account"]
    assert account.key_ids == ["a-1"] * 3
    assert account.matrix[TIME_ROW].tolist() == [10, 10, 10]
    assert account.matrix[AMENDS_TIME_ROW].tolist() == [0, 11, 12]
    assert account.matrix[AMENDS_KIND_ROW].tolist() == [EVENT, REPLACE, VOID]
    mask = account.matrix[MASK_ROW, 0]
    assert account.matrix[MASK_ROW].tolist() == [mask, 0, 0]
    assert account.matrix[AMENDS_MASK_ROW].tolist() == [0, mask, 0]
    assert account.matrix[registry().layouts["account"].first_integer_row].tolist() == [5, 7, 0]
    targets = account.matrix[TARGET_ROW:FIXED_ROW].T.tolist()
    assert targets[0] == targets[1] != targets[2]  # the void has not all keys of the event
    fixed = account.matrix[FIXED_ROW:AMENDS_TIME_ROW].T.tolist()
    assert fixed[0] == fixed[1]
    assert routed.touched["merchant"].record_index.tolist() == [0, 1]


def test_an_event_that_may_be_amended_stands_under_every_key_that_it_has() -> None:
    lacking = {name: value for name, value in GOOD.items() if name != "shop"}
    routed = route(("payment", lacking, None), ("payment", {**GOOD, "amount": 1}, amends("replace")))
    assert routed.touched["merchant"].matrix[MASK_ROW].tolist() == [0, 0]
    assert [failure.groups for failure in routed.group_failures] == [(("m", "v1"),)]
    plain = route(("payment", lacking, None), text=PLAIN)
    assert "merchant" not in plain.touched


def test_a_replacement_fails_for_the_groups_that_it_lacks_something_for_and_a_void_for_none() -> None:
    lacking = {name: value for name, value in GOOD.items() if name != "amount"}
    routed = route(("payment", lacking, amends("replace")), ("payment", lacking, amends("void")))
    assert routed.status.tolist() == [APPLIED, APPLIED]
    assert [(failure.index, failure.groups) for failure in routed.group_failures] == [(0, (("a", "v1"),))]
    assert routed.touched["account"].matrix[AMENDS_MASK_ROW].tolist() == [0, 0]
    assert routed.touched["merchant"].matrix[AMENDS_MASK_ROW, 0] > 0


@pytest.mark.parametrize(
    ("event_type", "payload", "amending", "reason"),
    [
        ("report", GOOD, amends(), ApplyFailureReason.AMENDMENT_NOT_DECLARED),
        ("payment", GOOD, amends(event_class="report"), ApplyFailureReason.AMENDMENT_NOT_DECLARED),
        ("payment", GOOD, amends(at=11), ApplyFailureReason.AMENDMENT_BEFORE_EVENT),
        ("payment", {}, amends(), ApplyFailureReason.MISSING_KEY),
        ("payment", {**GOOD, "account_id": None, "merchant_id": "4111111111111111"}, amends(), ApplyFailureReason.MISSING_KEY),
        ("payment", b"[1]", amends(), ApplyFailureReason.MALFORMED_PAYLOAD),
        ("payment", b"\xff", amends("replace"), ApplyFailureReason.MALFORMED_PAYLOAD),
    ],
)
def test_an_amendment_that_cannot_be_one_fails_and_touches_nothing(
    event_type: str, payload: Any, amending: bytes, reason: ApplyFailureReason
) -> None:
    routed = route((event_type, payload, amending), ("payment", GOOD, None))
    assert routed.status.tolist() == [FAILED, APPLIED]
    assert [failure.reason for failure in routed.failures] == [reason]
    assert routed.touched["account"].record_index.tolist() == [1]
    assert not routed.amends.any()


def test_what_may_only_be_voided_is_not_replaced() -> None:
    text = TEXT.replace(", may_change: [amount]", "")
    routed = route(("payment", GOOD, amends("replace")), ("payment", GOOD, amends("void")), text=text)
    assert routed.status.tolist() == [FAILED, APPLIED]
    assert routed.failures[0].detail == "it replaces an event of type payment, of which the pack says no field that may change"


def test_one_type_is_meant() -> None:
    events = registry().pack.events
    assert amended_type(events, "reversal", "paid") == "payment"
    assert amended_type(events, "reversal", "payment") is None
    assert amended_type(events, "report", "paid") is None


def test_the_digests_are_over_what_is_declared() -> None:
    amendable = AmendableType.of("payment", "paid", registry().pack.events["payment"])
    assert amendable is not None
    assert (amendable.keys, amendable.fixed_fields) == (("account_id", "merchant_id"), ("shop", "status"))
    assert AmendableType.of("report", "report", registry().pack.events["report"]) is None

    def digests(event_id: str, **changed: Any) -> tuple[list[int], list[int]]:
        made = amendable.digests([event_id], [orjson.dumps({**GOOD, **changed})])[:, 0].tolist()
        return made[:2], made[2:]

    target, fixed = digests("e-0")
    assert digests("e-0", amount=99, more=[1]) == (target, fixed)
    assert digests("e-1")[0] != target
    assert digests("e-0", account_id="a-2") == (digests("e-0", account_id="a-2")[0], fixed)
    assert digests("e-0", account_id="a-2")[0] != target
    assert digests("e-0", status="no")[1] != fixed
    assert digests("e-0", status=None) == digests("e-0", status=[]) == digests("e-0", status=1.5)
    assert amendable.digests(["e-0"], [b"{"]).shape == (4, 1)


def test_the_digest_of_an_event_stays_what_stored_states_hold() -> None:
    amendable = AmendableType.of("payment", "paid", registry().pack.events["payment"])
    assert amendable is not None
    for payload in (GOOD, {**GOOD, "shop": None}):
        target = sha256(b'paid\0payment\0["e-0","a-1","m-1"]').digest()[:16]
        fixed = sha256(b"paid\0payment\0" + orjson.dumps([payload["shop"], payload["status"]])).digest()[:16]
        halves = amendable.digests(["e-0"], [orjson.dumps(payload)])[:, 0]
        assert halves.astype(">i8").tobytes() == target + fixed


@pytest.mark.parametrize("may_change", ["", ", may_change: [amount, shop, status]"])
def test_nothing_is_compared_where_nothing_may_or_everything_may_change(may_change: str) -> None:
    pack = registry(TEXT.replace(", may_change: [amount]", may_change)).pack
    amendable = AmendableType.of("payment", "paid", pack.events["payment"])
    assert amendable is not None
    halves = amendable.digests(["e-0", "e-0"], [orjson.dumps(GOOD), orjson.dumps({**GOOD, "shop": "y"})])
    assert halves[2:].tolist() == [[0, 0], [0, 0]]
    assert halves[:2, 0].tolist() == halves[:2, 1].tolist()


_VALUES = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=3) | st.just([1]) | st.floats(0, 1)
_PAYLOADS = st.dictionaries(st.sampled_from(sorted(GOOD)), _VALUES) | st.just(GOOD)


@given(st.lists(_PAYLOADS, min_size=1, max_size=6))
def test_the_digests_of_a_batch_are_those_of_each_event_alone(payloads: list[dict[str, Any]]) -> None:
    text = TEXT.replace("status: string", "status: boolean").replace("status: ok", "status: true")
    amendable = AmendableType.of("payment", "paid", registry(text).pack.events["payment"])
    assert amendable is not None
    ids, texts = [f"e-{number}" for number in range(len(payloads))], [ijson_bytes(one) for one in payloads]
    whole = amendable.digests(ids, texts)
    alone = [amendable.digests([event_id], [one]) for event_id, one in zip(ids, texts, strict=True)]
    assert whole.tolist() == np.concatenate(alone, axis=1).tolist()
    undecoded = replace(amendable, decode=msgspec.json.Decoder(int).decode)  # which reads no payload
    assert whole.tolist() == undecoded.digests(ids, texts).tolist()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("by: [payment, reversal]", "by: [paymnt]", "no event type 'paymnt' in the pack; did you mean 'payment'?"),
        ("may_change: [amount]", "may_change: [amunt]", "no field 'amunt' in fields; did you mean 'amount'?"),
        ("may_change: [amount]", "may_change: [account_id]", "'account_id' is a key: an amendment has the keys of its event"),
        ("by: [payment, reversal]", "by: []", "must have at least one entry"),
        (
            "  report:\n",
            "  report:\n    class: paid\n    amendments: {by: [reversal]}\n",
            "reversal may amend events of payment already, of the same class: which one is meant is not told",
        ),
    ],
)
def test_a_wrong_declaration_is_told_where_it_stands(old: str, new: str, message: str) -> None:
    with pytest.raises(PackErrors) as caught:
        load_pack(TEXT.replace(old, new, 1), "pack.yaml")
    assert message in str(caught.value)
    assert "amendments" in str(caught.value)


def test_amendable_layouts_have_room_for_fewer_values() -> None:
    features = ", ".join(
        f"{{name: f{number}, aggregation: sum, events: [payment], value: v{number}, window: 1s}}" for number in range(245)
    )
    fields = ", ".join(f"v{number}: integer" for number in range(245))
    groups = f"groups:\n  - {{name: a, version: v1, key_type: account, ttl_seconds: 5, features: [{features}]}}\n"
    text = TEXT[: TEXT.index("groups:")].replace("fields: {amount: integer", f"fields: {{{fields}, amount: integer") + groups
    assert compile_pack(load_pack(text.replace("    amendments: {by: [payment, reversal], may_change: [amount]}\n", "")))
    with pytest.raises(PackErrors, match="take more than 244 columns"):
        load_pack(text)
