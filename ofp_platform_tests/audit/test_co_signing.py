"""A witness signs what continues the head that it signed before, and nothing else."""

from __future__ import annotations

import pytest

from ofp_platform.audit.co_signing import co_sign
from ofp_platform.audit.database_view import database_view
from ofp_platform.audit.signing_keys import SigningKey, is_signed
from ofp_platform.audit.tree_heads import AuditRefused
from ofp_platform.audit.verification import verify_log
from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.loop.audit import CoSignature, co_signature_path
from ofp_platform_tests.audit.conftest import AuditedPlane

WITNESS = SigningKey.of_seed(b"w" * 32)


def sign(audited: AuditedPlane) -> CoSignature:
    with audited.pool.connection() as connection:
        return co_sign(connection, audited.objects, WITNESS)


def test_a_witness_signs_head_after_head(audited: AuditedPlane) -> None:
    with pytest.raises(AuditRefused, match="there is no head to sign"):
        sign(audited)
    audited.fill()
    [head] = audited.append().heads
    first = sign(audited)
    assert sign(audited) == first
    assert (first.tree_size, first.head_digest) == (8, head.digest)
    assert is_signed(WITNESS.key_id, first.signature, head.signed_bytes)
    audited.tell(*range(2, 9))
    audited.append(batch_leaves=3)
    second = sign(audited)
    assert second.tree_size == 15
    with database_view(audited.pool, audited.objects) as view:
        told = verify_log(view)
    assert (told.faults, told.co_signatures) == ((), (first, second))


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("UPDATE ofp.audit_leaf SET leaf_hash = sha256('x') WHERE leaf_index = 8", "leads to another root"),
        ("DELETE FROM ofp.audit_head WHERE tree_size = 8", "is not in the log any more"),
        (
            'UPDATE ofp.audit_head SET content = regexp_replace(content, \'"root_hash":"..\', \'"root_hash":"00\')'
            " WHERE tree_size = 9",
            "is not signed by key",
        ),
        ("UPDATE ofp.audit_head SET content = '[]' WHERE tree_size = 8", "holds no tree head"),
    ],
)
def test_another_history_is_not_signed(audited: AuditedPlane, damage: str, words: str) -> None:
    audited.fill()
    audited.append()
    sign(audited)
    audited.tell(2)
    audited.append()
    with audited.superuser() as connection:
        connection.execute(damage)
    with pytest.raises(AuditRefused, match=words):
        sign(audited)


def test_a_co_signature_that_others_put_under_the_key_is_not_taken_for_its_own(audited: AuditedPlane) -> None:
    audited.fill()
    [head] = audited.append().heads
    forged = CoSignature(tree_size=8, head_digest=head.digest, key_id=WITNESS.key_id, signature="0" * 128)
    audited.objects.put_if_absent(co_signature_path(8, WITNESS.key_id), canonical_bytes(forged.wire()))
    with pytest.raises(AuditRefused, match="was not made with it"):
        sign(audited)
    audited.tell(2)
    audited.append()
    with pytest.raises(AuditRefused, match="was not made with it"):
        sign(audited)


def test_a_co_signature_that_is_none_or_wrong_is_told(audited: AuditedPlane) -> None:
    audited.fill()
    [head] = audited.append().heads
    for number, changes in enumerate(
        ({"signature": "0" * 128}, {"head_digest": "0" * 64}, {"tree_size": 7}, {"key_id": "5" * 64}), start=1
    ):
        signature = CoSignature(
            tree_size=8, head_digest=head.digest, key_id=WITNESS.key_id, signature=WITNESS.sign(head.signed_bytes)
        )
        wrong = signature.model_copy(update=changes)
        audited.objects.put_if_absent(
            co_signature_path(wrong.tree_size, wrong.key_id) if number > 2 else f"audit/co_signatures/{number}",
            canonical_bytes(wrong.wire()),
        )
    with database_view(audited.pool, audited.objects) as view:
        told = verify_log(view)
    assert [fault.kind for fault in told.faults] == ["CO_SIGNATURE_WRONG"] * 4
    own_path = co_signature_path(8, WITNESS.key_id)
    audited.objects.put_if_absent(own_path, b"{}")
    with pytest.raises(AuditRefused, match="is no co-signature"):
        sign(audited)
