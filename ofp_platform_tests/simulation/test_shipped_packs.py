"""What the simulation makes is what the shipped packs read: every true event applies, every bad one fails for its reason."""

from __future__ import annotations

from collections import Counter
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ofp_platform.log.admission import Admission
from ofp_platform.log.admitted import Admitted
from ofp_platform.registry.compile import compile_pack
from ofp_platform.registry.pack import shipped_pack
from ofp_platform.registry.routing import APPLIED, RoutedBatch, Router
from ofp_platform.simulation.deliveries import Deliveries
from ofp_platform.simulation.handbook import HandbookReplay
from ofp_platform.simulation.payments import PaymentSimulation, simulate_payments
from ofp_platform.simulation.population import PopulationSize
from ofp_platform.vocabulary.identity import ContextPins

PINS = ContextPins(scenario_id="town", run_id="run-1", manifest_fingerprint="a" * 64, parameter_hash="b" * 64)


def routed(pack: str, partition_key: str, batches: list[Deliveries]) -> RoutedBatch:
    """Admit every record as a log does, then route the lot."""
    admission = Admission(partition_key)
    outcomes = [admission.admit(i, r) for i, r in enumerate(chain.from_iterable(b.records() for b in batches))]
    admitted = [outcome for outcome in outcomes if isinstance(outcome, Admitted)]
    assert len(admitted) == len(outcomes)
    assert [record.payload for record in admitted] == [payload for batch in batches for payload in batch.payloads]
    assert [record.ts for record in admitted] == [moment for batch in batches for moment in batch.ts.tolist()]
    return Router(compile_pack(shipped_pack(pack))).route(
        [record.envelope.event_type for record in admitted],
        [record.envelope.event_id for record in admitted],
        [record.envelope.schema_version for record in admitted],
        pa.array([record.ts for record in admitted], pa.int64()).to_numpy(),
        [record.payload_hash for record in admitted],
        [record.payload for record in admitted],
        [record.amends for record in admitted],
    )


def test_card_payments_apply_but_for_the_bad_ones() -> None:
    size = PopulationSize(customers=200, accounts=220, merchants=100)
    stream = simulate_payments(PaymentSimulation(PINS, payments=8_000, size=size))
    batch = routed("card_payments", "payload.account_id", list(stream.batches()))
    reasons = Counter(failure.reason.value for failure in batch.group_failures)
    assert reasons == {"WRONG_TYPE": 4, "MISSING_KEY": 2, "MISSING_FIELD": 2}
    # each feeds the groups that do not need what it lacks; pins and future times are the projector's to refuse
    assert batch.failures == []
    assert int((batch.status == APPLIED).sum()) == stream.summary.records
    assert set(batch.touched) == {"account", "card", "customer", "device", "merchant"}


def test_every_handbook_event_applies(tmp_path: Path) -> None:
    rows = 400
    content = pa.table(
        {
            "transaction_id": pa.array(range(rows), pa.int32()),
            "tx_datetime": pa.array([1_522_540_800_000_000 + i * 7_200_000_000 for i in range(rows)]).cast(
                pa.timestamp("us", tz="UTC")
            ),
            "customer_id": pa.array([i % 50 for i in range(rows)], pa.int32()),
            "terminal_id": pa.array([i % 60 for i in range(rows)], pa.int32()),
            "tx_amount_minor": pa.array(range(rows), pa.int32()),
            "tx_fraud": pa.array([int(i % 9 == 0) for i in range(rows)], pa.int8()),
        }
    )
    pq.write_table(content, tmp_path / "handbook.parquet")
    batches = list(HandbookReplay(tmp_path / "handbook.parquet", PINS).batches())
    batch = routed("handbook", "payload.customer_id", batches)
    assert batch.failures == []
    assert len(batch.touched["merchant"].key_ids) == rows + 45
    assert len(batch.touched["account"].key_ids) == rows  # no group of accounts reads fraud reports
    assert "terminal-0000059" in batch.touched["merchant"].key_ids
