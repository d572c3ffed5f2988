"""JSON from outside: what a parser would drop or round is refused, everything else is read as it is, however it is written."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.vocabulary.json_text import NotIJson, NotJson, read_json

NAMES = st.sampled_from(["a", "b", "a:b", '":', "\\", "é", "\u2028", ""]) | st.text(
    st.characters(exclude_categories=["Cs"]), max_size=4
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | NAMES
    | st.just("12:40:00Z")
)
VALUES = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3), max_leaves=8)
SEPARATORS = st.sampled_from([(",", ":"), (", ", ": "), (" , ", " : "), ("\n,", "\t:\r\n")])
_DOUBLED = "doubled, by whatever name stands here"


def written(value: Any, separators: tuple[str, str], ensure_ascii: bool) -> str:
    return json.dumps(value, separators=separators, ensure_ascii=ensure_ascii)


@given(VALUES, SEPARATORS, st.booleans())
def test_a_text_without_fault_is_its_value(value: Any, separators: tuple[str, str], ensure_ascii: bool) -> None:
    assert repr(read_json(written(value, separators, ensure_ascii).encode())) == repr(value)


@given(st.dictionaries(NAMES, VALUES, min_size=1, max_size=3), st.data(), SEPARATORS, st.booleans(), st.integers(0, 3))
def test_a_doubled_name_is_found_at_any_depth(
    members: dict[str, Any], data: st.DataObject, separators: tuple[str, str], ensure_ascii: bool, depth: int
) -> None:
    name = data.draw(st.sampled_from(sorted(members)))
    value: Any = {**members, _DOUBLED: data.draw(VALUES)}
    for _ in range(depth):
        value = data.draw(st.sampled_from([[value], {"outer": value, "x": "12:40"}, [1, value, {}]]))
    spelt = data.draw(st.sampled_from([json.dumps(name), json.dumps(name, ensure_ascii=False), escaped(name)]))
    text = written(value, separators, ensure_ascii).replace(json.dumps(_DOUBLED), spelt)
    with pytest.raises(NotIJson, match="stands twice in one object"):
        read_json(text.encode())


def escaped(text: str) -> str:
    """The text as JSON, each UTF-16 unit an escape."""
    units = text.encode("utf-16-be")
    return '"' + "".join(f"\\u{units[at]:02x}{units[at + 1]:02x}" for at in range(0, len(units), 2)) + '"'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b'{"a":1,"a":1}', "the name a stands twice in one object"),
        (b'{"a":1,"\\u0061":2}', "the name a stands twice in one object"),
        (b'[[{"x":{"b" : [], "b":{}}}]]', "the name b stands twice in one object"),
        (b'{"4111111111111111":1,"4111111111111111":2}', "a name that is not shown stands twice"),
        (b'{"t":"12:40","t":"12"}', "the name t stands twice"),
        (b'{"":1,"":2}', "stands twice"),
        (b'{"a":NaN}', "NaN is no number of JSON"),
        (b"[-Infinity]", "-Infinity is no number of JSON"),
        (b"[Infinity]", "Infinity is no number of JSON"),
        (b"1e400", "greater than the greatest double"),
        (b'"\\ud800"', "lone surrogate"),
        (b'{"\\udc00":1}', "lone surrogate"),
        (b'["\\udc00\\ud800"]', "lone surrogate"),
        (b"[" * 5_000 + b"]" * 5_000, "nested too deeply"),
        (b"9" * 10_000, "an integer beyond"),
    ],
)
def test_json_of_which_parsers_make_different_things(text: bytes, words: str) -> None:
    with pytest.raises(NotIJson, match=words) as caught:
        read_json(text)
    assert "4111" not in str(caught.value)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b"{}{}", "not JSON"),
        (b"{'a':1}", "not JSON"),
        (b'"a\nb"', "not JSON"),
        (b"\xff", "not UTF-8 text"),
        (b'"\xed\xa0\x80"', "not UTF-8 text"),
        (b"\xef\xbb\xbf{}", "begins with a byte order mark"),
    ],
)
def test_what_is_no_json(text: bytes, what: str) -> None:
    with pytest.raises(NotJson, match=what) as caught:
        read_json(text)
    assert caught.value.what == what


@pytest.mark.parametrize("integer", [2**53, 2**63, 2**64, 2**64 + 1, -(2**64), 10**30])
def test_integers_are_never_rounded(integer: int) -> None:
    value = read_json(b'{"x": %d}' % integer)["x"]
    assert (type(value), value) == (int, integer)


def test_a_surrogate_pair_is_a_character() -> None:
    assert read_json(b'"\\ud83d\\ude00"') == "\U0001f600"
    assert read_json(orjson.dumps({"x": '":'})) == {"x": '":'}
