from __future__ import annotations

import os
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ofp_platform.simulation.delays import DelayModel
from ofp_platform.simulation.deliveries import Deliveries
from ofp_platform.simulation.handbook import REPORT_DELAY, HandbookReplay
from ofp_platform.simulation.handbook_file import HandbookFileError
from ofp_platform.vocabulary.identity import ContextPins

PINS = ContextPins(scenario_id="handbook", run_id="run-1", manifest_fingerprint="a" * 64, parameter_hash="b" * 64)
HANDBOOK = Path(
    os.environ.get("OFP_HANDBOOK_FILE") or Path(__file__).parents[2].parent / "shared" / "data" / "handbook_transactions.parquet"
)
real_file = pytest.mark.skipif(not HANDBOOK.exists(), reason=f"{HANDBOOK} is not here; set OFP_HANDBOOK_FILE")


def table(rows: int, *, start: datetime = datetime(2018, 4, 1, tzinfo=UTC)) -> pa.Table:
    """Rows two hours apart, every fifth a fraud."""
    return pa.table(
        {
            "transaction_id": pa.array(range(rows), pa.int32()),
            "tx_datetime": pa.array([start + timedelta(hours=2 * i) for i in range(rows)], pa.timestamp("us", tz="UTC")),
            "customer_id": pa.array([i % 7 for i in range(rows)], pa.int32()),
            "terminal_id": pa.array([i % 11 for i in range(rows)], pa.int32()),
            "tx_amount_minor": pa.array([100 + i for i in range(rows)], pa.int32()),
            "tx_fraud": pa.array([int(i % 5 == 0) for i in range(rows)], pa.int8()),
        }
    )


def written(path: Path, content: pa.Table) -> HandbookReplay:
    pq.write_table(content, path)
    return HandbookReplay(path, PINS, DelayModel(median_seconds=3_000, maximum_seconds=20_000, late_minimum_seconds=2e4), 9)


def records(batches: Iterable[Deliveries]) -> list[tuple[dict[str, Any], int]]:
    return [pair for batch in batches for pair in zip(batch.records(), batch.admitted_at.tolist(), strict=True)]


def test_every_transaction_and_every_fraud_is_an_event(tmp_path: Path) -> None:
    replay = written(tmp_path / "h.parquet", table(500))
    everything = records(replay.batches())
    assert replay.counts() == (500, 100)
    assert len({record["event_id"] for record, _ in everything}) == len(everything) == 600
    first = next(record for record, _ in everything if record["event_id"] == "transaction-0000005")
    assert first == {
        "event_id": "transaction-0000005",
        "event_type": "transaction",
        "schema_version": "v1",
        "ts_utc": "2018-04-01T10:00:00Z",
        **PINS.wire(),
        "payload": {"amount_minor": 105, "customer_id": "customer-0000005", "terminal_id": "terminal-0000005"},
    }
    report = next(record for record, _ in everything if record["event_id"] == "report-0000005")
    assert report["event_type"] == "fraud_report"
    assert report["ts_utc"] == "2018-04-08T10:00:00Z"
    assert report["payload"] == {
        "customer_id": "customer-0000005",
        "terminal_id": "terminal-0000005",
        "transaction_event_id": "transaction-0000005",
    }


@pytest.mark.parametrize("batch_records", [1, 13, 499, 10_000])
def test_until_the_last_transaction_is_all_but_the_reports_due_later(tmp_path: Path, batch_records: int) -> None:
    replay = written(tmp_path / "h.parquet", table(500))
    everything = records(replay.batches())
    last = max(record["ts_utc"] for record, _ in everything if record["event_type"] == "transaction")
    until = records(replay.batches(batch_records, until_last=True))
    assert until == [(record, admitted) for record, admitted in everything if record["ts_utc"] <= last]
    # 84 transactions of the last seven days, every fifth a fraud; the first of them is due with the last transaction
    assert len(everything) - len(until) == replay.reports_pending() == 16


def test_a_file_without_rows_has_nothing_pending(tmp_path: Path) -> None:
    replay = written(tmp_path / "h.parquet", table(0))
    assert replay.reports_pending() == 0
    assert records(replay.batches(until_last=True)) == []


@pytest.mark.parametrize("batch_records", [1, 13, 499, 10_000])
def test_the_sequence_does_not_depend_on_the_batches(tmp_path: Path, batch_records: int) -> None:
    replay = written(tmp_path / "h.parquet", table(300))
    batches = list(replay.batches(batch_records))
    assert max(map(len, batches)) <= batch_records
    assert records(batches) == records(replay.batches())
    admitted = np.concatenate([batch.admitted_at for batch in batches])
    assert (np.diff(admitted) >= 0).all()
    assert (np.diff(np.concatenate([batch.ts for batch in batches])) < 0).any()  # the delays do make disorder


