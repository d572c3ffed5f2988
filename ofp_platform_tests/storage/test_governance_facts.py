"""Facts are kept for good: appended once, listed newest first, never changed."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from ofp_platform.log.governance_log import append_facts
from ofp_platform.storage.governance_facts import read_facts
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, Refusal
from ofp_platform.vocabulary.offline.governance_fact import BuildFailed, RunFailed, gist, subject

BUILD = BuildFailed(
    request_id="1" * 64,
    intent="dataset_build",
    submitted_by=None,
    attempts=1,
    publish_attempts=0,
    plan_digest=None,
    reconciliation="ofs/reconciliation/1/1-0.json",
    dataset_name="fraud",
    refusal=Refusal(reason=BuildReason.NOTHING_TO_BUILD, field="scope", message="no\nevent"),
)
RUN = RunFailed(
    run_id="9f6c",
    job_name="replay_ranges",
    partition=None,
    partition_range=(None, None),
    backfill_id=None,
    assets=(),
    error="it failed",
    reasons=(),
)


@pytest.fixture
def pool(dsn: str) -> Iterator[Pool]:
    with open_pool(dsn) as opened:
        yield opened


def test_a_fact_is_kept_once_and_listed_newest_first(pool: Pool) -> None:
    assert append_facts(pool, [BUILD, RUN]) == 2
    assert append_facts(pool, [RUN, BUILD]) == 0
    assert [item.fact for item in read_facts(pool)] == [RUN, BUILD]
    assert [item.fact for item in read_facts(pool, limit=1)] == [RUN]
    assert [item.fact for item in read_facts(pool, "build_failed")] == [BUILD]
    assert [item.fact for item in read_facts(pool, about="9f")] == [RUN]
    assert read_facts(pool, about="8") == []


def test_facts_are_never_changed(pool: Pool) -> None:
    append_facts(pool, [BUILD])
    for statement in ("UPDATE ofp.governance_fact SET fact = fact", "DELETE FROM ofp.governance_fact"):
        with pool.connection() as connection, pytest.raises(psycopg.errors.RestrictViolation, match="never changed"):
            connection.execute(statement)
    assert len(read_facts(pool)) == 1


def test_a_fact_on_one_line() -> None:
    assert (subject(BUILD), gist(BUILD)) == ("1" * 64, "fraud  NOTHING_TO_BUILD: no event")
    assert (subject(RUN), gist(RUN)) == ("9f6c", "replay_ranges  it failed")
