"""Quantiles, changes of a condition and lists where most segments are known by partial aggregates, not by their events.

A partial aggregate is what a segment adds to a window that it lies whole in, as a run of integers:

    quantile            the values of its events, sorted
    change              of its events the first condition and its time, the last condition, the time of the newest change
    list                the values of its newest events, the newest first
    categories          each category once: its name, and its count, or the high and low words of its sum

It depends on neither the window's length nor its delay, so one serves every window over the same events. Partial aggregates of
neighbours merge into that of their span. Only a segment that straddles an edge of a window needs its events. The results are
those of `whole_windows`, to the bit.

Categories, and texts in lists, go by names, 0, 1, 2, ... in the order in which a key's values are first seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from heapq import nsmallest
from itertools import pairwise
from typing import Any

import numpy as np

from ofp_platform.kernel.accumulate import PREDICATE, ROW, add_wide, events_until, subtract_saturating, wide
from ofp_platform.kernel.named_values import UNKNOWN
from ofp_platform.kernel.native import IN1, IN2, INTEGER, NOTHING, OUT1, OUT2, Int64Array, native
from ofp_platform.kernel.query import (
    BY_COUNT,
    BY_SUM,
    CATEGORY,
    CHANGE,
    CONDITION,
    DELAY,
    KIND,
    LAST_N,
    PARAMETER,
    QUANTILE,
    RESULT,
    WINDOW,
    Query,
)
from ofp_platform.kernel.whole_windows import NO_VALUE, rank_of
from ofp_platform.kernel.window_loops import NOTHING_MISSING
from ofp_platform.registry.layout import MASK_ROW, TIME_ROW, KeyLayout
from ofp_platform.registry.text_words import TEXT_WORDS, rank_words

# the columns of `PartialSubjects.rows` behind predicate and row
_KIND, _MOST, _CONDITION, _CATEGORY = range(2, 6)
# the places of a change
_FIRST_FLAG, _FIRST_TIME, _LAST_FLAG, _CHANGED = range(4)
_CHANGE_WIDTH = 4
# the rows of totals
_IS_THERE, _HIGH, _LOW = range(3)
_BYTES_OF_NAME = 250  # a value, its name, and their places in a list and a dictionary
Value = int | bytes
"""What has a name: an integer, or a text as `text_words` encodes it."""


@native()
def _width(subject: Int64Array) -> int:
    """How many integers an item of a partial aggregate of categories has."""
    return 3 if subject[_KIND] == BY_SUM else 2


@native()
def _add_total(totals: Int64Array, name: int, high: int, low: int) -> None:
    totals[_IS_THERE, name] = 1
    totals[_HIGH, name], totals[_LOW, name] = add_wide(totals[_HIGH, name], totals[_LOW, name], high, low)


@native()
def _add_event(subject: Int64Array, matrix: Int64Array, event: int, totals: Int64Array) -> None:
    value: Any = matrix[subject[ROW], event] if subject[_KIND] == BY_SUM else np.int64(1)
    _add_total(totals, matrix[subject[_CATEGORY], event], value >> 63, value)


@native()
def _add_items(subject: Int64Array, values: Int64Array, begin: int, end: int, totals: Int64Array) -> None:
    if subject[_KIND] == BY_SUM:
        for place in range(begin, end, 3):
            _add_total(totals, values[place], values[place + 1], values[place + 2])
    else:
        for place in range(begin, end, 2):
            _add_total(totals, values[place], 0, values[place + 1])


@native()
def _has(subject: Int64Array, matrix: Int64Array, event: int) -> Any:
    return (matrix[MASK_ROW, event] >> subject[PREDICATE]) & 1


@native(NOTHING(IN1, IN2, IN1, OUT2, OUT1, OUT1))
def _make(
    subject: Int64Array, matrix: Int64Array, offsets: Int64Array, totals: Int64Array, out: Int64Array, ends: Int64Array
) -> None:
    end = 0
    touched_names = np.empty(totals.shape[1], np.int64)
    for segment in range(offsets.shape[0] - 1):
        begin = end
        if subject[_KIND] == LAST_N:
            for event in range(offsets[segment + 1] - 1, offsets[segment] - 1, -1):
                if end - begin < subject[_MOST] and _has(subject, matrix, event):
                    out[end] = matrix[subject[ROW], event]
                    end += 1
        elif subject[_KIND] == QUANTILE:
            for event in range(offsets[segment], offsets[segment + 1]):
                if _has(subject, matrix, event):
                    out[end] = matrix[subject[ROW], event]
                    end += 1
            out[begin:end].sort()
        elif subject[_KIND] == CHANGE:
            for event in range(offsets[segment], offsets[segment + 1]):
                if _has(subject, matrix, event):
                    flag = (matrix[MASK_ROW, event] >> subject[_CONDITION]) & 1
                    time = matrix[TIME_ROW, event]
                    if end == begin:
                        out[begin + _FIRST_FLAG] = flag
                        out[begin + _FIRST_TIME] = time
                        out[begin + _CHANGED] = NO_VALUE
                        end += _CHANGE_WIDTH
                    elif flag != out[begin + _LAST_FLAG]:
                        out[begin + _CHANGED] = time
                    out[begin + _LAST_FLAG] = flag
        else:
            count = 0
            for event in range(offsets[segment], offsets[segment + 1]):
                if _has(subject, matrix, event):
                    name = matrix[subject[_CATEGORY], event]
                    if totals[_IS_THERE, name] == 0:
                        touched_names[count] = name
                        count += 1
                    _add_event(subject, matrix, event, totals)
            for place in range(count):
                name = touched_names[place]
                out[end] = name
                if subject[_KIND] == BY_SUM:
                    out[end + 1] = totals[_HIGH, name]
                out[end + _width(subject) - 1] = totals[_LOW, name]
                end += _width(subject)
                totals[:, name] = 0
        ends[segment] = end


@native(NOTHING(IN1, IN1, OUT2))
def _add_run(subject: Int64Array, items: Int64Array, totals: Int64Array) -> None:
    _add_items(subject, items, 0, items.shape[0], totals)


@native()
def _middle_of(low: int, high: int) -> Any:
    """The mean of two integers, rounded down; their sum may be too large."""
    return (low & high) + ((low ^ high) >> 1)


@native()
def _until(values: Int64Array, low: int, high: int, value: int) -> int:
    """The least i in [low, high] such that every one of values[i:high] is greater than `value`."""
    while low < high:
        middle = (low + high) >> 1
        if values[middle] <= value:
            low = middle + 1
        else:
            high = middle
    return low


@native()
def _quantile(parameter: int, runs: Int64Array, values: Int64Array, loose: Int64Array) -> int:
    """The quantile among `loose` and the runs (int64[2, R]: begin, end) of `values`; all of them are sorted."""
    count = loose.shape[0]
    least: Any = np.int64(2**63 - 1)
    greatest: Any = NO_VALUE
    if count:
        least = loose[0]
        greatest = loose[count - 1]
    for run in range(runs.shape[1]):
        count += runs[1, run] - runs[0, run]
        least = min(least, values[runs[0, run]])
        greatest = max(greatest, values[runs[1, run] - 1])
    if count == 0:
        return NO_VALUE
    rank = rank_of(parameter, count) + 1
    # the least value that so many values are not greater than: in each run it stands in [lows, highs)
    lows = runs[0].copy()
    highs = runs[1].copy()
    places = np.empty(runs.shape[1], np.int64)
    while least < greatest:
        middle = _middle_of(least, greatest)
        up_to = _until(loose, 0, loose.shape[0], middle)
        for run in range(runs.shape[1]):
            places[run] = lows[run] if lows[run] == highs[run] else _until(values, lows[run], highs[run], middle)
            up_to += places[run] - runs[0, run]
        if up_to >= rank:
            greatest = middle
            highs[:] = places
        else:
            least = middle + 1
            lows[:] = places
    return int(least)


@native()
def _change(subject: Int64Array, parts: Int64Array, matrix: Int64Array, values: Int64Array) -> int:
    """The time of the newest change; `parts` int64[3, P]: whether it is a partial aggregate, begin and end, in time order."""
    later_flag = -1
    later_time = NO_VALUE
    for part in range(parts.shape[1] - 1, -1, -1):
        begin = parts[1, part]
        if parts[0, part]:
            if begin == parts[2, part]:
                continue
            if later_flag >= 0 and values[begin + _LAST_FLAG] != later_flag:
                return later_time
            if values[begin + _CHANGED] != NO_VALUE:
                return int(values[begin + _CHANGED])
            later_flag = values[begin + _FIRST_FLAG]
            later_time = values[begin + _FIRST_TIME]
            continue
        for event in range(parts[2, part] - 1, begin - 1, -1):
            if _has(subject, matrix, event):
                flag = (matrix[MASK_ROW, event] >> subject[_CONDITION]) & 1
                if later_flag >= 0 and flag != later_flag:
                    return later_time
                later_flag = flag
                later_time = matrix[TIME_ROW, event]
    return NO_VALUE


@native()
def _write_newest(
    window: Int64Array, subject: Int64Array, parts: Int64Array, matrix: Int64Array, values: Int64Array, out: Int64Array
) -> None:
    first = window[RESULT] + 1
    most = window[PARAMETER]
    length = 0
    for part in range(parts.shape[1] - 1, -1, -1):
        if length == most:
            break
        if parts[0, part]:
            for place in range(parts[1, part], min(parts[2, part], parts[1, part] + most - length)):
                out[first + length] = values[place]
                length += 1
            continue
        for event in range(parts[2, part] - 1, parts[1, part] - 1, -1):
            if length < most and _has(subject, matrix, event):
                out[first + length] = matrix[subject[ROW], event]
                length += 1
    out[window[RESULT]] = length
    out[first + length : first + most] = 0


@native(INTEGER(IN1, IN1, INTEGER, IN1, IN1, IN1, IN1, IN2, IN1, IN1, IN1, OUT1, OUT2))
def _evaluate(
    window: Int64Array,
    subject: Int64Array,
    time: int,
    first_ts: Int64Array,
    last_ts: Int64Array,
    starts: Int64Array,
    ends: Int64Array,
    matrix: Int64Array,
    part_starts: Int64Array,
    part_ends: Int64Array,
    values: Int64Array,
    out: Int64Array,
    totals: Int64Array,
) -> int:
    high = subtract_saturating(time, window[DELAY])
    low = subtract_saturating(high, window[WINDOW])
    first_segment = int(np.searchsorted(last_ts, low, side="right"))
    count = max(int(np.searchsorted(first_ts, high, side="right")) - first_segment, 0)
    parts = np.empty((3, count), np.int64)
    events = 0
    runs = 0
    for part in range(count):
        segment = first_segment + part
        if part_starts[segment] >= 0 and first_ts[segment] > low and last_ts[segment] <= high:
            parts[0, part] = 1
            parts[1, part] = part_starts[segment]
            parts[2, part] = part_ends[segment]
            runs += part_starts[segment] < part_ends[segment]
            continue
        if starts[segment] < 0:
            return segment
        parts[0, part] = 0
        parts[1, part] = events_until(matrix, starts[segment], ends[segment], low)
        parts[2, part] = events_until(matrix, parts[1, part], ends[segment], high)
        events += parts[2, part] - parts[1, part]
    if subject[_KIND] == LAST_N:
        _write_newest(window, subject, parts, matrix, values, out)
    elif subject[_KIND] == CHANGE:
        out[window[RESULT]] = _change(subject, parts, matrix, values)
    elif subject[_KIND] == QUANTILE:
        loose = np.empty(events, np.int64)
        bounds = np.empty((2, runs), np.int64)
        events = 0
        runs = 0
        for part in range(count):
            if parts[0, part]:
                if parts[1, part] < parts[2, part]:
                    bounds[0, runs] = parts[1, part]
                    bounds[1, runs] = parts[2, part]
                    runs += 1
                continue
            for event in range(parts[1, part], parts[2, part]):
                if _has(subject, matrix, event):
                    loose[events] = matrix[subject[ROW], event]
                    events += 1
        out[window[RESULT]] = _quantile(window[PARAMETER], bounds, values, np.sort(loose[:events]))
    else:
        for part in range(count):
            if parts[0, part]:
                _add_items(subject, values, parts[1, part], parts[2, part], totals)
                continue
            for event in range(parts[1, part], parts[2, part]):
                if _has(subject, matrix, event):
                    _add_event(subject, matrix, event, totals)
    return NOTHING_MISSING


@native()
def _is_less(totals: Int64Array, name: int, other: int) -> Any:
    """Whether the total of a name is less than that of another one."""
    if totals[_HIGH, name] != totals[_HIGH, other]:
        return totals[_HIGH, name] < totals[_HIGH, other]
    return np.uint64(totals[_LOW, name]) < np.uint64(totals[_LOW, other])


@native(INTEGER(IN2, INTEGER, OUT1))
def _candidates(totals: Int64Array, most: int, out: Int64Array) -> int:
    """Write the names whose totals are not less than the `most`-th greatest; how many there are."""
    greatest = np.empty(most, np.int64)  # the names with the greatest totals so far, these descending
    length = 0
    for name in range(totals.shape[1]):
        if totals[_IS_THERE, name] == 0:
            continue
        if length == most:
            if not _is_less(totals, greatest[length - 1], name):
                continue
            length -= 1
        place = length
        while place > 0 and _is_less(totals, greatest[place - 1], name):
            greatest[place] = greatest[place - 1]
            place -= 1
        greatest[place] = name
        length += 1
    count = 0
    for name in range(totals.shape[1]):
        if totals[_IS_THERE, name] and not _is_less(totals, name, greatest[length - 1]):
            out[count] = name
            count += 1
    return count


def _key_of(window: Int64Array) -> tuple[int, ...]:
    """The name of the partial aggregates that serve a window, whatever its ends and its number of items."""
    return tuple(window[[PREDICATE, ROW, KIND, CONDITION, CATEGORY]].tolist())


@dataclass(frozen=True, eq=False)
class PartialSubjects:
    """The subjects of the partial aggregates of one key type.

    `rows` int64[S, 6]: predicate, row of the values, kind, most items of a list, predicate of the condition, row of the
    categories, rows being those of `named_matrix`; `places`: `_key_of` a window -> its place among them. `fields`: the
    rows of the values that have names, of texts as queries read them.
    """

    layout: KeyLayout
    rows: Int64Array
    places: Mapping[tuple[int, ...], int]
    fields: tuple[int, ...]

    @classmethod
    def of(cls, query: Query) -> PartialSubjects:
        """Those of all whole windows of a query."""
        layout = query.arrays.layout
        most: dict[tuple[int, ...], int] = {}
        for window in query.whole:
            key = _key_of(window)
            most[key] = max(most.get(key, 0), int(window[PARAMETER]) if window[KIND] == LAST_N else 0)
        fields = sorted(
            {category for *_, category in most if category >= 0} | {row for _, row, *_ in most if row >= layout.first_text_row}
        )

        def place_of(row: int) -> int:
            return layout.first_token_row + fields.index(row)

        rows = [
            (
                predicate,
                place_of(row) if row >= layout.first_text_row else row,
                kind,
                most[predicate, row, kind, condition, category],
                condition,
                place_of(category) if category >= 0 else -1,
            )
            for predicate, row, kind, condition, category in most
        ]
        places = {key: place for place, key in enumerate(most)}
        return cls(layout, np.array(rows, np.int64).reshape(len(rows), 6), places, tuple(fields))

    def __len__(self) -> int:
        return len(self.rows)

    def named_matrix(self, matrix: Int64Array, names: Sequence[CategoryNames]) -> Int64Array:
        """The event matrix int64[C, N] without tokens and texts, and behind it a row of the names of each of `fields`."""
        if not self.fields:
            return matrix
        first = self.layout.first_token_row
        named_matrix = np.empty((first + len(self.fields), matrix.shape[1]), np.int64)
        named_matrix[:first] = matrix[:first]
        for place, (row, field_names) in enumerate(zip(self.fields, names, strict=True)):
            text = row - self.layout.first_text_row
            different: Sequence[Value]
            if text >= 0:
                first_word = self.layout.first_text_row + TEXT_WORDS * text
                codes, cells = rank_words(matrix[first_word : first_word + TEXT_WORDS])
                different = cells.tolist()
            else:
                integers, codes = np.unique(matrix[row], return_inverse=True)
                different = integers.tolist()
            named_matrix[first + place] = field_names.name(different)[codes]
        return named_matrix

    def names_of(self, subject: int, names: Sequence[CategoryNames]) -> int:
        """More than any name of the subject's categories; 0: it has none."""
        place = int(self.rows[subject, _CATEGORY]) - self.layout.first_token_row
        return names[place].count if self.rows[subject, _CATEGORY] >= 0 else 0


