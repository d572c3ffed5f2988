"""Who the events of a folded replay are: id, type and first position, found by where their records stand."""

from __future__ import annotations

from functools import cached_property

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from ofp_platform.offline.replay.event_identities import applied_records
from ofp_platform.offline.replay.event_index import KeyEvents
from ofp_platform.offline.replay.known_events import FoldedReplay
from ofp_platform.vocabulary.offline.parity_record import EventRef
from ofp_platform.vocabulary.position import OffsetKind
from ofp_platform.vocabulary.times import format_time

Int64s = npt.NDArray[np.int64]


class EventNames:
    """Names events. What it needs of the replay is read when it is first asked: about 16 bytes for each applied record."""

    def __init__(self, folded: FoldedReplay) -> None:
        self._folded = folded

    def refs(self, events: KeyEvents, chosen: Int64s) -> tuple[EventRef, ...]:
        """The chosen events in the order of their times, each by its first copy (by partition name, then position)."""
        partitions = self._folded.partitions
        found = []
        for event in np.sort(chosen).tolist():
            copies = events.copies[events.copies[:, 0] == event].tolist()
            _, partition, position = min((partitions[number], number, position) for _, number, position in copies)
            row = self._row(partition, position)
            text = self._folded.offset_text(partition, position)
            dense = self._folded.ends[partition].offset_kind is OffsetKind.EXCLUSIVE_NEXT
            found.append(
                EventRef(
                    event_id=self._records["event_id"][row].as_py(),
                    event_type=self._records["event_type"][row].as_py(),
                    event_time_utc=format_time(int(events.matrix[0, event])),
                    partition_id=partitions[partition],
                    offset=int(text) if dense else text,
                )
            )
        return tuple(found)

    def _row(self, partition: int, position: int) -> int:
        rows, positions = self._places[partition]
        return int(rows[np.searchsorted(positions, position)])

    @cached_property
    def _records(self) -> pa.Table:
        return pa.concat_tables(applied_records(self._folded.folder))

    @cached_property
    def _places(self) -> list[tuple[Int64s, Int64s]]:
        """Per partition the rows of the table that are of it, and their positions, rising."""
        partition, position = self._records["partition"].to_numpy(), self._records["position"].to_numpy()
        rows = [np.flatnonzero(partition == number) for number in range(len(self._folded.partitions))]
        return [(own, position[own]) for own in rows]
