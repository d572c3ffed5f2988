"""Proves by sample that rows hold nothing that they could not know: features computed again, one row at a time.

The columns come from loops that slide over all rows of a key and correct for what was not known yet. Here each chosen row gets
its own set of events, filtered first and evaluated by the kernel's plain path, and must find the same values. Chosen are rows at
random, rows beside the latest of the late events, and rows before late links: a leak would show there first. The number of shards
changes nothing of the choice: random rows are chosen among all, late events within parts of the keys that no shard divides.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ofp_platform.identity.entities import LinkSet, entity_of
from ofp_platform.kernel.entity_events import merged_in_time
from ofp_platform.kernel.finalise import group_values
from ofp_platform.kernel.query import LayoutArrays, query_of
from ofp_platform.kernel.windows import evaluate
from ofp_platform.offline.datasets.dataset_rows import (
    AS_OF,
    CHAIN,
    GRAPH,
    KEY_HIGH,
    KEY_LOW,
    KNOWN_UNTIL,
    ORDINAL,
    ROW_WIDTH,
)
from ofp_platform.offline.datasets.feature_rows import FeatureJob, feature_name
from ofp_platform.offline.datasets.resolved_rows import ANY_MEMBERS, RowEntities
from ofp_platform.offline.replay.key_shards import EventShard, KeyDigests, read_shard, shard_of
from ofp_platform.offline.replay.knowledge import known_from
from ofp_platform.offline.replay.memory_budget import MOST_SHARDS
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.exact_value import Unservable
from ofp_platform.registry.layout import TIME_ROW
from ofp_platform.vocabulary.offline.build_intent import AsOfBasis
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused

Int64s = npt.NDArray[np.int64]
RANDOM_ROWS = 1_024
KEY_PARTS = MOST_SHARDS
"""Of each part of the keys, the latest of the late events; and a row that does not know all links."""


def check_features(job: FeatureJob, registry: CompiledRegistry, seed: str, check: Callable[[], None] = lambda: None) -> int:
    """Check rows of every computed shard. `seed` (hex digits) chooses them; how many were checked.

    `check` is called before each shard, and may raise.

    Raises:
        BuildRefused: LEAKAGE_DETECTED, naming the row and the feature.
    """
    random_rows = random_ordinals(job.rows.count, seed)
    checked_rows = 0
    for key_type, shard in job.shards:
        check()
        checked_rows += check_shard(job, registry, key_type, shard, random_rows)
    return checked_rows


def random_ordinals(count: int, seed: str) -> Int64s:
    """int64[at most RANDOM_ROWS]: the numbers of the rows at random, out of `count`."""
    return np.random.default_rng(int(seed[:16], 16)).choice(count, min(RANDOM_ROWS, count), replace=False)


def check_shard(job: FeatureJob, registry: CompiledRegistry, key_type: str, shard: int, random_rows: Int64s) -> int:
    """Check rows of one computed shard, those of `random_rows` (see `random_ordinals`) among them; as `check_features`."""
    rows = read_shard(job.rows.spool(key_type), shard, ROW_WIDTH)
    if not len(rows):
        return 0
    events = job.folded_replay.events(registry, key_type, shard)
    sampled_rows = _sample_rows(rows, events, job.rows.as_of_basis, random_rows)
    if key_type in job.entities:
        sampled_rows = sorted({*sampled_rows, *_rows_behind_links(rows, job.entities[key_type])})
    with pa.memory_map(str(job.file(key_type, shard))) as source:
        computed_table = pa.ipc.open_file(source).read_all()
        place = np.searchsorted(computed_table["ordinal"].to_numpy(), rows[sampled_rows, ORDINAL])
        computed_columns = computed_table.take(pa.array(place)).to_pydict()
    groups = [registry.groups[name] for name in dict(job.groups)[key_type]]
    known_events = _KnownEvents(job, registry, key_type)
    queries = {
        resolves: query_of(LayoutArrays.of(registry.layouts[key_type]), query_groups)
        for resolves in (False, True)
        if (query_groups := [group for group in groups if group.resolves is resolves])
    }
    for row_index, row in enumerate(rows[sampled_rows].tolist()):
        evaluations = {
            resolves: evaluate(query, known_events.of_entity(row) if resolves else known_events.of_key(row), row[AS_OF])
            for resolves, query in queries.items()
        }
        number = 0
        for group in groups:
            query, evaluation = queries[group.resolves], evaluations[group.resolves]
            for name, value in group_values(group, query, evaluation, row[AS_OF]).items():
                stored_value = _stored_value(computed_columns, number, row_index)
                expected_value = value[0] if isinstance(value, tuple) else None if isinstance(value, Unservable) else value
                if stored_value != expected_value:
                    column = feature_name((group.name, group.version), name)
                    message = f"row {row[ORDINAL]}: {column} is not what the events give that the row could know"
                    raise BuildRefused(BuildReason.LEAKAGE_DETECTED, message, "as_of_basis")
                number += 1
    return len(sampled_rows)


class _KnownEvents:
    """The events that rows of one key type know, by the meaning of their basis and nothing else.

    Args:
        job: the work whose rows are checked.
        registry: the pack it is computed under.
        key_type: the type of the rows' keys.
    """

    def __init__(self, job: FeatureJob, registry: CompiledRegistry, key_type: str) -> None:
        self._job = job
        self._registry = registry
        self._key_type = key_type
        self._digests = KeyDigests()
        self._shards: dict[int, EventShard] = {}
        self._ranks: dict[tuple[int, int], Int64s] = {}

    def of_key(self, row: list[int]) -> Int64s:
        """Those of the row's own key."""
        return self._of(row, row[KEY_HIGH], row[KEY_LOW])

    def of_entity(self, row: list[int]) -> Int64s:
        """Those of all members of the entity of the row's key, by the links that the row knows.

        Raises:
            BuildRefused: LEAKAGE_DETECTED: the version of the graph that the row names knows a link of later.
        """
        entities = self._job.entities[self._key_type]
        key_id = entities.key_of(row)
        if key_id is None:
            return self.of_key(row)
        version = entities.graphs.versions[row[GRAPH]]
        parts = {part.partition_id: part for part in version.basis}
        partitions = entities.graphs.knowledge.partitions
        known_links = []
        for each in entities.links_about[key_id]:
            part = parts.get(partitions[each.partition])
            if part is None or not part.contains(each.placed_link.offset):
                continue
            if self._job.rows.as_of_basis is AsOfBasis.INGEST_TIME and each.placed_link.admitted_at > row[KNOWN_UNTIL]:
                message = f"row {row[ORDINAL]}: its graph version knows a link that was admitted later"
                raise BuildRefused(BuildReason.LEAKAGE_DETECTED, message, "as_of_basis")
            known_links.append(each.link)
        members = entity_of(LinkSet(known_links), self._key_type, key_id, row[AS_OF], ANY_MEMBERS).members
        high, low, _ = self._digests.columns(members)
        parts_of_members = [self._of(row, *pair) for pair in zip(high.tolist(), low.tolist(), strict=True)]
        return merged_in_time(parts_of_members, ties=self._registry.layouts[self._key_type].ties)

    def _of(self, row: list[int], high: int, low: int) -> Int64s:
        number = int(shard_of(np.array([high], np.int64), self._job.folded_replay.shards)[0])
        events = self._shards.get(number)
        if events is None:
            events = self._shards[number] = self._job.folded_replay.events(self._registry, self._key_type, number)
        key_index = np.flatnonzero((events.key_high == high) & (events.key_low == low))
        if not len(key_index):
            return np.ascontiguousarray(events.matrix[:, :0])
        key_events = slice(int(events.starts[key_index[0]]), int(events.ends[key_index[0]]))
        matrix = events.matrix[:, key_events]
        if self._job.rows.as_of_basis is AsOfBasis.INGEST_TIME:
            matrix = matrix[:, events.admitted_at[key_events] <= row[KNOWN_UNTIL]]
        elif self._job.rows.as_of_basis is AsOfBasis.DECISION:
            known_ranks = self._ranks.get((number, row[CHAIN]))
            if known_ranks is None:
                chain = self._job.rows.chains[row[CHAIN]]
                known_ranks = self._ranks[number, row[CHAIN]] = known_from(chain, events.matrix.shape[1], events.copies)
            matrix = matrix[:, known_ranks[key_events] <= row[KNOWN_UNTIL]]
        return np.ascontiguousarray(matrix)


