"""The benchmark of the loop: a few events go the whole way through its processes, and what never comes is never left out."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from benchmarks.bench_loop import STAGES, events, offer, processor_row, quantile, rows_of, settle
from benchmarks.loop_site import loop_run, loop_site
from benchmarks.loop_stages import Stages, stages, watching
from benchmarks.process_cpu import parent_of, processor_seconds
from ofp_platform.online.plane import Plane


def test_a_few_events_go_the_whole_way(dsn: str, tmp_path: Path) -> None:
    declared = loop_run(tmp_path, dsn, 300)
    with Plane.open(declared, dsn) as plane, loop_site(declared, tmp_path, dsn) as site:
        offered = events(20, 60, 0)
        before = site.processor_seconds()
        with watching(dsn, declared.decisions_stream or "") as sight:
            due, receipts = offer(site, offered, 20)
            settle(plane, len(offered), 120)
            site.demand_alive()
        seen = stages(plane, sight, tmp_path / "objects")
        assert set(site.processor_seconds()) >= set(before) >= {"decider", "door"}
    assert len(receipts) == len(due) == 60
    for stage in ("decided", "audited", "acted"):
        took, missing = seen.latencies(stage, due)
        assert (missing, min(took, default=1.0) > 0) == (0, True)
    # amounts from 49,000 on are declined, and each wants a webhook; and a hold, unless its vector was late: then no key is known
    assert set(seen.wanted.values()) <= {1, 2}
    assert all(seen.audited[event_id] >= seen.decided[event_id] - 1.0 for event_id in due)


def test_who_never_came_is_counted_and_has_no_percentile() -> None:
    seen = Stages(decided={"a": 1.5, "b": 1.25}, acted={}, wanted={"a": 1}, audited={"a": 2.0})
    due = {"a": 1.0, "b": 1.0}
    latencies = {stage: seen.latencies(stage, due) for stage in STAGES if stage != "receipt"} | {"receipt": ([1.0, 2.0], 0)}
    assert latencies["decided"] == ([250.0, 500.0], 0)
    assert (latencies["acted"], latencies["audited"]) == (([], 1), ([1000.0], 1))
    rows = rows_of(500, latencies, 3.0)
    assert [row.reached for row in rows] == [None, None, None, False, False]
    assert rows[3].seen == "1 of 2 never"
    assert rows[4].seen == "no: 3.0 s behind at the end"
    good_latencies = {stage: ([10.0, 50.0], 0) for stage in STAGES}
    assert [row.reached for row in rows_of(500, good_latencies, 0.1)] == [None, None, None, True, True]
    assert [row.reached for row in rows_of(1_000, good_latencies, 0.1)] == [None, None, None, False, True]
    assert rows_of(7, {**good_latencies, "acted": ([], 0)}, 0.0)[2].seen == "none is wanted"


def test_quantiles_and_processor_time() -> None:
    assert [quantile([1.0, 2.0, 3.0, 4.0], q) for q in (0.0, 0.5, 0.99)] == [1.0, 3.0, 4.0]
    row = processor_row(500, 10, {"a": 1.0}, {"a": 1.5, "b": 0.01})
    assert row.seen == "51.00 ms: a 50.00, b 1.00"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc: nobody tells of processor time")
def test_processor_time_of_a_process_that_works() -> None:
    own = {"own": os.getpid(), "gone": 2**22 + 1}
    before = processor_seconds(own)
    until = time.process_time() + 0.2
    while time.process_time() < until:
        pass
    assert set(before) == {"own"}
    assert processor_seconds(own)["own"] > before["own"]
    assert (parent_of(os.getpid()), parent_of(2**22 + 1)) == (os.getppid(), None)
