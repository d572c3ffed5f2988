"""The little language of on-demand features: names, request.<field>, literals, + - * /, unary minus, parentheses."""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from typing import Literal

MAX_EXPRESSION_CHARACTERS = 500
_CHARACTERS = re.compile(r"[A-Za-z0-9_.+\-*/() \t\n]*", re.ASCII)
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
