"""The decisions of the plane in a run, each with everything that it was made from: by parts of the log, a page at a time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ofp_platform.decisions.event_reader import EventReader, ReadEvent
from ofp_platform.log.port import EventLog
from ofp_platform.scoring.inputs import FeatureName
from ofp_platform.storage.decision_records import DecidedPart, decided_parts, loop_decisions_on
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.storage.postgres import Pool
from ofp_platform.storage.snapshot_records import read_records
from ofp_platform.vocabulary.identity import ContextPins
from ofp_platform.vocabulary.position import START, PartitionBasis, order, place
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

    def own_features(self, read_names: Mapping[tuple[str, str], Sequence[str]]) -> dict[FeatureName, Any]:
        """Those values of its vector, in its own groups, that are read: the names of features by group and version."""
        own_groups = [(group["group_name"], group["group_version"]) for group in self.content.get("feature_groups", ())]
        features = {}
        for key in self.by_key or ():
            for group in key["by_group"]:
                name = group["group_name"], group["group_version"]
                if name in own_groups and name in read_names:
                    values = group["features"]
                    for feature in read_names[name]:
                        if feature in values:
                            features[*name, feature] = values[feature]
        return features

    def features(self, groups: Iterable[FeatureGroupRef]) -> dict[FeatureName, Any]:
        """The values of its vector in these groups."""
        return self._features({(group.group_name, group.group_version) for group in groups})

    def _features(self, asked_groups: set[tuple[str, str]]) -> dict[FeatureName, Any]:
        return {
            (group["group_name"], group["group_version"], name): value
            for key in self.by_key or ()
            for group in key["by_group"]
            if (group["group_name"], group["group_version"]) in asked_groups
            for name, value in group["features"].items()
        }


class DecisionsUnread(Exception):
    """Decisions that are recorded have no event in the log: the run is not whole; the text says which, or how many."""


@dataclass(frozen=True)
class DecidedRun:
    """All that the plane itself decided in a run, of any event type. `log`: with its archive in front."""

    pool: Pool
    objects: ObjectStore
    log: EventLog
    pins: ContextPins
    clock_skew_us: int

    def parts(self, most: int | None = None) -> list[DecidedPart]:
        """The decisions as they are recorded, in parts of at most some thousand, the oldest first; at most so many decisions."""
        with self.pool.connection() as connection:
            recorded_parts = decided_parts(connection, self.pins)
        parts, left_count = [], sum(part.decisions for part in recorded_parts) if most is None else most
        for part in recorded_parts:
            if not left_count:
                break
            parts.append(replace(part, decisions=min(part.decisions, left_count)))
            left_count -= parts[-1].decisions
        return parts

    def pages(self, parts: Sequence[DecidedPart]) -> Iterator[list[PastDecision]]:
        """The decisions of these parts.

        Raises:
            DecisionsUnread: see there; behind the last page, where fewer were found than are recorded.
            LogError | ObjectStoreUnavailable | psycopg.Error: what has something against it.
        """
        unread_count = 0
        for part in parts:
            unread_count += part.decisions
            for page in self.pages_of(part):
                unread_count -= len(page)
                yield page
        self.demand_read(parts, unread_count)

    def pages_of(self, part: DecidedPart, records: int = 4_000) -> Iterator[list[PastDecision]]:
        """The decisions of one part: no more than it counts, and fewer where the log ends before them.

        Raises:
            DecisionsUnread: a decision is on a record that is no such event.
            LogError | ObjectStoreUnavailable | psycopg.Error: what has something against it.
        """
        reader = EventReader(self.log, self.pins, part.event_type, self.clock_skew_us)
        end = self.log.ends().by_partition().get(part.partition_id) if part.stream_name == self.log.stream_name else None
        at, left_count = self._behind(part.partition_id, part.first), part.decisions
        while left_count and end is not None and place(at) < min(part.last, place(end)):
            # where offsets are counted, no record behind the part is read
            most_records = min(records, part.last - place(at)) if end.offset_kind.is_integer else records
            page = reader.page(part.partition_id, at, most_records)
            if page is None:
                return
            places = place(at), min(part.last, place(page.next), place(end))
            decisions = self._decisions_on(part, places, page.events)[:left_count]
            at, left_count = page.next, left_count - len(decisions)
            if decisions:
                yield decisions

    def demand_read(self, parts: Sequence[DecidedPart], unread_count: int) -> None:
        """Refuse that so many decisions of these parts had no event.

        Raises:
            DecisionsUnread: there are some.
        """
        if unread_count:
            raise DecisionsUnread(
                f"{sum(part.decisions for part in parts):,} decisions are recorded, and {unread_count:,} of them stand on nothing"
                f" that {self.log.stream_name} and its archive hold"
            )

    def _behind(self, partition_id: str, last_read: int) -> PartitionBasis | None:
        """The basis behind the record at a place; None: the oldest."""
        if last_read == START:
            return None
        kind = self.log.position_kind
        start = kind.start(partition_id)
        return self.log.history.with_incarnation(start.after(kind.offset_kind.parse(str(last_read))))

    def _decisions_on(self, part: DecidedPart, places: tuple[int, int], page_events: list[ReadEvent]) -> list[PastDecision]:
        """The decisions behind the first of two places, up to the second, each with its event and vector."""
        partition = (part.stream_name, part.partition_id)
        with self.pool.connection() as connection:
            contents = loop_decisions_on(connection, self.pins, part.event_type, partition, places)
        hashes = [content["feature_snapshot_hash"] for _, content in contents if "feature_snapshot_hash" in content]
        snapshots = read_records(self.pool, self.objects, hashes, self.pins) if hashes else {}
        events = {order(event.position.offset): event for event in page_events}
        decisions = []
        for stored_text, content in contents:
            event = events.get(order(content["event_position"]["offset"]))
            if event is None:
                where = f"{part.partition_id}:{content['event_position']['offset']}"
                raise DecisionsUnread(
                    f"decision {content['decision_id']} is on a record at {where}, which is no {part.event_type} of"
                    " the run in the log"
                )
            hashed_part = snapshots.get(content.get("feature_snapshot_hash", ""))
            decisions.append(PastDecision(stored_text, content, event, None if hashed_part is None else hashed_part["values"]))
        return decisions
