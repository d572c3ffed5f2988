"""The way into the log of a run, whatever its kind: through the door, or, where a log has none yet, appended without receipts.

Nothing else appends: a test of the repository looks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofp_platform.ingress.door import MOST_RECORDS, Door
from ofp_platform.ingress.receipt_block import position_of
from ofp_platform.log.port import AppendReceipt, EventLog
from ofp_platform.vocabulary.admission_receipt import AdmissionOutcome
from ofp_platform.vocabulary.columns import EventColumns
from ofp_platform.vocabulary.envelope import Envelope
from ofp_platform.vocabulary.position import Position
from ofp_platform.vocabulary.times import parse_time


@dataclass(frozen=True, slots=True)
class RecordFate:
    """The fate of one record. `position`: where it stands, or the first of its identity; None: it was refused, and why."""

    outcome: AdmissionOutcome
    position: Position | None
    reason: str | None = None
    detail: str | None = None


@dataclass(frozen=True)
class Entrance:
    """Of one run. `door`: None for a log that has none; then copies are appended, too, and the plane counts them once."""

    door: Door | None
    traffic: EventLog
    context: EventLog | None

    def send(
        self, records: Sequence[Mapping[str, Any]], producer: str, *, is_context: bool = False, at_event_time: bool = False
    ) -> list[RecordFate]:
        """Take envelopes in, in their order; the fate of each. `is_context`: they are links; a door sees that by their types.
        `at_event_time`: each is declared to be admitted at its own time, as in a simulation; else when it comes.

        Raises:
            LogUnavailable | ObjectStoreUnavailable: nothing is known of the last batch; send it again, as it is.
        """
        if self.door is None:
            log = self.context if is_context else self.traffic
            assert log is not None
            return _of_log(log.append(records, _own_time if at_event_time else None))
        return self._admit(
            self.door, records, [parse_time(record["ts_utc"]) for record in records] if at_event_time else None, producer
        )

    def send_columns(self, columns: EventColumns, admitted_at: NDArray[np.int64], producer: str) -> list[RecordFate]:
        """Take events of traffic in; `admitted_at`: int64[n], microseconds, the declared time of admission of each.

        Raises:
            as `send`.
        """
        if self.door is None:
            return _of_log(self.traffic.append_columns(columns, admitted_at))
        return self._admit(self.door, list(columns.records()), admitted_at.tolist(), producer)

    @staticmethod
    def _admit(
        door: Door, records: Sequence[Mapping[str, Any]], admitted_at: Sequence[int] | None, producer: str
    ) -> list[RecordFate]:
        fates: list[RecordFate] = []
        for begin in range(0, len(records), MOST_RECORDS):
            part = slice(begin, begin + MOST_RECORDS)
            receipt = door.admit(records[part], producer, None if admitted_at is None else admitted_at[part])
            for record_outcome in receipt.outcomes:
                reason = None if record_outcome.reason is None else record_outcome.reason.value
                position = None if record_outcome.position is None else position_of(record_outcome.position, door.streams)
                fates.append(RecordFate(record_outcome.outcome, position, reason, record_outcome.detail))
        return fates


def _own_time(envelope: Envelope) -> int:
    return parse_time(envelope.ts_utc)


def _of_log(receipt: AppendReceipt) -> list[RecordFate]:
    return [
        RecordFate(AdmissionOutcome.ADMIT, outcome)
        if isinstance(outcome, Position)
        else RecordFate(AdmissionOutcome.QUARANTINE, None, outcome.reason.value, outcome.message)
        for outcome in receipt.outcomes
    ]
