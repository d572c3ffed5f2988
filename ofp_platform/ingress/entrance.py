"""The way into the log of a run for what this process has itself: through the door, whatever the kind of the log.

Nothing else appends: a test of the repository looks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ofp_platform.ingress.batches import MOST_RECORDS
from ofp_platform.ingress.door import Door
from ofp_platform.ingress.receipt_block import position_of
from ofp_platform.vocabulary.admission_receipt import AdmissionOutcome
from ofp_platform.vocabulary.columns import EventColumns
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
    """Of one run."""

    door: Door

    def send(self, records: Sequence[Mapping[str, Any]], producer: str, *, at_event_time: bool = False) -> list[RecordFate]:
        """Take envelopes in, in their order; the fate of each. `at_event_time`: each is declared to be admitted at its own time,
        as in a simulation; else when it comes.

        Raises:
            LogUnavailable | ObjectStoreUnavailable: nothing is known of the last batch; send it again, as it is.
        """
        times = [parse_time(record["ts_utc"]) for record in records] if at_event_time else None
        return self._admit(records, times, producer)

    def send_columns(self, columns: EventColumns, admitted_at: NDArray[np.int64], producer: str) -> list[RecordFate]:
        """Take events of traffic in; `admitted_at`: int64[n], microseconds, the declared time of admission of each.

        Raises:
            as `send`.
        """
        return self._admit(list(columns.records()), admitted_at.tolist(), producer)

    def _admit(self, records: Sequence[Mapping[str, Any]], admitted_at: Sequence[int] | None, producer: str) -> list[RecordFate]:
        fates: list[RecordFate] = []
        for begin in range(0, len(records), MOST_RECORDS):
            part = slice(begin, begin + MOST_RECORDS)
            receipt = self.door.admit(records[part], producer, None if admitted_at is None else admitted_at[part])
            for record_outcome in receipt.outcomes:
                reason = None if record_outcome.reason is None else record_outcome.reason.value
                position = None if record_outcome.position is None else position_of(record_outcome.position, self.door.streams)
                fates.append(RecordFate(record_outcome.outcome, position, reason, record_outcome.detail))
        return fates
