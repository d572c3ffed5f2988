"""`ofp labels` and `ofp facts`."""

from __future__ import annotations

import json
import re

import pyarrow as pa
import pyarrow.parquet as pq

from ofp_platform.offline.requests.run_facts_view import publish_run_facts
from ofp_platform.simulation.handbook_file import COLUMNS
from ofp_platform_tests.cli.conftest import OfflinePlane


def test_labels_out_of_the_log(offline: OfflinePlane) -> None:
    said = offline.ofp("labels", "load")
    found = re.fullmatch(r"0 assertions appended, (\d+) were there\n", said.out)
    assert found is not None, said
    shown = offline.ofp("labels", "show").out
    assert f"run run-1: {found[1]} assertions of type fraud about {found[1]} events" in shown
    last = re.findall(r"last heard of at (\S+)", shown)[0]
    assert "0 assertions" in offline.ofp("labels", "show", "--as-of", "2026-01-01T00:00:00Z").out
    assert offline.ofp("labels", "show", "--as-of", last).out == shown
    assertion = offline.labelled.build_context.pool
    with assertion.connection() as connection:
        row = connection.execute("SELECT event_id, assertion_id FROM ofp.label_assertion LIMIT 1").fetchone()
    assert row is not None
    assert offline.ofp("labels", "show", "--event", row[0]).out.endswith(f"Z  1  card_payment\n    {row[1]}\n")


def test_labels_of_a_handbook_file(offline: OfflinePlane) -> None:
    rows = {name: pa.array([1, 2], pa.int32()) for name in COLUMNS}
    rows["tx_datetime"] = pa.array([0, 1], pa.timestamp("us", tz="UTC"))
    rows["tx_fraud"] = pa.array([0, 1], pa.int8())
    path = offline.labelled.folder / "handbook.parquet"
    pq.write_table(pa.table(rows), path)
    assert offline.ofp("labels", "load", "--handbook", str(path)).out == "1 assertions appended, 0 were there\n"
    assert offline.ofp("labels", "load", "--handbook", str(path)).out == "0 assertions appended, 1 were there\n"
    assert offline.ofp("labels", "show", "--event", "transaction-0000002").out.startswith(
        "1970-01-08T00:00:00.000001Z  1  transaction\n"
    )
    with offline.labelled.plane.pool.connection() as connection:  # the other tests count what the log says
        connection.execute("ALTER TABLE ofp.label_assertion DISABLE TRIGGER USER")
        connection.execute("DELETE FROM ofp.label_assertion WHERE source = 'handbook:simulated-clock'")
        connection.execute("ALTER TABLE ofp.label_assertion ENABLE TRIGGER USER")


def test_what_labels_refuse(offline: OfflinePlane) -> None:
    assert "RFC 3339" in offline.ofp("labels", "show", "--as-of", "yesterday").refused()
    assert "nobody has said anything" in offline.ofp("labels", "show", "--event", "payment-none").refused()
    assert "no such file" in offline.ofp("labels", "load", "--handbook", "none.parquet").refused()


def test_facts(offline: OfflinePlane) -> None:
    first = offline.ofp("facts", "publish")
    assert first.out.startswith("published card-payments/run-1 ")
    assert first.out.count(" PASS ") == 3
    assert offline.ofp("facts", "publish").out == first.out
    shown = json.loads(offline.ofp("facts", "show").out)
    assert shown["reference"] == "card-payments/run-1"
    assert shown["digest"] in first.out
    assert "RUN_FACTS_UNAVAILABLE" in offline.ofp("facts", "show", "facts/latest").refused()


def test_a_reference_never_names_other_facts(offline: OfflinePlane) -> None:
    from ofp_platform.cli.offline.facts_commands import examine

    plane = offline.labelled.plane
    other = examine(plane, "facts/taken").model_copy(update={"clock_skew_us": 1})
    publish_run_facts(plane.pool, other)
    assert "names other facts already" in offline.ofp("facts", "publish", "facts/taken").refused()
