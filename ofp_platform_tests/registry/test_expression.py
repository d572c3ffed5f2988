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