def test_a_part_of_the_file_is_its_start(tmp_path: Path) -> None:
    replay = written(tmp_path / "h.parquet", table(300))
    some = records(replay.batches(40, transactions=100))
    ids = {record["event_id"] for record, _ in some if record["event_type"] == "transaction"}
    assert ids == {f"transaction-{i:07d}" for i in range(100)}
    assert len(some) == 120
    assert records(replay.batches(transactions=0)) == []


def test_another_seed_gives_other_delays(tmp_path: Path) -> None:
    replay = written(tmp_path / "h.parquet", table(50))
    other = HandbookReplay(replay.path, PINS, replay.delays, seed=10)
    assert records(replay.batches()) != records(other.batches())


def without(content: pa.Table, name: str) -> pa.Table:
    return content.drop_columns([name])


def zoneless(content: pa.Table) -> pa.Table:
    index = content.schema.get_field_index("tx_datetime")
    return content.set_column(index, "tx_datetime", content["tx_datetime"].cast(pa.timestamp("us")))


def with_null(content: pa.Table) -> pa.Table:
    index = content.schema.get_field_index("customer_id")
    return content.set_column(index, "customer_id", pa.array([None] * content.num_rows, pa.int32()))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (without(table(3), "terminal_id"), "no column terminal_id"),
        (zoneless(table(3)), "not a timestamp in UTC"),
        (with_null(table(3)), "customer_id holds nulls"),
        (table(5).take([0, 1, 3, 2, 4]), "not ordered"),
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path: Path, content: pa.Table, message: str) -> None:
    replay = written(tmp_path / "h.parquet", content)
    for batch_records in (1, 100):
        with pytest.raises(HandbookFileError, match=message):
            list(replay.batches(batch_records))


def test_no_file_and_no_parquet_are_refused(tmp_path: Path) -> None:
    with pytest.raises(HandbookFileError, match="no such file"):
        HandbookReplay(tmp_path / "none.parquet", PINS).counts()
    (tmp_path / "text.parquet").write_text("customer_id\n1\n")
    with pytest.raises(HandbookFileError, match="not a Parquet file"):
        list(HandbookReplay(tmp_path / "text.parquet", PINS).batches())


@real_file
def test_the_real_file_is_replayed_whole() -> None:
    replay = HandbookReplay(HANDBOOK, PINS)
    transactions = reports = 0
    last = ts_last = 0
    disorder = 0
    for batch in replay.batches():
        transactions += batch.event_types.count("transaction")
        reports += batch.event_types.count("fraud_report")
        assert batch.admitted_at[0] >= last
        assert (np.diff(batch.admitted_at) >= 0).all()
        assert (batch.admitted_at > batch.ts).all()
        last, ts_last = int(batch.admitted_at[-1]), max(ts_last, int(batch.ts.max()))
        disorder += int((np.diff(batch.ts) < 0).sum())
    assert (transactions, reports) == replay.counts() == (1_754_155, 14_681)
    assert replay.reports_pending() == 597
    assert disorder > 0
    assert ts_last > 1_538_351_997_000_000  # reports of the last week stand after the last transaction


@real_file
def test_the_real_file_gives_valid_envelopes() -> None:
    replay = HandbookReplay(HANDBOOK, PINS)
    count = 0
    for batch in replay.batches(5_000, transactions=20_000):
        for envelope, payload in zip(batch.envelopes(), batch.payloads, strict=True):
            assert orjson.dumps(envelope.payload, option=orjson.OPT_SORT_KEYS) == payload
            count += 1
    assert count > 20_000


def test_a_report_comes_exactly_seven_days_after_its_transaction(tmp_path: Path) -> None:
    replay = written(tmp_path / "h.parquet", table(200))
    ts: dict[str, int] = {}
    of_report: dict[str, int] = {}
    for batch in replay.batches(17):
        for event_id, moment, payload in zip(batch.event_ids, batch.ts.tolist(), batch.payloads, strict=True):
            ts[event_id] = moment
            if event_id.startswith("report"):
                of_report[orjson.loads(payload)["transaction_event_id"]] = moment
    assert len(of_report) == 40
    assert all(moment - ts[event_id] == REPORT_DELAY for event_id, moment in of_report.items())
