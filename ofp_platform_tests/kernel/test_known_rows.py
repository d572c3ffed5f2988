"""Rows that know some of the events: each is what `windows.evaluate` finds over exactly these."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ofp_platform.kernel.columns import ColumnQuery, KeyedEvents, KeyedRows
from ofp_platform.kernel.known_rows import evaluate_known
from ofp_platform.kernel.query import LayoutArrays
from ofp_platform.kernel.windows import evaluate
from ofp_platform.registry.text_words import TEXT_WORDS, words_of
from ofp_platform_tests.oracle.small_plane import small_registry
from ofp_platform_tests.oracle.strategies import SECOND, SHOPS

REGISTRY = small_registry()
LAYOUT = REGISTRY.layouts["account"]
PLAN = ColumnQuery(LayoutArrays.of(LAYOUT), [plan for plan in REGISTRY.groups.values() if plan.key_type == "account"])
EVENTS = st.lists(st.tuples(st.integers(0, 20), st.integers(0, 2**20), st.integers(0, 3)), max_size=15)
ROWS = st.lists(st.tuples(st.integers(-1, 24), st.integers(-1, 4), st.integers(-5, 25)), max_size=6)


@settings(max_examples=150)
@given(st.lists(st.tuples(EVENTS, ROWS), min_size=1, max_size=3), st.integers(0, 2**32))
def test_every_row_is_evaluated_over_what_it_knows(
    keys: list[tuple[list[tuple[int, int, int]], list[tuple[int, int, int]]]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    parts, known, starts, offsets, rows = [], [], [0], [0], []
    for events, asked in keys:
        events = sorted(events)
        part = rng.integers(-3, 3, (LAYOUT.column_count, len(events)))
        for row in range(LAYOUT.first_text_row, LAYOUT.column_count, TEXT_WORDS):
            part[row : row + TEXT_WORDS] = words_of(rng.choice(SHOPS, len(events)).tolist())
        part[0] = [second * SECOND for second, _, _ in events]
        part[1] = [bits for _, bits, _ in events]
        parts.append(part)
        known += [moment for _, _, moment in events]
        starts.append(starts[-1] + len(events))
        rows += sorted(asked)
        offsets.append(offsets[-1] + len(asked))
    matrix = np.ascontiguousarray(np.concatenate(parts, axis=1), np.int64)
    known_from = np.array(known, np.int64)
    times = np.array([second * SECOND for second, _, _ in rows], np.int64)
    until = np.array([moment for _, moment, _ in rows], np.int64)
    horizons = np.array([second * SECOND for _, _, second in rows], np.int64)
    found = evaluate_known(
        PLAN,
        KeyedEvents(matrix, np.array(starts[:-1]), np.array(starts[1:]), known_from),
        KeyedRows(np.array(offsets), times, until),
        horizons,
    )
    for key in range(len(keys)):
        for row in range(offsets[key], offsets[key + 1]):
            chosen = np.arange(starts[key], starts[key + 1])
            chosen = chosen[known_from[chosen] <= until[row]]
            wanted = evaluate(PLAN.query, np.ascontiguousarray(matrix[:, chosen]), int(times[row]), int(horizons[row]))
            own = found.at(row)
            assert own.rows == wanted.rows
            assert own.touches.tolist() == wanted.touches.tolist()


def test_what_rows_know_must_be_given() -> None:
    nothing = np.empty(0, np.int64)
    events = KeyedEvents(np.empty((LAYOUT.column_count, 0), np.int64), nothing, nothing)
    told = KeyedEvents(events.matrix, nothing, nothing, nothing)
    silent, telling = KeyedRows(np.zeros(1, np.int64), nothing), KeyedRows(np.zeros(1, np.int64), nothing, nothing)
    for given_events, given_rows in ((events, silent), (told, silent), (events, telling)):
        with pytest.raises(ValueError, match="known_from and known_until are needed"):
            evaluate_known(PLAN, given_events, given_rows, nothing)
    assert evaluate_known(PLAN, told, telling, nothing).touches.shape == (0, len(PLAN.query.masks))
