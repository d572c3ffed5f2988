"""The language of on-demand features has these forms and no others."""

from __future__ import annotations

from fractions import Fraction

import pytest

from ofp_platform.registry.expression import (
    Constant,
    ExpressionError,
    FeatureValue,
    Negation,
    Operation,
    RequestValue,
    canonical_expression,
    names_in,
    parse_expression,
)


def test_the_tree() -> None:
    tree = parse_expression(" -(mean_30d + 0.1) * request.amount / 100 ")
    inner = Negation(Operation("+", FeatureValue("mean_30d"), Constant(Fraction(1, 10))))
    assert tree == Operation("/", Operation("*", inner, RequestValue("amount")), Constant(Fraction(100)))
    assert names_in(tree) == ({"mean_30d"}, {"amount"})


def test_a_decimal_literal_is_exact() -> None:
    assert parse_expression("0.1000000000000000055511151231257827") != parse_expression("0.1")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a +",
        "a b",
        "1e5",
        "0x10",
        "1_000",
        "1j",
        "1if a else 2",
        "True",
        "'a'",
        "+a",
        "a ** 2",
        "a // 2",
        "a % 2",
        "a.b",
        "request.a.b",
        "f(a)",
        "a[0]",
        "a < b",
        "a and b",
        "lambda: a",
        "(a, b)",
        "[a]",
        "a := 1",
        "a if b else c",
        "a # b",
        "é",
        "1" * 501,
        "(" * 240 + "a" + ")" * 240,
    ],
)
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        parse_expression(text)


@pytest.mark.parametrize(
    ("texts", "canonical"),
    [
        (["a / b", "a/b", "(a / b)", "((a))/(b)", "-a / -b", "-(-a)/b", " a\t/ b "], "a/b"),
        (["a + b", "b + a", "b - -a", "-(-a - b)"], "a+b"),
        (["b - a", "-a + b", "-(a - b)"], "b-a"),
        (["a + b + c", "a + (b + c)", "c + (b + a)"], "a+b+c"),
        (["a * b * c", "c * (b * a)"], "a*b*c"),
        (["a / b / c", "a / (b * c)", "a / c / b"], "a/b/c"),
        (["a * (b - c)", "(b - c) * a", "-a * (c - b)"], "(b-c)*a"),
        (["a * (c - b)", "-a * (b - c)"], "-(b-c)*a"),
        (["a / (b / c)", "a/((b)/c)"], "a/(b/c)"),
        (["a * c / b", "a / b * c"], "a*c/b"),
        (["1.0 * a", "1.00*a", "1*a"], "1*a"),
        (["0.50 + request.x", "request.x+0.5"], "0.5+request.x"),
        (["-0", "-0.0"], "-0"),
        (["a - a"], "a-a"),
        (["2 * 3"], "2*3"),
    ],
)
def test_one_text_for_one_meaning(texts: list[str], canonical: str) -> None:
    assert {canonical_expression(text) for text in texts} == {canonical}
    assert canonical_expression(canonical) == canonical


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("a - b", "b - a"),
        ("a / b", "b / a"),
        ("a / (b / c)", "a * c / b"),  # null and 0, where c is 0
        ("a / (b / c)", "a / b / c"),
        ("a - (b - c)", "a - b - c"),
        ("a * (b + c)", "a * b + c"),
        ("a", "request.a"),
        ("a - a", "0"),
        ("0.1", "0.10000000000000001"),
        ("a / (b + c)", "a / b + c"),
        ("a / 0", "0"),
    ],
)
def test_another_meaning_is_another_text(one: str, other: str) -> None:
    assert canonical_expression(one) != canonical_expression(other)
