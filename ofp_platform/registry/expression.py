"""The little language of on-demand features: names, request.<field>, literals, + - * /, unary minus, parentheses."""

from __future__ import annotations

import ast
import re
import threading
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import lru_cache
from itertools import count
from typing import Literal

from ofp_platform.vocabulary.decimals import format_decimal

MAX_EXPRESSION_CHARACTERS = 500
_CHARACTERS = re.compile(r"[A-Za-z0-9_.+\-*/() \t\n]*", re.ASCII)
_PARSING = threading.RLock()  # CPython 3.11 counts the depth of a parse for all threads at once
_NUMBER_RUNS_INTO_NAME = re.compile(r"(?<![A-Za-z0-9_])[0-9][0-9.]*[A-Za-z_]", re.ASCII)
_LITERAL = re.compile(r"[0-9]+(?:\.[0-9]+)?", re.ASCII)
_ALLOWED = "an expression has features of its group, request.<field>, literals, + - * / and ( )"
_Operator = Literal["+", "-", "*", "/"]
_OPERATORS: dict[type[ast.operator], _Operator] = {ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.Div: "/"}


class ExpressionError(ValueError):
    """An expression that the language does not have; the text says what is wrong and what may be written."""


@dataclass(frozen=True)
class Constant:
    """An integer or decimal literal, exact."""

    value: Fraction


@dataclass(frozen=True)
class FeatureValue:
    """The value of a windowed feature of the same group."""

    name: str


@dataclass(frozen=True)
class RequestValue:
    """A field of the request context."""

    name: str


@dataclass(frozen=True)
class Negation:
    """Unary minus."""

    operand: Expression


@dataclass(frozen=True)
class Operation:
    """One of the four operations."""

    operator: _Operator
    left: Expression
    right: Expression


Expression = Constant | FeatureValue | RequestValue | Negation | Operation


@lru_cache(maxsize=4096)
def parse_expression(text: str) -> Expression:
    """The tree of an expression.

    Raises:
        ExpressionError: the text uses anything beyond the language.
    """
    if len(text) > MAX_EXPRESSION_CHARACTERS:
        raise ExpressionError(f"longer than {MAX_EXPRESSION_CHARACTERS} characters")
    if _CHARACTERS.fullmatch(text) is None:
        raise ExpressionError(f"a character that expressions do not have; {_ALLOWED}")
    if _NUMBER_RUNS_INTO_NAME.search(text):
        raise ExpressionError("only integer and decimal literals such as 100 or 0.25 are allowed")
    source = text.strip()
    try:
        with _PARSING:
            tree = ast.parse(source, mode="eval")
        return _convert(tree.body, source)
    except SyntaxError as error:
        raise ExpressionError(f"not an expression: {error.msg}") from None
    except ExpressionError:
        raise
    except (ValueError, MemoryError, RecursionError):
        raise ExpressionError("not an expression") from None


def _convert(node: ast.expr, text: str) -> Expression:
    match node:
        case ast.Constant():
            literal = ast.get_source_segment(text, node) or ""
            if _LITERAL.fullmatch(literal) is None:
                raise ExpressionError("only integer and decimal literals such as 100 or 0.25 are allowed")
            return Constant(Fraction(literal))
        case ast.Name(id=name):
            return FeatureValue(name)
        case ast.Attribute(value=ast.Name(id="request"), attr=name):
            return RequestValue(name)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return Negation(_convert(operand, text))
        case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
            return Operation(_OPERATORS[type(operator)], _convert(left, text), _convert(right, text))
    raise ExpressionError(f"{_describe(node)} is not allowed; {_ALLOWED}")


def _describe(node: ast.expr) -> str:
    if isinstance(node, (ast.BinOp, ast.UnaryOp)):
        return f"the operator {type(node.op).__name__}"
    return {"Call": "a call", "Attribute": "an attribute", "Compare": "a comparison", "Subscript": "an index"}.get(
        type(node).__name__, f"{type(node).__name__}"
    )


