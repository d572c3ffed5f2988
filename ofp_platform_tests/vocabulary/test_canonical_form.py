"""Filled forms are the canonical text of the object with the values in their places."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.vocabulary.canonical import canonical_bytes
from ofp_platform.vocabulary.canonical_form import form, placeholder

SIMPLE = st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(SIMPLE, lambda inner: st.lists(inner) | st.dictionaries(st.text("abc%\0", max_size=3), inner))


@given(fixed=VALUES, first=VALUES, second=VALUES)
def test_a_filled_form_is_the_canonical_text(fixed: Any, first: Any, second: Any) -> None:
    texts = [canonical_bytes(value).decode() for value in (first, second)]
    opened = form(
        {"b": placeholder("one"), "a": fixed, "c%s": [placeholder("two"), {"%": placeholder("one")}]}, "one", "two", "one"
    )
    whole = {"b": first, "a": fixed, "c%s": [second, {"%": first}]}
    assert (opened % (*texts, texts[0])).encode() == canonical_bytes(whole)


def test_places_are_named_in_the_order_of_the_text() -> None:
    with pytest.raises(ValueError, match=r"\['a', 'b'\]"):
        form({"b": placeholder("b"), "a": placeholder("a")}, "b", "a")
    with pytest.raises(ValueError, match=r"not \['b'\]"):
        form({"a": placeholder("a")}, "b")
    with pytest.raises(ValueError, match=r"places \['b'\]"):
        form({"a": placeholder("b")}, "a")
