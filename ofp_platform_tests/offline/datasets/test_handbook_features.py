"""The twelve handbook features of all 1,754,155 transactions, built from events, equal a computation apart.

The expectation is made in numpy from the columns of the file: counts and sums between two places of a sorted array, decimals by
integer division. Nothing of the registry, the fold or the kernel is used for it.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from ofp_platform.log.port import RecordBatch
from ofp_platform.offline.datasets.dataset_rows import dataset_rows
from ofp_platform.offline.datasets.feature_rows import compute_features, dataset_blocks, feature_job, requested_groups
from ofp_platform.offline.replay.candidate_rows import candidate_scope
from ofp_platform.offline.replay.known_events import fold_replay
from ofp_platform.registry.compile import compile_pack
from ofp_platform.registry.pack import shipped_pack
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.offline.build_intent import AsOfBasis, PerEvent
from ofp_platform.vocabulary.position import OffsetKind, PartitionBasis
from ofp_platform.vocabulary.serving import FeatureGroupRef

FILE = Path(os.environ.get("OFP_HANDBOOK_FILE", Path(__file__).parents[4] / "shared" / "data" / "handbook_transactions.parquet"))
PINS = ContextPins(scenario_id="handbook", run_id="features", manifest_fingerprint="0" * 64, parameter_hash="1" * 64)
SECOND = 1_000_000
DAY = 86_400
DELAY = 7 * DAY
WINDOWS = {"1d": DAY, "7d": 7 * DAY, "30d": 30 * DAY}
PAGE = 50_000
Int64 = npt.NDArray[np.int64]


class Transactions:
    """The file's columns; times in whole seconds."""

    def __init__(self) -> None:
        table = pq.read_table(FILE)
        moments = table["tx_datetime"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64()).to_numpy()
        assert (moments % SECOND == 0).all()
        self.time = moments // SECOND
        self.id = table["transaction_id"].cast(pa.int64()).to_numpy()
        self.customer = table["customer_id"].cast(pa.int64()).to_numpy()
        self.terminal = table["terminal_id"].cast(pa.int64()).to_numpy()
        self.amount = table["tx_amount_minor"].cast(pa.int64()).to_numpy()
        self.fraud = table["tx_fraud"].to_numpy() == 1

    def batches(self) -> Iterator[RecordBatch]:
        """One partition: the transactions in the order of the file, then the fraud reports; admitted a second later."""
        frauds = np.flatnonzero(self.fraud)
        rows = np.concatenate([np.arange(len(self.id)), frauds])
        times = np.concatenate([self.time, self.time[frauds] + DELAY]) * SECOND
        for start in range(0, len(rows), PAGE):
            own = rows[start : start + PAGE]
            reports = np.arange(start, start + len(own)) >= len(self.id)
            ids = [
                f"{'r' if report else 't'}-{number}"
                for number, report in zip(self.id[own].tolist(), reports.tolist(), strict=True)
            ]
            columns = zip(
                self.amount[own].tolist(), self.customer[own].tolist(), self.terminal[own].tolist(), reports.tolist(), strict=True
            )
            payloads = [
                f'{{"customer_id":"c-{customer}","terminal_id":"t-{terminal}"}}'.encode()
                if report
                else f'{{"amount_minor":{amount},"customer_id":"c-{customer}","terminal_id":"t-{terminal}"}}'.encode()
                for amount, customer, terminal, report in columns
            ]
            ts = times[start : start + PAGE]
            end = PartitionBasis(partition_id="0", offset_kind=OffsetKind.EXCLUSIVE_NEXT, offset=start + len(own))
            yield RecordBatch(
                partition_id="0",
                offsets=list(range(start, start + len(own))),
                admitted_at=ts + SECOND,
                event_ids=ids,
                event_types=["fraud_report" if report else "transaction" for report in reports.tolist()],
                schema_versions=["v1"] * len(own),
                ts=ts,
                emitted_at=[None] * len(own),
                pins=[PINS],
                pins_index=np.zeros(len(own), np.int32),
                payload_hashes=[hashlib.sha256(name.encode()).digest() for name in ids],
                payloads=payloads,
                amends=[None] * len(own),
                next=end,
            )


def place(key: Int64, second: Int64) -> Int64:
    """One number that orders (key, time)."""
    return (key << 34) + second


