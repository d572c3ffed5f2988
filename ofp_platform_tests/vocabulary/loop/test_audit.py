"""Leaves, heads, co-signatures and proofs are what their published schemas say, and nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from pydantic import ValidationError

from ofp_platform.api.contract_files import CONTRACTS
from ofp_platform.vocabulary.canonical import canonical_bytes, sha256_hex
from ofp_platform.vocabulary.loop.audit import AuditLeaf, AuditProof, TreeHead, co_signature_path, head_path
from ofp_platform_tests.audit.proof_vectors import FOLDER

PROOF = json.loads((FOLDER / "good.json").read_text())


def is_valid(name: str, content: Any) -> bool:
    schema = json.loads((CONTRACTS / f"{name}_v0.schema.json").read_text(encoding="utf-8"))
    return Draft202012Validator(schema).is_valid(content)


def test_the_parts_of_a_proof_are_of_their_schemas() -> None:
    assert is_valid("audit_proof", PROOF)
    assert is_valid("audit_leaf", PROOF["leaf"])
    assert is_valid("audit_tree_head", PROOF["head"])
    assert is_valid("audit_co_signature", PROOF["head"]["co_signatures"][0])
    assert AuditProof.model_validate_json(json.dumps(PROOF)).wire() == PROOF


@pytest.mark.parametrize(
    ("name", "part", "changes"),
    [
        ("audit_proof", PROOF, {"extra": 1}),
        ("audit_leaf", PROOF["leaf"], {"record_digest": "A" * 64}),
        ("audit_leaf", PROOF["leaf"], {"subject": ""}),
        ("audit_leaf", PROOF["leaf"], {"contract_version": "v1"}),
        ("audit_tree_head", PROOF["head"], {"tree_size": 0}),
        ("audit_tree_head", PROOF["head"], {"signature": "0" * 127}),
        ("audit_tree_head", PROOF["head"], {"at_utc": "2026-01-01"}),
        ("audit_co_signature", PROOF["head"]["co_signatures"][0], {"key_id": "0" * 63}),
    ],
)
def test_schema_and_model_refuse_alike(name: str, part: dict[str, Any], changes: dict[str, Any]) -> None:
    models = {"audit_proof": AuditProof, "audit_leaf": AuditLeaf, "audit_tree_head": TreeHead}
    assert not is_valid(name, part | changes)
    if name in models:
        with pytest.raises(ValidationError):
            models[name].model_validate_json(json.dumps(part | changes))


def test_signatures_are_no_part_of_the_digest_of_a_head() -> None:
    head = TreeHead.model_validate_json(json.dumps(PROOF["head"]))
    bare = head.model_copy(update={"signature": "0" * 128, "co_signatures": ()})
    assert bare.digest == head.digest == sha256_hex(head.signed_bytes)
    assert b"signature" not in head.signed_bytes
    assert head.model_copy(update={"tree_size": 8}).digest != head.digest
    assert head.encoded() == canonical_bytes(PROOF["head"])


def test_objects_are_in_the_order_of_their_sizes() -> None:
    paths = [head_path(size) for size in (1, 9, 10, 2**53 - 1)]
    assert paths == sorted(paths)
    assert co_signature_path(9, "k") < co_signature_path(10, "a")
