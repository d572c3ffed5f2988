"""A layout and a query as the compiled loops read them: plain arrays, built once per key type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from ofp_platform.kernel.accumulate import EARLIEST, PREDICATE, ROW
from ofp_platform.kernel.native import Int64Array
from ofp_platform.registry.aggregations import Finish, rule_of
from ofp_platform.registry.calendar_windows import CalendarWindow
from ofp_platform.registry.layout import CompiledGroup, CompiledOperand, KeyLayout

# the columns of `slots` after those of `measures`; the last one of `Query.distinct` is the index of the result, and those of
# `Query.whole` begin alike (its first result, where it has several)
WINDOW, DELAY, MEASURE = range(2, 5)
RESULT = 4
KIND, PARAMETER, CONDITION, CATEGORY, IS_TEXT = range(5, 10)
# the kinds of `Query.whole`
QUANTILE, CHANGE, LAST_N, BY_COUNT, BY_SUM = range(5)
_KINDS = {
    Finish.QUANTILE: QUANTILE,
    Finish.SECONDS_SINCE_CHANGE: CHANGE,
    Finish.LAST_N: LAST_N,
    Finish.TOP_K: BY_COUNT,
    Finish.COUNT_BY: BY_COUNT,
    Finish.SUM_BY: BY_SUM,
}
_PLACES = {LAST_N: 1, BY_COUNT: 2, BY_SUM: 3}
"""Of the kinds of lists, the results that each item has: itself, or the category and its count, or both words of its sum."""
ResultIndex = Mapping[tuple[int, ...], int]
"""`result_key` of an operand -> index of its result, of a list that of its first result."""


@dataclass(frozen=True, eq=False)
class LayoutArrays:
    """The arrays of one key type's layout.

    `slots` int64[S, 5]: predicate, matrix row of the values (-1: none), window and delay in microseconds, measure. A slot of
    texts reads ranks (see `texts`), which no summary has: its measure is one behind those of the layout.
    `measures` int64[M, 2]: predicate, matrix row of the values (-1: none).
    `token_rows` int64[tokens]: matrix row of each token field's high half.
    `calendars`: of each slot whose window is a local day or month, what says where it begins. Its window in `slots` is a bound;
    in arrays `at` a time it is the one that ends there, and in arrays `along` times it is -1 - c, c being its place among the
    calendars: see `edges`.
    """

    layout: KeyLayout
    slots: Int64Array
    measures: Int64Array
    token_rows: Int64Array
    calendars: Mapping[int, CalendarWindow] = field(default_factory=dict)

    def at(self, time: int) -> LayoutArrays:
        """The arrays with the windows that they have at one time."""
        untils = {slot: time - int(self.slots[slot, DELAY]) for slot in self.calendars}
        return self._with_windows({slot: until - self.calendars[slot].start(until) + 1 for slot, until in untils.items()})

    def along(self) -> LayoutArrays:
        """The arrays for many times, which have an edge each."""
        return self._with_windows({slot: -1 - place for place, slot in enumerate(self.calendars)})

    def edges(self, times: Int64Array) -> Int64Array:
        """int64[m, c]: of each of `times` int64[m], the time after which the events of each calendar's window stand."""
        edges = np.empty((len(times), len(self.calendars)), np.int64)
        for place, (slot, calendar) in enumerate(self.calendars.items()):
            edges[:, place] = calendar.starts(times - self.slots[slot, DELAY]) - 1
        return edges

    def _with_windows(self, windows: Mapping[int, int]) -> LayoutArrays:
        slots = self.slots.copy()
        for slot, window in windows.items():
            slots[slot, WINDOW] = window
        return replace(self, slots=slots)

    @property
    def slot_count(self) -> int:
        """Number of slots, S."""
        return len(self.slots)

    @property
    def measure_count(self) -> int:
        """Number of measures, M."""
        return len(self.measures)

    @classmethod
    def of(cls, layout: KeyLayout) -> LayoutArrays:
        """The arrays of a layout."""
        measures = [(m.predicate, -1 if m.column < 0 else layout.first_integer_row + m.column) for m in layout.measures]
        text_measures = sorted({(slot.measure, slot.text) for slot in layout.slots if slot.text >= 0})
        slots = []
        for slot in layout.slots:
            predicate, row = measures[slot.measure]
            measure = slot.measure
            if slot.text >= 0:
                row = layout.first_text_row + slot.text
                measure = len(measures) + text_measures.index((slot.measure, slot.text))
            slots.append((predicate, row, slot.window, slot.delay, measure))
        rows = [layout.first_token_row + 2 * token for token in range(len(layout.token_fields))]
        return cls(
            layout=layout,
            slots=np.array(slots, np.int64).reshape(len(slots), 5),
            measures=np.array(measures, np.int64).reshape(len(measures), 2),
            token_rows=np.array(rows, np.int64),
            calendars={place: slot.calendar for place, slot in enumerate(layout.slots) if slot.calendar is not None},
        )


