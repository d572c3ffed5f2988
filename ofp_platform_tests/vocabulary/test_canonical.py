"""The two encoders against each other, and the second against the public vectors of RFC 8785."""

import json
import struct
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.vocabulary.canonical import MAX_DEPTH, MAX_INTEGER, canonical_bytes, digest_of, jcs_bytes, sha256_hex

# RFC 8785, appendix B: the bits of a double and its canonical text
NUMBERS = [
    ("0000000000000000", "0"),
    ("8000000000000000", "0"),
    ("0000000000000001", "5e-324"),
    ("8000000000000001", "-5e-324"),
    ("7fefffffffffffff", "1.7976931348623157e+308"),
    ("ffefffffffffffff", "-1.7976931348623157e+308"),
    ("4340000000000000", "9007199254740992"),
    ("c340000000000000", "-9007199254740992"),
    ("4430000000000000", "295147905179352830000"),
    ("44b52d02c7e14af5", "9.999999999999997e+22"),
    ("44b52d02c7e14af6", "1e+23"),
    ("44b52d02c7e14af7", "1.0000000000000001e+23"),
    ("444b1ae4d6e2ef4e", "999999999999999700000"),
    ("444b1ae4d6e2ef4f", "999999999999999900000"),
    ("444b1ae4d6e2ef50", "1e+21"),
    ("3eb0c6f7a0b5ed8c", "9.999999999999997e-7"),
    ("3eb0c6f7a0b5ed8d", "0.000001"),
    ("41b3de4355555553", "333333333.3333332"),
    ("41b3de4355555554", "333333333.33333325"),
    ("41b3de4355555555", "333333333.3333333"),
    ("41b3de4355555556", "333333333.3333334"),
    ("41b3de4355555557", "333333333.33333343"),
    ("becbf647612f3696", "-0.0000033333333333333333"),
    ("43143ff3c1cb0959", "1424953923781206.2"),
]

# RFC 8785, section 3.2.2 and, as bytes, 3.2.4
SAMPLE = r"""{
  "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
  "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
  "literals": [null, true, false]
}"""
SAMPLE_BYTES = bytes.fromhex(
    "7b 22 6c 69 74 65 72 61 6c 73 22 3a 5b 6e 75 6c 6c 2c 74 72"
    "75 65 2c 66 61 6c 73 65 5d 2c 22 6e 75 6d 62 65 72 73 22 3a"
    "5b 33 33 33 33 33 33 33 33 33 2e 33 33 33 33 33 33 33 2c 31"
    "65 2b 33 30 2c 34 2e 35 2c 30 2e 30 30 32 2c 31 65 2d 32 37"
    "5d 2c 22 73 74 72 69 6e 67 22 3a 22 e2 82 ac 24 5c 75 30 30"
    "30 66 5c 6e 41 27 42 5c 22 5c 5c 5c 5c 5c 22 2f 22 7d"
)

# RFC 8785, section 3.2.3: sorted by UTF-16 code units, where an emoji (a surrogate pair) stands before U+FB33
SORTING = r"""{
  "\u20ac": "Euro Sign",
  "\r": "Carriage Return",
  "\ufb33": "Hebrew Letter Dalet With Dagesh",
  "1": "One",
  "\ud83d\ude00": "Emoji: Grinning Face",
  "\u0080": "Control",
  "\u00f6": "Latin Small Letter O With Diaeresis"
}"""
SORTED = [
    "Carriage Return",
    "One",
    "Control",
    "Latin Small Letter O With Diaeresis",
    "Euro Sign",
    "Emoji: Grinning Face",
    "Hebrew Letter Dalet With Dagesh",
]

# the published test files of the RFC's authors
FILES = [
    (
        '[56, {"d": true, "10": null, "1": []}]',
        '[56,{"1":[],"10":null,"d":true}]',
    ),
    (
        '{"1": {"f": {"f": "hi", "F": 5}, "\\n": 56.0}, "10": {}, "": "empty", "a": {}, '
        '"111": [{"e": "yes", "E": "no"}], "A": {}}',
        '{"":"empty","1":{"\\n":56,"f":{"F":5,"f":"hi"}},"10":{},"111":[{"E":"no","e":"yes"}],"A":{},"a":{}}',
    ),
    (
        '{"peach": "This sorting order", "p\\u00e9ch\\u00e9": "is wrong according to French", '
        '"p\\u00eache": "but canonicalization MUST", "sin": "ignore locale"}',
        '{"peach":"This sorting order","p\u00e9ch\u00e9":"is wrong according to French",'
        '"p\u00eache":"but canonicalization MUST","sin":"ignore locale"}',
    ),
    ('{"Unnormalized Unicode": "A\\u030a"}', '{"Unnormalized Unicode":"A\u030a"}'),
    (
        '{"\\u20ac": "Euro Sign", "1": "One", "\\u0080": "Control\\u007f", "\\ud83d\\ude02": "Smiley", '
        '"\\u00f6": "Latin Small Letter O With Diaeresis", "\\ufb33": "Hebrew Letter Dalet With Dagesh", '
        '"</script>": "Browser Challenge"}',
        '{"1":"One","</script>":"Browser Challenge","\u0080":"Control\u007f",'
        '"\u00f6":"Latin Small Letter O With Diaeresis","\u20ac":"Euro Sign","\U0001f602":"Smiley",'
        '"\ufb33":"Hebrew Letter Dalet With Dagesh"}',
    ),
]

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
integers = st.integers(-MAX_INTEGER, MAX_INTEGER)
ascii_keys = st.text(st.characters(max_codepoint=127), max_size=8)