class CategoryNames:
    """The names of the values of one field of one key. They only become more."""

    def __init__(self) -> None:
        self.values: list[Value] = []
        """The values by their names."""
        self._names: dict[Value, int] = {}

    @property
    def count(self) -> int:
        """How many values have names."""
        return len(self.values)

    @property
    def nbytes(self) -> int:
        """Its size in memory, about."""
        return len(self.values) * _BYTES_OF_NAME

    def name(self, values: Sequence[Value]) -> Int64Array:
        """int64[n]: the names of these values."""
        for value in values:
            if value not in self._names:
                self._names[value] = len(self.values)
                self.values.append(value)
        return np.array([self._names[value] for value in values], np.int64)


def partials_of(
    subjects: PartialSubjects, subject: int, named_matrix: Int64Array, offsets: Int64Array, names: int
) -> list[Int64Array]:
    """The partial aggregates of segments, events [offsets[k], offsets[k+1]) of a `PartialSubjects.named_matrix`.

    `names`: more than any name of a category.
    """
    row = subjects.rows[subject]
    segments = len(offsets) - 1
    out = np.empty(3 * named_matrix.shape[1] + _CHANGE_WIDTH * segments, np.int64)
    ends = np.zeros(segments + 1, np.int64)
    _make(row, named_matrix, offsets, np.zeros((3, names), np.int64), out, ends[1:])
    return [out[begin:end].copy() for begin, end in pairwise(ends.tolist())]