@dataclass(frozen=True, eq=False)
class Query:
    """Some slots of a layout, some distinct counts and other whole windows, some groups' masks: what one evaluation answers.

    `slot_numbers` int64[c]: slots, ordered so that windows over the same events with the same end follow each other, growing.
    `merged_slots`: those of them that summaries have; `text_slots`: the others, whose values are texts. Both ordered
    likewise. `text_lists`: of each list of texts its first result, and the place of the text field in the layout. `has_texts`:
    some of the query's values are texts.
    `distinct` int64[P, 5]: predicate, token row, window, delay, index of the result; ordered likewise.
    `whole` int64[W, 10]: as `distinct`, the row being that of the values; then the kind, its parameter, the predicate of its
    condition, the row of the categories, and whether these are ranks of texts (see `whole_windows`). A list has several
    results: the number of its items, the items, and of categories then the counts, or the high and the low words of the sums.
    `distinct_index`: `result_key` of an operand -> index of the (first) result, those of `whole` behind those of `distinct`.
    `result_count`: the number of results, R.
    `masks` int64[G]: predicate bits of which the last time is asked.
    `finalisers`: what `finalise` has worked out for the groups of the query, kept with it.
    """

    arrays: LayoutArrays
    slot_numbers: Int64Array
    merged_slots: Int64Array
    text_slots: Int64Array
    has_texts: bool
    distinct: Int64Array
    distinct_index: ResultIndex
    masks: Int64Array
    whole: Int64Array
    result_count: int
    text_lists: tuple[tuple[int, int], ...] = ()
    finalisers: dict[tuple[str, str], Any] = field(default_factory=dict)

    @cached_property
    def has_calendars(self) -> bool:
        """Whether some window of the query begins with a local day or month."""
        slots = {*self.slot_numbers.tolist(), *(key[0] for key in self.distinct_index)}
        return not slots.isdisjoint(self.arrays.calendars)

    def at(self, time: int) -> Query:
        """The query with the windows that it has at one time."""
        return self._over(self.arrays.at(time)) if self.has_calendars else self

    def along(self) -> Query:
        """The query for many times; windows that begin with a local day or month have an edge each (`LayoutArrays.edges`)."""
        return self._over(self.arrays.along()) if self.has_calendars else self

    def _over(self, arrays: LayoutArrays) -> Query:
        keys, counts = list(self.distinct_index), len(self.distinct)
        pairs = [(slot, token) for slot, token in keys[:counts]]
        query = make_query(arrays, self.slot_numbers.tolist(), pairs, self.masks.tolist(), keys[counts:])
        return replace(query, finalisers=self.finalisers)

    def no_results(self, rows: int) -> Int64Array:
        """int64[rows, R]: the results of distinct counts and whole windows where there is no event."""
        results = np.zeros((rows, self.result_count), np.int64)
        for window in self.whole.tolist():
            if window[KIND] not in _PLACES:
                results[:, window[RESULT]] = EARLIEST
        return results


