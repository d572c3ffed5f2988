"""The catalogue: definitions in full, and words that change no digest."""

from __future__ import annotations

import pytest
from ruamel.yaml import YAML

from ofp_platform.registry.catalogue import catalogue, definition
from ofp_platform.registry.compile import compile_pack
from ofp_platform.registry.models import Pack
from ofp_platform.registry.pack import SHIPPED_PACKS, group_digests, load_pack, pack_digest, shipped_pack, shipped_pack_text
from ofp_platform.registry.pack_text import PackErrors
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.catalogue import CatalogueReader
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform_tests.oracle.simulated_log import PINS
from ofp_platform_tests.oracle.strategies import PACK

PINNED = ContextPins.model_validate(PINS)


def worded(name: str) -> Pack:
    """A shipped pack in which every group and feature has words."""
    data = YAML(typ="safe").load(shipped_pack_text(name))
    data["description"] = "another"
    for group in data["groups"]:
        for part in (group, *group["features"], *group.get("on_demand", [])):
            part.update({"description": f"About {part['name']}.", "owner": "team:risk", "tags": ["pii_free", part["name"]]})
    return load_pack(canonical_bytes(data).decode())


@pytest.mark.parametrize("name", SHIPPED_PACKS)
def test_words_change_no_digest(name: str) -> None:
    plain, words = shipped_pack(name), worded(name)
    assert plain != words
    assert (pack_digest(words), group_digests(words)) == (pack_digest(plain), group_digests(plain))
    assert compile_pack(words).groups == compile_pack(plain).groups


def test_the_words_of_a_pack_of_the_same_meaning_count() -> None:
    registry, words = compile_pack(shipped_pack("card_payments")), worded("card_payments")
    group = catalogue(registry, PINNED, words=words).groups[0]
    assert (group.description, group.owner, group.tags[0]) == (f"About {group.group_name}.", "team:risk", "pii_free")
    other = words.model_copy(update={"revision": 7})
    assert catalogue(registry, PINNED, words=other) == catalogue(registry, PINNED)


def test_definitions_are_whole() -> None:
    reader = CatalogueReader(kind="dataset", name="d", reference="0" * 64)
    whole = catalogue(compile_pack(shipped_pack("card_payments")), PINNED, {("account_activity", "v1"): [reader]})
    groups = {group.group_name: group for group in whole.groups}
    activity = {feature.name: feature for feature in groups["account_activity"].features}
    assert groups["account_activity"].read_by == (reader,)
    assert activity["count_5m"].owner == "team:fraud-platform"
    assert definition(activity["sum_amount_30d"]) == "sum of amount_minor over card_payment in 30d"
    assert (
        definition(activity["declined_ratio_24h"])
        == "count over card_payment where status is declined in 24h / count over card_payment in 24h"
    )
    assert (activity["count_5m"].type, activity["mean_amount_30d"].type) == ("integer", "decimal(6)")
    on_demand = next(feature for feature in groups["account_amount"].features if feature.expression)
    assert definition(on_demand) == "request.amount_minor / mean_amount_30d, on demand"
    assert groups["account_amount"].request_context == {"amount_minor": "integer"}
    assert not catalogue(compile_pack(shipped_pack("handbook")), PINNED).readers_known
    late = catalogue(compile_pack(shipped_pack("handbook")), PINNED)
    assert any("7d late" in definition(feature) for group in late.groups for feature in group.features)


def test_lists_are_told_with_their_length_and_the_type_of_their_items() -> None:
    features = {
        feature.name: (feature.type, definition(feature))
        for group in catalogue(compile_pack(load_pack(PACK)), PINNED).groups
        if group.group_name == "lists"
        for feature in group.features
    }
    assert features["newest_online"] == ("list of boolean", "last_n (n = 5) of online over payment in 10s")
    assert features["top_amounts"] == ("list of integer", "top_k by amount (k = 3) over payment in 3s, 1s late")
    assert features["shop_sums"] == (
        "list of {category: string, value: integer}",
        "sum_by of amount by shop (k = 3) over payment, refund in 10s",
    )


@pytest.mark.parametrize(
    ("field", "value"), [("owner", "somebody"), ("owner", "team:"), ("tags", ["Not a name"]), ("description", "x" * 1001)]
)
def test_words_of_another_form_are_refused(field: str, value: object) -> None:
    data = YAML(typ="safe").load(shipped_pack_text("card_payments"))
    data["groups"][0][field] = value
    with pytest.raises(PackErrors, match=field):
        load_pack(canonical_bytes(data).decode())
