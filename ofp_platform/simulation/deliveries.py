"""Events in the order in which the log is to admit them, as columns, with their simulated time of admission."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ofp_platform.vocabulary.columns import EventColumns
from ofp_platform.vocabulary.envelope import Envelope
from ofp_platform.vocabulary.identity import ContextPins

Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Deliveries:
    """One batch, n records in the order of `admitted_at`, any of them possibly a copy of another.

    ts, emitted_at (NOT_EMITTED: none) and admitted_at are int64[n] microseconds; payloads are RFC 8785 bytes;
    `pins` are the runs that occur and pins_index (int32[n]) says which one is whose.
    """

    schema_version: str
    pins: tuple[ContextPins, ...]
    pins_index: npt.NDArray[np.int32]
    event_ids: Sequence[str]
    event_types: Sequence[str]
    ts: Int64
    emitted_at: Int64
    admitted_at: Int64
    payloads: Sequence[bytes]

    def __len__(self) -> int:
        return len(self.event_ids)

    def part(self, start: int, stop: int) -> Deliveries:
        """The records [start, stop)."""
        cut = slice(start, stop)
        return Deliveries(
            schema_version=self.schema_version,
            pins=self.pins,
            pins_index=self.pins_index[cut],
            event_ids=self.event_ids[cut],
            event_types=self.event_types[cut],
            ts=self.ts[cut],
            emitted_at=self.emitted_at[cut],
            admitted_at=self.admitted_at[cut],
            payloads=self.payloads[cut],
        )

    def columns(self) -> EventColumns:
        """The events without their times of admission, in delivery order: what `EventLog.append_columns` takes."""
        return EventColumns(
            event_ids=self.event_ids,
            event_types=self.event_types,
            schema_versions=[self.schema_version] * len(self),
            ts=self.ts,
            emitted_at=self.emitted_at,
            pins=self.pins,
            pins_index=self.pins_index,
            payloads=self.payloads,
        )

    def records(self) -> Iterator[dict[str, Any]]:
        """The envelopes as plain dicts, as a producer would send them (not validated), in delivery order."""
        return self.columns().records()

    def envelopes(self) -> Iterator[Envelope]:
        """The same, validated.

        Raises:
            pydantic.ValidationError: a record is not an envelope.
        """
        return (Envelope.model_validate(record) for record in self.records())

    def clock(self) -> Callable[[Envelope], int]:
        """A clock for one append of this batch: each record is admitted at its simulated time, microseconds.

        Copies of one event are told apart by their order, so every append takes a clock of its own.
        """
        times: dict[tuple[str, str], deque[int]] = defaultdict(deque)
        for event_type, event_id, admission_time in zip(self.event_types, self.event_ids, self.admitted_at.tolist(), strict=True):
            times[event_type, event_id].append(admission_time)
        return lambda envelope: times[envelope.event_type, envelope.event_id].popleft()
