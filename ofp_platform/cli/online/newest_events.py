"""The newest events of a log, as a decision service reads them."""

from __future__ import annotations

from ofp_platform.decisions.event_reader import EventReader, ReadEvent
from ofp_platform.vocabulary.position import Basis, make_basis


def near_the_end(ends: Basis, records: int) -> Basis | None:
    """The basis that many offsets before the end of each partition; None where offsets cannot be counted back."""
    parts = {}
    for end in ends.partitions:
        part = end.back(records)
        if part is None:
            return None
        parts[end.partition_id] = part
    return make_basis(ends.stream_name, parts)


def newest_events(reader: EventReader, records: int) -> list[ReadEvent]:
    """The reader's events among the last `records` records of each partition (of all, where they cannot be counted back).

    Each event once, by event time, the oldest first.
    """
    after = near_the_end(reader.log.ends(), records)
    if after is not None:
        after = after.model_copy(update={"partitions": tuple(map(reader.log.history.with_incarnation, after.partitions))})
    events: dict[str, ReadEvent] = {}
    for page in reader.pages(after):
        for event in page.events:
            events.setdefault(event.event_id, event)
    return sorted(events.values(), key=lambda event: (event.ts, event.event_id))
