"""docs/packs.md is the language that the registry reads: its example, its fields, its limits, its refusals."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ofp_platform.registry.aggregations import Aggregation, Reads, rule_of
from ofp_platform.registry.compile import compile_pack
from ofp_platform.registry.expression import MAX_EXPRESSION_CHARACTERS
from ofp_platform.registry.layout import MAX_PREDICATES, MAX_VALUE_COLUMNS
from ofp_platform.registry.models import (
    DEFAULT_SCALE,
    MAX_SCALE,
    EventRouting,
    Feature,
    FieldType,
    Group,
    OnDemand,
    Operand,
    Pack,
    RequestFieldType,
)
from ofp_platform.registry.pack import load_pack, pack_digest
from ofp_platform.registry.pack_text import MAX_SOURCE_CHARACTERS, PackErrors
from ofp_platform.registry.text_words import MAX_TEXT_BYTES, TEXT_WORDS
from ofp_platform.vocabulary.identity import KeyType
from ofp_platform_tests.docs.fenced import blocks

PAGE = Path(__file__).resolve().parents[2] / "docs" / "packs.md"
TEXT = PAGE.read_text(encoding="utf-8")
(EXAMPLE,) = [block.text for block in blocks(PAGE) if block.language == "yaml"]


def test_the_example_is_a_pack() -> None:
    pack = load_pack(EXAMPLE, "packs.md")
    assert {group.name for group in compile_pack(pack).pack.groups} == {"account_amounts"}


def test_every_field_is_explained() -> None:
    for model in (EventRouting, Feature, Group, OnDemand, Operand, Pack):
        fields = {field.alias or name for name, field in model.model_fields.items()} - {"name"}
        assert [name for name in sorted(fields) if f"`{name}`" not in TEXT] == []
    for words in (FieldType, RequestFieldType, KeyType):
        assert [word.value for word in words if f"`{word.value}`" not in TEXT] == []


def test_the_limits_are_those_of_the_code() -> None:
    assert f"at most {MAX_SOURCE_CHARACTERS:,} characters" in TEXT
    assert f"at most {MAX_PREDICATES} different selections" in TEXT
    assert f"at most {MAX_TEXT_BYTES} bytes of UTF-8" in TEXT
    assert f"at most {MAX_VALUE_COLUMNS} columns: a text field {TEXT_WORDS}," in TEXT
    assert f"At most {MAX_EXPRESSION_CHARACTERS} characters" in TEXT
    assert f"0 to {MAX_SCALE}, {DEFAULT_SCALE} unless given" in TEXT


def test_the_aggregations_without_a_value_are_those_that_the_page_names() -> None:
    (row,) = [line for line in TEXT.splitlines() if line.startswith("| `value`")]
    named = re.findall(r"`([a-z_]+)`", row)[1:]
    assert sorted(named) == sorted(name.value for name in Aggregation if rule_of(name).reads is Reads.NOTHING)


REFUSED = {
    "a name written twice": EXAMPLE.replace("revision: 1\n", "revision: 1\nrevision: 2\n"),
    "an alias": EXAMPLE.replace("keys: {account", "keys: &keys {account", 1).replace(
        "class: payment          # one event, whichever type it comes as\n    keys: {account: account_id, merchant: merchant_id}",
        "class: payment\n    keys: *keys",
    ),
    "a tag": EXAMPLE.replace("revision: 1", "revision: !money 1"),
    "an unknown field": EXAMPLE.replace("ttl_seconds", "ttl"),
    "a card number": EXAMPLE.replace("Prose", "4111 1111 1111 1111"),
    "a long duration": EXAMPLE.replace("window: 30d", "window: 3661d"),
    "a version": EXAMPLE.replace("version: v1", "version: latest"),
    "an expression over a text": EXAMPLE.replace("request.amount_minor / mean_30d", "request.amount_minor / last_channel_7d"),
    "an expression over a boolean": EXAMPLE.replace("request.amount_minor / mean_30d", "request.amount_minor / any_retry_1h"),
    "a ratio of a text": EXAMPLE.replace(
        "denominator: {aggregation: count, events: [payment]}",
        "denominator: {aggregation: max, events: [payment], value: channel}",
    ),
    "a value of another type": EXAMPLE.replace("is_retry: false}", "is_retry: 0}"),
    "an operator": EXAMPLE.replace("request.amount_minor / mean_30d", "request.amount_minor % mean_30d"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_the_page_calls_refused_is_refused(name: str) -> None:
    assert REFUSED[name] != EXAMPLE
    with pytest.raises(PackErrors, match=r"packs.md:\d+: "):
        load_pack(REFUSED[name], "packs.md")


def test_what_the_digest_does_not_see() -> None:
    same = EXAMPLE.replace("Prose; no part of the digest.", "Other prose.  # and a comment").replace("window: 24h", "window: 1d")
    same = same.replace("{channel: [web, app], is_retry: false}", "{is_retry: false, channel: [app, web]}")
    assert same != EXAMPLE
    assert pack_digest(load_pack(same, "other.yaml")) == pack_digest(load_pack(EXAMPLE, "packs.md"))
    assert pack_digest(load_pack(EXAMPLE.replace("window: 30d", "window: 31d"), "other.yaml")) != pack_digest(
        load_pack(EXAMPLE, "packs.md")
    )
