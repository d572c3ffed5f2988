"""The rule for card numbers: what is one however it is written, what is none, and that the quick looks never miss one."""

from __future__ import annotations

import hashlib
import json
import unicodedata
import uuid
from random import Random
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ofp_platform.vocabulary import raw_identifier
from ofp_platform.vocabulary.canonical import jcs_bytes
from ofp_platform.vocabulary.raw_identifier import (
    holds_raw_identifier,
    is_raw_key,
    json_is_suspect,
    raw_identifier_in,
    redact,
    text_is_suspect,
)

# test numbers that the card schemes publish
CARDS = ["4111111111111111", "5555555555554444", "378282246310005", "4222222222222", "6304000000000000000"]
CARD = CARDS[0]
SEPARATORS = (
    " ", "-", ".", "  ", " - ", "\t", "\n", "\u00a0", "\u2007", "\u2009", "\u202f", "\u3000", "\u200b", "\u2060", "\ufeff",
    "\u00ad", "\u2010", "\u2011", "\u2012", "\u2013", "\u2014", "\u2015", "\u2212", "\ufe58", "\ufe63", "\uff0d", "\u00b7",
    "\u2024", "\uff0e",
)  # fmt: skip
ZEROS = [chr(code) for code in range(0x110000) if unicodedata.decimal(chr(code), None) == 0]


def with_check_digit(digits: list[int]) -> str:
    total = 0
    for position, digit in enumerate(reversed(digits)):
        value = digit * 2 if position % 2 == 0 else digit
        total += value - 9 if value > 9 else value
    return "".join(map(str, digits)) + str(-total % 10)


def grouped(number: str, separator: str) -> str:
    return separator.join(number[start : start + 4] for start in range(0, len(number), 4))


numbers = st.lists(st.integers(0, 9), min_size=12, max_size=18).map(with_check_digit)
# as cards begin, so that a number counts in any text
issued = st.tuples(st.sampled_from("3456"), st.lists(st.integers(0, 9), min_size=11, max_size=17)).map(
    lambda parts: with_check_digit([int(parts[0]), *parts[1]])
)


@pytest.mark.parametrize("number", CARDS)
@pytest.mark.parametrize("separator", ["", *SEPARATORS])
@pytest.mark.parametrize(
    "frame", ["%s", " %s", "%s\n", "\u00a0%s\u00a0", "(%s)", "PAN=%s", "pan:%s;", "see %s!", "card %s 12/27", "\u043a %s"]
)
def test_a_card_number_is_one_however_it_is_written(number: str, separator: str, frame: str) -> None:
    assert holds_raw_identifier(frame % grouped(number, separator))


@pytest.mark.parametrize(
    "text",
    [
        f"%B{CARD}^DOE/JOHN^2712",
        f";{CARD}=2712",
        f"card_{CARD}",
        f"{CARD}EUR",
        f"B{CARD}",
        f"{CARD} {CARD}",
        "0004111111111111111",
        "PAN=0004111111111111111",
        "4111/1111/1111/1111",
        "x_4111_1111_1111_1111_x",
        "3782 822463 10005",
        "amex: 3782-822463-10005",
        "3056 930902 5904",
        "old visa 4222 222 222 222",
        "41 11 11 11 11 11 11 11",
        " ".join(CARD),
        "622848 0402564890018",
        "411111-1111111111",
    ],
)
def test_forms_of_a_card_number(text: str) -> None:
    assert holds_raw_identifier(text)


@pytest.mark.parametrize("zero", ZEROS)
def test_digits_of_every_script_count(zero: str) -> None:
    assert holds_raw_identifier("".join(chr(ord(zero) + int(digit)) for digit in CARD))
    assert holds_raw_identifier("PAN " + grouped("".join(chr(ord(zero) + int(digit)) for digit in CARD), "\u2011"))


@given(numbers, st.integers(1, 9))
def test_only_the_right_check_digit_is_raw(number: str, error: int) -> None:
    assert holds_raw_identifier(number)
    assert not holds_raw_identifier(number[:-1] + str((int(number[-1]) + error) % 10))


