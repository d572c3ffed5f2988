"""Events in the order in which the log is to admit them, as columns, with their simulated time of admission."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import orjson

from ofp_platform.vocabulary.envelope import Envelope
from ofp_platform.vocabulary.identity import ContextPins

Int64 = npt.NDArray[np.int64]
NOT_EMITTED = np.iinfo(np.int64).min


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

    def records(self) -> Iterator[dict[str, Any]]:
        """The envelopes as plain dicts, as a producer would send them (not validated), in delivery order."""
        wire = [pins.wire() for pins in self.pins]
        emitted = iter(time_texts(self.emitted_at[self.emitted_at != NOT_EMITTED]))
        has_emitted = (self.emitted_at != NOT_EMITTED).tolist()
        times = time_texts(self.ts)
        for index, event_id in enumerate(self.event_ids):
            record: dict[str, Any] = {
                "event_id": event_id,
                "event_type": self.event_types[index],
                "schema_version": self.schema_version,
                "ts_utc": times[index],
                **wire[self.pins_index[index]],
                "payload": orjson.loads(self.payloads[index]),
            }
            if has_emitted[index]:
                record["emitted_at_utc"] = next(emitted)
            yield record

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
        for event_type, event_id, admitted in zip(self.event_types, self.event_ids, self.admitted_at.tolist(), strict=True):
            times[event_type, event_id].append(admitted)
        return lambda envelope: times[envelope.event_type, envelope.event_id].popleft()


def time_texts(moments: Int64) -> list[str]:
    """Microseconds since the epoch to the canonical text of `vocabulary.times.format_time`, many at once."""
    texts = np.datetime_as_string(moments.astype("datetime64[us]"), unit="us").tolist()
    return [text[:19] + "Z" if text.endswith(".000000") else text + "Z" for text in texts]
