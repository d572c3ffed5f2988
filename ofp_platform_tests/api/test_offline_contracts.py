"""The schemas of labels, decisions and run facts: true to real objects, closed to wrong ones."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from ofp_platform.api.contract_files import CONTRACTS
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.decision_record import DecisionRecord, decision_id
from ofp_platform.vocabulary.offline.label_assertion import LabelAssertion
from ofp_platform.vocabulary.offline.run_facts import RunFacts

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
