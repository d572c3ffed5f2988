"""The loops of the offline path over one key, put together for any query: all that its columns and touches are made of."""

from __future__ import annotations

import numpy as np

from ofp_platform.kernel.accumulate import EARLIEST, ROW_WIDTH
from ofp_platform.kernel.known_rows import touch_known
from ofp_platform.kernel.native import Int64Array
from ofp_platform.kernel.query import Query
from ofp_platform.kernel.sliding import Evaluations, as_rows, needs_all, slide_distinct, slide_slots
from ofp_platform.kernel.texts import with_ranks
from ofp_platform.kernel.whole_windows import slide_whole


def evaluate_many(query: Query, matrix: Int64Array, times: Int64Array, horizons: Int64Array | None = None) -> Evaluations:
    """The query over an event matrix int64[C, n] at each of `times` int64[m], ascending.

    `horizons` int64[m], microseconds: touches at or behind them do not count.
    """
    assert not np.any(times[1:] < times[:-1])
    events, rows = matrix.shape[1], len(times)
    if horizons is None:
        horizons = np.full(rows, EARLIEST, np.int64)
    query = query.along()
    arrays, edges = query.arrays, query.arrays.edges(times)
    matrix, texts = with_ranks(query, matrix)
    columns = np.zeros((arrays.slot_count, ROW_WIDTH, rows), np.int64)
    slide_slots(arrays.slots, query.slot_numbers, needs_all(arrays), edges, matrix, 0, events, times, 0, rows, columns)
    evaluations = Evaluations(as_rows(columns), query.no_results(rows), np.empty((rows, len(query.masks)), np.int64), texts)
    slide_distinct(query.distinct, edges, matrix, times, evaluations.distinct)
    slide_whole(query, edges, matrix, np.array([0]), np.array([events]), np.array([0, rows]), times, evaluations.distinct)
    touch_known(
        query.masks, matrix, np.zeros(events, np.int64), np.array([0]), np.array([events]), np.array([0, rows]), times,
        np.zeros(rows, np.int64), horizons, evaluations.touches,
    )  # fmt: skip
    return evaluations
