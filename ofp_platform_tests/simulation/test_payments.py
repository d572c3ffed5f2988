from __future__ import annotations

import hashlib
from collections import Counter
from functools import cache
from typing import Any

import numpy as np
import orjson
import pytest

from ofp_platform.simulation.delays import DelayModel
from ofp_platform.simulation.disturbances import Disturbances
from ofp_platform.simulation.payments import (
    FAR_FUTURE,
    REPORT_DELAY,
    PaymentSimulation,
    PaymentStream,
    foreign_run,
    simulate_payments,
)
from ofp_platform.simulation.population import PopulationSize
from ofp_platform.vocabulary.canonical import jcs_bytes
from ofp_platform.vocabulary.envelope import Envelope, payload_hash
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.raw_identifier import raw_identifier_in
from ofp_platform.vocabulary.times import parse_time

PINS = ContextPins(scenario_id="town", run_id="run-1", manifest_fingerprint="a" * 64, parameter_hash="b" * 64)
SIZE = PopulationSize(customers=300, accounts=350, merchants=150)
KEYS = {"account_id", "card_id", "customer_id", "device_id", "merchant_id"}


COPIES = Disturbances(future=0, wrong_type=0, missing_field=0, foreign_pins=0)


@cache
def simulated() -> PaymentStream:
    return simulate_payments(PaymentSimulation(PINS, seed=7, payments=20_000, size=SIZE, disturbances=Disturbances(conflicts=4)))


@cache
def envelopes() -> list[Envelope]:
    return list(simulated().deliveries.envelopes())


def digest(stream: PaymentStream, batch_records: int) -> str:
    sha = hashlib.sha256()
    for batch in stream.batches(batch_records):
        for envelope, admitted in zip(batch.envelopes(), batch.admitted_at.tolist(), strict=True):
            sha.update(jcs_bytes(envelope.model_dump(exclude_none=True) | {"payload": envelope.payload}))
            sha.update(str(admitted).encode())
    return sha.hexdigest()


def test_the_same_seed_gives_the_same_bytes_in_batches_of_any_size() -> None:
    small = PaymentSimulation(PINS, seed=3, payments=2_000, size=SIZE)
    first = digest(simulate_payments(small), 1_000)
    assert digest(simulate_payments(small), 77) == first
    other = PaymentSimulation(PINS, seed=4, payments=2_000, size=SIZE)
    assert digest(simulate_payments(other), 1_000) != first


def test_the_summary_counts_what_is_there() -> None:
    stream, everything = simulated(), envelopes()
    summary = stream.summary
    assert summary.records == len(stream.deliveries) == len(everything)
    assert summary.records == summary.payments + summary.fraud_reports + summary.disturbances.total
    assert summary.payments == 20_000
    assert summary.fraud_reports + summary.reports_pending == sum(summary.frauds.values())
    assert min(summary.frauds.values()) > 0
    assert summary.reports_pending > 0
    assert summary.late > 0
    assert summary.out_of_order > 0
    true = {e.event_id: e for e in everything if e.event_id.split("-")[1].isdigit()}
    payments = [e for e in true.values() if e.event_type == "card_payment"]
    assert len(payments) == 20_000
    assert sum(e.payload["status"] == "declined" for e in payments) == summary.declined
    assert sum(e.event_type == "fraud_report" for e in true.values()) == summary.fraud_reports


def test_deliveries_stand_in_the_order_of_admission_and_after_their_event() -> None:
    deliveries = simulated().deliveries
    assert (np.diff(deliveries.admitted_at) >= 0).all()
    future = deliveries.ts >= FAR_FUTURE
    assert future.sum() == 4
    present = ~future
    assert (deliveries.admitted_at[present] > deliveries.ts[present]).all()
    assert (deliveries.emitted_at[present] >= deliveries.ts[present]).all()
    assert (deliveries.emitted_at[present] <= deliveries.admitted_at[present]).all()


def test_event_times_lie_in_the_period() -> None:
    start = parse_time("2026-01-01T00:00:00Z")
    ts = simulated().deliveries.ts
    ts = ts[ts < FAR_FUTURE]
    assert ts.min() >= start
    assert start + 34 * 86_400_000_000 < ts.max() < start + 35 * 86_400_000_000


def test_payloads_are_canonical_and_hold_no_raw_identifier() -> None:
    for envelope, payload in zip(envelopes(), simulated().deliveries.payloads, strict=True):
        assert orjson.dumps(envelope.payload, option=orjson.OPT_SORT_KEYS) == payload
        assert raw_identifier_in(envelope.payload) is None


def test_a_fraud_report_names_its_payment_and_comes_seven_days_later() -> None:
    payments = {e.event_id: e for e in reversed(envelopes()) if e.event_type == "card_payment"}
    reports = [e for e in envelopes() if e.event_type == "fraud_report"]
    assert reports
    for report in reports:
        payment = payments[report.payload["payment_event_id"]]
        assert parse_time(report.ts_utc) - parse_time(payment.ts_utc) == REPORT_DELAY
        assert set(report.payload) == KEYS | {"payment_event_id"}
        assert {key: report.payload[key] for key in KEYS} == {key: payment.payload[key] for key in KEYS}


