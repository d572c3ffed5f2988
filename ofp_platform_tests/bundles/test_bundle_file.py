"""Bundle files: the shipped ones make bundles; everything that a pack cannot give is refused with file and field."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from ofp_platform.bundles.bundle_file import (
    SHIPPED_BUNDLES,
    BundleFile,
    BundleFileError,
    bundle_source,
    make_bundle,
    read_bundle_file,
)
from ofp_platform.bundles.trained_model import TrainedModel
from ofp_platform.registry.compile import CompiledRegistry, compile_pack
from ofp_platform.registry.pack import shipped_pack
from ofp_platform.vocabulary.loop.bundle import Bundle
from ofp_platform_tests.bundles.trained import model_of, report_of

GROUP = {"group_name": "card_activity", "group_version": "v1"}
RULE = {"reason_code": "R", "outcome": "review"}
LEAST: dict[str, Any] = {
    "name": "mine",
    "event_type": "card_payment",
    "key_fields": {"card": "card_id"},
    "groups": [GROUP],
    "guardrails": [{**RULE, "all_of": [{"feature": {**GROUP, "feature": "count_5m"}, "operator": "at_least", "value": 3}]}],
}
RINGS: dict[str, Any] = {
    "name": "rings",
    "event_type": "transfer",
    "key_fields": {"account": "account_id", "device": "observed_identifiers[device_print]"},
    "groups": [
        {"group_name": "account_habits", "group_version": "v1"},
        {"group_name": "account_entity", "group_version": "v1"},
        {"group_name": "device_use", "group_version": "v1"},
    ],
    "guardrails": [{**RULE, "all_of": [{"field": "amount_minor", "operator": "above", "value": 100}]}],
}


def made(content: Mapping[str, Any], registry: CompiledRegistry, trained_model: TrainedModel | None = None) -> Bundle:
    return make_bundle(Path("bundle.yaml"), BundleFile.model_validate(content), registry, trained_model)


def rules(*comparisons: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """The rule that LEAST has, and one with these comparisons."""
    return [*LEAST["guardrails"], {**RULE, "all_of": list(comparisons)}]


def feature(name: str, group: str = "card_activity") -> dict[str, str]:
    return {"group_name": group, "group_version": "v1", "feature": name}


@pytest.fixture(scope="session")
def ring_registry() -> CompiledRegistry:
    return compile_pack(shipped_pack("mule_rings"))


@pytest.mark.parametrize("name", SHIPPED_BUNDLES)
def test_the_shipped_files_make_bundles_on_their_packs(name: str) -> None:
    registry = compile_pack(shipped_pack(name))
    path = bundle_source(name)
    bundle = make_bundle(path, read_bundle_file(path), registry)
    assert (bundle.bundle_name, bundle.feature_definition_set.digest) == (name, registry.digest)
    assert Bundle.model_validate_json(bundle.stored()) == bundle


def test_a_file_of_ones_own(card_registry: CompiledRegistry, ring_registry: CompiledRegistry, tmp_path: Path) -> None:
    path = tmp_path / "bundle.yaml"
    with path.open("w", encoding="utf-8") as file:
        YAML(typ="safe", pure=True).dump(LEAST, file)
    assert bundle_source(str(path)) == path
    bundle = make_bundle(path, read_bundle_file(path), card_registry)
    assert bundle == made(LEAST, card_registry)
    assert bundle.ref.digest != made({**LEAST, "name": "other"}, card_registry).ref.digest
    assert made(RINGS, ring_registry).guardrails[0].reason_code == "R"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("name: [", "bundle.yaml:2: not YAML|bundle.yaml:1: not YAML"),
        ("name: Mine\n", "bundle.yaml: name: "),
        ("nam: x\n", "bundle.yaml: nam: Extra inputs"),
        (
            "guardrails:\n  - all_of:\n      - {field: x, operator: above, value: 0.5}\n",
            r"bundle.yaml: guardrails\.0\.all_of\.0\.value: is a float, which is not exact: write a decimal as a text",
        ),
        ("1.5", "bundle.yaml: the file: is a float"),
    ],
)
def test_a_file_that_is_wrong_by_itself(text: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "bundle.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(BundleFileError, match=words):
        read_bundle_file(path)
    with pytest.raises(BundleFileError, match=r"absent\.yaml: No such file"):
        read_bundle_file(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"event_type": "payment"}, "event_type: pack card_payments has no payment; it has card_payment, fraud_report"),
        ({"groups": [GROUP, GROUP]}, "groups: a group is named twice"),
        ({"groups": [GROUP, {**GROUP, "group_version": "v9"}]}, r"groups\.1: pack card_payments has no group card_activity v9"),
        ({"key_fields": {"account": "account_id"}}, "key_fields: names no field with the card, of which a group is"),
        (
            {"key_fields": {"card": "card_id", "device": "device_id"}},
            r"key_fields\.device: no group that is asked for is of a device",
        ),
        (
            {"key_fields": {"card": "pan_token"}},
            r"key_fields\.card: the pack declares no pan_token of card_payment: name it",
        ),
        ({"key_fields": {"card": "amount_minor"}}, r"key_fields\.card: amount_minor is a number, and a key is a string"),
        ({"key_fields": {"card": "observed_identifiers[print]"}}, r"key_fields\.card: the pack makes no key of observed_iden"),
        ({"context_fields": ["amount_minor"]}, "context_fields: no group that is asked for reads amount_minor"),
        ({"undeclared_fields": ["channel"]}, "undeclared_fields: the pack declares channel"),
        (
            {"guardrails": rules({"feature": feature("nothing"), "operator": "above", "value": 1})},
            r"guardrails\.1\.all_of\.0\.feature: pack card_payments has no card_activity v1 nothing",
        ),
        (
            {"guardrails": rules({"feature": feature("risk_7d", "merchant_risk"), "operator": "above", "value": 1})},
            r"guardrails\.1\.all_of\.0\.feature: merchant_risk v1 is not among the groups",
        ),
        (
            {"guardrails": rules({"feature": feature("count_1h"), "operator": "equals", "value": "three"})},
            "card_activity v1 count_1h is a number: compare it with an integer",
        ),
        (
            {"guardrails": rules({"feature": feature("count_1h"), "operator": "equals", "value": True})},
            "card_activity v1 count_1h is a number",
        ),
        (
            {"guardrails": rules({"field": "channel", "operator": "above", "value": 3})},
            "field: channel is a string: it equals a text",
        ),
        ({"guardrails": rules({"field": "card_id", "operator": "below", "value": "x"})}, "field: card_id is a string"),
        ({"guardrails": rules({"field": "ip", "operator": "equals", "value": "x"})}, "field: the pack declares no ip"),
        (
            {"undeclared_fields": ["ip"], "guardrails": rules({"field": "ip", "operator": "above", "value": "x"})},
            "field: ip is compared by order",
        ),
        ({"guardrails": []}, "the file: a bundle has rules, or a model, or both: this one decides nothing"),
        (
            {"optional_groups": [{"group_name": "merchant_risk", "group_version": "v1"}]},
            "optional group merchant_risk is not among the groups",
        ),
    ],
)
def test_everything_that_the_pack_cannot_give_is_refused(
    changed: dict[str, Any], words: str, card_registry: CompiledRegistry
) -> None:
    with pytest.raises(BundleFileError, match=rf"bundle\.yaml: .*{words}"):
        made({**LEAST, **changed}, card_registry)


def test_the_request_context_is_that_of_the_groups(card_registry: CompiledRegistry) -> None:
    amounts = {"group_name": "account_amount", "group_version": "v1"}
    content = {**LEAST, "groups": [GROUP, amounts], "key_fields": {"card": "card_id", "account": "account_id"}}
    with pytest.raises(BundleFileError, match="context_fields: lack amount_minor, which a group reads on demand"):
        made(content, card_registry)
    assert made({**content, "context_fields": ["amount_minor"]}, card_registry).context_fields == ("amount_minor",)


def test_lists_and_undeclared_fields(ring_registry: CompiledRegistry, card_registry: CompiledRegistry) -> None:
    last = feature("last_payees", "account_habits")
    ordered = {**RULE, "all_of": [{"feature": last, "operator": "above", "value": 1}]}
    with pytest.raises(BundleFileError, match="account_habits v1 last_payees is a list, which has no order"):
        made({**RINGS, "guardrails": [*RINGS["guardrails"], ordered]}, ring_registry)
    absent = {**RULE, "all_of": [{"feature": last, "operator": "is_absent"}]}
    assert made({**RINGS, "guardrails": [*RINGS["guardrails"], absent]}, ring_registry)
    undeclared = {"guardrails": rules({"field": "ip", "operator": "at_most", "value": "1.5"}), "undeclared_fields": ["ip"]}
    assert made({**LEAST, **undeclared}, card_registry)


def test_a_model_goes_into_the_bundle_with_its_thresholds_and_where_it_comes_from(card_registry: CompiledRegistry) -> None:
    model = model_of(
        {"source": "feature", **feature("declined_ratio_1h"), "scale": 6}, {"source": "event_time", "part": "during_night"}
    )
    report = report_of(model)
    bundle = made(LEAST, card_registry, TrainedModel("learning/m.json", model, report))
    assert bundle.model is not None
    assert (bundle.model.digest, bundle.model.thresholds) == (model.digest, report.thresholds)
    assert bundle.provenance.eval_report == report.digest
    assert bundle.provenance.manifest_digests == (report.manifest_digest,)


@pytest.mark.parametrize(
    ("asked", "words"),
    [
        (
            {"source": "feature", **feature("declined_ratio_1h"), "scale": 5},
            "card_activity_v1__declined_ratio_1h: has 6 digits behind the point, and the model takes 5",
        ),
        ({"source": "feature", **feature("nothing"), "scale": 0}, "card_activity_v1__nothing: pack card_payments has no such"),
        (
            {"source": "feature", **feature("risk_7d", "merchant_risk"), "scale": 6},
            "merchant_risk_v1__risk_7d: merchant_risk v1 is not among the groups of the file",
        ),
        ({"source": "payload", "field": "channel", "scale": 0}, "payload__channel: is a string, and a model takes numbers"),
        ({"source": "payload", "field": "ip", "scale": 0}, "payload__ip: the pack declares no ip of card_payment"),
    ],
)
def test_a_model_that_reads_what_is_not_there_is_refused(
    asked: dict[str, Any], words: str, card_registry: CompiledRegistry
) -> None:
    model = model_of(asked)
    with pytest.raises(BundleFileError, match=f"bundle.yaml: model m: inputs: {words}"):
        made(LEAST, card_registry, TrainedModel("learning/m.json", model, report_of(model)))


def test_a_bundle_that_cannot_keep_a_mask_is_refused_at_once(card_registry: CompiledRegistry) -> None:
    with pytest.raises(BundleFileError, match=r"bundle\.yaml: optional_groups: in mode REDUCED no group is left to ask for"):
        made({**LEAST, "optional_groups": [GROUP]}, card_registry)