def merged_run(subjects: PartialSubjects, subject: int, runs: Sequence[Int64Array], names: int) -> Int64Array:
    """The partial aggregate of a span, from those of its parts in the order of time. `names`: as in `partials_of`."""
    row = subjects.rows[subject]
    kind = int(row[_KIND])
    if kind == QUANTILE:
        return np.sort(np.concatenate(runs), kind="stable")
    if kind == LAST_N:
        return np.concatenate(runs[::-1])[: row[_MOST]]
    if kind == CHANGE:
        return _merged_changes([run for run in runs if len(run)])
    totals = np.zeros((3, names), np.int64)
    for run in runs:
        _add_run(row, run, totals)
    there = np.flatnonzero(totals[_IS_THERE])
    columns = [there, totals[_HIGH, there], totals[_LOW, there]] if kind == BY_SUM else [there, totals[_LOW, there]]
    return np.stack(columns, axis=1).reshape(-1)


def _merged_changes(runs: Sequence[Int64Array]) -> Int64Array:
    if not runs:
        return np.empty(0, np.int64)
    change = runs[0].copy()
    for run in runs[1:]:
        if run[_CHANGED] != NO_VALUE:
            change[_CHANGED] = run[_CHANGED]
        elif run[_FIRST_FLAG] != change[_LAST_FLAG]:
            change[_CHANGED] = run[_FIRST_TIME]
        change[_LAST_FLAG] = run[_LAST_FLAG]
    return change