def test_copies_and_retries_are_one_event_and_conflicts_are_not() -> None:
    seen: dict[tuple[str, str], list[Envelope]] = {}
    for envelope in envelopes():
        seen.setdefault((envelope.event_type, envelope.event_id), []).append(envelope)
    kinds: Counter[str] = Counter()
    for copies in seen.values():
        assert len(copies) <= 2
        if len(copies) == 2:
            first, second = copies
            if payload_hash(first) != payload_hash(second):
                kinds["conflict"] += 1
            elif first == second:
                kinds["duplicate"] += 1
            else:
                assert first.emitted_at_utc is not None
                assert second.emitted_at_utc is not None
                assert first.emitted_at_utc < second.emitted_at_utc
                kinds["retry"] += 1
    assert kinds == {"conflict": 4, "duplicate": 40, "retry": 40}


def test_the_bad_events_are_bad_in_the_way_they_say() -> None:
    bad = [e for e in envelopes() if not e.event_id.split("-")[1].isdigit()]
    by_kind: dict[str, list[Envelope]] = {}
    for envelope in bad:
        by_kind.setdefault(envelope.event_id.removeprefix("payment-").rpartition("-")[0], []).append(envelope)
    assert {kind: len(events) for kind, events in by_kind.items()} == {
        "future": 4,
        "wrong-type": 4,
        "missing-field": 4,
        "foreign-pins": 4,
    }
    assert all(e.ts_utc.startswith("2099") for e in by_kind["future"])
    assert {type(e.payload["amount_minor"]) for e in by_kind["wrong-type"]} == {str, float}
    missing = [({*KEYS, "amount_minor"} - set(e.payload)) for e in by_kind["missing-field"]]
    assert sorted(map(sorted, missing)) == [["amount_minor"]] * 2 + [["merchant_id"]] * 2
    assert {e.pins() for e in by_kind["foreign-pins"]} == {foreign_run(PINS)}
    assert {e.pins() for e in envelopes()} == {PINS, foreign_run(PINS)}


def test_without_disturbances_every_event_comes_once() -> None:
    simulation = PaymentSimulation(
        PINS,
        payments=1_000,
        size=SIZE,
        delays=DelayModel(median_seconds=1, sigma=0, late_share=0),
        disturbances=Disturbances.none(),
    )
    stream = simulate_payments(simulation)
    assert len(set(stream.deliveries.event_ids)) == len(stream.deliveries)
    assert (stream.summary.late, stream.summary.out_of_order) == (0, 0)
    assert (np.diff(stream.deliveries.ts) >= 0).all()


def test_copies_and_retries_add_no_event() -> None:
    simulation = PaymentSimulation(PINS, payments=1_000, size=SIZE, disturbances=COPIES)
    stream = simulate_payments(simulation)
    identities = {(e.event_id, payload_hash(e)) for e in stream.deliveries.envelopes()}
    assert len(identities) == len(stream.deliveries) - 80
    assert {e.pins() for e in stream.deliveries.envelopes()} == {PINS}


def test_entities_are_related_as_declared() -> None:
    account_of: dict[str, str] = {}
    customer_of: dict[str, str] = {}
    cards: dict[str, set[str]] = {}
    devices: dict[str, set[str]] = {}
    for envelope in envelopes():
        payload = envelope.payload
        assert account_of.setdefault(payload["card_id"], payload["account_id"]) == payload["account_id"]
        assert customer_of.setdefault(payload["account_id"], payload["customer_id"]) == payload["customer_id"]
        cards.setdefault(payload["account_id"], set()).add(payload["card_id"])
        devices.setdefault(payload["device_id"], set()).add(payload["card_id"])
    assert max(map(len, cards.values())) > 1
    assert max(map(len, devices.values())) > 2


def test_a_clock_gives_each_copy_its_own_time() -> None:
    deliveries = simulated().deliveries
    clock = deliveries.clock()
    assert [clock(envelope) for envelope in envelopes()] == deliveries.admitted_at.tolist()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"payments": 0}, "at least one payment"),
        ({"days": 0}, "one day"),
        ({"payments": 50}, "too many"),
    ],
)
def test_a_simulation_of_nothing_is_refused(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PaymentSimulation(PINS, **fields)


def test_a_negative_count_is_refused() -> None:
    with pytest.raises(ValueError, match="0 or more"):
        Disturbances(retries=-1)


@pytest.mark.parametrize("size", [(0, 1, 20), (5, 4, 20), (5, 5, 3)])
def test_a_population_without_people_or_shops_is_refused(size: tuple[int, int, int]) -> None:
    with pytest.raises(ValueError, match=r"customers|merchants"):
        PopulationSize(*size)
