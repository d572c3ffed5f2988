"""The identity index against a dict: copies, anomalies, growth, collisions in the bits that address its slots."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.online.state.identity_index import ANOMALY, DUPLICATE, NEW, IdentityIndex, Words, offset_words, words_offset

WORDS = 6
FAR = 2**64 - 1


class Model:
    """What the index must answer: by id, the identities in the order of their first sight."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, ...]] = []
        self.by_id: dict[tuple[int, ...], list[int]] = {}

    def admit(self, row: tuple[int, ...]) -> tuple[int, int]:
        same_id = self.by_id.setdefault(row[:2], [])
        for index in same_id:
            if self.rows[index][2:4] == row[2:4]:
                return DUPLICATE, index
        same_id.append(len(self.rows))
        self.rows.append(row)
        return (ANOMALY, same_id[0]) if len(same_id) > 1 else (NEW, -1)


def words(rows: list[tuple[int, ...]]) -> Words:
    return np.array(rows, np.uint64).reshape(-1, WORDS)


def check(index: IdentityIndex, model: Model, rows: list[tuple[int, ...]]) -> None:
    status, earlier = index.admit(words(rows))
    assert list(zip(status.tolist(), earlier.tolist(), strict=True)) == [model.admit(row) for row in rows]
    assert len(index) == len(model.rows)
    for number in {0, len(model.rows) - 1} if model.rows else ():
        assert tuple(index.entry(number).tolist()) == model.rows[number]


# ids that differ in high bits only start at the same slot, at the lowest and at the last one of the table
IDS = st.one_of(
    st.builds(lambda high, low: (high << 40, low), st.integers(0, 3), st.integers(0, 2)),
    st.builds(lambda high, low: ((high << 40) | 0xFFFFF, low), st.integers(0, 3), st.sampled_from((0, FAR))),
)
ROWS = st.builds(
    lambda key, tie, place: (*key, *tie, *place),
    IDS,
    st.sampled_from(((0, 0), (0, 1), (1, 0), (FAR, FAR))),
    st.tuples(st.integers(0, 3), st.integers(0, 2**53)),
)


@given(st.lists(st.one_of(st.lists(ROWS, max_size=12), st.just("restart")), max_size=8))
def test_as_a_dict_would(steps: list[Any]) -> None:
    index, model = IdentityIndex(WORDS), Model()
    for step in steps:
        if step == "restart":
            index = IdentityIndex(WORDS)
            index.load(words(model.rows))
        else:
            check(index, model, step)


def test_it_grows_past_every_bound_and_forgets_nothing() -> None:
    rng = np.random.default_rng(7)
    index, model = IdentityIndex(WORDS), Model()
    crowded = [(number << 44, 0, number, 0, 0, number) for number in range(300)]  # one slot for all of them
    check(index, model, crowded)
    for size in (1, 5_000, 40_000):
        ids = rng.integers(0, 30_000, size).tolist()
        ties = rng.integers(0, 2, size).tolist()
        check(
            index,
            model,
            [(key * 0x9E3779B9, key, tie, 0, 1, place) for place, (key, tie) in enumerate(zip(ids, ties, strict=True))],
        )
    check(index, model, crowded)
    again = IdentityIndex(WORDS)
    half = len(model.rows) // 2
    again.load(words(model.rows[:half]))
    again.load(words(model.rows[half:]))
    status, earlier = again.admit(words(model.rows))
    assert set(status.tolist()) == {DUPLICATE}
    assert earlier.tolist() == list(range(len(model.rows)))


def test_nothing_admitted_and_nothing_loaded_change_nothing() -> None:
    index = IdentityIndex(WORDS)
    index.load(words([]))
    status, earlier = index.admit(words([]))
    assert (len(index), len(status), len(earlier)) == (0, 0, 0)


@given(st.integers(0, 2**186 - 1))
def test_a_sequence_number_is_three_words_and_back(number: int) -> None:
    assert words_offset(np.array(offset_words(str(number), dense=False), np.uint64)) == str(number)


@pytest.mark.parametrize("offset", [0, 1, 2**53 - 1])
def test_a_dense_offset_is_one_word_and_back(offset: int) -> None:
    assert words_offset(np.array(offset_words(offset, dense=True), np.uint64)) == str(offset)