@dataclass(frozen=True)
class SegmentPartials:
    """The partial aggregates of the segments of one key.

    `matrix`: `PartialSubjects.named_matrix` of the events that are there; `starts`, `ends` int64[S, K]: the run of segment k is
    runs[start:end], start UNKNOWN where it is not known. `values`: of each field, its values by their names.
    """

    subjects: PartialSubjects
    matrix: Int64Array
    starts: Int64Array
    ends: Int64Array
    runs: Int64Array
    values: tuple[Sequence[Value], ...]

    @property
    def nbytes(self) -> int:
        """Its size in memory, without what other segments share with it."""
        return (self.matrix.nbytes if self.subjects.fields else 0) + self.starts.nbytes + self.ends.nbytes

    def text_tables(self, query: Query) -> dict[int, Sequence[Any]]:
        """The texts by their names of each list of texts of a query, by its first result."""
        first = self.subjects.layout.first_text_row
        return {result: self.values[self.subjects.fields.index(first + text)] for result, text in query.text_lists}


def segment_partials(
    subjects: PartialSubjects,
    matrix: Int64Array,
    bounds_of_segments: Sequence[Sequence[tuple[int, int]] | None],
    runs: Int64Array,
    names: Sequence[CategoryNames],
) -> SegmentPartials:
    """`SegmentPartials`; `bounds_of_segments`: of each segment where its runs are, subject by subject; None: not known."""
    unknown = [(UNKNOWN, UNKNOWN)] * len(subjects)
    table = np.array([unknown if bounds is None else bounds for bounds in bounds_of_segments], np.int64)
    table = table.reshape(len(bounds_of_segments), len(subjects), 2)
    starts, ends = (np.ascontiguousarray(table[:, :, side].T) for side in (0, 1))
    return SegmentPartials(subjects, matrix, starts, ends, runs, tuple(field_names.values for field_names in names))


