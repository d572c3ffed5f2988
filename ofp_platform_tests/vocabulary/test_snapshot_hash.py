"""What a snapshot's hash is over, spelled out byte by byte."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from ofp_platform.vocabulary.snapshot_hash import hashed_object, snapshot_hash

PARTS: dict[str, Any] = {
    "context_pins": {"run_id": "r"},
    "as_of_time_utc": "2026-01-01T00:00:00Z",
    "feature_keys": [{"key_type": "card", "key_id": "c"}],
    "feature_groups": [{"group_name": "g", "group_version": "v1"}],
    "registry_digest": "d1",
    "run_config_digest": "d2",
    "values": [{"count": 1}],
    "freshness": [{"stale": False}],
    "warnings": [],
    "input_basis": {"stream_name": "s"},
}


def test_every_part_is_hashed_under_its_own_name() -> None:
    assert hashed_object(**PARTS) == {"contract_version": "ofp_public_contracts_v0", **PARTS}


@pytest.mark.parametrize(("name", "value"), [("graph_version", "7"), ("request_context", {"amount": 5}), ("request_context", {})])
def test_what_was_not_used_is_no_part_of_it(name: str, value: Any) -> None:
    assert hashed_object(**PARTS, **{name: value}) == {"contract_version": "ofp_public_contracts_v0", **PARTS, name: value}
    assert name not in hashed_object(**PARTS, **{name: None})


def test_the_hash_is_sha_256_of_the_canonical_bytes() -> None:
    assert snapshot_hash({"b": [1, None], "a": "ü"}) == hashlib.sha256('{"a":"ü","b":[1,null]}'.encode()).hexdigest()
