"""Mutants of a module: every change that Cosmic Ray's operators make of it, but for those that cannot matter.

Left out, as classes and never one by one:

- type annotations, and the declarations of types for compiled functions (`types.Array(...)`): nothing is computed with them;
- decorators that only say how a function is made fast (`native`, `cache`, `lru_cache`), with their arguments;
- f-strings inside a `raise` statement: the words of a message;
- `==` for `is` (and `!=` for `is not`) beside a member of an enumeration: members are equal to themselves only;
- `is` and `is not` for another comparison: of small integers they say what `==` and `!=` do, which are mutants of their own, of
  others whatever the interpreter happens to share;
- what does not compile: it is no program.

Docstrings and log messages have no mutants, because no operator changes a plain string. Operators that draw at random or need
arguments (`VariableReplacer`, `VariableInserter`) are not used.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import zip_longest
from pathlib import Path
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.operators.operator import Operator
from cosmic_ray.operators.provider import OperatorProvider

_FAST_ONLY = ("native", "cache", "lru_cache")
_SAME_OF_MEMBERS = ("ReplaceComparisonOperator_Is_Eq", "ReplaceComparisonOperator_IsNot_NotEq")
_IDENTITY = re.compile(r"ReplaceComparisonOperator_(?!Is_|IsNot_)[A-Za-z]+_(Is|IsNot)")
_MEMBER = re.compile(r"[A-Z][A-Za-z]+\.[A-Z][A-Z_]+")


@dataclass(frozen=True, order=True)
class Mutant:
    """One change: the `place`-th node of the module's tree, changed by an operator in its `index`-th way there."""

    line: int
    column: int
    place: int
    operator: str
    index: int


UNCHANGED = Mutant(0, 0, -1, "NoOp", 0)
"""The module as it is, in the way of a mutant."""


@cache
def _operators() -> dict[str, Operator]:
    provider = OperatorProvider()
    classes = {name: provider[name] for name in provider if _IDENTITY.fullmatch(name) is None}
    return {name: made() for name, made in sorted(classes.items()) if not made.arguments()}


def mutants_of(path: Path) -> list[Mutant]:
    """All mutants of a source file, in the order of their places."""
    tree = get_ast(path.read_text())
    nodes = list(ast_nodes(tree))
    found = []
    for place, node in enumerate(nodes):
        for name, operator in _operators().items():
            for index, (start, _) in enumerate(operator.mutation_positions(node)):
                if not (_cannot_matter(node) or (name in _SAME_OF_MEMBERS and _compares_a_member(node))):
                    found.append(Mutant(start[0], start[1], place, name, index))
    return sorted(found)


def mutate(path: Path, mutant: Mutant) -> str | None:
    """The source with that change; None when it does not compile."""
    if mutant == UNCHANGED:
        return path.read_text()
    tree = get_ast(path.read_text())
    for place, node in enumerate(ast_nodes(tree)):
        if place == mutant.place:
            changed = _operators()[mutant.operator].mutate(node, mutant.index)
            siblings = node.parent.children
            where = next(number for number, sibling in enumerate(siblings) if sibling is node)
            siblings[where : where + 1] = [] if changed is None else [changed]
            break
    source: str = tree.get_code()
    try:
        compile(source, str(path), "exec")
    except SyntaxError:
        return None
    return source


def changed_line(path: Path, source: str) -> tuple[int, str, str]:
    """The number of the first line that differs (0: none), and what stands there before and after."""
    lines = zip_longest(path.read_text().splitlines(), source.splitlines(), fillvalue="")
    changes = ((number, pair) for number, pair in enumerate(lines, 1) if pair[0] != pair[1])
    number, (before, after) = next(changes, (0, ("", "")))
    return number, before.strip(), after.strip()


def _cannot_matter(node: Any) -> bool:
    child = node
    for parent in _ancestors(node):
        if parent.type in ("annassign", "tfpdef") and child is parent.children[1 if parent.type == "annassign" else -1]:
            return True
        if parent.type == "funcdef" and child is parent.annotation:
            return True
        if parent.type == "decorator" and _decorates_for_speed(parent):
            return True
        if parent.type == "expr_stmt" and _declares_types(parent):
            return True
        if parent.type == "fstring" and any(above.type == "raise_stmt" for above in _ancestors(parent)):
            return True
        child = parent
    return node.type == "decorator" and _decorates_for_speed(node)


def _ancestors(node: Any) -> Iterator[Any]:
    while (node := node.parent) is not None:
        yield node


def _decorates_for_speed(decorator: Any) -> bool:
    return decorator.get_code().strip().removeprefix("@").split("(")[0].strip() in _FAST_ONLY


def _compares_a_member(comparison: Any) -> bool:
    return len(comparison.children) == 3 and _MEMBER.fullmatch(comparison.children[2].get_code().strip()) is not None


def _declares_types(statement: Any) -> bool:
    return len(statement.children) == 3 and statement.children[2].get_code().strip().startswith("types.")
