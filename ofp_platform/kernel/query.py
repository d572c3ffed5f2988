"""A layout and a query as the compiled loops read them: plain arrays, built once per key type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ofp_platform.kernel.accumulate import EARLIEST, PREDICATE, ROW
from ofp_platform.kernel.native import Int64Array
from ofp_platform.registry.aggregations import Finish, rule_of
from ofp_platform.registry.layout import CompiledGroup, CompiledOperand, KeyLayout

# the columns of `slots` after those of `measures`; the last one of `Query.distinct` is the index of the result, and those of
# `Query.whole` begin alike
WINDOW, DELAY, MEASURE = range(2, 5)
RESULT = 4
KIND, PARAMETER, CONDITION = range(5, 8)
# the kinds of `Query.whole`
QUANTILE, CHANGE = range(2)
_KINDS = {Finish.QUANTILE: QUANTILE, Finish.SECONDS_SINCE_CHANGE: CHANGE}
ResultIndex = Mapping[tuple[int, ...], int]
"""`result_key` of an operand -> index of its result."""


@dataclass(frozen=True, eq=False)
class LayoutArrays:
    """The arrays of one key type's layout.

    `slots` int64[S, 5]: predicate, matrix row of the values (-1: none), window and delay in microseconds, measure. A slot of
    texts reads ranks (see `texts`), which no summary has: its measure is one behind those of the layout.
    `measures` int64[M, 2]: predicate, matrix row of the values (-1: none).
    `token_rows` int64[tokens]: matrix row of each token field's high half.
    """

    layout: KeyLayout
    slots: Int64Array
    measures: Int64Array
    token_rows: Int64Array

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
        )


@dataclass(frozen=True, eq=False)
class Query:
    """Some slots of a layout, some distinct counts and other whole windows, some groups' masks: what one evaluation answers.

    `slot_numbers` int64[c]: slots, ordered so that windows over the same events with the same end follow each other, growing.
    `merged_slots`: those of them that summaries have; `text_slots`: the others, whose values are texts. Both ordered
    likewise. `has_texts`: there are some of the latter.
    `distinct` int64[P, 5]: predicate, token row, window, delay, index of the result; ordered likewise.
    `whole` int64[W, 8]: as `distinct`, the row being that of the values; then the kind, its parameter, and the predicate of its
    condition (see `whole_windows`).
    `distinct_index`: `result_key` of an operand -> index of the result, those of `whole` behind those of `distinct`.
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
    finalisers: dict[tuple[str, str], Any] = field(default_factory=dict)

    def no_results(self, rows: int) -> Int64Array:
        """int64[rows, P + W]: the results of distinct counts and whole windows where there is no event."""
        results = np.full((rows, len(self.distinct) + len(self.whole)), EARLIEST, np.int64)
        results[:, : len(self.distinct)] = 0
        return results


def result_key(operand: CompiledOperand) -> tuple[int, ...]:
    """The name of an operand's result among those of its query: (slot, token) of a distinct count."""
    kind = _KINDS.get(rule_of(operand.aggregation).finish)
    return (operand.slot, operand.token) if kind is None else (operand.slot, kind, operand.parameter, operand.condition)


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
    for index, (slot, token) in enumerate(pairs):
        predicate, _, window, delay, _ = arrays.slots[slot].tolist()
        rows.append((predicate, int(arrays.token_rows[token]), window, delay, index))
    rows.sort(key=lambda row: (row[PREDICATE], row[ROW], row[DELAY], row[WINDOW]))
    whole_keys = list(dict.fromkeys(whole))
    whole_rows = [
        (*arrays.slots[slot, :MEASURE].tolist(), len(pairs) + index, *extras) for index, (slot, *extras) in enumerate(whole_keys)
    ]
    slot_numbers = sorted(set(slots), key=chain)
    text_slots = [slot for slot in slot_numbers if arrays.layout.slots[slot].text >= 0]
    return Query(
        arrays=arrays,
        slot_numbers=np.array(slot_numbers, np.int64),
        merged_slots=np.array([slot for slot in slot_numbers if slot not in text_slots], np.int64),
        text_slots=np.array(text_slots, np.int64),
        has_texts=bool(text_slots),
        distinct=np.array(rows, np.int64).reshape(len(rows), 5),
        distinct_index={key: index for index, key in enumerate([*pairs, *whole_keys])},
        masks=np.array(masks, np.int64),
        whole=np.array(whole_rows, np.int64).reshape(len(whole_rows), 8),
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