def _rows_behind_links(rows: Int64s, entities: RowEntities) -> list[int]:
    """Of each part of the keys, of the first key with links the number of the first row that does not know all of the run."""
    every_link = [len(links) for links in entities.graphs.knowledge.links]
    is_behind: npt.NDArray[np.bool_] = np.any(entities.graphs.counts < np.array(every_link, np.int64), axis=1)
    row_of_part: dict[int, int] = {}
    for _, own_rows in entities.linked_rows(rows):
        candidates = own_rows[is_behind[rows[own_rows, GRAPH]]]
        if len(candidates):
            part = int(_part_of(rows[own_rows[:1], KEY_HIGH])[0])
            row_of_part.setdefault(part, int(candidates[np.argmin(rows[candidates, AS_OF])]))
    return list(row_of_part.values())


def _sample_rows(rows: Int64s, events: EventShard, as_of_basis: AsOfBasis, random_rows: Int64s) -> list[int]:
    """Sample numbers of rows, ascending."""
    row_numbers = set(np.flatnonzero(np.isin(rows[:, ORDINAL], random_rows)).tolist())
    if as_of_basis is AsOfBasis.EVENT_TIME or not events.matrix.shape[1]:
        return sorted(row_numbers)
    for key, event in _late_events(events):
        is_candidate = (rows[:, KEY_HIGH] == events.key_high[key]) & (rows[:, KEY_LOW] == events.key_low[key])
        is_candidate &= rows[:, AS_OF] >= events.matrix[TIME_ROW, event]
        if as_of_basis is AsOfBasis.INGEST_TIME:
            is_candidate &= rows[:, KNOWN_UNTIL] < events.admitted_at[event]
        candidates = np.flatnonzero(is_candidate)
        if len(candidates):
            row_numbers.add(int(candidates[np.argmin(rows[candidates, AS_OF])]))
    return sorted(row_numbers)


