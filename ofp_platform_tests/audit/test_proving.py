"""Proofs of every kind of record hold by the verifier that stands alone; what cannot be proven is refused with the reason."""

from __future__ import annotations

import runpy

import pytest

from ofp_platform.audit.co_signing import co_sign
from ofp_platform.audit.leaf_rows import NodeMissing
from ofp_platform.audit.proving import proof_file, prove_record, with_evidence
from ofp_platform.audit.signing_keys import SigningKey
from ofp_platform.audit.tree_heads import AuditRefused
from ofp_platform.storage.decision_records import append_decisions
from ofp_platform.vocabulary.canonical import canonical_bytes, sha256_hex
from ofp_platform.vocabulary.identity import pins_digest
from ofp_platform.vocabulary.loop.audit import AuditProof, CoSignature, ProvenEvent, co_signature_path
from ofp_platform_tests.audit.conftest import PINS, AuditedPlane, decision, fact
from ofp_platform_tests.audit.test_verify_proof import PROGRAM

VERIFY = runpy.run_path(str(PROGRAM))["verify"]


def prove(audited: AuditedPlane, identifier: str) -> AuditProof:
    with audited.pool.connection() as connection:
        return prove_record(connection, audited.objects, identifier)


def test_a_record_of_each_kind_is_proven(audited: AuditedPlane) -> None:
    audited.fill()
    audited.append(batch_leaves=3)
    audited.tell(2)
    audited.append()
    with audited.pool.connection() as connection:
        co_sign(connection, audited.objects, SigningKey.of_seed(b"w" * 32))
    run = pins_digest(PINS)
    identifiers = {
        "decision": decision(2).decision_id,
        "dataset_manifest": sha256_hex(b"1"),
        "label_assertion": sha256_hex(b"label 1"),
        "run_status": f"{run}/0",
        "governance_fact": sha256_hex(canonical_bytes(fact(1).wire())),
    }
    for kind, identifier in identifiers.items():
        proof = prove(audited, identifier)
        assert (proof.leaf.leaf_kind, proof.head.tree_size, len(proof.head.co_signatures)) == (kind, 9, 1)
        steps: list[str] = []
        VERIFY(proof_file(proof), audited.key.key_id, lambda step, words, steps=steps: steps.append(step))
        assert steps[:4] == ["key chain", "head", "inclusion", "record"]


def test_a_proof_has_the_co_signatures_that_hold_and_no_others(audited: AuditedPlane) -> None:
    audited.fill()
    [head] = audited.append().heads
    with audited.pool.connection() as connection:
        co_sign(connection, audited.objects, SigningKey.of_seed(b"w" * 32))
    forged = CoSignature(tree_size=8, head_digest=head.digest, key_id="5" * 64, signature="0" * 128)
    audited.objects.put_if_absent(co_signature_path(8, forged.key_id), canonical_bytes(forged.wire()))
    audited.objects.put_if_absent(co_signature_path(8, "6" * 64), b"{}")
    proof = prove(audited, decision(1).decision_id)
    assert [one.key_id for one in proof.head.co_signatures] == [SigningKey.of_seed(b"w" * 32).key_id]
    VERIFY(proof_file(proof), audited.key.key_id, lambda step, words: None)


def test_what_cannot_be_proven_says_why(audited: AuditedPlane) -> None:
    with pytest.raises(AuditRefused, match="there is no head"):
        prove(audited, "x")
    audited.fill()
    audited.append()
    with audited.pool.connection() as connection:
        append_decisions(connection, [decision(9)])
    audited.append()
    with pytest.raises(AuditRefused, match=r"is in quarantine: its snapshot .* is not in the index"):
        prove(audited, decision(9).decision_id)
    with pytest.raises(AuditRefused, match="no record none is a leaf"):
        prove(audited, "none")
    with audited.superuser() as connection:
        connection.execute("UPDATE ofp.run_status SET content = '{}'")
        with pytest.raises(AuditRefused, match="is not the one that its leaf names"):
            prove(audited, f"{pins_digest(PINS)}/0")
        connection.execute("UPDATE ofp.audit_node SET hash = sha256('x') WHERE (level, index) = (2, 1)")
        with pytest.raises(AuditRefused, match="leads to another root: the tree as it is kept is not what was signed"):
            prove(audited, decision(1).decision_id)
        connection.execute("DELETE FROM ofp.audit_node WHERE (level, index) = (2, 1)")
        with pytest.raises(NodeMissing, match="node 1 of level 2"):
            prove(audited, decision(1).decision_id)
        connection.execute("DELETE FROM ofp.audit_head")
        connection.execute("INSERT INTO ofp.audit_head VALUES (1, '', '[]')")
        with pytest.raises(AuditRefused, match="holds no tree head"):
            prove(audited, decision(1).decision_id)


def test_an_id_of_several_records_is_refused(audited: AuditedPlane) -> None:
    audited.label(0)
    with audited.superuser() as connection:
        connection.execute(
            "INSERT INTO ofp.label_assertion SELECT 'other', sequence, assertion_id, event_class, event_id, label_type, value,"
            " effective_time, stated_time, admitted_time, observed_time, source FROM ofp.label_assertion"
        )
    audited.append()
    with pytest.raises(AuditRefused, match="several records have the id"):
        prove(audited, sha256_hex(b"label 0"))
    assert prove(audited, f"other/{sha256_hex(b'label 0')}").leaf.subject.startswith("other/")


def test_a_proof_that_is_too_large_is_refused_with_its_size(audited: AuditedPlane) -> None:
    audited.fill()
    audited.append()
    proof = prove(audited, decision(1).decision_id)
    event = ProvenEvent(
        stream_name="payments",
        partition_id="0000",
        offset=0,
        event_id="e",
        event_type="card_payment",
        ts_utc="2026-01-01T00:00:00Z",
        payload_hash="0" * 64,
    )
    small = with_evidence(proof, None, event, [event])
    assert len(proof_file(small)) < 32_768
    with pytest.raises(AuditRefused, match=r"takes \d+,\d+ bytes, and 32,768 are allowed; 400 events"):
        proof_file(with_evidence(proof, None, event, [event] * 400))
