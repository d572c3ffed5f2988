"""The loops behind `windows`: slots, distinct counts and last touches over the segments of one key."""

from __future__ import annotations

import numpy as np

from ofp_platform.kernel.accumulate import (
    COUNT,
    EARLIEST,
    LAST_TS,
    PREDICATE,
    ROW,
    ROW_WIDTH,
    accumulate_into,
    clear,
    events_until,
    merge_into,
    subtract_saturating,
)
from ofp_platform.kernel.native import IN1, IN2, IN3, INTEGER, NOTHING, OUT1, OUT2, Int64Array, native
from ofp_platform.kernel.query import DELAY, MEASURE, RESULT, WINDOW
from ofp_platform.kernel.tokens import find, table_size
from ofp_platform.registry.layout import MASK_ROW, TIME_ROW

NEVER = EARLIEST
"""Instead of a time: no such event."""

NOTHING_MISSING = -1
"""Instead of a segment: every segment whose events were needed had them."""


@native(INTEGER(IN2, IN1, INTEGER, IN1, IN1, IN3, IN1, IN1, IN2, OUT2))
def _slots(
    slots: Int64Array,
    slot_numbers: Int64Array,
    time: int,
    first_ts: Int64Array,
    last_ts: Int64Array,
    summaries: Int64Array,
    starts: Int64Array,
    ends: Int64Array,
    matrix: Int64Array,
    out: Int64Array,
) -> int:
    # Slots of one measure and delay end at the same event and come in growing windows: each walks on to the left from
    # where the one before it stopped.
    total = np.zeros(ROW_WIDTH, np.int64)
    part = np.zeros(ROW_WIDTH, np.int64)
    measure = -1
    delay = -1
    high = 0
    segment = -1
    inside = -1  # events [start, inside) of the segment are not yet in the total; -1: none of it is
    for index in range(slot_numbers.shape[0]):
        slot = slot_numbers[index]
        if slots[slot, MEASURE] != measure or slots[slot, DELAY] != delay:
            measure = slots[slot, MEASURE]
            delay = slots[slot, DELAY]
            high = subtract_saturating(time, delay)
            clear(total)
            segment = int(np.searchsorted(first_ts, high, side="right")) - 1
            inside = -1
        low = subtract_saturating(high, slots[slot, WINDOW])
        while segment >= 0 and last_ts[segment] > low:
            if inside < 0:
                if summaries.shape[0] > 0 and last_ts[segment] <= high and first_ts[segment] > low:
                    merge_into(summaries[segment, measure], total, total)
                    segment -= 1
                    continue
                if starts[segment] < 0:
                    return segment
                inside = ends[segment]
                if last_ts[segment] > high:
                    inside = events_until(matrix, starts[segment], inside, high)
            begin = events_until(matrix, starts[segment], inside, low)
            if begin < inside:
                accumulate_into(matrix, begin, inside, slots[slot, PREDICATE], slots[slot, ROW], part)
                merge_into(part, total, total)
            inside = begin
            if begin > starts[segment]:
                break
            segment -= 1
            inside = -1
        for place in range(ROW_WIDTH):
            out[slot, place] = total[place]
    return NOTHING_MISSING


@native(INTEGER(IN2, INTEGER, IN1, IN1, IN1, IN1, IN2, OUT1))
def _distinct(
    distinct_windows: Int64Array,
    time: int,
    first_ts: Int64Array,
    last_ts: Int64Array,
    starts: Int64Array,
    ends: Int64Array,
    matrix: Int64Array,
    out: Int64Array,
) -> int:
    if distinct_windows.shape[0] == 0:
        return NOTHING_MISSING
    table = np.zeros(table_size(matrix.shape[1]), np.uint32)
    count = 0
    high = 0
    segment = -1
    inside = -1
    for index in range(distinct_windows.shape[0]):
        predicate = distinct_windows[index, PREDICATE]
        row = distinct_windows[index, ROW]
        if (
            index == 0
            or distinct_windows[index - 1, PREDICATE] != predicate
            or distinct_windows[index - 1, ROW] != row
            or distinct_windows[index - 1, DELAY] != distinct_windows[index, DELAY]
        ):
            table[:] = 0
            count = 0
            high = subtract_saturating(time, distinct_windows[index, DELAY])
            segment = int(np.searchsorted(first_ts, high, side="right")) - 1
            inside = -1
        low = subtract_saturating(high, distinct_windows[index, WINDOW])
        while segment >= 0 and last_ts[segment] > low:
            if inside < 0:
                if starts[segment] < 0:
                    return segment
                inside = events_until(matrix, starts[segment], ends[segment], high)
            begin = events_until(matrix, starts[segment], inside, low)
            for event in range(begin, inside):
                if (matrix[MASK_ROW, event] >> predicate) & 1:
                    place = find(table, matrix, row, event)
                    if table[place] == 0:
                        table[place] = event + 1
                        count += 1
            inside = begin
            if begin > starts[segment]:
                break
            segment -= 1
            inside = -1
        out[distinct_windows[index, RESULT]] = count
    return NOTHING_MISSING


