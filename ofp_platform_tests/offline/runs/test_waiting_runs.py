"""The runs that wait are all of them, however many there are, and so are those that failed and may pass."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ofp_platform.offline.runs.run_ledger import RunLedger
from ofp_platform.offline.runs.run_reconciliation import Ending, finished_since
from ofp_platform.offline.runs.waiting_runs import runs_that_may_pass, waiting_runs
from ofp_platform.storage.postgres import Pool, open_pool
from ofp_platform.vocabulary.offline.build_refusal import Refusal
from ofp_platform.vocabulary.profile import BuildLimits
from ofp_platform_tests.oracle.build_plans import LEAK, STORE_DOWN, dataset_intent

MANY = 52
"""More than are read at once."""


@pytest.fixture
def pool(dsn: str) -> Iterator[Pool]:
    with open_pool(dsn, max_size=4) as opened:
        yield opened


@pytest.fixture
def ledger(pool: Pool) -> RunLedger:
    return RunLedger(pool, BuildLimits(max_open_intents=1_000))


def submit(ledger: RunLedger, number: int) -> str:
    return ledger.submit(dataset_intent(f"d{number}")).run_key


def fail(ledger: RunLedger, number: int, refusal: Refusal) -> str:
    key = submit(ledger, number)
    with ledger.claim(key) as lease:
        assert lease is not None
        lease.fail(refusal)
    return key


def test_all_that_waits_is_there_oldest_first_but_for_what_is_held(pool: Pool, ledger: RunLedger) -> None:
    assert list(waiting_runs(pool)) == []
    keys = [submit(ledger, number) for number in range(MANY)]
    assert [run.run_key for run in waiting_runs(pool)] == keys
    with ledger.claim(keys[0]):
        assert [run.run_key for run in waiting_runs(pool)] == keys[1:]


def test_a_run_that_may_pass_is_found_behind_many_later_ones_that_may_not(pool: Pool, ledger: RunLedger) -> None:
    may_pass = fail(ledger, 0, STORE_DOWN)
    for number in range(1, MANY):
        fail(ledger, number, LEAK)
    assert [run.run_key for run in runs_that_may_pass(pool)] == [may_pass]
    later = [fail(ledger, number, STORE_DOWN) for number in range(MANY, 2 * MANY)]
    assert [run.run_key for run in runs_that_may_pass(pool)] == [may_pass, *later]


def test_runs_that_nobody_here_can_read_hide_no_later_ending(pool: Pool, ledger: RunLedger) -> None:
    for number in range(MANY):
        fail(ledger, number, LEAK)
    with pool.connection() as connection:
        connection.execute("ALTER TABLE ofp.build_run DISABLE TRIGGER USER")
        connection.execute("""UPDATE ofp.build_run SET intent = '{"intent":"of_before"}'""")
    assert finished_since(pool, Ending(), settled_seconds=0.0) == []
    key = fail(ledger, MANY, LEAK)
    [(ending, run)] = finished_since(pool, Ending(), settled_seconds=0.0)
    assert (ending.run_key, run.run_key) == (key, key)
