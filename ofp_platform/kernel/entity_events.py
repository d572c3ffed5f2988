"""The events of several keys of one type as those of one: of all members of an entity."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ofp_platform.kernel.accumulate import EARLIEST
from ofp_platform.kernel.native import Int64Array
from ofp_platform.kernel.windows import KeyEvents
from ofp_platform.registry.layout import TIE_ROW, TIME_ROW

_SIGN = np.int64(EARLIEST)


class ResolvedEvents(NamedTuple):
    """The events of a key, and those of all members of its entity."""

    own: KeyEvents
    entity: KeyEvents


def time_order(matrix: Int64Array, *, ties: bool) -> Int64Array:
    """int64[n]: the events int64[C, n] in the order of time and, if there are any, ties (compared as unsigned); stable."""
    columns = [matrix[TIME_ROW]]
    if ties:
        columns = [matrix[TIE_ROW + 1] ^ _SIGN, matrix[TIE_ROW] ^ _SIGN, *columns]
    return np.lexsort(columns)


def merged_in_time(matrices: Sequence[Int64Array], *, ties: bool) -> Int64Array:
    """The events of all these keys, int64[C, n] each, in the order of time and tie."""
    matrix = np.concatenate(matrices, axis=1)
    return np.ascontiguousarray(matrix[:, time_order(matrix, ties=ties)])
