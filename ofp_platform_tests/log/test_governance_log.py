"""A fact and its message are appended together or not at all, by whoever may append facts, and by that to no other stream."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from ofp_platform.log.governance_log import (
    GOVERNANCE_FACT,
    GOVERNANCE_STREAM,
    NO_RUN,
    append_facts,
    append_facts_with,
    compare_facts,
)
from ofp_platform.log.port import RecordBatch
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.storage.embedded import SUPERUSER, as_role
from ofp_platform.storage.governance_facts import read_facts
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.storage.roles import Job, default_role
from ofp_platform.vocabulary.canonical import sha256_hex
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.governance_fact import GovernanceMessage, PolicyInForce, RunFailed
from ofp_platform.vocabulary.position import Basis

UNSENT = sha256_hex(b"{}")
"""The digest of a row that a test writes past the code that acts."""
PINS = ContextPins(scenario_id="s", run_id="r", manifest_fingerprint="0" * 64, parameter_hash="1" * 64)


def failed(run_id: str, error: str = "it failed") -> RunFailed:
    return RunFailed(
        run_id=run_id,
        job_name="j",
        partition=None,
        partition_range=(None, None),
        backfill_id=None,
        assets=(),
        error=error,
        reasons=(),
    )


def of_run(rev: str) -> PolicyInForce:
    return PolicyInForce(context_pins=PINS, policy_kind="class_map", rev=rev, former_rev=None, former_fact=None, actor="somebody")


@pytest.fixture
def pool(dsn: str) -> Iterator[Pool]:
    with open_pool(dsn, max_size=8) as opened:
        yield opened


def stream(pool: Pool) -> RecordBatch:
    log = PostgresLog.open(pool, GOVERNANCE_STREAM)
    return log.read("0000", log.position_kind.start("0000"), 10_000)


def counts(pool: Pool) -> tuple[int, int, int, int]:
    compared = compare_facts(pool)
    return compared.fact_count, compared.message_count, len(compared.without_message), len(compared.without_fact)


def test_each_new_fact_has_one_message_with_its_pins(pool: Pool) -> None:
    assert counts(pool) == (0, 0, 0, 0)
    assert append_facts(pool, [of_run("a"), failed("1")]) == 2
    assert append_facts(pool, [failed("1"), failed("2")]) == 1
    assert append_facts(pool, [failed("3")], PINS) == 1
    batch = stream(pool)
    assert batch.event_types == [GOVERNANCE_FACT] * 4
    assert [batch.pins[index] for index in batch.pins_index] == [PINS, NO_RUN, NO_RUN, PINS]
    messages = [GovernanceMessage.model_validate_json(payload) for payload in batch.payloads]
    recorded_facts = list(reversed(read_facts(pool)))
    assert [message.content for message in messages] == [recorded.fact for recorded in recorded_facts]
    assert batch.event_ids == [message.digest for message in messages] == [recorded.digest for recorded in recorded_facts]
    assert counts(pool) == (4, 4, 0, 0)


def test_what_is_undone_leaves_neither(pool: Pool) -> None:
    with pool.connection() as connection, pytest.raises(RuntimeError, match="undone"):
        undo(connection)
    assert counts(pool) == (0, 0, 0, 0)
    append_facts(pool, [failed("1")])
    assert stream(pool).offsets == [0]


def undo(connection: psycopg.Connection[Any]) -> None:
    with connection.transaction():
        append_facts_with(connection, [failed("1")])
        raise RuntimeError("undone")


@pytest.mark.parametrize("error", ["paid with 4111111111111111", "x" * 2_000_000])
def test_a_fact_that_no_log_takes_goes_by_reference(pool: Pool, error: str) -> None:
    fact = failed("1", error)
    assert append_facts(pool, [fact, failed("2")]) == 2
    first, second = (GovernanceMessage.model_validate_json(payload) for payload in stream(pool).payloads)
    assert (first.fact, first.content, second.content) == ("dagster_run_failed", None, failed("2"))
    assert read_facts(pool)[1].digest == first.digest
    assert counts(pool) == (2, 2, 0, 0)


def test_many_who_append_at_once(pool: Pool) -> None:
    with ThreadPoolExecutor(8) as threads:
        new_counts = list(threads.map(lambda number: append_facts(pool, [failed(str(number % 20))]), range(60)))
    assert sum(new_counts) == 20
    assert counts(pool) == (20, 20, 0, 0)
    assert stream(pool).offsets == list(range(20))


def test_a_row_without_a_message_and_a_message_without_a_row_are_named(pool: Pool) -> None:
    append_facts(pool, [failed("1"), failed("2")])
    with pool.connection() as connection:
        connection.execute("INSERT INTO ofp.governance_fact (digest, fact, content) VALUES (%s, 'x', '{}')", (UNSENT,))
        connection.execute("ALTER TABLE ofp.governance_fact DISABLE TRIGGER USER")
        connection.execute("DELETE FROM ofp.governance_fact WHERE fact_number = 1")
    compared = compare_facts(pool)
    assert (compared.fact_count, compared.message_count) == (2, 2)
    assert compared.without_message == (UNSENT,)
    assert compared.without_fact == (stream(pool).event_ids[0],)


def test_a_fact_that_is_appended_while_the_stream_is_read_ends_the_comparison_all_the_same(
    pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    append_facts(pool, [failed("1")])
    ends, read = PostgresLog.ends, PostgresLog.read
    reads: list[object] = []

    def end_and_append(log: PostgresLog) -> Basis:
        end = ends(log)
        append_facts(pool, [failed("2")])
        return end

    def counted_read(log: PostgresLog, *asked: Any) -> RecordBatch:
        reads.append(asked)
        assert len(reads) < 10, "it reads on for ever"
        return read(log, *asked)

    monkeypatch.setattr(PostgresLog, "ends", end_and_append)
    monkeypatch.setattr(PostgresLog, "read", counted_read)
    assert counts(pool) == (2, 2, 0, 0)


def test_facts_of_before_the_stream_are_not_missed(pool: Pool) -> None:
    with pool.connection() as connection:
        connection.execute("ALTER TABLE ofp.governance_stream DISABLE TRIGGER USER")
        connection.execute("UPDATE ofp.governance_stream SET first_fact_number = 2")
        connection.execute("INSERT INTO ofp.governance_fact (digest, fact, content) VALUES (%s, 'x', '{}')", (UNSENT,))
    append_facts(pool, [failed("1")])
    assert counts(pool) == (1, 1, 0, 0)


@pytest.mark.parametrize("job", [Job.PROJECTOR, Job.OFFLINE, Job.SERVING, Job.INGRESS, Job.DECIDER, Job.EXECUTOR])
def test_who_may_append_facts_appends_to_this_stream(pool: Pool, dsn: str, job: Job) -> None:
    with open_pool(as_role(dsn, default_role(job)), max_size=2) as theirs:
        assert append_facts(theirs, [failed(job.value)]) == 1
    assert counts(pool) == (1, 1, 0, 0)


@pytest.mark.parametrize("job", [Job.PROJECTOR, Job.OFFLINE, Job.SERVING])
def test_nobody_appends_to_another_stream_by_that(pool: Pool, dsn: str, job: Job) -> None:
    block = "INSERT INTO ofp.log_block SELECT 'other', '0000', 0, 1, 0, 0, 1, 1, '', NULL"
    with open_pool(as_role(dsn, default_role(job)), max_size=2) as theirs, theirs.connection() as connection:
        for statement in (block, "UPDATE ofp.log_head SET next_offset = 9", "DELETE FROM ofp.governance_stream"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege), connection.transaction():
                connection.execute(statement)


def test_who_may_not_append_facts_does_not_reach_the_stream(pool: Pool, dsn: str) -> None:
    append = "SELECT ofp.append_governance_block(1, 1, 1::smallint, 1, '')"
    with (
        open_pool(as_role(dsn, default_role(Job.AUDITOR)), max_size=2) as theirs,
        theirs.connection() as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for the stream"),
    ):
        connection.execute(append)
    assert counts(pool) == (0, 0, 0, 0)


def test_behind_a_recovery_a_fact_is_taken_and_another_incarnation_begins(pool: Pool, dsn: str) -> None:
    append_facts(pool, [failed("1")])
    with psycopg.connect(as_role(dsn, SUPERUSER), autocommit=True) as connection:
        connection.execute("UPDATE ofp.log_stream SET server = 'another:00000000'")
    assert append_facts(pool, [failed("2")]) == 1
    assert append_facts(pool, [failed("3")]) == 1
    log = PostgresLog.open(pool, GOVERNANCE_STREAM)
    assert log.is_settled()
    assert [start.starts for start in log.history.later] == [{"0000": 1}]
    assert counts(pool) == (3, 3, 0, 0)
