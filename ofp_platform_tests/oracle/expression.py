"""On-demand expressions the naive way: Python's own parser, exact fractions."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from fractions import Fraction


def compute(expression: str, values: Mapping[str, Fraction | None], request: Mapping[str, int | str]) -> Fraction | None:
    """The value of an expression, or None when it reads a null or divides by zero."""

    def walk(node: ast.expr) -> Fraction | None:
        if isinstance(node, ast.Constant):
            return Fraction(ast.get_source_segment(expression, node) or "")
        if isinstance(node, ast.Name):
            return values[node.id]
        if isinstance(node, ast.Attribute):
            return Fraction(request[node.attr])
        if isinstance(node, ast.UnaryOp):
            inner = walk(node.operand)
            return None if inner is None else -inner
        assert isinstance(node, ast.BinOp)
        left, right = walk(node.left), walk(node.right)
        if left is None or right is None:
            return None
        if isinstance(node.op, ast.Div):
            return None if right == 0 else left / right
        if isinstance(node.op, ast.Mult):
            return left * right
        return left + right if isinstance(node.op, ast.Add) else left - right

    return walk(ast.parse(expression, mode="eval").body)
