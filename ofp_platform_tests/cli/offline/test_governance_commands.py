"""The facts on the command line."""

from __future__ import annotations

import json

from ofp_platform.log.governance_log import append_facts
from ofp_platform.storage.postgres import open_pool
from ofp_platform_tests.cli.program import Ofp
from ofp_platform_tests.storage.test_governance_facts import BUILD, RUN


def test_facts_are_listed(ofp: Ofp, dsn: str) -> None:
    assert ofp("governance", "list", OFP_DATABASE_URL=dsn).out == "no fact is recorded\n"
    with open_pool(dsn) as pool:
        append_facts(pool, [BUILD, RUN])
    listed = ofp("governance", "list", OFP_DATABASE_URL=dsn).out.splitlines()
    assert [line.split()[1:3] for line in listed[::2]] == [["dagster_run_failed", "9f6c"], ["build_failed", "1" * 12]]
    assert "NOTHING_TO_BUILD: no event" in listed[3]
    nothing = ofp("governance", "list", "--fact", "build_failed", "--about", "9f6c", OFP_DATABASE_URL=dsn)
    assert nothing.out == "no fact build_failed about 9f6c is recorded\n"
    (whole,) = json.loads(ofp("governance", "list", "--fact", "build_failed", "--json", OFP_DATABASE_URL=dsn).out)
    assert listed[2].startswith(f"{whole['recorded_at_utc'][:19]}Z  ")
    assert {name: whole[name] for name in BUILD.wire()} == BUILD.wire()


def test_a_fact_that_there_is_not_is_told(ofp: Ofp, dsn: str) -> None:
    assert (
        "there is no fact 'build_vanished'"
        in ofp("governance", "list", "--fact", "build_vanished", OFP_DATABASE_URL=dsn).refused()
    )