def trees(keys: st.SearchStrategy[str], leaves: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.recursive(leaves, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=4))


@pytest.mark.parametrize(("bits", "expected"), NUMBERS)
def test_numbers_of_appendix_b(bits: str, expected: str) -> None:
    (number,) = struct.unpack(">d", bytes.fromhex(bits))
    assert jcs_bytes(number) == expected.encode()


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0.5, "0.5"),
        (-0.25, "-0.25"),
        (0.05, "0.05"),
        (12.5, "12.5"),
        (10.0, "10"),
        (1e-6, "0.000001"),
        (1.5e-6, "0.0000015"),
        (1e-7, "1e-7"),
        (1.5e-7, "1.5e-7"),
        (1.25e-7, "1.25e-7"),
        (1e20, "100000000000000000000"),
        (120000000000000000000.0, "120000000000000000000"),
        (123456789012345680000.0, "123456789012345680000"),
        (1e21, "1e+21"),
        (1.5e300, "1.5e+300"),
    ],
)
def test_where_the_point_and_the_exponent_begin(number: float, expected: str) -> None:
    assert jcs_bytes(number) == expected.encode()


@pytest.mark.parametrize("bits", ["7fffffffffffffff", "7ff0000000000000", "fff0000000000000"])
def test_what_appendix_b_forbids(bits: str) -> None:
    (number,) = struct.unpack(">d", bytes.fromhex(bits))
    with pytest.raises(ValueError, match="not I-JSON"):
        jcs_bytes([number])


def test_sample_object_of_section_3_2() -> None:
    assert jcs_bytes(json.loads(SAMPLE)) == SAMPLE_BYTES


def test_property_sorting_of_section_3_2_3() -> None:
    assert list(json.loads(jcs_bytes(json.loads(SORTING))).values()) == SORTED


@pytest.mark.parametrize(("source", "expected"), FILES)
def test_published_test_files(source: str, expected: str) -> None:
    assert jcs_bytes(json.loads(source)) == expected.encode()


@given(trees(ascii_keys, st.none() | st.booleans() | integers | text))
def test_the_encoders_agree_inside_the_profile(value: Any) -> None:
    assert canonical_bytes(value) == jcs_bytes(value)


@given(trees(text, st.none() | st.booleans() | integers | text | st.floats(allow_nan=False, allow_infinity=False)))
def test_canonical_bytes_are_a_fixed_point_and_lose_nothing(value: Any) -> None:
    data = jcs_bytes(value)
    # an integral double beyond 2^53 comes back as an integer: so the parser reads every number as a double
    parsed = json.loads(data, parse_int=float)
    assert parsed == value
    assert jcs_bytes(parsed) == data


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_number_reads_back_as_the_same_double(number: float) -> None:
    assert float(jcs_bytes(number)) == number


@given(st.dictionaries(text, integers, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_insertion_does_not_matter(value: dict[str, int], random: Any) -> None:
    items = list(value.items())
    random.shuffle(items)
    assert jcs_bytes(dict(items)) == jcs_bytes(value)


@pytest.mark.parametrize("sign", [1, -1])
def test_integers_end_at_2_53(sign: int) -> None:
    assert MAX_INTEGER == 9_007_199_254_740_991
    assert canonical_bytes(sign * MAX_INTEGER) == jcs_bytes(sign * MAX_INTEGER) == str(sign * MAX_INTEGER).encode()
    with pytest.raises(TypeError):
        canonical_bytes({"n": sign * (MAX_INTEGER + 1)})
    with pytest.raises(ValueError, match="send it as a string"):
        jcs_bytes({"n": sign * (MAX_INTEGER + 1)})


@pytest.mark.parametrize("value", [{"a": {1, 2}}, b"bytes", datetime(2026, 1, 1, tzinfo=UTC), {1: "integer key"}])
def test_types_that_json_does_not_have(value: Any) -> None:
    with pytest.raises(TypeError):
        canonical_bytes(value)
    with pytest.raises(TypeError):
        jcs_bytes(value)


@pytest.mark.parametrize("value", ["\ud800", {"\udfff": 1}, ["a", {"b": "\ude00\ud83d"}]])
def test_lone_surrogates_are_refused(value: Any) -> None:
    with pytest.raises(ValueError, match="surrogate"):
        jcs_bytes(value)


def test_depth_is_bounded_by_a_refusal_not_by_the_interpreter() -> None:
    def nested(levels: int) -> Any:
        value: Any = 0
        for _ in range(levels):
            value = [value]
        return value

    assert jcs_bytes(nested(MAX_DEPTH)) == b"[" * MAX_DEPTH + b"0" + b"]" * MAX_DEPTH
    for levels in (MAX_DEPTH + 1, 50_000):
        with pytest.raises(ValueError, match="nested"):
            jcs_bytes(nested(levels))


def test_objects_count_as_levels_too() -> None:
    def nested(levels: int) -> Any:
        value: Any = 0
        for _ in range(levels):
            value = {"a": value}
        return value

    assert json.loads(jcs_bytes(nested(MAX_DEPTH))) == nested(MAX_DEPTH)
    with pytest.raises(ValueError, match="nested more than 128 levels"):
        jcs_bytes(nested(MAX_DEPTH + 1))
    with pytest.raises(ValueError, match="nested"):
        jcs_bytes([nested(MAX_DEPTH)])


def test_digests() -> None:
    assert sha256_hex(b"") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    assert digest_of({"b": 1, "a": [2]}) == sha256_hex(b'{"a":[2],"b":1}')
