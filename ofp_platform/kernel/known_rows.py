"""Many keys at many times, each row knowing some of the events: the evaluations that a snapshot is encoded from.

The same windows as `windows`, by way of the loops of `columns`; besides values it finds the last touches that freshness
needs, in front of each row's own horizon.
"""

from __future__ import annotations

import numpy as np

from ofp_platform.kernel.accumulate import ROW_WIDTH, events_until, times_before
from ofp_platform.kernel.columns import ColumnQuery, KeyedEvents, KeyedRows, _slide_keys, as_amended
from ofp_platform.kernel.known_distinct import count_known_distinct
from ofp_platform.kernel.known_windows import KnownWindows, known_accumulators, mark_incomplete
from ofp_platform.kernel.native import IN1, IN2, NOTHING, OUT2, Int64Array, native
from ofp_platform.kernel.sliding import Evaluations, as_rows, needs_all
from ofp_platform.kernel.texts import with_ranks
from ofp_platform.kernel.whole_windows import known_whole, slide_whole
from ofp_platform.kernel.window_loops import NEVER
from ofp_platform.registry.layout import MASK_ROW, TIME_ROW


@native(NOTHING(IN1, IN2, IN1, IN1, IN1, IN1, IN1, IN1, IN1, OUT2))
def touch_known(
    masks: Int64Array,
    matrix: Int64Array,
    known_from: Int64Array,
    starts: Int64Array,
    ends: Int64Array,
    offsets: Int64Array,
    times: Int64Array,
    known_until: Int64Array,
    horizons: Int64Array,
    out: Int64Array,
) -> None:
    for key in range(starts.shape[0]):
        for row in range(offsets[key], offsets[key + 1]):
            newest = events_until(matrix, starts[key], ends[key], times[row]) - 1
            for index in range(masks.shape[0]):
                out[row, index] = NEVER
                event = newest
                while event >= starts[key] and matrix[TIME_ROW, event] > horizons[row]:
                    if matrix[MASK_ROW, event] & masks[index] and known_from[event] <= known_until[row]:
                        out[row, index] = matrix[TIME_ROW, event]
                        break
                    event -= 1


def evaluate_known(column_query: ColumnQuery, events: KeyedEvents, rows: KeyedRows, horizons: Int64Array) -> Evaluations:
    """The query of the column_query at every row; `horizons` int64[n], microseconds: touches at or behind them do not count.

    Takes twice 88 bytes per row and slot: cut very many rows into blocks.

    Raises:
        ValueError: `events.known_from` or `rows.known_until` is not given.
    """
    if events.known_from is None or rows.known_until is None:
        raise ValueError("known_from and known_until are needed")
    events, rows = as_amended(column_query, events, rows, np.minimum(times_before(rows.times, column_query.reach), horizons))
    known_from, known_until = events.known_from, rows.known_until
    assert known_from is not None
    assert known_until is not None
    query, count = column_query.query, len(rows.times)
    matrix, texts = with_ranks(query, events.matrix)
    edges = column_query.arrays.edges(rows.times)
    columns = np.zeros((column_query.arrays.slot_count, ROW_WIDTH, count), np.int64)
    distinct = query.no_results(count)
    _slide_keys(
        column_query.arrays.slots, query.slot_numbers, needs_all(column_query.arrays), query.distinct, column_query.reach,
        edges, matrix, events.starts, events.ends, rows.offsets, rows.times, columns, distinct,
    )  # fmt: skip
    slide_whole(query, edges, matrix, events.starts, events.ends, rows.offsets, rows.times, distinct)
    evaluations = Evaluations(as_rows(columns), distinct, np.empty((count, len(query.masks)), np.int64), texts)
    known = KnownWindows(matrix, known_from, events.starts, events.ends, rows.offsets, rows.times, known_until)
    incomplete = mark_incomplete(known, column_query.reach)
    if incomplete.any():
        known_accumulators(query, column_query.reach, edges, known, incomplete, evaluations.accumulators)
        count_known_distinct(query, column_query.reach, edges, known, incomplete, evaluations.distinct)
        known_whole(query, column_query.reach, edges, known, incomplete, evaluations.distinct)
    touch_known(query.masks, *known, horizons, evaluations.touches)
    return evaluations
