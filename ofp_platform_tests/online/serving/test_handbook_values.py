"""While the handbook's transactions pass, what is served at a transaction's own time equals a computation apart.

The expectation is made here, in numpy and fractions, from the columns of the file and the records before the basis; nothing
of the registry, the kernel or the state is used for it.
"""

from __future__ import annotations

import json
import os
from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from ofp_platform.log.port import RecordRefusal
from ofp_platform.log.postgres import PostgresLog
from ofp_platform.online.projecting.projector import Projector
from ofp_platform.online.projecting.projector_settings import ProjectorSettings
from ofp_platform.online.serving.evaluation import Evaluator
from ofp_platform.online.serving.reader import Reader
from ofp_platform.online.state.projection import open_projection
from ofp_platform.registry.compile import compile_pack
from ofp_platform.registry.pack import shipped_pack
from ofp_platform.simulation.handbook import HandbookReplay
from ofp_platform.storage.postgres import open_pool
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.profile import Limits
from ofp_platform.vocabulary.times import format_time

FILE = Path(os.environ.get("OFP_HANDBOOK_FILE", Path(__file__).parents[4] / "shared" / "data" / "handbook_transactions.parquet"))
TRANSACTIONS = 120_000
QUESTIONS = 1_000
APPENDED = 20_000
COMMITTED = 5_000
DAY = 86_400_000_000
WINDOWS = {"1d": DAY, "7d": 7 * DAY, "30d": 30 * DAY}
DELAY = 7 * DAY
LATENESS = 8 * DAY
"""When the transactions end, their reports still come: the watermark is then a week ahead of the last transactions."""
SEED = 20_240_501
PINS = ContextPins(scenario_id="handbook", run_id="values", manifest_fingerprint="0" * 64, parameter_hash="1" * 64)
GROUPS = [
    {"group_name": "account_activity", "group_version": "v1"},
    {"group_name": "merchant_risk", "group_version": "v1"},
]
Int64 = npt.NDArray[np.int64]


class Records:
    """What was appended, in columns: partition, offset, time, transaction or report, customer, terminal, amount."""

    def __init__(self) -> None:
        self.columns: Int64 = np.empty((7, 0), np.int64)
        self.customers: dict[str, int] = {}
        self.terminals: dict[str, int] = {}
        self.reported: set[str] = set()

    def add(self, envelopes: list[dict[str, Any]], ts: Int64, placed: list[tuple[str, int]]) -> None:
        rows = [
            (
                int(partition),
                offset,
                moment,
                envelope["event_type"] == "transaction",
                self.customers.setdefault(envelope["payload"]["customer_id"], len(self.customers)),
                self.terminals.setdefault(envelope["payload"]["terminal_id"], len(self.terminals)),
                envelope["payload"].get("amount_minor", 0),
            )
            for envelope, moment, (partition, offset) in zip(envelopes, ts.tolist(), placed, strict=True)
        ]
        self.reported |= {one["payload"]["terminal_id"] for one in envelopes if one["event_type"] == "fraud_report"}
        self.columns = np.concatenate([self.columns, np.array(rows, np.int64).T], axis=1)

    def known(self, basis: dict[str, Any]) -> npt.NDArray[np.bool_]:
        """Which of them are before the basis."""
        ends = np.zeros(64, np.int64)
        for part in basis["partitions"]:
            ends[int(part["partition_id"])] = part["offset"]
        return self.columns[1] < ends[self.columns[0]]

    def expected(self, basis: dict[str, Any], customer: str, terminal: str, at: int) -> dict[str, dict[str, Any]]:
        """The values of both groups."""
        known = self.known(basis)
        own = self.columns[:, known & (self.columns[3] == 1) & (self.columns[4] == self.customers[customer])]
        here = self.columns[:, known & (self.columns[5] == self.terminals[terminal])]
        passed, reported = here[2, here[3] == 1], here[2, here[3] == 0]
        account: dict[str, Any] = {}
        merchant: dict[str, Any] = {}
        for name, window in WINDOWS.items():
            amounts = own[6, (own[2] > at - window) & (own[2] <= at)]
            account[f"count_{name}"] = len(amounts)
            account[f"mean_amount_{name}"] = decimal(Fraction(int(amounts.sum()), len(amounts))) if len(amounts) else None
            behind = int(((passed > at - DELAY - window) & (passed <= at - DELAY)).sum())
            frauds = int(((reported > at - window) & (reported <= at)).sum())
            merchant[f"tx_count_{name}"] = behind
            merchant[f"risk_{name}"] = decimal(Fraction(frauds, behind)) if behind else None
        return {"account": account, "merchant": merchant}


