"""Every record becomes one leaf, once; heads over them; and stopped anywhere, the next append goes on."""

from __future__ import annotations

import multiprocessing
import signal
from collections.abc import Iterator

import pytest
from psycopg import Connection

from ofp_platform.audit.appending import Appender, append_records
from ofp_platform.audit.leaf_sources import SOURCES, LeafSource, Record, Transactions
from ofp_platform.audit.signing_keys import SigningKey, is_signed
from ofp_platform.audit.tree_heads import AuditRefused
from ofp_platform.storage import crash_points
from ofp_platform.storage.decision_records import append_decisions
from ofp_platform.storage.evidence import keep_evidence
from ofp_platform.storage.objects import ObjectStore, ObjectStoreUnavailable
from ofp_platform.storage.postgres import open_pool
from ofp_platform.storage.roles import Job, default_role, register_role
from ofp_platform.vocabulary.loop.audit import TreeHead, head_path
from ofp_platform_tests.audit.conftest import RULE, AuditedPlane, decision


def leaf_kinds(audited: AuditedPlane) -> list[str]:
    with audited.pool.connection() as connection:
        return [kind for (kind,) in connection.execute("SELECT leaf_kind FROM ofp.audit_leaf ORDER BY leaf_index").fetchall()]


def head_rows(audited: AuditedPlane) -> list[TreeHead]:
    with audited.pool.connection() as connection:
        rows = connection.execute("SELECT content FROM ofp.audit_head ORDER BY tree_size").fetchall()
    return [TreeHead.model_validate_json(content) for (content,) in rows]


def test_records_of_every_kind_become_leaves_once(audited: AuditedPlane) -> None:
    assert audited.append().heads == []
    audited.fill()
    outcome = audited.append()
    assert (outcome.leaf_count, outcome.quarantined, outcome.is_finished) == (8, [], False)
    kinds = ["decision"] * 3 + ["dataset_manifest"] + ["label_assertion"] * 2 + ["run_status", "governance_fact"]
    assert leaf_kinds(audited) == kinds
    assert audited.append().heads == []
    audited.decide(4)
    audited.label(2)
    assert audited.append().leaf_count == 2
    first, second = head_rows(audited)
    assert (first.tree_size, second.tree_size, second.previous_head_digest) == (8, 10, first.digest)
    assert first.previous_head_digest is None
    assert first.log_id == second.log_id
    for head in (first, second):
        assert is_signed(audited.key.key_id, head.signature, head.signed_bytes)
        assert audited.objects.get(head_path(head.tree_size)) == head.encoded()
        assert head.covers_until_utc is not None
        assert head.covers_until_utc < head.at_utc


def test_a_backlog_is_taken_in_batches_and_covered_by_the_last(audited: AuditedPlane) -> None:
    audited.fill()
    outcome = audited.append(batch_leaves=3)
    assert [head.tree_size for head in outcome.heads] == [3, 6, 8]
    assert [head.covers_until_utc is None for head in outcome.heads] == [True, True, False]


def test_incomplete_provenance_is_set_aside_and_tried_again(audited: AuditedPlane) -> None:
    audited.decide(1)
    with audited.pool.connection() as connection:
        append_decisions(connection, [decision(2)])  # no snapshot
        other_rule = {"rule_name": "other", "rule_version": "v1", "digest": "5" * 64}
        audited.index_snapshots(3, 4)
        append_decisions(connection, [decision(3, rule=other_rule)])
        append_decisions(connection, [decision(4, rule=other_rule)], submitted_by="somebody")
        unreadable = ("6" * 64, "x", "{}")
        connection.execute(
            "INSERT INTO ofp.decision_record (decision_id, pins_digest, stream_name, partition_id, record_offset, event_id,"
            " snapshot_hash, content) VALUES (%s, %s, '', '', 0, '', '', %s)",
            unreadable,
        )
    outcome = audited.append()
    assert outcome.leaf_count == 2  # that of a principal names a rule of its own
    reasons = {subject: reason for _, subject, reason in outcome.quarantined}
    assert "is not in the index" in reasons[decision(2).decision_id]
    assert f"its rule {'5' * 64} is not kept" in reasons[decision(3).decision_id]
    assert reasons["6" * 64] == "its content is no decision record"
    audited.index_snapshots(2)
    again = audited.append()
    assert (again.leaf_count, len(again.quarantined)) == (1, 2)
    assert RULE
    assert audited.append().heads == []