def names_in(expression: Expression) -> tuple[frozenset[str], frozenset[str]]:
    """The features and the request fields that an expression reads."""
    match expression:
        case FeatureValue(name):
            return frozenset({name}), frozenset()
        case RequestValue(name):
            return frozenset(), frozenset({name})
        case Negation(operand):
            return names_in(operand)
        case Operation(_, left, right):
            first, second = names_in(left), names_in(right)
            return first[0] | second[0], first[1] | second[1]
        case Constant():
            return frozenset(), frozenset()


@dataclass(frozen=True)
class _Term:
    """A product: its sign, the texts of its factors and of its divisors.

    `is_own_negative`: one of them is a sum like `a-a`, the same with other signs; then so is the product, and its sign is 1.
    """

    sign: int
    factors: tuple[str, ...]
    divisors: tuple[str, ...] = ()
    is_own_negative: bool = False

    @property
    def text(self) -> str:
        """Without the sign: factors and divisors in the order of their texts."""
        return "*".join(sorted(self.factors)) + "".join(f"/{divisor}" for divisor in sorted(self.divisors))


def canonical_expression(text: str) -> str:
    """One text for all expressions that differ in blanks, parentheses, the writing of numbers, signs, or the order and grouping
    of sums, products and divisions. It means what they mean: arithmetic is exact, and null spreads from any part to the whole.

    Nothing is computed: `2*3` is not `6`, `a-a` is not `0`, and a quotient by a quotient stays one, for `a/(b/c)` is null where c
    is 0, and `a*c/b` is not.

    Raises:
        ExpressionError: as `parse_expression`.
    """
    return _sum_text(_terms(parse_expression(text)))


def _terms(node: Expression) -> list[_Term]:
    """The terms that the expression is the sum of."""
    match node:
        case Operation("+" | "-" as operator, left, right):
            return _terms(left) + (_terms(right) if operator == "+" else _with_other_signs(_terms(right)))
        case Negation(operand):
            return _with_other_signs(_terms(operand))
    return [_product(node)]


def _with_other_signs(terms: list[_Term]) -> list[_Term]:
    return [term if term.is_own_negative else replace(term, sign=-term.sign) for term in terms]


def _product(node: Expression) -> _Term:
    match node:
        case Constant(value):
            return _Term(1, (_number_text(value),))
        case FeatureValue(name):
            return _Term(1, (name,))
        case RequestValue(name):
            return _Term(1, (f"request.{name}",))
        case Operation("*", left, right):
            first, second = _product(left), _product(right)
            return _multiplied(first, second, first.factors + second.factors, first.divisors + second.divisors)
        case Operation("/", left, right):
            first, second = _product(left), _product(right)
            below = (f"({second.text})",) if second.divisors else second.factors
            return _multiplied(first, second, first.factors, first.divisors + below)
    terms = _terms(node)
    if len(terms) == 1:
        return terms[0]
    # of a sum inside a product, the term that comes first by its text is positive: the sign goes to the product
    other_terms = _with_other_signs(terms)
    if _sum_text(terms) == _sum_text(other_terms):
        return _Term(1, (f"({_sum_text(terms)})",), is_own_negative=True)
    signed_terms = (term for term in terms if not term.is_own_negative)
    sign = min(signed_terms, key=lambda term: (term.text, -term.sign)).sign
    return _Term(sign, (f"({_sum_text(terms if sign > 0 else other_terms)})",))


def _multiplied(first: _Term, second: _Term, factors: tuple[str, ...], divisors: tuple[str, ...]) -> _Term:
    is_own_negative = first.is_own_negative or second.is_own_negative
    return _Term(1 if is_own_negative else first.sign * second.sign, factors, divisors, is_own_negative)


def _sum_text(terms: list[_Term]) -> str:
    sorted_terms = sorted(terms, key=lambda term: (-term.sign, term.text))
    text = "".join(f"{'+' if term.sign > 0 else '-'}{term.text}" for term in sorted_terms)
    return text.removeprefix("+")


def _number_text(value: Fraction) -> str:
    """A literal without needless zeros."""
    scale = next(scale for scale in count() if 10**scale % value.denominator == 0)
    return format_decimal(int(value * 10**scale), scale)