def result_key(operand: CompiledOperand) -> tuple[int, ...]:
    """The name of an operand's result among those of its query: (slot, token) of a distinct count."""
    kind = _KINDS.get(rule_of(operand.aggregation).finish)
    if kind is None:
        return operand.slot, operand.token
    category = () if operand.category < 0 else (operand.category, int(operand.has_text_category))
    return operand.slot, kind, operand.parameter, operand.condition, *category


def places_of(operand: CompiledOperand) -> int:
    """How many results each item of a list has; 0: the operand is no list."""
    return _PLACES.get(_KINDS.get(rule_of(operand.aggregation).finish, -1), 0)


def make_query(
    arrays: LayoutArrays,
    slots: Iterable[int],
    distinct: Iterable[tuple[int, int]] = (),
    masks: Sequence[int] = (),
    whole: Iterable[tuple[int, ...]] = (),
) -> Query:
    """A query for these slots, (slot, token) distinct counts, masks, and `result_key`s of other operands; each is asked once."""

    def chain(slot: int) -> tuple[int, int, int]:
        row = arrays.slots[slot]
        return int(row[MEASURE]), int(row[DELAY]), int(row[WINDOW])

    pairs = list(dict.fromkeys(distinct))
    rows = []
    for place, (slot, token) in enumerate(pairs):
        predicate, _, window, delay, _ = arrays.slots[slot].tolist()
        rows.append((predicate, int(arrays.token_rows[token]), window, delay, place))
    rows.sort(key=lambda row: (row[PREDICATE], row[ROW], row[DELAY], row[WINDOW]))
    index: dict[tuple[int, ...], int] = {pair: place for place, pair in enumerate(pairs)}
    whole_rows, text_lists, result = [], [], len(pairs)
    for key in dict.fromkeys(whole):
        slot, kind, parameter, condition, *category = key
        place, is_text = category or (-1, 0)
        first_row = arrays.layout.first_text_row if is_text else arrays.layout.first_integer_row
        category_row = first_row + place if category else -1
        whole_rows.append((*arrays.slots[slot, :MEASURE].tolist(), result, kind, parameter, condition, category_row, is_text))
        text = (place if is_text else -1) if category else arrays.layout.slots[slot].text
        if kind in _PLACES and text >= 0:
            text_lists.append((result, text))
        index[key] = result
        result += 1 + _PLACES.get(kind, 0) * parameter
    slot_numbers = sorted(set(slots), key=chain)
    text_slots = [slot for slot in slot_numbers if arrays.layout.slots[slot].text >= 0]
    return Query(
        arrays=arrays,
        slot_numbers=np.array(slot_numbers, np.int64),
        merged_slots=np.array([slot for slot in slot_numbers if slot not in text_slots], np.int64),
        text_slots=np.array(text_slots, np.int64),
        has_texts=bool(text_slots or text_lists),
        distinct=np.array(rows, np.int64).reshape(len(rows), 5),
        distinct_index=index,
        masks=np.array(masks, np.int64),
        whole=np.array(whole_rows, np.int64).reshape(len(whole_rows), 10),
        result_count=result,
        text_lists=tuple(text_lists),
    )


def operands_of(group: CompiledGroup) -> list[CompiledOperand]:
    """Every operand of a group's windowed features."""
    operands: list[CompiledOperand] = []
    for feature in group.features:
        operands.append(feature.operand)
        if feature.denominator is not None:
            operands.append(feature.denominator)
    return operands


def query_of(arrays: LayoutArrays, groups: Sequence[CompiledGroup]) -> Query:
    """The query that answers whole groups; `masks` are in the order of `groups`."""
    operands = [operand for group in groups for operand in operands_of(group)]
    return make_query(
        arrays,
        [operand.slot for operand in operands if not rule_of(operand.aggregation).finish.whole_events],
        [(operand.slot, operand.token) for operand in operands if rule_of(operand.aggregation).finish is Finish.DISTINCT],
        [group.mask for group in groups],
        [result_key(operand) for operand in operands if rule_of(operand.aggregation).finish in _KINDS],
    )
