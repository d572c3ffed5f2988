"""Runs of integers behind each other in one array, so that a question reads those of many chunks without copying them."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ofp_platform.kernel.native import Int64Array

_LEAST_ROOM = 1024


class ValueRuns:
    """Runs in `values` never change: whoever has the array, and where a run begins and ends in it, has that run for good."""

    def __init__(self) -> None:
        self.values: Int64Array = np.empty(_LEAST_ROOM, np.int64)
        self.size = 0
        self._dropped_size = 0

    @property
    def nbytes(self) -> int:
        """Its size in memory."""
        return self.values.nbytes

    def put(self, run: Int64Array) -> tuple[int, int]:
        """Where the run begins and ends."""
        begin, end = self.size, self.size + len(run)
        if end > len(self.values):
            values = np.empty(end + end // 4, np.int64)
            values[:begin] = self.values[:begin]
            self.values = values
        self.values[begin:end] = run
        self.size = end
        return begin, end

    def drop(self, bounds: Iterable[tuple[int, int]]) -> None:
        """These runs are asked for no more."""
        self._dropped_size += sum(end - begin for begin, end in bounds)

    def is_sparse(self) -> bool:
        """Whether more is dropped than is left: time to put what is left into another one."""
        return self._dropped_size > max(self.size - self._dropped_size, _LEAST_ROOM)
