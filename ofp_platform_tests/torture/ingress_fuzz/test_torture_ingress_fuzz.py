"""The fuzz of ingress at a small size, and that its checks are not blind."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import orjson

from ofp_platform_tests.torture.ingress_fuzz.bodies import NDJSON, FuzzedBatch, FuzzedBatches
from ofp_platform_tests.torture.ingress_fuzz.suite import SUITE, Tally
from ofp_platform_tests.torture.suite import Run


def test_ingress_fuzz(embedded_server: str, tmp_path: Path) -> None:
    run = Run(0.004, 7, embedded_server, tmp_path)
    SUITE.torture(run)
    assert [row for row in run.rows if row.reached is False] == [], run.raw
    assert sum(row.reached is True for row in run.rows) == 8


def test_a_seed_gives_the_same_batches_and_they_differ() -> None:
    one, other = (list(islice(FuzzedBatches(3, {"run_id": "r"}, 50), 500)) for _ in range(2))
    assert one == other
    assert len({batch.body for batch in one}) > 300
    assert {batch.records is None for batch in one} == {True, False}


def test_a_fault_a_missing_receipt_and_a_refusal_are_seen() -> None:
    batch = FuzzedBatch(b"x", NDJSON, None, None, 2)
    receipts = [{"place": place, "outcome": "ADMIT"} for place in range(2)]
    for status, answer, faults, lost in (
        (500, b"oops", 1, 0),
        (503, b"busy", 1, 0),
        (503, b'{"kind":"error_response","reason":"INTERNAL"}', 1, 0),
        (403, b'{"kind":"error_response","reason":"FORBIDDEN"}', 0, 1),
        (200, orjson.dumps({"repeated": False, "receipts": receipts[:1]}), 0, 1),
        (200, orjson.dumps({"repeated": False, "receipts": receipts[::-1]}), 0, 1),
        (200, orjson.dumps({"repeated": False, "receipts": receipts}), 0, 0),
    ):
        tally = Tally()
        tally.look(batch, status, answer)
        assert (len(tally.faults), len(tally.lost)) == (faults, lost), answer
