"""Digests name meaning: what is written otherwise but means the same has the same digest."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.registry.models import event_class
from ofp_platform.registry.pack import (
    SHIPPED_PACKS,
    group_content,
    group_digests,
    load_pack,
    pack_content,
    pack_digest,
    shipped_pack,
    shipped_pack_text,
)
from ofp_platform.vocabulary.canonical import canonical_bytes

BASE = {
    "pack_id": "p",
    "revision": 1,
    "events": {
        "payment": {"keys": {"account": "account_id"}, "fields": {"amount": "integer", "status": "string"}},
        "refund": {"class": "payment", "keys": {"account": "account_id"}, "fields": {"amount": "integer"}},
    },
    "groups": [
        {
            "name": "g",
            "version": "v1",
            "key_type": "account",
            "ttl_seconds": 60,
            "features": [
                {
                    "name": "a",
                    "aggregation": "count",
                    "events": ["payment"],
                    "where": {"status": ["x", "y"]},
                    "window": "24h",
                },
                {
                    "name": "b",
                    "aggregation": "mean",
                    "events": ["payment", "refund"],
                    "value": "amount",
                    "window": "1d",
                },
            ],
        }
    ],
}


def changed(change: str) -> Any:
    """BASE with one textual change in its JSON."""
    old, new = change.split(" => ")
    text = json.dumps(BASE)
    assert old in text
    return load_pack(text.replace(old, new))


def _shuffled(value: Any, rng: random.Random) -> Any:
    if isinstance(value, dict):
        items = list(value.items())
        rng.shuffle(items)
        return {name: _shuffled(item, rng) for name, item in items}
    if isinstance(value, list):
        items = [_shuffled(item, rng) for item in value]
        rng.shuffle(items)
        return items
    return value


@given(rng=st.randoms(use_true_random=False), name=st.sampled_from(SHIPPED_PACKS))
def test_order_in_the_file_does_not_matter(rng: random.Random, name: str) -> None:
    pack = shipped_pack(name)
    data = pack.model_dump(mode="json", by_alias=True, exclude_none=True)
    again = load_pack(json.dumps(_shuffled(data, rng)))
    assert pack_digest(again) == pack_digest(pack)
    assert group_digests(again) == group_digests(pack)


@pytest.mark.parametrize(
    "change",
    [
        '"24h" => "1d"',
        '"24h" => "86400000000us"',
        '["x", "y"] => ["y", "x", "x"]',
        '"pack_id": "p" => "pack_id": "p", "description": "words"',
        '"value": "amount" => "value": "amount", "delay": "0s", "scale": 6',
    ],
)
def test_what_means_the_same(change: str) -> None:
    assert pack_digest(changed(change)) == pack_digest(load_pack(json.dumps(BASE)))


@pytest.mark.parametrize(
    ("change", "group_changes"),
    [
        ('"24h" => "23h"', True),
        ('["x", "y"] => ["x"]', True),
        ('"ttl_seconds": 60 => "ttl_seconds": 61', True),
        ('"value": "amount" => "value": "amount", "scale": 5', True),
        ('"value": "amount" => "value": "amount", "delay": "1s"', True),
        ('"class": "payment" => "class": "other"', True),
        ('"account_id" => "acct_id"', True),
        ('"revision": 1 => "revision": 2', False),
        ('{"amount": "integer", "status" => {"unread": "string", "amount": "integer", "status"', False),
        ('{"account": "account_id"} => {"account": "account_id", "card": "card_id"}', False),
        ('"revision": 1 => "key_patterns": {"account": "a-[0-9]+"}, "revision": 1', True),
        ('"revision": 1 => "key_patterns": {"card": "c-[0-9]+"}, "revision": 1', False),
    ],
)
def test_what_means_something_else(change: str, group_changes: bool) -> None:
    before, after = load_pack(json.dumps(BASE)), changed(change)
    assert pack_digest(before) != pack_digest(after)
    assert (group_digests(before) != group_digests(after)) is group_changes


def test_the_content_has_every_default_and_durations_in_microseconds() -> None:
    pack = load_pack(json.dumps(BASE))
    mean = pack_content(pack)["groups"][0]["features"][1]
    assert mean == {
        "name": "b",
        "aggregation": "mean",
        "events": ["payment", "refund"],
        "where": {},
        "value": "amount",
        "window": 86_400_000_000,
        "delay": 0,
        "scale": 6,
    }
    assert group_content(pack, pack.groups[0])["events"] == {
        "payment": {"class": "payment", "key": "account_id", "fields": {"amount": "integer", "status": "string"}},
        "refund": {"class": "payment", "key": "account_id", "fields": {"amount": "integer"}},
    }
    assert canonical_bytes(pack_content(pack))
    assert event_class(pack.events, "refund") == "payment"
    assert event_class(pack.events, "never_heard_of") == "never_heard_of"


def test_an_operand_inherits_window_and_delay() -> None:
    ratio = {f["name"]: f for g in pack_content(shipped_pack("handbook"))["groups"] for f in g["features"]}["risk_7d"]
    day = 86_400_000_000
    assert (ratio["numerator"]["window"], ratio["numerator"]["delay"]) == (7 * day, 0)
    assert (ratio["denominator"]["window"], ratio["denominator"]["delay"]) == (7 * day, 7 * day)


def test_there_is_no_other_shipped_pack() -> None:
    with pytest.raises(KeyError, match="there are card_payments, handbook"):
        shipped_pack_text("../models")
