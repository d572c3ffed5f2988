"""The packs that ship, as the contract and the public handbook want them."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from ofp_platform.registry.compile import compile_pack
from ofp_platform.registry.models import pack_schema
from ofp_platform.registry.pack import SHIPPED_PACKS, pack_digest, shipped_pack, shipped_pack_text


def _data(name: str) -> Any:
    return YAML(typ="safe", pure=True).load(shipped_pack_text(name))


@pytest.mark.parametrize("name", SHIPPED_PACKS)
def test_the_schema_accepts_them(name: str) -> None:
    schema = pack_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.Draft202012Validator(schema).validate(_data(name))


@pytest.mark.parametrize("name", SHIPPED_PACKS)
def test_they_list_the_schema_versions_that_they_understand(name: str) -> None:
    for event_type, routing in _data(name)["events"].items():
        assert "v1" in routing["schema_versions"], event_type


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("revision",), "1"),
        (("groups", 0, "features", 0, "window"), "-1 s"),
        (("groups", 0, "features", 0, "agregation"), "count"),
        (("groups", 0, "key_type"), "terminal"),
        (("groups", 0, "features", 0, "where"), {"status": []}),
    ],
)
def test_the_schema_refuses_what_the_models_refuse(path: tuple[str | int, ...], value: object) -> None:
    data = _data("card_payments")
    target = data
    for part in path[:-1]:
        target = target[part]
    target[path[-1]] = value
    assert list(jsonschema.Draft202012Validator(pack_schema()).iter_errors(data))


def test_handbook_groups() -> None:
    compiled = compile_pack(shipped_pack("handbook"))
    features = {name: [feature.name for feature in plan.features] for (name, _), plan in compiled.groups.items()}
    assert features == {
        "account_activity": [f"{kind}_{days}d" for kind in ("count", "mean_amount") for days in (1, 30, 7)],
        "merchant_risk": [f"{kind}_{days}d" for kind in ("risk", "tx_count") for days in (1, 30, 7)],
    }
    assert compiled.reach == 37 * 86_400_000_000
    assert compiled.groups["merchant_risk", "v1"].key_type == "merchant"


def test_only_one_group_of_card_payments_needs_a_request_context() -> None:
    compiled = compile_pack(shipped_pack("card_payments"))
    needing = {name: plan.request_fields for name, plan in compiled.groups.items() if plan.request_fields}
    assert needing == {("account_amount", "v1"): (("amount_minor", "integer"),)}
    assert set(compiled.layouts) == {"account", "card", "customer", "device", "merchant"}
    names = {feature.name for plan in compiled.groups.values() for feature in plan.features}
    assert {"count_5m", "count_1h", "count_24h", "distinct_merchants_24h", "distinct_cards_24h"} <= names
    assert compiled.groups["account_amount", "v1"].on_demand[0].name == "amount_over_mean_30d"


def test_published_digests_do_not_move() -> None:
    """A change of these is a new revision of the pack, or a change of the law: never an accident."""
    assert {name: pack_digest(shipped_pack(name)) for name in SHIPPED_PACKS} == {
        "card_payments": "f32b00935670d985f8043317a20ccbf9dece130804763dc5544ee23f480c125d",
        "handbook": "552d27fe08822d388d28b014b4b6bd24edb2e1cbc42b9a038469b217e5ca6b18",
        "mule_rings": "1120654d73de967ab57d0641de968fe983bf1bc735ae897fce4a4c6eb58635c8",
    }
