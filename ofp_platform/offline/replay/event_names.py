"""The names of a folded replay's events: id, type and first position, looked up by the positions of their records."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ofp_platform.offline.replay.event_identities import applied_records
from ofp_platform.offline.replay.event_index import KeyEvents
from ofp_platform.offline.replay.key_shards import COPY_EVENT
from ofp_platform.offline.replay.known_events import FoldedReplay
from ofp_platform.vocabulary.offline.parity_record import EventRef
from ofp_platform.vocabulary.times import format_time

Int64s = npt.NDArray[np.int64]


class EventNames:
    """Names events. Its columns are read on first use: about 16 bytes for each applied record."""

    def __init__(self, folded_replay: FoldedReplay) -> None:
        self._folded_replay = folded_replay

    def refs(self, events: KeyEvents, selected_events: Int64s) -> tuple[EventRef, ...]:
        """Name the selected events in the order of their times, each by its first copy (by partition name, then position)."""
        partitions = self._folded_replay.partitions
        event_refs = []
        for event in np.sort(selected_events).tolist():
            copies = events.copies[events.copies[:, COPY_EVENT] == event].tolist()
            _, partition, position = min((partitions[number], number, position) for _, number, position in copies)
            row = self._row(partition, position)
            text = self._folded_replay.offset_text(partition, position)
            event_refs.append(
                EventRef(
                    event_id=self._records["event_id"][row].as_py(),
                    event_type=self._records["event_type"][row].as_py(),
                    event_time_utc=format_time(events.own_time(event)),
                    partition_id=partitions[partition],
                    offset=self._folded_replay.ends[partition].offset_kind.parse(text),
                )
            )
        return tuple(event_refs)

    def _row(self, partition: int, position: int) -> int:
        rows, positions = self._places[partition]
        return int(rows[np.searchsorted(positions, position)])

    @cached_property
    def _records(self) -> pa.Table:
        return pa.concat_tables(applied_records(self._folded_replay.folder))

    @cached_property
    def _places(self) -> list[tuple[Int64s, Int64s]]:
        """Per partition the table's rows of that partition, and their positions, ascending."""
        partition, position = self._records["partition"].to_numpy(), self._records["position"].to_numpy()
        rows = [np.flatnonzero(partition == number) for number in range(len(self._folded_replay.partitions))]
        return [(partition_rows, position[partition_rows]) for partition_rows in rows]
