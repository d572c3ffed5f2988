"""Event matrices of any layout, and their accumulator rows the naive way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from ofp_platform.registry.layout import AMENDMENT_ROWS, KeyLayout, Measure, Predicate, Slot
from ofp_platform.registry.text_words import words_of
from ofp_platform_tests.oracle.strategies import SHOPS, integers

SPAN = 40
"""Times of a matrix lie in [0, SPAN]: crowded, so that ties and edges meet."""

Matrix = npt.NDArray[np.int64]
NO_EVENTS = [0] * 11


@dataclass(frozen=True)
class Case:
    """A layout and the sorted matrix of one key."""

    layout: KeyLayout
    matrix: Matrix


@st.composite
def layouts(draw: st.DrawFn) -> KeyLayout:
    """Layouts with ties, two integer fields, two token fields, and a few slots over up to 62 predicates."""
    predicates = draw(st.sampled_from((1, 3, 62)))
    alone = [Measure(predicate, -1) for predicate in range(predicates)]
    valued = draw(st.lists(st.builds(Measure, st.integers(0, predicates - 1), st.integers(0, 1)), max_size=4, unique=True))
    measures = sorted({*alone, *valued}, key=lambda one: (one.predicate, one.column))
    columned = [index for index, one in enumerate(measures) if one.column >= 0]
    chosen = st.integers(0, len(measures) - 1)
    if columned:  # among 62 predicates they would hardly ever be met
        chosen = st.one_of(st.sampled_from(columned), st.sampled_from(columned), chosen)
    slots = draw(
        st.lists(
            st.builds(Slot, chosen, st.integers(1, SPAN + 5), st.sampled_from((0, 0, 1, 7))),
            min_size=1,
            max_size=8,
        )
    )
    return KeyLayout(
        key_type="account",
        ordered=True,
        predicates=(Predicate((), ()),) * predicates,
        integer_fields=("x", "y"),
        token_fields=("u", "v"),
        measures=tuple(measures),
        slots=tuple(slots),
    )


@st.composite
def matrices(draw: st.DrawFn, layout: KeyLayout, max_events: int = 60) -> Matrix:
    """int64[C, n] sorted by time, then tie, none of them amended; masks over the layout's predicates; values up to ±(2^53-1)."""
    count = draw(st.integers(0, max_events))
    everything = 2 ** len(layout.predicates) - 1
    word = st.integers(-(2**63), 2**63 - 1)
    columns = [
        draw(st.lists(values, min_size=count, max_size=count))
        for values in (
            st.integers(0, SPAN),
            st.one_of(st.just(everything), st.integers(0, everything)),
            *(word for _ in range(2 * layout.ties)),
            *(st.just(0) for _ in range(AMENDMENT_ROWS * layout.amendable)),
            *(integers() for _ in layout.integer_fields),
            *(st.one_of(st.integers(0, 2), word) for _ in range(2 * len(layout.token_fields))),
        )
    ]
    matrix = np.array(columns, np.int64).reshape(len(columns), count)
    for _ in layout.text_fields:
        texts = draw(st.lists(st.sampled_from(SHOPS), min_size=count, max_size=count))
        matrix = np.concatenate([matrix, words_of(texts)])
    return sorted_matrix(matrix, ties=layout.ties)


def sorted_matrix(matrix: Matrix, *, ties: bool = True) -> Matrix:
    """The same events by (time, tie), the tie compared as unsigned; without ties, those of one time stay in their order."""
    ties_of = matrix[2:4].view(np.uint64)[::-1] if ties else ()
    return np.ascontiguousarray(matrix[:, np.lexsort((*ties_of, matrix[0]))])


@st.composite
def cases(draw: st.DrawFn, max_events: int = 60) -> Case:
    """A layout with a matrix."""
    layout = draw(layouts())
    return Case(layout, draw(matrices(layout, max_events)))


def _selected(case: Case, slot: Slot, time: int) -> list[int]:
    predicate = case.layout.measures[slot.measure].predicate
    ts, mask = case.matrix[0].tolist(), case.matrix[1].tolist()
    until = time - slot.delay
    return [event for event in range(len(ts)) if until - slot.window < ts[event] <= until and mask[event] & 1 << predicate]


def halves(number: int) -> list[int]:
    """A 128-bit integer as two signed words, the high one first."""
    data = number.to_bytes(16, "big", signed=True)
    return [int.from_bytes(data[:8], "big", signed=True), int.from_bytes(data[8:], "big", signed=True)]


def naive_row(ts: list[int], values: list[int] | None) -> list[int]:
    """The accumulator row of events with these times and values (None: a measure without a column)."""
    if not ts:
        return NO_EVENTS
    if values is None:
        return [len(ts), *[0] * 8, ts[0], ts[-1]]
    squares = sum(value * value for value in values)
    return [
        len(ts),
        *halves(sum(values)),
        *halves(squares),
        min(values),
        max(values),
        values[0],
        values[-1],
        ts[0],
        ts[-1],
    ]


def naive_rows(case: Case, time: int) -> list[list[int]]:
    """[S, 11]: the rows of every slot at a time."""
    rows = []
    for slot in case.layout.slots:
        column = case.layout.measures[slot.measure].column
        events = _selected(case, slot, time)
        values = None if column < 0 else case.matrix[case.layout.first_integer_row + column, events].tolist()
        rows.append(naive_row(case.matrix[0, events].tolist(), values))
    return rows


def naive_distinct(case: Case, slot: int, token: int, time: int) -> int:
    """How many different tokens stand in a slot's window."""
    row = case.layout.first_token_row + 2 * token
    return len({tuple(case.matrix[row : row + 2, event]) for event in _selected(case, case.layout.slots[slot], time)})


def naive_touch(case: Case, mask: int, time: int, horizon: int) -> int | None:
    """The last time of an event under a mask, at or before `time` and past the horizon."""
    found = [ts for ts, own in zip(*case.matrix[:2].tolist(), strict=True) if own & mask and horizon < ts <= time]
    return max(found, default=None)
