"""Exact sets of 128-bit tokens, as open-addressed tables of positions in an event matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ofp_platform.kernel.native import Int64Array, native

_MIX = np.uint64(0x9E3779B97F4A7C15)
_FOLD = np.uint64(29)


@native()
def table_size(events: int) -> int:
    """A power of two with room for that many tokens."""
    size = 16
    while size < 2 * events:
        size *= 2
    return size


@native()
def find(table: npt.NDArray[np.uint32], matrix: Int64Array, row: int, event: int) -> Any:
    """Where the token of `event` stands in `table` (0: free, else 1 + a position in the matrix), or should stand."""
    high = matrix[row, event]
    low = matrix[row + 1, event]
    # Tokens are digests, but a table must not crawl where they are not: both halves are mixed.
    mix = (np.uint64(high) ^ (np.uint64(low) * _MIX)) * _MIX
    index = np.int64(mix ^ (mix >> _FOLD)) & (table.shape[0] - 1)
    while table[index] != 0:
        other = np.int64(table[index]) - 1
        if matrix[row, other] == high and matrix[row + 1, other] == low:
            break
        index = (index + 1) & (table.shape[0] - 1)
    return index