@given(numbers, st.lists(st.sampled_from(["", *SEPARATORS]), min_size=18, max_size=18))
def test_a_whole_text_may_have_any_separators(number: str, separators: list[str]) -> None:
    text = "".join(digit + separator for digit, separator in zip(number, [*separators, ""], strict=False))
    written_as_another = text.count(".") == 1 or text.startswith(("19", "20", "0", "1", "2", "3"))  # a decimal, a date
    assert holds_raw_identifier(text) or written_as_another


@given(st.lists(st.integers(0, 9), min_size=0, max_size=40))
def test_length_decides_first(digits: list[int]) -> None:
    number = with_check_digit(digits)
    assume(len(number) <= 19 or number[0] != "0")  # of what is longer, zeros in front are dropped
    assert holds_raw_identifier(number) == (13 <= len(number) <= 19)


def test_zeros_in_front_of_a_longer_number_are_dropped() -> None:
    assert holds_raw_identifier("00000001000000000009")
    assert not holds_raw_identifier("10000001000000000009")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "4111111111111112",
        "4111 1111 1111 1112",
        "e_account_7c31d9",
        "customer-0000123",
        "run_20260103T110000Z_0001",
        "2026-01-03T12:40:00.123456Z",
        "2026-01-03 12:40:00.123456",
        "41111111111111111111",
        f"{CARD}{CARD}",
        "1234567.890128",
        "-123456789012.32",
        "in 2019 2020 2021 2023",
        "payment-0000000000018",
        "4111a1111b1111c1111",
    ],
)
def test_what_is_no_card_number(text: str) -> None:
    assert not holds_raw_identifier(text)


def test_names_and_times_are_not_taken_for_card_numbers() -> None:
    random = Random(7)
    moments = [1_420_070_400_000_000 + random.randrange(500_000_000_000_000) for _ in range(2_000)]
    names = [
        *(hashlib.sha256(b"%d" % number).hexdigest() for number in range(2_000)),
        *(hashlib.sha256(b"%d" % number).hexdigest()[:24] for number in range(2_000)),
        *(str(uuid.UUID(int=random.getrandbits(128), version=4)) for _ in range(2_000)),
        *(f"live-{moment}-{number:07d}" for number, moment in enumerate(moments)),
        *(f"at {moment // 1000} ms" for moment in moments),
        *(f"{moment * 1000}ns" for moment in moments),
        *(f"account-{number:016d}" for number in range(2_000)),
        *(f"2026-01-{1 + number % 28:02d} {number % 24:02d}{number % 60:02d}{number % 60:02d}" for number in range(2_000)),
        *(f"{1 + number % 28:02d}.01.2026 {number % 24:02d}.{number % 60:02d}.30" for number in range(2_000)),
        *(f"20260103-{number:06d}" for number in range(2_000)),
        *(f"{number}.{number % 1000000:06d}" for number in range(1_000_000, 1_002_000)),
    ]
    assert [name for name in names if holds_raw_identifier(name)] == []


_TEXT = st.lists(
    st.sampled_from(["4111", "1111", "1", "x", "_", "/", '"', "\\", "\x00", "\x1f", "\x7f", "\u00e9", "\uff11", *SEPARATORS])
).map("".join)
_ANY_TEXT = _TEXT | st.text(st.characters(exclude_categories=["Cs"])) | issued | st.tuples(_TEXT, issued, _TEXT).map("".join)


@given(st.lists(_ANY_TEXT, max_size=4))
def test_the_quick_looks_miss_nothing(texts: list[str]) -> None:
    held = any(map(holds_raw_identifier, texts))
    assert text_is_suspect("x".join(texts)) or not held
    assert json_is_suspect(b"x".join(map(jcs_bytes, texts))) or not held
    assert json_is_suspect(jcs_bytes(dict.fromkeys(texts, 1))) or not held


@given(_ANY_TEXT)
def test_what_is_blotted_out_holds_none(text: str) -> None:
    assert holds_raw_identifier(redact(text)) is False
    assert redact(text) == text or holds_raw_identifier(text)


