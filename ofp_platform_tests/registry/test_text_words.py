"""Texts as words: nothing is lost, nothing is confused, and the order is that of UTF-8."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.registry import text_words
from ofp_platform.registry.text_words import MAX_TEXT_BYTES, TEXT_WORDS, is_long, rank_words, text_of, words_of
from ofp_platform_tests.oracle.strategies import SHOPS

texts = st.lists(st.one_of(st.sampled_from(SHOPS), st.text(max_size=MAX_TEXT_BYTES + 2)), max_size=20)


@given(texts)
def test_short_texts_come_back_in_the_order_of_their_utf_8(values: list[str]) -> None:
    short = [value for value in values if len(value.encode()) <= MAX_TEXT_BYTES]
    words = words_of(short)
    assert words.shape == (TEXT_WORDS, len(short))
    ranks, different = rank_words(words)
    assert [text_of(text) for text in different] == sorted(set(short), key=str.encode)
    assert [text_of(different[rank]) for rank in ranks] == short


@pytest.mark.parametrize(
    ("text", "too_long"),
    [
        ("", False),
        ("s" * 64, False),
        ("s" * 65, True),
        ("é" * 32, False),
        ("é" * 32 + "s", True),
        ("\U0001f600" * 16, False),
        ("\U0001f600" * 17, True),
        ("\0" * 64, False),
        ("\0" * 65, True),
    ],
)
def test_the_limit_is_in_bytes_of_utf_8(text: str, too_long: bool) -> None:
    assert is_long(text) is too_long
    ranks, different = rank_words(words_of([text]))
    assert text_of(different[ranks[0]]) == ("" if too_long else text)


def test_utf_16_would_have_another_order() -> None:
    values = ["\U0001f600", "\uffff"]
    assert sorted(values, key=lambda value: value.encode("utf-16-be")) == values
    assert [text_of(text) for text in rank_words(words_of(values))[1]] == ["\uffff", "\U0001f600"]


@pytest.mark.parametrize("colliding", [False, True])
@given(texts.filter(len))
def test_many_texts_have_the_ranks_of_few(colliding: bool, values: list[str]) -> None:
    words = words_of(values)
    expected_ranks, expected_texts = rank_words(words)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_words, "_MANY", 1)
        patch.setattr(text_words, "_BLOCK", 7)
        if colliding:  # then they are told apart as texts
            patch.setattr(text_words, "_hashes", lambda words: np.zeros(words.shape[1], np.uint64))
        ranks, different = rank_words(words)
    assert ranks.tolist() == expected_ranks.tolist()
    assert different.tolist() == expected_texts.tolist()
    assert ranks.dtype == np.int64


def test_hashes_tell_texts_apart() -> None:
    words = words_of([f"{head}{number}" for head in ("", "shop-", "é" * 20) for number in range(2_000)])
    assert len(np.unique(text_words._hashes(words))) == 6_000