def decimal(number: Fraction) -> str:
    scaled = number * 10**6
    whole = Decimal(scaled.numerator // scaled.denominator)
    rest = scaled - scaled.numerator // scaled.denominator
    # exact to 40 digits and never at a tie by accident: a tie is a rest of exactly one half
    half = Decimal("0.5") if rest == Fraction(1, 2) else Decimal("0.25") if rest < Fraction(1, 2) else Decimal("0.75")
    return str((whole + half).quantize(Decimal(1), ROUND_HALF_EVEN).scaleb(-6).quantize(Decimal("0.000001")))


@pytest.mark.skipif(not FILE.exists(), reason=f"the handbook's transactions are not here ({FILE}; or set OFP_HANDBOOK_FILE)")
def test_served_values_equal_a_computation_apart_while_the_replay_passes(dsn: str) -> None:
    rng = np.random.default_rng(SEED)
    registry = compile_pack(shipped_pack("handbook"))
    records = Records()
    asked = frauds = risky = 0
    with open_pool(dsn) as pool:
        log = PostgresLog.create(pool, "handbook-values", 4, "payload.terminal_id")
        with pool.connection() as connection:
            row = open_projection(connection, "handbook-values", PINS, registry, "2" * 64, status="live")
        projector = Projector(pool, log, registry, row.projection_id, ProjectorSettings(300_000_000, LATENESS))
        reader = Reader(pool, row.projection_id, Evaluator(registry, PINS, "2" * 64, LATENESS), Limits())
        for batch in HandbookReplay(path=FILE, pins=PINS, seed=SEED).batches(APPENDED, TRANSACTIONS):
            envelopes = list(batch.records())
            placed = []
            for item in log.append(envelopes, batch.clock()).placed:
                assert not isinstance(item, RecordRefusal)
                placed.append((item[0], int(item[1])))
            records.add(envelopes, batch.ts, placed)
            transactions = [place for place, envelope in enumerate(envelopes) if envelope["event_type"] == "transaction"]
            wanted = min(len(transactions), round(QUESTIONS * len(transactions) / TRANSACTIONS) + 1)
            chosen = rng.choice(transactions, wanted, replace=False).tolist()
            # and some that a reported fraud may count for: among random ones there is hardly any
            suspect = [place for place in transactions if envelopes[place]["payload"]["terminal_id"] in records.reported]
            chosen = sorted({*chosen, *suspect[:: max(1, len(suspect) // 20)]})
            while projector.apply_available(max_records=COMMITTED):
                basis = projector.basis.by_partition()
                ready = [place for place in chosen if basis[placed[place][0]].offset > placed[place][1]]
                chosen = [place for place in chosen if place not in set(ready)]
                for place in ready:
                    payload = envelopes[place]["payload"]
                    at = int(batch.ts[place])
                    partition, offset = placed[place]
                    body = {
                        "context_pins": PINS.wire(),
                        "feature_keys": [
                            {"key_type": "account", "key_id": payload["customer_id"]},
                            {"key_type": "merchant", "key_id": payload["terminal_id"]},
                        ],
                        "feature_groups": GROUPS,
                        "as_of_time_utc": format_time(at),
                        "at_least_basis": [{"stream_name": "handbook-values", "partition_id": partition, "offset": offset}],
                    }
                    answer = json.loads(reader.answer(json.dumps(body).encode()).body)
                    served = {key["key_type"]: key["by_group"][0]["features"] for key in answer["snapshot"]["by_key"]}
                    computed = records.expected(
                        answer["provenance"]["input_basis"], payload["customer_id"], payload["terminal_id"], at
                    )
                    assert served == computed, (envelopes[place]["event_id"], answer["provenance"]["input_basis"])
                    assert computed["account"]["count_1d"] >= 1  # the transaction itself
                    frauds += computed["merchant"]["risk_7d"] not in (None, "0.000000")
                    risky += computed["merchant"]["risk_7d"] is not None
                    asked += 1
            assert chosen == []
    assert asked >= QUESTIONS
    # the questions reach past the delay, and meet terminals with reported frauds
    assert risky > QUESTIONS // 10
    assert frauds > 10
