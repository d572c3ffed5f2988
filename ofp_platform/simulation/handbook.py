"""The transactions of the fraud detection handbook as a stream of events, in delivery order.

The file holds the outcome (`tx_fraud`) beside each transaction. A plane may not see it that early: here a transaction
says nothing of fraud, and each fraud is an event of its own, `fraud_report`, exactly seven days after its transaction.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ofp_platform.simulation.delays import DelayModel, DelaySampler
from ofp_platform.simulation.deliveries import Deliveries
from ofp_platform.simulation.handbook_file import OUTCOME, TIME, HandbookFileError, handbook_columns, row_count
from ofp_platform.vocabulary.columns import NOT_EMITTED
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.times import parse_duration

Int64 = npt.NDArray[np.int64]
REPORT_DELAY = parse_duration("7d")
SCHEMA_VERSION = "v1"
_TRANSACTION_PAYLOAD = b'{"amount_minor":%d,"customer_id":"customer-%07d","terminal_id":"terminal-%07d"}'
_REPORT_PAYLOAD = b'{"customer_id":"customer-%07d","terminal_id":"terminal-%07d","transaction_event_id":"transaction-%07d"}'
# rows of the working matrix
_ADMITTED, _TS, _TRANSACTION, _CUSTOMER, _TERMINAL, _AMOUNT, _REPORT = range(7)


@dataclass(frozen=True)
class HandbookReplay:
    """A handbook Parquet file as events of one run. Same file, pins, delays and seed: the same sequence of records.

    The file must be ordered by `tx_datetime`; it is streamed, and only what is not yet due for delivery is held.
    """

    path: Path
    pins: ContextPins
    delays: DelayModel = field(default_factory=DelayModel)
    seed: int = 0

    def counts(self) -> tuple[int, int]:
        """How many transactions and how many fraud reports the whole file gives.

        Raises:
            HandbookFileError: see `handbook_columns`.
        """
        frauds = sum(int(part[OUTCOME].sum()) for part in handbook_columns(self.path, [OUTCOME]))
        return row_count(self.path), frauds

    def reports_pending(self) -> int:
        """How many fraud reports are due after the last transaction of the whole file.

        Raises:
            HandbookFileError: see `handbook_columns`.
        """
        parts = list(handbook_columns(self.path, [TIME, OUTCOME]))
        report_times = [part[TIME][part[OUTCOME] == 1] + REPORT_DELAY for part in parts]
        return sum(int((times > parts[-1][TIME][-1]).sum()) for times in report_times)

    def batches(
        self, batch_records: int = 50_000, transactions: int | None = None, *, until_last: bool = False
    ) -> Iterator[Deliveries]:
        """The events in the order of admission, `batch_records` at most at once; the sequence does not depend on it.

        `transactions` bounds how many rows of the file are taken, from its start. `until_last`: without the reports that
        are due after the last transaction, as the world stands when it happens.

        Raises:
            HandbookFileError: see `handbook_columns`; also rows out of order.
        """
        for matrix in self._due(batch_records, transactions, until_last):
            for start in range(0, matrix.shape[1], batch_records):
                yield _deliveries(matrix[:, start : start + batch_records], self.pins)

    def _due(self, batch_records: int, transactions: int | None, until_last: bool) -> Iterator[Int64]:
        """Matrices int64[7, n] in delivery order: what no later row of the file can come before."""
        of_transactions, of_reports = (DelaySampler(self.delays, child) for child in np.random.SeedSequence(self.seed).spawn(2))
        waiting = np.empty((7, 0), dtype=np.int64)
        newest = np.iinfo(np.int64).min
        for rows in _rows(self.path, batch_records, transactions):
            if not rows.shape[1]:
                continue
            if rows[_TS, 0] < newest or (np.diff(rows[_TS]) < 0).any():
                raise HandbookFileError(f"{self.path}: the rows are not ordered by tx_datetime")
            newest = int(rows[_TS, -1])
            reports = rows[:, rows[_REPORT] == 1].copy()
            reports[_TS] += REPORT_DELAY
            rows[_REPORT] = 0
            rows[_ADMITTED] = rows[_TS] + of_transactions.draw(rows.shape[1])[0]
            reports[_ADMITTED] = reports[_TS] + of_reports.draw(reports.shape[1])[0]
            waiting = np.concatenate([waiting, rows, reports], axis=1)
            # a delay is at least 1 microsecond, so a row still to come is admitted after `newest`
            due = waiting[_ADMITTED] <= newest
            yield _by_admission(waiting[:, due])
            waiting = waiting[:, ~due]
        yield _by_admission(waiting[:, waiting[_TS] <= newest] if until_last else waiting)


def _by_admission(matrix: Int64) -> Int64:
    """By admission; ties (of the microsecond) by transaction, and the transaction in front of its report."""
    return matrix[:, np.lexsort((matrix[_REPORT], matrix[_TRANSACTION], matrix[_ADMITTED]))]


def _rows(path: Path, batch_records: int, transactions: int | None) -> Iterator[Int64]:
    """int64[7, n], admission still 0 and the report row holding tx_fraud."""
    rows_left = transactions
    for part in handbook_columns(path, batch_rows=batch_records):
        count = len(part[TIME]) if rows_left is None else min(rows_left, len(part[TIME]))
        matrix = np.zeros((7, count), dtype=np.int64)
        for row, name in (
            (_TRANSACTION, "transaction_id"),
            (_CUSTOMER, "customer_id"),
            (_TERMINAL, "terminal_id"),
            (_AMOUNT, "tx_amount_minor"),
            (_REPORT, OUTCOME),
            (_TS, TIME),
        ):
            matrix[row] = part[name][:count]
        yield matrix
        if rows_left is not None:
            rows_left -= count
            if rows_left <= 0:
                return


def _deliveries(matrix: Int64, pins: ContextPins) -> Deliveries:
    ids: list[str] = []
    types: list[str] = []
    payloads: list[bytes] = []
    rows = matrix[[_TRANSACTION, _CUSTOMER, _TERMINAL, _AMOUNT, _REPORT]].T.tolist()
    for transaction, customer, terminal, amount, report in rows:
        # keys stand in the order of RFC 8785, so these are the canonical bytes
        if report:
            ids.append(f"report-{transaction:07d}")
            types.append("fraud_report")
            payloads.append(_REPORT_PAYLOAD % (customer, terminal, transaction))
        else:
            ids.append(f"transaction-{transaction:07d}")
            types.append("transaction")
            payloads.append(_TRANSACTION_PAYLOAD % (amount, customer, terminal))
    count = matrix.shape[1]
    return Deliveries(
        schema_version=SCHEMA_VERSION,
        pins=(pins,),
        pins_index=np.zeros(count, dtype=np.int32),
        event_ids=ids,
        event_types=types,
        ts=matrix[_TS],
        emitted_at=np.full(count, NOT_EMITTED, dtype=np.int64),
        admitted_at=matrix[_ADMITTED],
        payloads=payloads,
    )
