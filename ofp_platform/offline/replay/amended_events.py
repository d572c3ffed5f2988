"""Amendments of a whole replay: the events that they void in the end, and those of them that meet no event."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from ofp_platform.kernel.amendments import deciding, is_amendment, meeting
from ofp_platform.offline.replay.event_identities import applied_records
from ofp_platform.offline.replay.key_shards import COPY_PARTITION, COPY_POSITION, EventShard
from ofp_platform.offline.replay.known_events import FoldedReplay
from ofp_platform.registry.compile import CompiledRegistry
from ofp_platform.registry.layout import AMENDS_KIND_ROW, VOID
from ofp_platform.registry.models import event_class

Int64s = npt.NDArray[np.int64]
VOIDED = pa.schema([("event_class", pa.string()), ("event_id", pa.string())])
_PLACE = pa.schema([("partition", pa.int32()), ("position", pa.int64())])
_NOWHERE = np.empty((0, 2), np.int64)


@dataclass(frozen=True)
class AmendedEvents:
    """`amendments`: how many were applied, copies once. `unmet`: partition and offset of the first copy of each that is of no
    event in the replay, in that order. `voided_events` (VOIDED): the events that a void decides about, by class and id.
    """

    amendments: int
    unmet: tuple[tuple[str, str], ...]
    voided_events: pa.Table


@dataclass(frozen=True)
class _Places:
    """int64[m, 2] each, partition number and position: the first copies of amendments, those of them that meet an event, and
    all copies of voided events."""

    amendments: Int64s
    met_amendments: Int64s
    voided_copies: Int64s


def amended_events(folded_replay: FoldedReplay, registry: CompiledRegistry) -> AmendedEvents:
    """The amendments of a replay. Reads the shards of keys that an amendment touches, no others."""
    places = [
        key_places
        for key_type, shard in folded_replay.amended_shards
        for key_places in _places(folded_replay.events(registry, key_type, shard))
    ]
    # an amendment touches the keys of several types, and meets its event at each that both have right
    amendments = _distinct([key_places.amendments for key_places in places])
    met_amendments = set(map(tuple, _distinct([key_places.met_amendments for key_places in places]).tolist()))
    unmet = [place for place in map(tuple, amendments.tolist()) if place not in met_amendments]
    return AmendedEvents(
        len(amendments),
        tuple((folded_replay.partitions[number], folded_replay.offset_text(number, position)) for number, position in unmet),
        _events_at(folded_replay, registry, _distinct([key_places.voided_copies for key_places in places])),
    )


def _distinct(places: list[Int64s]) -> Int64s:
    return np.unique(np.concatenate([_NOWHERE, *places]), axis=0)


def _places(shard: EventShard) -> Iterator[_Places]:
    """Key by key, of those that an amendment touches."""
    firsts = shard.copies[shard.copy_offsets[:-1]][:, [COPY_PARTITION, COPY_POSITION]]
    amendment_counts = np.concatenate([np.zeros(1, np.int64), np.cumsum(is_amendment(shard.matrix))])
    for start, end in zip(shard.starts.tolist(), shard.ends.tolist(), strict=True):
        if amendment_counts[end] == amendment_counts[start]:
            continue
        matrix = np.ascontiguousarray(shard.matrix[:, start:end])
        amends = is_amendment(matrix)
        by = deciding(matrix, amends)
        voided_columns = np.flatnonzero((by >= 0) & (matrix[AMENDS_KIND_ROW, by] == VOID)) + start
        copies = [
            shard.copies[shard.copy_offsets[event] : shard.copy_offsets[event + 1], 1:] for event in voided_columns.tolist()
        ]
        yield _Places(
            firsts[start:end][amends],
            firsts[start:end][meeting(matrix)],
            np.concatenate([_NOWHERE, *copies]),
        )


def _events_at(folded_replay: FoldedReplay, registry: CompiledRegistry, places: Int64s) -> pa.Table:
    """Class and id of the events of the records at these places, each event once."""
    if not len(places):
        return VOIDED.empty_table()
    wanted_places = pa.table([places[:, 0].astype(np.int32), places[:, 1]], schema=_PLACE)
    tables = [
        table.filter(pc.is_in(table["position"], wanted_places["position"])) for table in applied_records(folded_replay.folder)
    ]
    records = pa.concat_tables(tables).join(wanted_places, wanted_places.column_names, join_type="inner")
    classes = [event_class(registry.pack.events, name) for name in records["event_type"].to_pylist()]
    events = pa.table([pa.array(classes, pa.string()), records["event_id"].combine_chunks()], schema=VOIDED)
    return events.group_by(VOIDED.names).aggregate([]).sort_by([(name, "ascending") for name in VOIDED.names])
