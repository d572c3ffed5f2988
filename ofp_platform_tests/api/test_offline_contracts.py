"""The schemas of labels, decisions and run facts: true to real objects, closed to wrong ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from ofp_platform.api.build_examples import build_error_examples
from ofp_platform.api.contract_files import CONTRACTS
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.loop.decision_record import DecisionRecord, decision_id
from ofp_platform.vocabulary.offline.build_intent import AsOfBasis, AsOfSpec
from ofp_platform.vocabulary.offline.label_assertion import LabelAssertion
from ofp_platform.vocabulary.offline.parity_record import FeatureDifference, ParityOutcome, ParityResult
from ofp_platform.vocabulary.offline.rebuilt_snapshot import RebuiltFeatureSnapshot
from ofp_platform.vocabulary.offline.run_facts import RunFacts
from ofp_platform.vocabulary.snapshot_hash import snapshot_hash

PINS = ContextPins(scenario_id="s", run_id="r", manifest_fingerprint="1" * 64, parameter_hash="2" * 64)
LABEL = LabelAssertion(
    event_class="card_payment",
    event_id="payment-1",
    label_type="fraud",
    value=1,
    effective_time_utc="2026-01-01T00:00:00Z",
    observed_time_utc="2026-01-08T00:00:00Z",
    source="desk",
)
DECISION = DecisionRecord.model_validate(
    {
        "decision_id": decision_id(PINS, "card_payment", "e-1"),
        "context_pins": PINS.wire(),
        "event_type": "card_payment",
        "event_id": "e-1",
        "event_position": {"stream_name": "s", "partition_id": "0000", "offset": 4},
        "as_of_time_utc": "2026-01-01T00:00:00Z",
        "feature_snapshot_hash": "3" * 64,
        "feature_keys": [{"key_type": "card", "key_id": "card-1"}],
        "feature_groups": [{"group_name": "card_activity", "group_version": "v1"}],
        "request_context": {"amount_minor": 5},
        "feature_definition_set": {"pack_id": "card_payments", "revision": 1, "digest": "4" * 64},
        "run_config_digest": "5" * 64,
        "input_basis": {
            "stream_name": "s",
            "partitions": [{"partition_id": "0000", "offset_kind": "exclusive_next", "offset": 5}],
        },
        "rule": {"rule_name": "r", "rule_version": "v1", "digest": "6" * 64},
        "score": "0.125",
        "outcome": "review",
        "decided_at_utc": "2026-01-01T00:00:01Z",
    }
)
FACTS = RunFacts.model_validate(
    {
        "reference": "sr/run-1",
        "context_pins": PINS.wire(),
        "stream_name": "s",
        "feature_pack": {"pack_id": "card_payments", "revision": 1, "digest": "4" * 64},
        "run_config_digest": "5" * 64,
        "clock_skew_us": 300_000_000,
        "allowed_lateness_us": 86_400_000_000,
        "evidence": [{"check": "stream_readable", "status": "PASS", "evidence_digest": "7" * 64}],
    }
)
HASHED = {
    **{name: DECISION.wire()[name] for name in ("context_pins", "feature_keys", "feature_groups", "run_config_digest")},
    "registry_digest": "4" * 64,
    "input_basis": DECISION.input_basis.model_dump(mode="json"),
    "values": [None],
}
AS_OF = AsOfSpec(as_of_time_utc="2026-01-01T00:00:00Z", as_of_basis=AsOfBasis.DECISION)
REBUILT = RebuiltFeatureSnapshot.of(snapshot_hash(HASHED), HASHED, AS_OF)
COMPARED = ParityResult(
    comparison_id="8" * 64,
    decision_id=DECISION.decision_id,
    request_id="r-1",
    context_pins=PINS,
    feature_keys=DECISION.feature_keys,
    feature_groups=DECISION.feature_groups,
    as_of=AS_OF,
    input_basis=DECISION.input_basis,
    registry_digest="4" * 64,
    run_config_digest="5" * 64,
    online_snapshot_ref="3" * 64,
    offline_snapshot_ref="9" * 64,
    outcome=ParityOutcome.MISMATCH,
    differences=tuple(FeatureDifference(where="values", feature=name, served=1, rebuilt="2.0") for name in ("a", "b")),
)
PUBLIC = {"RebuiltFeatureSnapshot": REBUILT, "ParityResult": COMPARED}
OBJECTS: dict[str, dict[str, Any]] = {
    "ofs_label_assertion": LABEL.wire(),
    "df_decision_record": DECISION.wire(),
    "run_facts": FACTS.wire(),
}


def validator(name: str) -> Draft202012Validator:
    schema = json.loads((CONTRACTS / f"{name}_v0.schema.json").read_text(encoding="utf-8"))
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


@pytest.mark.parametrize("name", OBJECTS)
def test_real_objects_validate_and_come_back(name: str) -> None:
    validator(name).validate(OBJECTS[name])
    model = {"ofs_label_assertion": LABEL, "df_decision_record": DECISION, "run_facts": FACTS}[name]
    assert type(model).model_validate_json(json.dumps(OBJECTS[name])) == model


def test_the_public_contract_has_the_definitions_of_the_design() -> None:
    assert list(validator("ofs_public_contracts").schema["$defs"]) == [
        "ContextPins",
        "FeatureKey",
        "ReplayBasis",
        "AsOfSpec",
        "FeatureGroupRef",
        "FeatureGroupVersionSet",
        "RebuiltFeatureSnapshot",
        "ParityResult",
        "DatasetManifest",
        "ErrorResponse",
    ]


@pytest.mark.parametrize("name", PUBLIC)
def test_published_objects_validate_and_come_back(name: str) -> None:
    wire, check = PUBLIC[name].wire(), validator("ofs_public_contracts")
    check.validate(wire)
    assert type(PUBLIC[name]).model_validate_json(json.dumps(wire)) == PUBLIC[name]
    for field in ("kind", "contract_version"):
        assert not check.is_valid({key: value for key, value in wire.items() if key != field})
    assert not check.is_valid({**wire, "contract_version": "ofp_public_contracts_v0"})
    assert not check.is_valid({**wire, "as_of": {"as_of_time_utc": "2026-01-01T00:00:00Z", "as_of_basis": "now"}})


def test_a_rebuilt_snapshot_has_the_hash_of_its_content() -> None:
    with pytest.raises(ValidationError, match="not the hash of what was rebuilt"):
        RebuiltFeatureSnapshot.of("0" * 64, HASHED, AS_OF)


def test_errors_of_the_offline_plane_validate() -> None:
    for error in build_error_examples().values():
        validator("ofs_public_contracts").validate(error)


@pytest.mark.parametrize("name", OBJECTS)
def test_every_field_that_is_there_is_needed_unless_it_may_be_absent(name: str) -> None:
    check, whole = validator(name), OBJECTS[name]
    for field in set(whole) - {"request_context"}:
        assert not check.is_valid({key: value for key, value in whole.items() if key != field}), field
    assert not check.is_valid({**whole, "other": 1})
    assert not check.is_valid({**whole, "kind": "other"})


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("ofs_label_assertion", {"event_class": ""}),
        ("ofs_label_assertion", {"value": "1"}),
        ("ofs_label_assertion", {"value": True}),
        ("ofs_label_assertion", {"value": 2**53}),
        ("ofs_label_assertion", {"observed_time_utc": "2026-01-08T00:00:00"}),
        ("ofs_label_assertion", {"event_id": "a,b"}),
        ("df_decision_record", {"score": 0.125}),
        ("df_decision_record", {"outcome": "perhaps"}),
        ("df_decision_record", {"feature_keys": []}),
        ("df_decision_record", {"input_basis": None}),
        ("run_facts", {"evidence": [{"check": "stream_readable", "status": "MAYBE", "evidence_digest": "7" * 64}]}),
        ("run_facts", {"clock_skew_us": -1}),
    ],
)
def test_wrong_objects_do_not_validate(name: str, change: dict[str, Any]) -> None:
    assert not validator(name).is_valid({**OBJECTS[name], **change})