@given(st.tuples(st.sampled_from(["PAN=", "pan ", "<", "card-"]), issued, st.sampled_from(["", " ", ";", "EUR"])))
def test_a_number_as_cards_have_them_is_found_in_any_text(parts: tuple[str, str, str]) -> None:
    before, number, after = parts
    assert holds_raw_identifier(before + number + after)
    assert redact(before + number + after) == f"{before}<raw identifier>{after}"
    assert holds_raw_identifier(before + grouped(number, "\u2011") + after)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"a": [{"b": f"see {CARD}"}]}, "payload.a[0].b"),
        ({"a": {grouped(CARD, "."): 1}}, "payload.a.<key>"),
        ({"a": int(CARD)}, None),
        ({"pan": "4111111111111111"}, "payload.pan"),
        ({"a": [{"b": "x"}, {"b": "4111 1111 1111 1111"}]}, "payload.a[1].b"),
        ({"a": {"4111111111111111": 1}}, "payload.a.<key>"),
        ({"first": "4111111111111111", "second": "5555555555554444"}, "payload.first"),
        ({"a": [["5555-5555-5555-4444"]], "b": "4111111111111111"}, "payload.a[0][0]"),
        ({"a": "card_1", "b": [1, None, True, 2.5]}, None),
        ({}, None),
    ],
)
def test_the_path_of_a_card_number(value: Any, path: str | None) -> None:
    assert raw_identifier_in(value) == path


def test_what_is_remembered_as_harmless_is_never_a_card_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(raw_identifier, "_harmless_texts", remembered_texts := set[str]())
    monkeypatch.setattr(raw_identifier, "_MOST_REMEMBERED", 3)
    texts = [CARD, f"see {CARD}", "1" * 64, "2" * 64, "3" * 64, "4" * 64, "5" * 200, "a card"]
    first_answers = [holds_raw_identifier(text) for text in texts]
    assert first_answers == [holds_raw_identifier(text) for text in texts] == [True, True, *[False] * 6]
    assert 0 < len(remembered_texts) <= 3
    assert remembered_texts <= {character * 64 for character in "1234"}


def test_raw_identifiers_are_found_at_any_depth() -> None:
    value: Any = CARD
    for _ in range(20_000):
        value = [value]
    assert raw_identifier_in(value) == "payload" + "[0]" * 20_000
    assert raw_identifier_in(json.loads('{"a":{"b":["c"]}}')) is None


@pytest.mark.parametrize(
    "text",
    [
        CARD,
        "card-4111111111111111",
        "someone@example.com",
        "mailto:some.one+tag@mail.example.co",
        "192.168.0.17",
        "10.0.0.1:8080",
        "10.0.0.0/8",
        "::1",
        "2001:db8::8a2e:370:7334",
        "[2001:db8::1]:443",
        "2001:db8::/32",
        "::ffff:192.0.2.128",
        "DE89370400440532013000",
        "gb82west12345698765432",
        "GB82-WEST-1234-5698-7654-32",
        hashlib.md5(b"device").hexdigest(),
        hashlib.sha1(b"device").hexdigest(),
        hashlib.sha256(b"device").hexdigest(),
        hashlib.sha256(b"device").hexdigest().upper(),
        ":".join(hashlib.md5(b"device").hexdigest()[at : at + 2] for at in range(0, 32, 2)),
    ],
)
def test_observed_identifiers_are_no_keys(text: str) -> None:
    assert is_raw_key(text)


@pytest.mark.parametrize(
    "text",
    [
        "e_account_7c31d9",
        "account-0000001",
        "terminal-0000042",
        "acc@home",
        "a:b",
        "a:b:c",
        "v1.2.3.4",
        "1.2.3.4.5",
        "256.1.1.1",
        "DE89370400440532013001",
        f"e_device_{hashlib.sha256(b'device').hexdigest()}",
        "3f2504e0-4f89-41d3-9a0c-0305e82c3301",
        "a" * 128,
        "~",
        '"\\',
    ],
)
def test_entity_ids_are_keys(text: str) -> None:
    assert not is_raw_key(text)