class Sorted:
    """Events of keys in the order of (key, time), with running sums of a value."""

    def __init__(self, key: Int64, second: Int64, value: Int64 | None = None) -> None:
        places = place(key, second)
        order = np.argsort(places, kind="stable")
        self.places = places[order]
        values = np.ones(len(order), np.int64) if value is None else value[order]
        self.sums = np.concatenate([[0], np.cumsum(values)])

    def inside(self, key: Int64, until: Int64, window: int) -> Int64:
        """The sum over (until - window, until]."""
        first = np.searchsorted(self.places, place(key, until - window), side="right")
        return np.asarray(self.sums[np.searchsorted(self.places, place(key, until), side="right")] - self.sums[first])


def half_even(numerator: Int64, denominator: Int64) -> Int64:
    """numerator / denominator at six digits, unscaled, rounded half to even; 0 where the denominator is 0."""
    divisor = np.maximum(denominator, 1)
    quotient, rest = np.divmod(numerator * 1_000_000, divisor)
    up = (2 * rest > divisor) | ((2 * rest == divisor) & (quotient % 2 == 1))
    return np.where(denominator > 0, quotient + up, 0)


def expected(data: Transactions) -> dict[str, tuple[Int64, npt.NDArray[np.bool_]]]:
    """Column to (value or unscaled decimal, is not null), in the order of the file."""
    spent, counted = Sorted(data.customer, data.time, data.amount), Sorted(data.customer, data.time)
    passed = Sorted(data.terminal, data.time)
    reported = Sorted(data.terminal[data.fraud], data.time[data.fraud] + DELAY)
    every = np.ones(len(data.id), np.bool_)
    made = {}
    for name, window in WINDOWS.items():
        count = counted.inside(data.customer, data.time, window)
        made[f"account_activity_v1__count_{name}"] = count, every
        total = spent.inside(data.customer, data.time, window)
        made[f"account_activity_v1__mean_amount_{name}"] = half_even(total, count), every
        behind = passed.inside(data.terminal, data.time - DELAY, window)
        frauds = reported.inside(data.terminal, data.time, window)
        made[f"merchant_risk_v1__tx_count_{name}"] = behind, every
        made[f"merchant_risk_v1__risk_{name}"] = half_even(frauds, behind), behind > 0
    return made


@pytest.mark.skipif(not FILE.exists(), reason=f"the handbook's transactions are not here ({FILE}; or set OFP_HANDBOOK_FILE)")
def test_all_twelve_features_of_all_transactions(tmp_path: Path) -> None:
    data = Transactions()
    assert len(data.id) == 1_754_155
    registry = compile_pack(shipped_pack("handbook"))
    groups = requested_groups(
        registry,
        [
            FeatureGroupRef(group_name="account_activity", group_version="v1"),
            FeatureGroupRef(group_name="merchant_risk", group_version="v1"),
        ],
    )
    intent = PerEvent(event_types=("transaction",))
    scope = candidate_scope(intent, registry, groups)
    folded = fold_replay(data.batches(), registry, PINS, 0, tmp_path / "fold", scope=scope)
    assert (folded.applied, folded.duplicates, folded.failed) == (len(data.id) + int(data.fraud.sum()), 0, 0)
    rows = dataset_rows(folded, intent, AsOfBasis.EVENT_TIME, tmp_path / "rows")
    job = feature_job(folded, rows, registry, groups, tmp_path / "features")
    compute_features(job, registry, 2)
    wanted = expected(data)
    row_of = np.zeros(int(data.id.max()) + 1, np.int64)
    row_of[data.id] = np.arange(len(data.id))
    seen = 0
    for block in dataset_blocks(job, registry):
        names = block["event_id"].combine_chunks()
        numbers = pc.utf8_slice_codeunits(names, 2).cast(pa.int64()).to_numpy()
        where = row_of[numbers]
        assert np.array_equal(block["event_time_utc"].cast(pa.int64()).to_numpy(), data.time[where] * SECOND)
        for name, (value, valid) in wanted.items():
            column = block[name].combine_chunks()
            assert np.array_equal(column.is_valid().to_numpy(zero_copy_only=False), valid[where]), name
            if pa.types.is_decimal(column.type):
                assert column.type == pa.decimal128(38, 6)
                got = np.frombuffer(column.buffers()[1], np.int64).reshape(-1, 2)[:, 0]
            else:
                got = column.to_numpy()
            assert np.array_equal(np.where(valid[where], got, 0), np.where(valid[where], value[where], 0)), name
        seen += block.num_rows
    assert seen == len(data.id)
