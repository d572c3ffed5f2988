"""Honest data has no fault; whatever somebody with all rights changes in the database or the store is found, at its place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from ofp_platform.audit.appending import append_records
from ofp_platform.audit.database_view import database_view
from ofp_platform.audit.faults import FaultKind
from ofp_platform.audit.key_rotation import rotate_key
from ofp_platform.audit.signing_keys import SigningKey
from ofp_platform.audit.tree_heads import AuditRefused
from ofp_platform.audit.verification import Verification, verify_log
from ofp_platform.storage.embedded import as_role
from ofp_platform.storage.postgres import open_pool
from ofp_platform.storage.roles import Job, default_role, register_role
from ofp_platform.vocabulary.canonical import sha256_hex
from ofp_platform.vocabulary.identity import pins_digest
from ofp_platform.vocabulary.loop.audit import HEADS, head_path
from ofp_platform_tests.audit.conftest import PINS, AuditedPlane, decision

RUN = pins_digest(PINS)
DECISION = decision(1).decision_id


def verify(audited: AuditedPlane, log_key_id: str | None = None) -> Verification:
    with database_view(audited.pool, audited.objects) as view:
        return verify_log(view, log_key_id or audited.key.key_id)


@pytest.fixture
def filled(audited: AuditedPlane) -> AuditedPlane:
    """Eight leaves under a head, two more under another."""
    audited.fill()
    audited.append()
    audited.decide(4)
    audited.label(2)
    audited.append()
    return audited


def test_without_a_head_nothing_is_proven(audited: AuditedPlane) -> None:
    audited.fill()
    told = verify(audited)
    assert [fault.kind for fault in told.faults] == [FaultKind.NO_HEAD]
    assert (told.proven_leaves, told.log_id) == (0, None)
    assert told.pending == {
        "decision": 3,
        "dataset_manifest": 1,
        "label_assertion": 2,
        "run_status": 1,
        "governance_fact": 1,
    }


def test_honest_records_have_no_fault_whenever_they_come(filled: AuditedPlane) -> None:
    told = verify(filled)
    assert told.faults == ()
    assert (told.head_count, told.leaf_count, told.proven_leaves, told.pending) == (2, 10, 10, {})
    filled.decide(5)
    filled.label(3)
    filled.tell(2)
    told = verify(filled)
    assert (told.faults, told.proven_leaves) == ((), 10)
    assert told.pending == {"decision": 1, "label_assertion": 1, "governance_fact": 1}


def test_what_is_in_quarantine_is_told_and_no_fault(filled: AuditedPlane) -> None:
    from ofp_platform.storage.decision_records import append_decisions

    with filled.pool.connection() as connection:
        append_decisions(connection, [decision(9)])
    filled.append()
    told = verify(filled)
    assert (told.faults, told.pending) == ((), {})
    assert [(kind, subject) for kind, subject, _ in told.quarantined] == [("decision", decision(9).decision_id)]


def test_a_log_that_was_handed_on_is_a_chain(filled: AuditedPlane) -> None:
    old, new = filled.key, SigningKey.of_seed(b"n" * 32)
    with pytest.raises(AuditRefused, match=r"is key .* already"):
        rotate_key(filled.pool, filled.objects, old, old.key_id, ("ops", "x"), filled.now)
    with pytest.raises(AuditRefused, match="the log is signed by key"):
        rotate_key(filled.pool, filled.objects, new, "5" * 64, ("ops", "x"), filled.now)
    head = rotate_key(filled.pool, filled.objects, old, new.key_id, ("ops", "yearly"), filled.now)
    assert (head.key_id, head.next_key_id, head.tree_size) == (old.key_id, new.key_id, 11)
    filled.tell(5)
    with pytest.raises(AuditRefused, match="the log is signed by key"):
        filled.append()
    append_records(filled.pool, filled.objects, new, filled.now)
    told = verify(filled, old.key_id)
    assert told.faults == ()
    assert told.head is not None
    assert (told.head.key_id, told.proven_leaves) == (new.key_id, 12)
    wrong = verify(filled, new.key_id)
    assert FaultKind.HEAD_OF_ANOTHER_LOG in [fault.kind for fault in wrong.faults]
    assert wrong.proven_leaves == 0


def test_no_log_is_handed_on_before_it_began(audited: AuditedPlane) -> None:
    with pytest.raises(AuditRefused, match="there is no head yet"):
        rotate_key(audited.pool, audited.objects, audited.key, "5" * 64, ("ops", "x"), audited.now)


def _file(audited: AuditedPlane, path: str) -> Path:
    folder = audited.objects.folder
    assert folder is not None
    return folder / path


SQL_TAMPERS = {
    "a decision is edited": (
        "UPDATE ofp.decision_record SET content = replace(content, 'approve', 'decline') WHERE decision_id = '{decision}'",
        "RECORD_DIFFERS decision/{decision}, leaf ",
    ),
    "a column of a decision is edited": (
        "UPDATE ofp.decision_record SET event_id = 'event-9' WHERE decision_id = '{decision}'",
        "RECORD_DIFFERS decision/{decision}, leaf ",
    ),
    "a decision is removed": (
        "DELETE FROM ofp.decision_record WHERE decision_id = '{decision}'",
        "RECORD_MISSING decision/{decision}, leaf ",
    ),
    "a label is edited": (
        "UPDATE ofp.label_assertion SET value = 0 WHERE sequence = 1",
        "RECORD_DIFFERS label_assertion/{run}/",
    ),
    "the sender of a label is edited": (
        "UPDATE ofp.label_assertion SET submitted_by = 'me' WHERE sequence = 1",
        "RECORD_DIFFERS label_assertion/{run}/",
    ),
    "a label of a number that no text of JSON has": (
        "UPDATE ofp.label_assertion SET value = 9223372036854775807 WHERE sequence = 1",
        "RECORD_DIFFERS label_assertion/{run}/",
    ),
    "a label is put in between": (
        "UPDATE ofp.label_assertion SET sequence = sequence + 10 WHERE sequence = 2; INSERT INTO ofp.label_assertion VALUES"
        " ('{run}', 2, repeat('a', 64), 'card_payment', 'event-7', 'fraud', 1, 0, 1, 2, 2, 'bank')",
        "RECORD_WITHOUT_LEAF label_assertion/{run}/aaaa",
    ),
    "a step of a run is edited": (
        "UPDATE ofp.run_status SET content = replace(content, 'READY', 'ENDED')",
        "RECORD_DIFFERS run_status/{run}/0, leaf 6",
    ),
    "a step of a run gets another number": (
        "UPDATE ofp.run_status SET sequence = 1",
        "RECORD_MISSING run_status/{run}/0, leaf 6",
    ),
    "a fact is removed": ("DELETE FROM ofp.governance_fact", "RECORD_MISSING governance_fact/"),
    "a row of a dataset is edited": (
        "UPDATE ofp.dataset_index SET manifest_digest = repeat('0', 64)",
        "RECORD_DIFFERS dataset_manifest/fraud:",
    ),
    "a decision of long ago is put in": (
        "INSERT INTO ofp.decision_record (decision_id, pins_digest, stream_name, partition_id, record_offset, event_id,"
        " snapshot_hash, content, recorded_at) VALUES (repeat('b', 64), 'x', '', '', 0, '', '', '{{}}', '2026-01-01')",
        "RECORD_WITHOUT_LEAF decision/bbbb",
    ),
    "a decision that does not say when it was recorded": (
        "INSERT INTO ofp.decision_record (decision_id, pins_digest, stream_name, partition_id, record_offset, event_id,"
        " snapshot_hash, content, recorded_at) VALUES (repeat('b', 64), 'x', '', '', 0, '', '', '{{}}', NULL)",
        "RECORD_WITHOUT_LEAF decision/bbbb",
    ),
    "the hash of a leaf": (
        "UPDATE ofp.audit_leaf SET leaf_hash = sha256('x') WHERE leaf_index = 6",
        "LEAF_ALTERED run_status/{run}/0, leaf 6",
    ),
    "a column of a leaf": (
        "UPDATE ofp.audit_leaf SET record_digest = repeat('0', 64) WHERE leaf_index = 6",
        "LEAF_ALTERED run_status/{run}/0, leaf 6",
    ),
    "the first leaf is removed": ("DELETE FROM ofp.audit_leaf WHERE leaf_index = 0", "LEAF_MISSING leaf/0, leaf 0"),
    "a leaf in between is removed": ("DELETE FROM ofp.audit_leaf WHERE leaf_index = 5", "LEAF_MISSING leaf/5, leaf 5"),
    "the last leaf is removed": ("DELETE FROM ofp.audit_leaf WHERE leaf_index = 9", "ROOT_DIFFERS head/10, leaf 9"),
    "two leaves change places": (
        "UPDATE ofp.audit_leaf SET leaf_index = 100 WHERE leaf_index = 2; UPDATE ofp.audit_leaf SET leaf_index = 2 WHERE"
        " leaf_index = 6; UPDATE ofp.audit_leaf SET leaf_index = 6 WHERE leaf_index = 100",
        "NODE_DIFFERS node/1/1, leaves 2 to 3",
    ),
    "a leaf behind everything": (
        "INSERT INTO ofp.audit_leaf SELECT 10, 'decision', 'x', '', '', sha256('\\x00'::bytea)",
        "LEAF_BEHIND_HEAD leaf/10, leaf 10",
    ),
    "a node is edited": (
        "UPDATE ofp.audit_node SET hash = sha256('x') WHERE (level, index) = (2, 1)",
        "NODE_DIFFERS node/2/1, leaves 4 to 7",
    ),
    "a node is removed": ("DELETE FROM ofp.audit_node WHERE (level, index) = (2, 1)", "NODE_MISSING node/2/1, leaves 4 to 7"),
    "a node too many": ("INSERT INTO ofp.audit_node VALUES (5, 7, sha256('x'))", "NODE_UNKNOWN node/5/7"),
    "the newest head is removed": ("DELETE FROM ofp.audit_head WHERE tree_size = 10", "HEAD_ROW_MISSING head/10"),
    "the first head is removed": ("DELETE FROM ofp.audit_head WHERE tree_size = 8", "HEAD_ROW_MISSING head/8"),
    "the time of a head": (
        'UPDATE ofp.audit_head SET content = replace(content, \'"at_utc":"2027\', \'"at_utc":"2026\') WHERE tree_size = 10',
        "HEAD_UNSIGNED head/10",
    ),
    "a head that is none": ("UPDATE ofp.audit_head SET content = '[]' WHERE tree_size = 8", "HEAD_UNREADABLE head/8"),
    "the digest of a head": ("UPDATE ofp.audit_head SET digest = '' WHERE tree_size = 8", "HEAD_ALTERED head/8"),
}


@pytest.mark.parametrize("name", SQL_TAMPERS)
def test_what_a_superuser_changes_is_found(filled: AuditedPlane, name: str) -> None:
    statements, expected = (text.format(decision=DECISION, run=RUN) for text in SQL_TAMPERS[name])
    with filled.superuser() as connection:
        for statement in statements.split("; "):
            connection.execute(statement)
    lines = [fault.line for fault in verify(filled).faults]
    assert any(line.startswith(expected) for line in lines), lines


def _without(path: str) -> Callable[[AuditedPlane], None]:
    return lambda audited: _file(audited, path).unlink()


def _edited(path: str, old: bytes, new: bytes) -> Callable[[AuditedPlane], None]:
    def edit(audited: AuditedPlane) -> None:
        file = _file(audited, path)
        assert old in file.read_bytes()
        file.write_bytes(file.read_bytes().replace(old, new))

    return edit


MANIFEST = f"ofs/datasets/fraud/{sha256_hex(b'1')}/manifest.json"


@pytest.mark.parametrize(
    ("tamper", "expected"),
    [
        (_without(head_path(8)), "HEAD_OBJECT_MISSING head/8"),
        (_without(head_path(10)), "HEAD_OBJECT_MISSING head/10"),
        (_edited(head_path(8), b'"tree_size":8', b'"tree_size":7'), "HEAD_OBJECT_DIFFERS head/8"),
        (lambda audited: audited.objects.put_if_absent(head_path(11), b"{}"), "HEAD_ROW_MISSING head/11"),
        (lambda audited: audited.objects.put_if_absent(f"{HEADS}/x", b"{}"), f"HEAD_ROW_MISSING {HEADS}/x"),
        (_without(MANIFEST), "RECORD_MISSING dataset_manifest/fraud:"),
        (_edited(MANIFEST, b"4444", b"5555"), "RECORD_DIFFERS dataset_manifest/fraud:"),
        (
            lambda audited: audited.objects.put_if_absent("audit/co_signatures/x", b"{}"),
            "CO_SIGNATURE_WRONG audit/co_signatures/x",
        ),
    ],
)
def test_what_is_changed_in_the_object_store_is_found(
    filled: AuditedPlane, tamper: Callable[[AuditedPlane], None], expected: str
) -> None:
    tamper(filled)
    lines = [fault.line for fault in verify(filled).faults]
    assert any(line.startswith(expected) for line in lines), lines


def test_a_role_of_some_runs_is_refused(filled: AuditedPlane) -> None:
    with filled.pool.connection() as connection:
        register_role(connection, default_role(Job.AUDITOR), Job.AUDITOR, ["a"])
    with (
        open_pool(as_role(filled.dsn, default_role(Job.AUDITOR))) as pool,
        pytest.raises(AuditRefused, match="some runs only"),
        database_view(pool, filled.objects),
    ):
        pass
