"""The state of keys as of one version of a projection, kept in memory and moved from version to version. Pure.

At any moment everything in the cache is the state at `head`, and nothing else: a commit's touched keys are dropped before the
head moves to it, and what was read from the store is taken only when it was read at the head's version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Generic, Protocol, TypeVar

import numpy as np

from ofp_platform.online.state.touched_keys import TouchedKeys, key_bucket, key_mark, touched_buckets, unpack_marks, without_gap
from ofp_platform.vocabulary.position import Basis

Key = tuple[str, str]
_ENTRY_BYTES = 700  # the dictionaries, the key and the object around its arrays


@dataclass(frozen=True)
class Head:
    """Where a projection stands: version, canonical basis, watermark (microseconds)."""

    version: int
    basis: str
    watermark: int | None

    @cached_property
    def parsed_basis(self) -> Basis:
        """The basis as an object."""
        return Basis.model_validate_json(self.basis)


class Held(Protocol):
    """The state of one key. `nbytes`: what it takes in memory."""

    @property
    def nbytes(self) -> int: ...


State = TypeVar("State", bound=Held)


class KeyCache(Generic[State]):
    """Not safe for threads: it belongs to one event loop. `epoch` counts the times that it was emptied as a whole."""

    def __init__(self, capacity_bytes: int) -> None:
        self.capacity_bytes = capacity_bytes
        self.head: Head | None = None
        self.epoch = 0
        self.nbytes = 0
        self._states: dict[Key, State] = {}
        self._of_mark: dict[int, Key] = {}
        self._bucket_of: dict[int, int] = {}  # by mark, in the order of `_of_mark`

    def __len__(self) -> int:
        return len(self._states)

    def lose(self) -> None:
        """Forget everything: the commit sequence can no longer be followed. Nothing is held until `start`."""
        self.epoch += 1
        self.head = None
        self.nbytes = 0
        self._states.clear()
        self._of_mark.clear()
        self._bucket_of.clear()

    def start(self, head: Head) -> None:
        """Begin empty at a head; from now on every commit after it must be brought to `advance`."""
        self.lose()
        self.head = head

    def advance(self, head: Head, commits: Sequence[tuple[int, TouchedKeys]]) -> None:
        """Move to `head`; `commits` are (version, touched keys) since the present one, in order. A gap empties the cache."""
        if self.head is None or head.version == self.head.version:
            return
        # a head in front of the present one is a store that was put back: no gapless way leads there
        if not without_gap([version for version, _ in commits], self.head.version, head.version):
            self.start(head)
            return
        for _, touched in commits:
            if touched.marks is not None:
                marks = unpack_marks(touched.marks)
            elif touched.buckets is not None:
                marks = self._marks_in(touched.buckets)
            else:
                self.start(head)
                return
            for mark in marks:
                key = self._of_mark.get(mark)
                if key is not None:
                    self._drop(key, mark)
        self.head = head

    def get(self, key: Key) -> State | None:
        """The state of a key at the head, or None: it is not held."""
        state = self._states.pop(key, None)
        if state is not None:
            self._states[key] = state  # the order of the dictionary is that of the last use
        return state

    def put(self, version: int, key: Key, state: State) -> None:
        """Hold what was read at `version`; ignored when the head is elsewhere or it is larger than a quarter of the whole."""
        if self.head is None or version != self.head.version or state.nbytes > self.capacity_bytes // 4:
            return
        mark = key_mark(*key)
        other = self._of_mark.get(mark)
        if other is not None:
            self._drop(other, mark)
        self._states[key] = state
        self._of_mark[mark] = key
        self._bucket_of[mark] = key_bucket(*key)
        self.nbytes += state.nbytes + _ENTRY_BYTES
        while self.nbytes > self.capacity_bytes:
            oldest = next(iter(self._states))
            self._drop(oldest, key_mark(*oldest))

    def _drop(self, key: Key, mark: int) -> None:
        self.nbytes -= self._states.pop(key).nbytes + _ENTRY_BYTES
        del self._of_mark[mark]
        del self._bucket_of[mark]

    def _marks_in(self, buckets: bytes) -> list[int]:
        """The marks of what is held in touched buckets."""
        held = np.fromiter(self._bucket_of.values(), np.int64, len(self._bucket_of))
        marks = np.fromiter(self._bucket_of, np.int64, len(self._bucket_of))
        touched_marks: list[int] = marks[touched_buckets(buckets, held)].tolist()
        return touched_marks