def test_a_manifest_that_is_not_there_is_set_aside(audited: AuditedPlane) -> None:
    with audited.pool.connection() as connection:
        connection.execute("INSERT INTO ofp.dataset_index VALUES ('fraud', 'x', 'ofs/none', '', '', NULL)")
    [(kind, subject, reason)] = audited.append().quarantined
    assert (kind, subject, reason) == ("dataset_manifest", "fraud:x", "there is no object ofs/none")


def test_another_key_is_refused(audited: AuditedPlane) -> None:
    audited.fill()
    audited.append()
    audited.tell(2)
    other = SigningKey.of_seed(b"o" * 32)
    with pytest.raises(AuditRefused, match="ofp audit key rotate"):
        append_records(audited.pool, audited.objects, other, audited.now)
    assert len(head_rows(audited)) == 1


def test_rows_that_were_lost_are_never_signed_anew(audited: AuditedPlane) -> None:
    audited.fill()
    audited.append()
    audited.tell(2)
    audited.append()
    with audited.superuser() as connection:
        connection.execute("DELETE FROM ofp.audit_head WHERE tree_size = 9")
        with pytest.raises(AuditRefused, match="A second history is never signed"):
            audited.append()
        connection.execute("DELETE FROM ofp.audit_head")
        with pytest.raises(AuditRefused, match="the database ends at no head"):
            audited.append()


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        ("DELETE FROM ofp.audit_leaf WHERE leaf_index = 7", "there are 7 leaves"),
        ("DELETE FROM ofp.audit_node WHERE level = 3", "node 0 of level 3 of the audit tree is not kept"),
        ("UPDATE ofp.audit_node SET hash = sha256('x') WHERE level = 3", "has another root than its newest head"),
        ("UPDATE ofp.audit_head SET content = '{}'", "holds no tree head"),
    ],
)
def test_a_tree_that_is_not_what_was_signed_is_not_added_to(audited: AuditedPlane, damage: str, words: str) -> None:
    from ofp_platform.audit.leaf_rows import NodeMissing

    audited.fill()
    audited.append()
    audited.tell(2)
    with audited.superuser() as connection:
        connection.execute(damage)
    with pytest.raises((AuditRefused, NodeMissing), match=words):
        audited.append()


def test_a_role_of_some_runs_is_refused(audited: AuditedPlane) -> None:
    with audited.pool.connection() as connection:
        register_role(connection, default_role(Job.OFFLINE), Job.OFFLINE, ["a"])
    from ofp_platform.storage.embedded import as_role

    with (
        open_pool(as_role(audited.dsn, default_role(Job.OFFLINE))) as pool,
        pytest.raises(AuditRefused, match="sees the records of some runs only"),
    ):
        append_records(pool, audited.objects, audited.key, audited.now)


def _append_until(point: str, dsn: str, folder: str) -> None:
    crash_points.arm(point)
    with open_pool(dsn) as pool:
        clock = iter(range(1_800_000_000_000_000, 1_900_000_000_000_000, 1_000_000))
        append_records(pool, ObjectStore(folder), SigningKey.of_seed(b"k" * 32), lambda: next(clock))


POINTS = {"audit.rows_written": (False, False), "audit.committed": (True, False), "audit.head_put": (True, True)}
"""The places at which an append is killed: whether its head is committed then, and put."""


