"""Token sets: what is in them, to the last place, and that tokens which are no digests do not make them crawl."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.kernel.native import Int64Array
from ofp_platform.kernel.tokens import find, table_size

ROW = 3


def matrix_of(tokens: list[tuple[int, int]]) -> Int64Array:
    """Rows above and below the token's two halves hold what must not be looked at."""
    noise = list(range(len(tokens)))
    return np.array([noise, noise, noise, [high for high, _ in tokens], [low for _, low in tokens], noise], np.int64)


def filled(tokens: list[tuple[int, int]], size: int) -> tuple[list[int], list[int]]:
    """The place of each token, put in one after the other, and the table in the end."""
    matrix, table = matrix_of(tokens), np.zeros(size, np.uint32)
    places = []
    with np.errstate(over="ignore"):
        for event in range(len(tokens)):
            place = int(find(table, matrix, ROW, event))
            places.append(place)
            if table[place] == 0:
                table[place] = event + 1
        assert [int(find(table, matrix, ROW, event)) for event in range(len(tokens))] == places
    return places, table.tolist()


@pytest.mark.parametrize(("events", "size"), [(0, 16), (1, 16), (8, 16), (9, 32), (16, 32), (17, 64), (1000, 2048), (1024, 2048)])
def test_a_table_has_twice_the_room(events: int, size: int) -> None:
    assert table_size(events) == size


words = st.one_of(st.integers(-2, 2), st.integers(-(2**63), 2**63 - 1))


@given(st.lists(st.tuples(words, words), max_size=40))
def test_equal_tokens_share_a_place_and_others_do_not(tokens: list[tuple[int, int]]) -> None:
    places, table = filled(tokens, table_size(len(tokens)))
    assert len(set(places)) == len(set(tokens))
    for token, place in zip(tokens, places, strict=True):
        assert table[place] == tokens.index(token) + 1  # the first of its kind


@pytest.mark.parametrize("seed", range(10))
def test_the_last_free_place_is_found(seed: int) -> None:
    tokens = [(seed * 1_000 + number, -number) for number in range(16)]
    places, table = filled(tokens, 16)
    assert sorted(places) == list(range(16))
    assert sorted(table) == list(range(1, 17))


@pytest.mark.parametrize(
    "token",
    [
        lambda n: (n, 0),
        lambda n: (0, n),
        lambda n: (n, n),
        lambda n: (n, -n),
        lambda n: (n << 20, 0),
        lambda n: (0, n << 20),
        lambda n: (n << 40, n),
        lambda n: (n, n << 40),
        lambda n: (7, n * 4096),
        lambda n: (-n - 1, -1),
    ],
)
def test_tokens_that_are_no_digests_spread_as_well(token: Callable[[int], tuple[int, int]]) -> None:
    """The longest run of taken places is what a look-up may have to walk."""
    _, table = filled([token(number) for number in range(1000)], 2048)
    longest = max(len(run) for run in "".join("x" if place else " " for place in table).split(" "))
    assert longest <= 48