@native(INTEGER(IN1, IN2, INTEGER, INTEGER, IN1, IN1, IN3, IN1, IN1, IN2, OUT1))
def _touches(
    masks: Int64Array,
    measures: Int64Array,
    time: int,
    horizon: int,
    first_ts: Int64Array,
    last_ts: Int64Array,
    summaries: Int64Array,
    starts: Int64Array,
    ends: Int64Array,
    matrix: Int64Array,
    out: Int64Array,
) -> int:
    for index in range(masks.shape[0]):
        mask = masks[index]
        newest = NEVER
        segment = int(np.searchsorted(first_ts, time, side="right")) - 1
        while segment >= 0 and newest == NEVER and last_ts[segment] > horizon:
            if starts[segment] >= 0:
                event = events_until(matrix, starts[segment], ends[segment], time) - 1
                while event >= starts[segment]:
                    if matrix[MASK_ROW, event] & mask:
                        newest = matrix[TIME_ROW, event]
                        break
                    event -= 1
            elif last_ts[segment] > time or summaries.shape[0] == 0:
                return segment
            else:
                for measure in range(measures.shape[0]):
                    if (mask >> measures[measure, PREDICATE]) & 1 and summaries[segment, measure, COUNT] > 0:
                        newest = max(newest, summaries[segment, measure, LAST_TS])
            segment -= 1
        out[index] = newest if newest > horizon else NEVER
    return NOTHING_MISSING


@native(INTEGER(IN2, IN1, IN2, IN1, IN2, INTEGER, INTEGER, IN1, IN1, IN3, IN1, IN1, IN2, OUT2, OUT1, OUT1))
def answer(
    slots: Int64Array,
    slot_numbers: Int64Array,
    distinct_windows: Int64Array,
    masks: Int64Array,
    measures: Int64Array,
    time: int,
    horizon: int,
    first_ts: Int64Array,
    last_ts: Int64Array,
    summaries: Int64Array,
    starts: Int64Array,
    ends: Int64Array,
    matrix: Int64Array,
    out: Int64Array,
    distinct: Int64Array,
    touches: Int64Array,
) -> int:
    missing = _slots(slots, slot_numbers, time, first_ts, last_ts, summaries, starts, ends, matrix, out)
    if missing < 0:
        missing = _distinct(distinct_windows, time, first_ts, last_ts, starts, ends, matrix, distinct)
    if missing < 0:
        missing = _touches(masks, measures, time, horizon, first_ts, last_ts, summaries, starts, ends, matrix, touches)
    return missing


@native(NOTHING(IN2, IN1, IN2, IN1, IN2, INTEGER, INTEGER, IN2, OUT2, OUT1, OUT1))
def answer_whole(
    slots: Int64Array,
    slot_numbers: Int64Array,
    distinct_windows: Int64Array,
    masks: Int64Array,
    measures: Int64Array,
    time: int,
    horizon: int,
    matrix: Int64Array,
    out: Int64Array,
    distinct: Int64Array,
    touches: Int64Array,
) -> None:
    count = matrix.shape[1]
    segments = min(count, 1)
    first_ts = np.zeros(segments, np.int64)
    last_ts = np.zeros(segments, np.int64)
    starts = np.zeros(segments, np.int64)
    ends = np.full(segments, count)
    if count > 0:
        first_ts[0] = matrix[TIME_ROW, 0]
        last_ts[0] = matrix[TIME_ROW, count - 1]
    none = np.zeros((0, measures.shape[0], ROW_WIDTH), np.int64)
    answer(
        slots, slot_numbers, distinct_windows, masks, measures, time, horizon, first_ts, last_ts, none, starts, ends, matrix,
        out, distinct, touches,
    )  # fmt: skip
