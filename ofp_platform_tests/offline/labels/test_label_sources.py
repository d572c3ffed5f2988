"""Labels out of a log's reports and out of a handbook file."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ofp_platform.log.postgres import PostgresLog
from ofp_platform.offline.labels.label_sources import FRAUD_REPORTS, reported_labels
from ofp_platform.offline.labels.label_store import LabelStore, as_observed
from ofp_platform.registry.models import event_class
from ofp_platform.registry.pack import shipped_pack
from ofp_platform.simulation.handbook import HandbookReplay
from ofp_platform.simulation.handbook_file import HandbookFileError
from ofp_platform.simulation.handbook_labels import handbook_labels
from ofp_platform.simulation.payments import PaymentSimulation, simulate_payments
from ofp_platform.simulation.population import PopulationSize
from ofp_platform.storage.postgres import open_pool
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.build_plan import LabelBasis
from ofp_platform.vocabulary.times import parse_duration, parse_time

PINS = ContextPins(scenario_id="labels", run_id="run-1", manifest_fingerprint="1" * 64, parameter_hash="2" * 64)
SKEW = parse_duration("5m")
RULE = FRAUD_REPORTS["card_payments"]


def read(log: PostgresLog) -> list:  # type: ignore[type-arg]
    return [log.read(info.partition_id, None, 100_000) for info in log.partitions()]


AMENDS = {"event_class": "fraud_report", "event_id": "report-1", "ts_utc": "2026-01-08T00:00:00Z", "kind": "void"}


def report(event_id: str, ts: str, about: object = "payment-1", **changes: object) -> dict[str, object]:
    payload = {"account_id": "a", "payment_event_id": about}
    envelope = {"event_id": event_id, "event_type": "fraud_report", "schema_version": "v1", "ts_utc": ts, **PINS.wire()}
    return {**envelope, "payload": payload, **changes}


def test_simulated_reports_become_labels(dsn: str) -> None:
    few = PopulationSize(customers=40, accounts=50, merchants=40)
    stream = simulate_payments(PaymentSimulation(PINS, payments=6_000, days=20, size=few))
    with open_pool(dsn) as pool:
        log = PostgresLog.create(pool, "reports", 2, "payload.account_id")
        deliveries = stream.deliveries
        assert not log.append_columns(deliveries.columns(), deliveries.admitted_at).refusals
        labels = reported_labels(read(log), RULE, PINS, SKEW)
        store = LabelStore(pool, PINS)
        assert store.append(labels.assertions, as_observed).new_count == stream.summary.fraud_reports > 20
        assert store.append(reported_labels(read(log), RULE, PINS, SKEW).assertions, as_observed).new_count == 0
    assert labels.unusable == []
    payments = {
        event_id: int(ts)
        for event_id, event_type, ts in zip(deliveries.event_ids, deliveries.event_types, deliveries.ts, strict=True)
        if event_type == "card_payment"
    }
    admitted: dict[str, int] = {}
    for event_id, at in zip(deliveries.event_ids, deliveries.admitted_at.tolist(), strict=True):
        admitted[event_id] = min(at, admitted.get(event_id, at))
    for assertion in labels.assertions:
        assert parse_time(assertion.effective_time_utc) == payments[assertion.event_id] + parse_duration("7d")
        assert parse_time(assertion.observed_time_utc) == admitted[assertion.source]
        assert (assertion.event_class, assertion.value) == ("card_payment", 1)


def test_a_report_is_observed_when_it_was_admitted(dsn: str) -> None:
    with open_pool(dsn) as pool:
        log = PostgresLog.create(pool, "reports", 1, "payload.account_id")
        january, november, december = "2026-01-08T00:00:00Z", "2026-11-08T00:00:00Z", "2026-12-08T00:00:00Z"
        # backdated, and delivered again a month later
        for moment in (november, december):
            assert not log.append([report("report-1", january)], lambda envelope, moment=moment: parse_time(moment)).refusals  # type: ignore[misc]
        labels = reported_labels(read(log), RULE, PINS, SKEW)
        store = LabelStore(pool, PINS)
        store.append(labels.assertions, as_observed)
        assert [(one.effective_time_utc, one.observed_time_utc) for one in labels.assertions] == [(january, november)]
        for as_of, known in (("2026-01-31T00:00:00Z", 0), ("2026-11-07T23:59:59.999999Z", 0), (november, 1)):
            basis = LabelBasis(label_type="fraud", as_of_utc=as_of, maturity_seconds=0, next_sequence=store.next_sequence())
            assert store.resolve(basis).table.num_rows == known


def test_the_class_of_a_rule_is_that_of_the_pack() -> None:
    for pack_id, about_type in (("card_payments", "card_payment"), ("handbook", "transaction")):
        assert event_class(shipped_pack(pack_id).events, about_type) == FRAUD_REPORTS[pack_id].about_class


def test_copies_foreign_and_impossible_reports(dsn: str) -> None:
    with open_pool(dsn) as pool:
        log = PostgresLog.create(pool, "reports", 1, "payload.account_id")
        moment = "2026-01-08T00:00:00Z"
        admitted = parse_time(moment) + 1
        records = [
            report("report-1", moment),
            report("report-1", moment),
            report("report-2", "2026-01-09T00:00:00Z"),
            report("report-3", moment, run_id="other"),
            report("report-4", moment, about=None),
            report("report-5", moment, about="has a blank"),
            report("report-6", moment, about=7),
            report("report-7", "2026-01-08T00:05:00.000001Z", about="payment-2"),
            report("report-8", moment, event_type="other_report"),
            report("report-9", moment, about="payment-3", amends=AMENDS),
        ]
        assert not log.append(records, lambda envelope: admitted).refusals
        labels = reported_labels(read(log), RULE, PINS, SKEW)
    assert sorted((one.event_id, one.source) for one in labels.assertions) == [
        ("payment-1", "report-1"),
        ("payment-2", "report-7"),
    ]
    assert labels.unusable == [("0000", 4), ("0000", 5), ("0000", 6)]


def handbook(folder: Path) -> Path:
    start = datetime(2018, 4, 1, tzinfo=UTC)
    path = folder / "handbook.parquet"
    moments = [start + timedelta(days=day, microseconds=day) for day in range(12)]
    table = pa.table(
        {
            "transaction_id": list(range(12)),
            "tx_datetime": pa.array(moments, pa.timestamp("us", tz="UTC")),
            "customer_id": [1] * 12,
            "terminal_id": [2] * 12,
            "tx_amount_minor": [100] * 12,
            "tx_fraud": [0, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1],
        }
    )
    pq.write_table(table, path, row_group_size=5)
    return path


def test_the_frauds_of_a_handbook_file(dsn: str, tmp_path: Path) -> None:
    path = handbook(tmp_path)
    labels = list(handbook_labels(path))
    assert [one.event_id for one in labels] == ["transaction-0000001", "transaction-0000004", "transaction-0000011"]
    delivered = {
        event_id: int(ts)
        for batch in HandbookReplay(path, PINS).batches()
        for event_id, event_type, ts in zip(batch.event_ids, batch.event_types, batch.ts, strict=True)
        if event_type == "transaction"
    }
    for one in labels:
        assert parse_time(one.effective_time_utc) == delivered[one.event_id]
        assert parse_time(one.observed_time_utc) == delivered[one.event_id] + parse_duration("7d")
        assert (one.value, one.label_type, one.source) == (1, "fraud", "handbook:simulated-clock")
    with open_pool(dsn) as pool:
        store = LabelStore(pool, PINS)
        assert store.append(handbook_labels(path), as_observed).new_count == 3
        # as of the last transaction, the fraud in it is not known, although the store has it
        basis = LabelBasis(
            label_type="fraud", as_of_utc="2018-04-12T00:00:00.000011Z", maturity_seconds=7 * 86_400, next_sequence=3
        )
        assert store.resolve(basis).table["event_id"].to_pylist() == ["transaction-0000001", "transaction-0000004"]


def test_a_file_that_is_no_handbook_file(tmp_path: Path) -> None:
    with pytest.raises(HandbookFileError, match="no such file"):
        next(handbook_labels(tmp_path / "none.parquet"))
