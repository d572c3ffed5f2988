"""The events that a projection came to know lately: an exact set of identities in memory.

An entry is a row of uint64 words: [id high, id low, tie high, tie low, partition number, offset words...]. The id names
(event_class, event_id), the tie names (event_class, event_id, payload_hash); see registry/routing.py. The digests are uniform, so
a slot table addressed by the id's high bits with linear probing needs no further hashing.
"""

from __future__ import annotations

import numba
import numpy as np
import numpy.typing as npt

from ofp_platform.vocabulary.position import OffsetKind

Words = npt.NDArray[np.uint64]
NEW, DUPLICATE, ANOMALY = 0, 1, 2
POSITION_WORD = 4
_SMALLEST = 1 << 12
_MOST = 2**31 - 1
"""Entries that a slot can number. What is known for longer is in segments, which have no such bound."""


@numba.njit("void(uint64[:,::1], int64, int64, int32[::1])", cache=True)
def _place(entries, start, stop, slots):  # type: ignore[no-untyped-def]
    mask = np.uint64(slots.size - 1)
    for index in range(start, stop):
        slot = entries[index, 0] & mask
        while slots[slot] >= 0:
            slot = (slot + np.uint64(1)) & mask
        slots[slot] = index


@numba.njit("int64(uint64[:,::1], int64, int32[::1], uint64[:,::1], int8[::1], int8[::1], int64[::1])", cache=True)
def _admit(entries, count, slots, queries, older, status, earlier):  # type: ignore[no-untyped-def]
    """Admit queries in order; new ones are appended to entries. Returns the new count."""
    mask = np.uint64(slots.size - 1)
    for query in range(queries.shape[0]):
        outcome = older[query]
        where = np.int64(-1)
        slot = queries[query, 0] & mask
        while outcome != DUPLICATE and slots[slot] >= 0:
            entry = slots[slot]
            if entries[entry, 0] == queries[query, 0] and entries[entry, 1] == queries[query, 1]:
                if entries[entry, 2] == queries[query, 2] and entries[entry, 3] == queries[query, 3]:
                    outcome = DUPLICATE
                    where = np.int64(entry)
                    break
                if outcome == NEW:
                    outcome = ANOMALY
                    where = np.int64(entry)
            slot = (slot + np.uint64(1)) & mask
        status[query] = outcome
        earlier[query] = where
        if outcome != DUPLICATE:
            entries[count, :] = queries[query, :]
            slots[slot] = count
            count += 1
    return count


class IdentityIndex:
    """The set of events of one projection. Not safe for threads; discarded when a commit fails."""

    def __init__(self, word_count: int) -> None:
        self._entries: Words = np.zeros((_SMALLEST, word_count), np.uint64)
        self._slots = np.full(4 * _SMALLEST, -1, np.int32)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def _reserve(self, more: int) -> None:
        capacity = self._count + more
        if capacity > _MOST:
            raise MemoryError(f"{capacity} identities at once; an index in memory holds {_MOST}")
        if capacity > self._entries.shape[0]:
            larger_entries = np.zeros((max(capacity, 2 * self._entries.shape[0]), self._entries.shape[1]), np.uint64)
            larger_entries[: self._count] = self._entries[: self._count]
            self._entries = larger_entries
        if 2 * capacity > self._slots.size:
            size = self._slots.size
            while size < 4 * capacity:
                size *= 2
            self._slots = np.full(size, -1, np.int32)
            _place(self._entries, 0, self._count, self._slots)

    def load(self, entries: Words) -> None:
        """Add entries that are known to be distinct (persisted runs)."""
        self._reserve(len(entries))
        self._entries[self._count : self._count + len(entries)] = entries
        _place(self._entries, self._count, self._count + len(entries), self._slots)
        self._count += len(entries)

    def admit(
        self, queries: Words, older: npt.NDArray[np.int8] | None = None
    ) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int64]]:
        """Status of each query in order (NEW, DUPLICATE, ANOMALY) and the index of the earlier entry (-1: none here).

        NEW and ANOMALY are added: an anomaly is another event under a known id, and it counts as an event.
        `older`: the status that each query has by what is known from before this index, if anything is.
        """
        self._reserve(len(queries))
        older = np.full(len(queries), NEW, np.int8) if older is None else older
        status = np.zeros(len(queries), np.int8)
        earlier = np.full(len(queries), -1, np.int64)
        self._count = _admit(self._entries, self._count, self._slots, queries, older, status, earlier)
        return status, earlier

    def keep(self, kept: npt.NDArray[np.bool_]) -> None:
        """Forget the entries for which `kept` (bool, one an entry, in their order) is false."""
        entries = self._entries[: self._count][kept]
        self._entries = np.zeros((_SMALLEST, self._entries.shape[1]), np.uint64)
        self._slots = np.full(4 * _SMALLEST, -1, np.int32)
        self._count = 0
        self.load(entries)

    @property
    def entries(self) -> Words:
        """All entries, uint64[n, w], in the order in which they were added."""
        entries: Words = self._entries[: self._count]
        return entries

    def entry(self, index: int) -> Words:
        """One entry's words."""
        words: Words = self._entries[index]
        return words


def identity_words(kind: OffsetKind) -> int:
    """How many words an identity has: five, and those of its offset."""
    return 6 if kind.is_integer else 8


def offset_words(offset: int | str, dense: bool) -> tuple[int, ...]:
    """A position as words: one for a dense log, three for a Kinesis sequence number (below 2^186)."""
    if dense:
        return (int(offset),)
    number = int(offset)
    low = (1 << 64) - 1
    return (number >> 128, (number >> 64) & low, number & low)


def words_offset(words: Words) -> str:
    """The inverse, as text."""
    number = 0
    for word in words:
        number = (number << 64) | int(word)
    return str(number)
