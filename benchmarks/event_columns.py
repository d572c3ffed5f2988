"""Events of one type and one run as columns, as a producer hands them to the log."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ofp_platform.vocabulary.columns import NOT_EMITTED, EventColumns, Int64
from ofp_platform.vocabulary.identity import ContextPins


def events_of(event_type: str, pins: ContextPins, event_ids: Sequence[str], ts: Int64, payloads: Sequence[bytes]) -> EventColumns:
    """Events at these microseconds, of schema version v1."""
    count = len(event_ids)
    return EventColumns(
        event_ids=event_ids,
        event_types=[event_type] * count,
        schema_versions=["v1"] * count,
        ts=ts,
        emitted_at=np.full(count, NOT_EMITTED),
        pins=(pins,),
        pins_index=np.zeros(count, np.int32),
        payloads=payloads,
    )
