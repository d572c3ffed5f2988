from decimal import ROUND_HALF_EVEN, Decimal, localcontext
from fractions import Fraction

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from ofp_platform.vocabulary.decimals import divide_half_even, format_decimal, parse_decimal, sqrt_ratio_half_even

wide = st.integers(-(2**130), 2**130)
scales = st.integers(0, 12)


@given(wide, wide)
@example(1, 2)
@example(3, 2)
@example(-1, 2)
@example(-3, 2)
@example(5, -10)
def test_division_is_that_of_fractions(numerator: int, denominator: int) -> None:
    assume(denominator)
    assert divide_half_even(numerator, denominator) == round(Fraction(numerator, denominator))


@given(st.integers(-1000, 1000), st.integers(1, 1000))
def test_ties_go_to_the_even_neighbour(half_units: int, factor: int) -> None:
    assert divide_half_even((2 * half_units + 1) * factor, 2 * factor) % 2 == 0


def test_division_by_zero() -> None:
    with pytest.raises(ZeroDivisionError):
        divide_half_even(1, 0)


@given(st.integers(0, 2**140), st.integers(1, 2**70), st.integers(0, 8))
@example(2**140, 1, 8)
@example(1, 2, 0)  # exactly one half: to 0
@example(9, 2, 0)  # one and a half: to 2
@example(25, 2, 0)  # two and a half: to 2
def test_square_roots_are_those_of_long_decimals(numerator: int, denominator: int, scale: int) -> None:
    with localcontext(prec=400):
        exact = Decimal(numerator).sqrt() / denominator
        expected = exact.scaleb(scale).to_integral_value(rounding=ROUND_HALF_EVEN)
    assert sqrt_ratio_half_even(numerator, denominator, scale) == int(expected)


@pytest.mark.parametrize(("numerator", "denominator"), [(-1, 1), (1, 0), (1, -1)])
def test_square_roots_outside_their_domain(numerator: int, denominator: int) -> None:
    with pytest.raises(ValueError, match="the numerator must be >= 0 and the denominator > 0"):
        sqrt_ratio_half_even(numerator, denominator, 6)


@given(wide, scales)
def test_text_round_trip(unscaled: int, scale: int) -> None:
    text = format_decimal(unscaled, scale)
    assert parse_decimal(text, scale) == unscaled
    assert Fraction(text) == Fraction(unscaled, 10**scale)


@given(st.from_regex(r"[-+0-9.e ]{1,12}", fullmatch=True), scales)
def test_what_parses_is_the_canonical_text(text: str, scale: int) -> None:
    try:
        unscaled = parse_decimal(text, scale)
    except ValueError:
        return
    assert format_decimal(unscaled, scale) == text


@pytest.mark.parametrize(
    ("unscaled", "scale", "text"),
    [(12_345_600, 6, "12.345600"), (0, 6, "0.000000"), (-1, 2, "-0.01"), (5, 0, "5"), (-50, 1, "-5.0"), (0, 0, "0")],
)
def test_texts(unscaled: int, scale: int, text: str) -> None:
    assert format_decimal(unscaled, scale) == text
    assert parse_decimal(text, scale) == unscaled


@pytest.mark.parametrize(
    ("text", "scale"),
    [
        ("", 0),
        ("-", 0),
        ("1.", 0),
        ("1.0", 0),
        ("1", 1),
        (".5", 1),
        ("1.00", 1),
        ("--1.0", 1),
        ("+1.0", 1),
        ("01.0", 1),
        ("-0.0", 1),
        ("1e5", 0),
        ("1_0", 0),
        (" 1", 0),
        ("1\n", 0),
        ("١.٠", 1),
        ("NaN", 0),
    ],
)
def test_no_decimals_of_that_scale(text: str, scale: int) -> None:
    with pytest.raises(ValueError):
        parse_decimal(text, scale)