def whole_of_partials(
    query: Query,
    time: int,
    bounds: tuple[Int64Array, Int64Array, Int64Array, Int64Array],
    partials: SegmentPartials,
    out: Int64Array,
) -> int:
    """Write the results of a query's whole windows as of `time` into `out` int64[R]; the segment whose events are missing, or -1.

    `bounds`: `first_ts`, `last_ts`, `starts` and `ends` of the segments (see `windows.Segments`). Texts are written as names.
    """
    subjects = partials.subjects
    for window in query.whole:
        subject = subjects.places[_key_of(window)]
        row = subjects.rows[subject]
        field = int(row[_CATEGORY]) - subjects.layout.first_token_row
        values = partials.values[field] if row[_CATEGORY] >= 0 else ()
        totals = np.zeros((3, len(values)), np.int64)
        of_segments = partials.starts[subject], partials.ends[subject], partials.runs
        missing = int(_evaluate(window, row, time, *bounds, partials.matrix, *of_segments, out, totals))
        if missing != NOTHING_MISSING:
            return missing
        if window[KIND] in (BY_COUNT, BY_SUM):
            _write_categories(window, values, totals, out)
    return NOTHING_MISSING


def _write_categories(window: Int64Array, values: Sequence[Value], totals: Int64Array, out: Int64Array) -> None:
    first, most = int(window[RESULT]) + 1, int(window[PARAMETER])
    words = 2 if window[KIND] == BY_SUM else 1
    names = np.empty(totals.shape[1], np.int64)
    candidates = names[: _candidates(totals, most, names)].tolist()
    greatest_names = nsmallest(most, candidates, key=_order_of(values, totals))
    is_text = bool(greatest_names) and isinstance(values[greatest_names[0]], bytes)
    out[first : first + (1 + words) * most] = 0
    columns = [
        greatest_names if is_text else [values[name] for name in greatest_names],
        *totals[_LOW + 1 - words :, greatest_names].tolist(),
    ]
    for place, column in enumerate(columns):
        out[first + place * most : first + place * most + len(greatest_names)] = column
    out[window[RESULT]] = len(greatest_names)


def _order_of(values: Sequence[Value], totals: Int64Array) -> Callable[[int], tuple[int, Any]]:
    """The greatest total first; of equal ones the category whose text comes first, byte by byte."""

    def order(name: int) -> tuple[int, Any]:
        value = values[name]
        return -wide(int(totals[_HIGH, name]), int(totals[_LOW, name])), value if isinstance(value, bytes) else str(value)

    return order
