"""Finding the labels of a block of rows among all labels: each label's event is hashed once, however many blocks there are."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ofp_platform.kernel.text_hashes import write_text_hashes

Column: TypeAlias = pa.Array | pa.ChunkedArray
Int64s: TypeAlias = NDArray[np.int64]
_HASHED_AT_ONCE = 131_072


class EventIndex:
    """Finds the entries of a table that are about given events: 16 bytes an entry, beside the columns that it is given.

    `classes` and `ids`: string[n], the event of each entry. Entries whose events have one hash are told apart by class and id.
    """

    def __init__(self, classes: Column, ids: Column) -> None:
        self._classes = classes
        self._ids = ids
        hashes = event_hashes(classes, ids)
        self._order: Int64s = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]

    def find(self, classes: Column, ids: Column, hashes: NDArray[np.uint64] | None = None) -> tuple[Int64s, Int64s]:
        """The pairs (row, entry) of one event, int64[m] each, by row: rows are the events string[k] that are asked for.

        `hashes`: their `event_hashes`, where the caller has them already.
        """
        hashes = event_hashes(classes, ids) if hashes is None else hashes
        first, counts = np.empty((2, len(hashes)), np.int64)
        ascending = np.argsort(hashes)  # looked up in their order, one lies near the other
        first[ascending] = np.searchsorted(self._hashes, hashes[ascending], side="left")
        counts[ascending] = np.searchsorted(self._hashes, hashes[ascending], side="right")
        counts -= first
        rows = np.repeat(np.arange(len(hashes)), counts)
        ordinals = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        entries = self._order[np.repeat(first, counts) + ordinals]
        same = np.ones(len(rows), np.bool_)
        for stored, wanted in ((self._classes, classes), (self._ids, ids)):
            same &= _are_equal(stored.take(pa.array(entries)), wanted.take(pa.array(rows)))
        return rows[same], entries[same]


@dataclass(frozen=True)
class IndexedLabels:
    """Label assertions, or what of them is resolved, to be found by their events; `table` has event_class and event_id."""

    table: pa.Table

    @cached_property
    def index(self) -> EventIndex:
        """The index of the table, made at the first use."""
        return EventIndex(self.table["event_class"], self.table["event_id"])


def event_hashes(classes: Column, ids: Column) -> NDArray[np.uint64]:
    """uint64[n]: a hash of the class and id of each event. Two events may have the same."""
    parts = [
        # neither a class nor an id holds a blank
        pc.binary_join_element_wise(
            *(column.slice(start, _HASHED_AT_ONCE).cast(pa.large_string()) for column in (classes, ids)),
            pa.scalar(" ", pa.large_string()),
        )
        for start in range(0, len(ids), _HASHED_AT_ONCE)
    ]
    arrays = [array for part in parts for array in (part.chunks if isinstance(part, pa.ChunkedArray) else [part])]
    return np.concatenate([np.empty(0, np.uint64), *map(_text_hashes, arrays)])


def _text_hashes(texts: pa.LargeStringArray) -> NDArray[np.uint64]:
    hashes = np.empty(len(texts), np.uint64)
    if len(texts):  # one without texts may have no buffers
        _, offsets, text_bytes = (np.frombuffer(buffer or b"", np.uint8) for buffer in texts.buffers())
        write_text_hashes(offsets.view(np.int64)[texts.offset :], text_bytes, hashes)
    return hashes


def _are_equal(stored: Column, wanted: Column) -> NDArray[np.bool_]:
    equal = pc.equal(stored.cast(pa.large_string()), wanted.cast(pa.large_string()))
    return np.asarray(equal.to_numpy(zero_copy_only=False) if isinstance(equal, pa.Array) else equal.to_numpy(), np.bool_)