def _late_events(events: EventShard) -> list[tuple[int, int]]:
    """Of each part of the keys the event admitted longest after its time, with the number of its key; of equals the first."""
    lateness = events.admitted_at - events.matrix[TIME_ROW]
    keys = np.flatnonzero(events.ends > events.starts)
    latest = np.maximum.reduceat(lateness, events.starts[keys])
    part = _part_of(events.key_high[keys])
    order = np.lexsort((keys, -latest, part))
    first_of_part = np.ones(len(order), np.bool_)
    first_of_part[1:] = part[order[1:]] != part[order[:-1]]
    late_events = []
    for key in keys[order[first_of_part]].tolist():
        start, end = int(events.starts[key]), int(events.ends[key])
        late_events.append((key, start + int(np.argmax(lateness[start:end]))))
    return late_events


def _part_of(high: Int64s) -> npt.NDArray[np.uint64]:
    """The part of the keys that each digest is in; a shard is a union of such parts."""
    return (np.ascontiguousarray(high).view(np.uint64) >> np.uint64(32)) % np.uint64(KEY_PARTS)


def _stored_value(computed_columns: Mapping[str, list[Any]], number: int, row_index: int) -> int | str | list[Any] | None:
    if not computed_columns[f"valid{number}"][row_index]:
        return None
    if (lists := computed_columns.get(f"list{number}")) is not None:
        return list(lists[row_index])
    if (texts := computed_columns.get(f"text{number}")) is not None:
        return str(texts[row_index])
    low = int(computed_columns[f"low{number}"][row_index])
    high = computed_columns.get(f"high{number}")
    return low if high is None else (int(high[row_index]) << 64) | (low & (2**64 - 1))