@pytest.mark.parametrize(("point", "committed", "put"), [(point, *then) for point, then in POINTS.items()])
def test_stopped_anywhere_the_next_append_goes_on(audited: AuditedPlane, point: str, committed: bool, put: bool) -> None:
    audited.fill()
    folder = audited.objects.folder
    assert folder is not None
    process = multiprocessing.get_context("spawn").Process(target=_append_until, args=(point, audited.dsn, str(folder)))
    process.start()
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    heads = head_rows(audited)
    assert (len(heads), audited.objects.exists(head_path(8))) == (committed, put)
    outcome = audited.append()
    assert outcome.is_finished is (committed and not put)
    assert outcome.leaf_count == (0 if committed else 8)
    [head] = head_rows(audited)
    assert committed is False or [head] == heads
    assert audited.objects.get(head_path(8)) == head.encoded()


def appender(audited: AuditedPlane) -> Appender:
    return Appender(audited.pool, audited.objects, audited.key, lambda: audited.clock)


def test_who_goes_on_takes_what_is_new_of_every_kind(audited: AuditedPlane) -> None:
    going_on = appender(audited)
    audited.fill()
    assert going_on.append().leaf_count == 8
    assert going_on.append().heads == []
    audited.decide(4)
    audited.publish(2)
    audited.label(2)
    audited.step(1)
    audited.tell(2)
    outcome = going_on.append()
    assert (outcome.leaf_count, outcome.is_finished) == (5, False)
    assert leaf_kinds(audited)[8:] == ["decision", "dataset_manifest", "label_assertion", "run_status", "governance_fact"]
    # and what it goes on from is what stands there: somebody else's next append, and its own behind that
    audited.decide(5)
    assert audited.append().leaf_count == 1
    audited.decide(6)
    assert going_on.append().leaf_count == 1
    assert [head.tree_size for head in head_rows(audited)] == [8, 13, 14, 15]
    assert audited.append().heads == []


def test_what_a_transaction_wrote_before_others_and_commits_behind_a_look_is_not_passed_over(audited: AuditedPlane) -> None:
    going_on = appender(audited)
    audited.index_snapshots(1, 2, 3)
    with audited.pool.connection() as connection:
        keep_evidence(connection, [RULE])
    going_on.append()
    with audited.pool.connection() as slow:
        with slow.transaction():
            append_decisions(slow, [decision(1)])
            audited.decide(2)  # by a later transaction, which commits first
            assert going_on.append().leaf_count == 1
        assert going_on.append().leaf_count == 1
    audited.decide(3)
    assert going_on.append().leaf_count == 1
    assert audited.append().heads == []


