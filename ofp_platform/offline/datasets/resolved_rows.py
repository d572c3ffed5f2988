"""Rows whose groups resolve identities: which entity each asks about, and the events of its members as those of one key.

A row whose entity has several members is given a key of its own, that of these very members: whoever evaluates rows and events
by key needs to know nothing of links. State is of members, and a link that comes late changes none of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import numpy as np
import numpy.typing as npt

from ofp_platform.identity.context_events import PlacedLink
from ofp_platform.identity.entities import LinkEvent, LinkSet, entity_of
from ofp_platform.offline.datasets.dataset_rows import AS_OF, GRAPH, KEY_HIGH, KEY_LOW
from ofp_platform.offline.datasets.row_graphs import RowGraphs
from ofp_platform.offline.replay.event_index import KeyEvents
from ofp_platform.offline.replay.key_shards import COPY_EVENT, EventShard, KeyDigests

Int64s = npt.NDArray[np.int64]
Members = tuple[str, ...]
ANY_TIME = 2**62
"""A time behind every effective time."""
ANY_MEMBERS = 2**31
_CELLS = 8_000_000
"""Of rows by links that are looked at together, so that a hub with very many links needs no more memory than others."""


@dataclass(frozen=True)
class NumberedLink:
    """A link, and where versions know it from: number of the partition, and of the link in it."""

    partition: int
    number: int
    placed_link: PlacedLink

    @property
    def link(self) -> LinkEvent:
        """The link itself."""
        return self.placed_link.link


class RowEntities:
    """The entities that rows of one key type ask about, each by the version of the graph that the row knows.

    Args:
        graphs: the versions that rows know; all rows were written.
        key_type: the type of the rows' keys.
    """

    def __init__(self, graphs: RowGraphs, key_type: str) -> None:
        self.graphs = graphs
        self.key_type = key_type
        self._counts = graphs.counts
        self.links_about = _hanging_together(
            NumberedLink(partition, number, placed_link)
            for partition, links in enumerate(graphs.knowledge.links)
            for number, placed_link in enumerate(links)
            if placed_link.link.key_type == key_type
        )
        ids = sorted(self.links_about)
        high, low, _ = KeyDigests().columns(ids)
        self._id_of = dict(zip(zip(high.tolist(), low.tolist(), strict=True), ids, strict=True))
        self._high = np.unique(high)
        self._members: dict[tuple[str, bytes], Members] = {}
        self._columns: dict[int, tuple[Int64s, Int64s, Int64s]] = {}

    def key_of(self, row: Sequence[int]) -> str | None:
        """The id of a row's key, if any link of the run is about it."""
        return self._id_of.get((row[KEY_HIGH], row[KEY_LOW]))

    def linked_rows(self, rows: Int64s) -> Iterator[tuple[str, Int64s]]:
        """The ids of keys that some link is about, each with the numbers of its rows, int64."""
        linked_rows = np.flatnonzero(np.isin(rows[:, KEY_HIGH], self._high))
        if not len(linked_rows):
            return
        pairs, pair_of = np.unique(rows[linked_rows][:, [KEY_HIGH, KEY_LOW]], axis=0, return_inverse=True)
        by_pair = np.argsort(pair_of.reshape(-1), kind="stable")
        cuts = np.searchsorted(pair_of.reshape(-1)[by_pair], np.arange(len(pairs) + 1))
        for number, pair in enumerate(pairs.tolist()):
            key_id = self.key_of(pair)
            if key_id is not None:
                yield key_id, linked_rows[by_pair[cuts[number] : cuts[number + 1]]]

    def several_members(self, rows: Int64s) -> tuple[Int64s, list[Members]]:
        """Entities of several members that rows (int64[n, ROW_WIDTH]) ask about; int64[n]: which one each row, -1 none."""
        entity_of_row = np.full(len(rows), -1, np.int64)
        entities: dict[Members, int] = {}
        for key_id, own_rows in self.linked_rows(rows):
            size = max(1, _CELLS // len(self.links_about[key_id]))
            for start in range(0, len(own_rows), size):
                block = own_rows[start : start + size]
                for members, is_theirs in self._entities(key_id, rows[block]):
                    if len(members) > 1:
                        entity_of_row[block[is_theirs]] = entities.setdefault(members, len(entities))
        return entity_of_row, list(entities)

    def _entities(self, key_id: str, rows: Int64s) -> Iterator[tuple[Members, npt.NDArray[np.bool_]]]:
        """The entities of a key at its rows, each with which rows."""
        links = self.links_about[key_id]
        partition, number, effective = self._columns_of(links)
        counts = self._counts[rows[:, GRAPH]]
        is_known = (number < counts[:, partition]) & (effective <= rows[:, AS_OF, np.newaxis])
        masks, mask_of = np.unique(np.packbits(is_known, axis=1), axis=0, return_inverse=True)
        for place, mask in enumerate(masks):
            known_links = [link.link for link, is_known_link in zip(links, np.unpackbits(mask), strict=False) if is_known_link]
            state = key_id, mask.tobytes()
            if state not in self._members:
                entity = entity_of(LinkSet(known_links), self.key_type, key_id, ANY_TIME, ANY_MEMBERS)
                self._members[state] = entity.members
            yield self._members[state], mask_of.reshape(-1) == place

    def _columns_of(self, links: list[NumberedLink]) -> tuple[Int64s, Int64s, Int64s]:
        """Partition, number and effective time of each link; ids that hang together share their list."""
        columns = self._columns.get(id(links))
        if columns is None:
            rows = [(each.partition, each.number, each.link.effective_ts) for each in links]
            partition, number, effective = np.array(rows, np.int64).T
            columns = self._columns[id(links)] = partition, number, effective
        return columns


def _hanging_together(links: Iterable[NumberedLink]) -> dict[str, list[NumberedLink]]:
    """Id to all links that hang together with it, whenever they hold, in their order."""
    leaders: dict[str, str] = {}

    def leader(key_id: str) -> str:
        while (above := leaders.setdefault(key_id, key_id)) != key_id:
            leaders[key_id] = key_id = leaders[above]
        return key_id

    all_links = list(links)
    for each in all_links:
        leaders[leader(each.link.member)] = leader(each.link.canonical)
    by_leader: dict[str, list[NumberedLink]] = {}
    for each in all_links:
        by_leader.setdefault(leader(each.link.member), []).append(each)
    return {key_id: by_leader[leader(key_id)] for key_id in list(leaders)}


def as_one_key(rows: Int64s, entity_of_row: Int64s, entities: Sequence[Members]) -> Int64s:
    """The rows, each of an entity (see `RowEntities.several_members`) with the key of that entity."""
    is_joined = entity_of_row >= 0
    keyed_rows = rows.copy()
    keyed_rows[is_joined, KEY_HIGH : KEY_LOW + 1] = _digests(entities)[entity_of_row[is_joined]]
    return keyed_rows


def with_entities(events: EventShard, entities: Sequence[Members], entity_events: KeyEvents) -> EventShard:
    """The events of a shard, and behind them those of entities (in their order) under the keys of these."""
    own_events, digests = events.matrix.shape[1], _digests(entities)
    keys = np.concatenate([np.column_stack([events.key_high, events.key_low]), digests])
    starts = np.concatenate([events.starts, entity_events.starts + own_events])
    ends = np.concatenate([events.ends, entity_events.ends + own_events])
    by_key = np.lexsort((keys[:, 1], keys[:, 0]))
    entity_copies = entity_events.copies.copy()
    entity_copies[:, COPY_EVENT] += own_events
    copies = np.concatenate([events.copies, entity_copies])
    matrix = np.concatenate([events.matrix, entity_events.matrix], axis=1)
    return replace(
        events,
        key_high=np.ascontiguousarray(keys[by_key, 0]),
        key_low=np.ascontiguousarray(keys[by_key, 1]),
        starts=starts[by_key],
        ends=ends[by_key],
        matrix=matrix,
        admitted_at=np.concatenate([events.admitted_at, entity_events.admitted_at]),
        copies=copies,
        copy_offsets=np.searchsorted(copies[:, COPY_EVENT], np.arange(matrix.shape[1] + 1)),
    )


def _digests(entities: Sequence[Members]) -> Int64s:
    """int64[E, 2]: the keys of entities. No id has a line break, so none is the key of an id, nor of other members."""
    digests = b"".join(sha256("\n".join(members).encode()).digest()[:16] for members in entities)
    return np.frombuffer(digests, ">i8").astype(np.int64).reshape(-1, 2)
