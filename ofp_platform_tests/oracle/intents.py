"""Intents to start from, as plain data."""

from __future__ import annotations

import copy
from typing import Any

PINS = {"scenario_id": "ranges", "run_id": "run-1", "manifest_fingerprint": "1" * 64, "parameter_hash": "2" * 64}
_HEAD: dict[str, Any] = {
    "kind": "ofs_build_intent",
    "contract_version": "v0",
    "context_pins": PINS,
    "run_facts_ref": "facts/run-1",
    "stream_name": "card-payments",
    "policy": {"policy_id": "fraud_training", "revision": 1},
}
DATASET: dict[str, Any] = {
    **_HEAD,
    "intent": "dataset_build",
    "dataset_name": "fraud_by_payment",
    "purpose": "training",
    "replay": {"select": "admission_times", "from_utc": "2026-01-01T00:00:00Z", "to_utc": "2026-01-04T00:00:00Z"},
    "feature_pack": {"pack_id": "card_payments", "revision": 1},
    "feature_groups": [{"group_name": "account_activity", "group_version": "v1"}],
    "scope": {
        "kind": "per_event",
        "event_types": ["card_payment"],
        "from_utc": "2026-01-01T00:00:00Z",
        "filters": [{"field": "status", "one_of": ["approved", 1, True]}],
    },
    "as_of_basis": "ingest_time",
    "label": {"label_type": "fraud", "as_of_utc": "2026-01-02T18:00:00Z", "maturity_seconds": 86400},
}
PARITY: dict[str, Any] = {
    **_HEAD,
    "intent": "parity_rebuild",
    "replay": {
        "select": "offsets",
        "basis": {
            "stream_name": "card-payments",
            "partitions": [{"partition_id": "0000", "offset_kind": "exclusive_next", "start": 0, "next": 10}],
        },
    },
    "decision_ids": ["decision-2", "decision-1"],
}
FORENSIC: dict[str, Any] = {
    **_HEAD,
    "intent": "forensic_rebuild",
    "basis": {
        "stream_name": "card-payments",
        "partitions": [{"partition_id": "0000", "offset_kind": "exclusive_next", "offset": 10}],
    },
    "feature_pack": {"pack_id": "card_payments", "revision": 1},
    "run_config_digest": "3" * 64,
    "feature_keys": [{"key_type": "account", "key_id": "acc-1"}],
    "feature_groups": [{"group_name": "account_activity", "group_version": "v1"}],
    "as_of_time_utc": "2026-01-02T00:00:00Z",
}


def changed(data: dict[str, Any], **changes: Any) -> dict[str, Any]:
    """A deep copy with other fields."""
    return {**copy.deepcopy(data), **changes}