def test_only_what_is_new_is_read(audited: AuditedPlane, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[tuple[str, int | None]] = []
    pending = LeafSource.pending

    def seen(
        self: LeafSource, connection: Connection, objects: ObjectStore, transactions: Transactions | None = None
    ) -> Iterator[Record]:
        looks.append((self.leaf_kind, None if transactions is None else transactions.first))
        return pending(self, connection, objects, transactions)

    monkeypatch.setattr(LeafSource, "pending", seen)
    going_on = appender(audited)
    audited.fill()
    going_on.append()
    assert looks == [(source.leaf_kind, None) for source in SOURCES]
    looks.clear()
    audited.decide(4)
    with audited.pool.connection() as connection:
        ((written_by,),) = connection.execute("SELECT max(written_by) FROM ofp.decision_record").fetchall()
    going_on.append()
    # of other kinds only what a transaction may have written that was open then, here or in another database of the server
    firsts = [first for _, first in looks]
    assert "decision" in [leaf_kind for leaf_kind, _ in looks]
    assert None not in firsts
    assert all(0 < (first or 0) <= written_by for first in firsts)


def test_behind_an_error_or_on_another_server_everything_is_looked_at(
    audited: AuditedPlane, monkeypatch: pytest.MonkeyPatch
) -> None:
    going_on = appender(audited)
    audited.fill()
    going_on.append()
    # a record that numbers do not tell of: as one of a database that was restored
    with audited.superuser() as connection:
        audited.decide(4)
        connection.execute("UPDATE ofp.decision_record SET written_by = 1 WHERE event_id = 'event-4'")
    assert going_on.append().heads == []
    broken = ObjectStore(str(audited.objects.folder) + "/none")
    audited.decide(5)
    monkeypatch.setattr(going_on, "objects", broken)
    monkeypatch.setattr(broken, "put_same", lambda *_: (_ for _ in ()).throw(ObjectStoreUnavailable("it is down")))
    with pytest.raises(ObjectStoreUnavailable):
        going_on.append()
    monkeypatch.setattr(going_on, "objects", audited.objects)
    outcome = going_on.append()
    assert (outcome.is_finished, outcome.leaf_count) == (True, 1)

    with audited.superuser() as connection:
        audited.decide(6)
        connection.execute("UPDATE ofp.decision_record SET written_by = NULL WHERE event_id = 'event-6'")
    assert going_on.append().heads == []
    assert going_on._last_look is not None
    going_on._last_look = going_on._last_look._replace(server="another")
    audited.clock += 1_000_000  # as often as at what is set aside
    assert going_on.append().leaf_count == 1


def test_what_is_set_aside_is_looked_at_again_each_second(audited: AuditedPlane) -> None:
    going_on = appender(audited)
    with audited.pool.connection() as connection:
        keep_evidence(connection, [RULE])
        append_decisions(connection, [decision(1)])  # no snapshot
    assert len(going_on.append().quarantined) == 1
    audited.index_snapshots(1)
    assert going_on.append().heads == []
    audited.clock += 1_000_000
    assert going_on.append().leaf_count == 1


def test_what_becomes_whole_in_time_is_not_set_aside(audited: AuditedPlane) -> None:
    going_on = Appender(audited.pool, audited.objects, audited.key, lambda: audited.clock, grace_us=5_000_000)
    with audited.pool.connection() as connection:
        keep_evidence(connection, [RULE])
        append_decisions(connection, [decision(1), decision(2)])  # no snapshots
    assert (going_on.append().heads, going_on.append().quarantined) == ([], [])
    audited.index_snapshots(1)
    assert going_on.append().leaf_count == 1
    audited.clock += 4_999_999
    assert going_on.append().quarantined == []
    audited.clock += 1
    assert [subject for _, subject, _ in going_on.append().quarantined] == [decision(2).decision_id]
    with audited.pool.connection() as connection:
        assert connection.execute("SELECT count(*) FROM ofp.audit_quarantine").fetchone() == (1,)
    audited.index_snapshots(2)
    audited.clock += 1_000_000
    assert going_on.append().leaf_count == 1
    assert audited.append().heads == []


def test_what_somebody_else_appended_meanwhile_is_not_appended_again(audited: AuditedPlane) -> None:
    going_on = Appender(audited.pool, audited.objects, audited.key, lambda: audited.clock, grace_us=5_000_000)
    with audited.pool.connection() as connection:
        keep_evidence(connection, [RULE])
        append_decisions(connection, [decision(1)])  # no snapshot
    assert going_on.append().heads == []
    audited.index_snapshots(1)
    assert audited.append().leaf_count == 1
    assert going_on.append().heads == []
    audited.decide(2)
    assert going_on.append().leaf_count == 1


def test_rows_that_were_lost_under_who_goes_on_are_never_signed_anew(audited: AuditedPlane) -> None:
    going_on = appender(audited)
    audited.fill()
    going_on.append()
    audited.tell(2)
    going_on.append()
    audited.tell(3)
    with audited.superuser() as connection:
        connection.execute("DELETE FROM ofp.audit_head WHERE tree_size = 9")
        with pytest.raises(AuditRefused, match="A second history is never signed"):
            going_on.append()
