"""The decisions of the plane on a span of the log, each with everything that it was made from, a page at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from ofp_platform.decisions.event_reader import EventReader, ReadEvent
from ofp_platform.log.port import EventLog
from ofp_platform.storage.decision_records import count_loop_decisions, decided_event_types, loop_decisions_on
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import Pool
from ofp_platform.storage.snapshot_records import read_records
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import Basis, order, place
from ofp_platform.vocabulary.serving import FeatureGroupRef


@dataclass(frozen=True)
class PastDecision:
    """A decision as it is stored, its event, and the values of its vector as they were hashed; None: it has none, or lost it."""

    stored_text: str
    content: dict[str, Any]
    event: ReadEvent
    by_key: list[dict[str, Any]] | None

    @property
    def decision_id(self) -> str:
        """Of the record."""
        return str(self.content["decision_id"])

    @property
    def is_vector_lost(self) -> bool:
        """Whether it was made on a vector that is not stored, or damaged."""
        return self.by_key is None and "feature_snapshot_hash" in self.content

    @property
    def groups(self) -> list[FeatureGroupRef]:
        """The groups of its vector."""
        return [FeatureGroupRef.model_validate(group) for group in self.content.get("feature_groups", ())]

    def features(self, groups: Sequence[FeatureGroupRef]) -> dict[tuple[str, str, str], Any]:
        """The values of its vector in these groups."""
        asked_groups = {(group.group_name, group.group_version) for group in groups}
        return {
            (group["group_name"], group["group_version"], name): value
            for key in self.by_key or ()
            for group in key["by_group"]
            if (group["group_name"], group["group_version"]) in asked_groups
            for name, value in group["features"].items()
        }


class DecisionsUnread(Exception):
    """Decisions that are recorded have no event in the log: the span is not whole; the text says which, or how many."""


@dataclass(frozen=True)
class DecidedSpan:
    """Decisions on the events that `reader` reads, of a log with its archive in front."""

    pool: Pool
    objects: ObjectStore
    reader: EventReader

    def pages(self, begin: Basis | None, end: Basis, records: int = 4_000) -> Iterator[list[PastDecision]]:
        """The decisions on events from `begin` (None: the oldest) up to `end`, in the order of each partition.

        Raises:
            DecisionsUnread: see there. LogError | ObjectStoreUnavailable | psycopg.Error: what has something against it.
        """
        ends = {part.partition_id: place(part) for part in end.partitions}
        pins = self.reader.pins
        at = dict(begin.by_partition()) if begin is not None else {}
        for page in self.reader.pages(begin, records):
            partition_id = page.next.partition_id
            first = place(at[partition_id]) if partition_id in at else -1
            last = min(place(page.next), ends.get(partition_id, -1))
            at[partition_id] = page.next
            if last <= first:
                continue
            with self.pool.connection() as connection:
                contents = loop_decisions_on(
                    connection, pins, self.reader.event_type, (self.reader.log.stream_name, partition_id), (first, last)
                )
            hashes = [content["feature_snapshot_hash"] for _, content in contents if "feature_snapshot_hash" in content]
            snapshots = read_records(self.pool, self.objects, hashes, pins) if hashes else {}
            events = {order(event.position.offset): event for event in page.events}
            decisions = []
            for stored_text, content in contents:
                event = events.get(order(content["event_position"]["offset"]))
                if event is None:
                    where = f"{partition_id}:{content['event_position']['offset']}"
                    raise DecisionsUnread(
                        f"decision {content['decision_id']} is on a record at {where}, which is no {self.reader.event_type} of"
                        " the run in the log"
                    )
                hashed_part = snapshots.get(content.get("feature_snapshot_hash", ""))
                decisions.append(
                    PastDecision(stored_text, content, event, None if hashed_part is None else hashed_part["values"])
                )
            yield decisions


@dataclass(frozen=True)
class DecidedRun:
    """All that the plane itself decided in a run, of any event type. `log`: with its archive in front."""

    pool: Pool
    objects: ObjectStore
    log: EventLog
    pins: ContextPins
    clock_skew_us: int

    def count(self) -> int:
        """How many decisions are recorded."""
        with self.pool.connection() as connection:
            return count_loop_decisions(connection, self.pins)

    def pages(self, most: int | None = None) -> Iterator[list[PastDecision]]:
        """The decisions, at most so many of the oldest.

        Raises:
            DecisionsUnread: see there; behind the last page, where fewer were found than are recorded.
            LogError | ObjectStoreUnavailable | psycopg.Error: what has something against it.
        """
        with self.pool.connection() as connection:
            recorded_count = count_loop_decisions(connection, self.pins)
            event_types = decided_event_types(connection, self.pins)
        wanted_count = recorded_count if most is None else min(most, recorded_count)
        left_count, ends = wanted_count, self.log.ends()
        for event_type in event_types:
            reader = EventReader(self.log, self.pins, event_type, self.clock_skew_us)
            for page in DecidedSpan(self.pool, self.objects, reader).pages(None, ends):
                if not left_count:
                    return
                part = page[:left_count]
                left_count -= len(part)
                yield part
        if left_count:
            raise DecisionsUnread(
                f"{recorded_count:,} decisions are recorded, and {left_count:,} of them stand on nothing that"
                f" {self.log.stream_name} and its archive hold"
            )
