"""Waiting for a build: until it ends, or until the time is over."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from ofp_platform.cli.offline.run_wait import wait_for
from ofp_platform.offline.runs.run_ledger import RunLedger, UnknownRun
from ofp_platform.storage.postgres import open_pool
from ofp_platform.storage.schema import migrate
from ofp_platform_tests.cli.program import call
from ofp_platform_tests.oracle.build_plans import LEAK, dataset_intent, plan_of


def test_it_waits_for_the_end_and_tells_what_happens(dsn: str, tmp_path: Path) -> None:
    migrate(dsn)
    variables = {"OFP_HOME": str(tmp_path), "OFP_DATABASE_URL": dsn}
    with open_pool(dsn) as pool:
        ledger = RunLedger(pool)
        key = ledger.submit(dataset_intent()).run_key
        over = call("intent", "wait", key, "--timeout", "0", **variables)
        assert (over.code, over.out.split()[1]) == (3, "QUEUED")
        told: list[str] = []
        queued = threading.Event()

        def tell(words: str) -> None:
            told.append(words)
            queued.set()

        def build() -> None:
            assert queued.wait(30)
            with ledger.claim(key) as lease:
                assert lease is not None
                lease.store_plan(plan_of(dataset_intent()))
                lease.fail(LEAK)

        builder = threading.Thread(target=build)
        builder.start()
        run = wait_for(ledger, key[:8], time.monotonic() + 60, tell)
        builder.join()
        assert run.state.value == "FAILED"
        assert [words.split("  ")[1].split(",")[0] for words in (told[0], told[-2])] == ["QUEUED", "FAILED"]
        assert "refusal: " in told[-1]
        with pytest.raises(UnknownRun):
            wait_for(ledger, "0" * 8, None, tell)
    ended = call("intent", "wait", key, **variables)
    assert (ended.code, "LEAKAGE_DETECTED" in ended.out) == (1, True)
