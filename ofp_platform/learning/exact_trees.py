"""Trees of any library in exact form: thresholds in the inputs' own decimals, leaves as scaled integers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from ofp_platform.vocabulary.loop.exact_model import MAX_INPUT, ModelInput, Tree

SCORE_SCALE = 12
"""Of the scores of trees: a leaf is off by half a unit of the twelfth digit at most."""


class NotExportable(Exception):
    """A model that has no exact form here; the text says why, and what would have one."""


@dataclass(frozen=True)
class GrownTree:
    """A tree as a library grew it, in arrays of its nodes, the root first. asked: the index of an input, -1 for a leaf;
    is_strict: left is gone where x < bound, else where x <= bound; leaf_values: unscaled; covers: the weight of what came by.
    """

    asked: Sequence[int]
    bounds: Sequence[Fraction]
    left: Sequence[int]
    right: Sequence[int]
    absent_left: Sequence[bool]
    leaf_values: Sequence[Fraction]
    covers: Sequence[Fraction]
    is_strict: bool


def exact_tree(grown: GrownTree, inputs: Sequence[ModelInput]) -> Tree:
    """The tree in exact form, its nodes in the order of first visit. The value of a node is the mean of its leaves, by cover."""
    order = _from_the_root(grown)
    place_of = {node: place for place, node in enumerate(order)}
    values = _values(grown, order)
    asked = [grown.asked[node] for node in order]
    return Tree(
        inputs=tuple(asked),
        thresholds=tuple(0 if grown.asked[node] < 0 else _threshold(grown, node, inputs) for node in order),
        left=tuple(-1 if grown.asked[node] < 0 else place_of[grown.left[node]] for node in order),
        right=tuple(-1 if grown.asked[node] < 0 else place_of[grown.right[node]] for node in order),
        absent_left=tuple(grown.asked[node] >= 0 and bool(grown.absent_left[node]) for node in order),
        values=tuple(values[node] for node in order),
    )


def scaled_score(value: Fraction) -> int:
    """A part of a score, times 10^SCORE_SCALE, rounded half to even."""
    scaled: int = round(value * 10**SCORE_SCALE)
    return scaled


def _from_the_root(grown: GrownTree) -> list[int]:
    """The nodes, each child behind its parent.

    Raises:
        NotExportable: the arrays are no tree.
    """
    order: list[int] = []
    reached: set[int] = set()
    waiting = [0]
    while waiting:
        node = waiting.pop()
        if not 0 <= node < len(grown.asked) or node in reached:
            raise NotExportable(f"the nodes are no tree: node {node} is reached twice, or is none of {len(grown.asked)}")
        order.append(node)
        reached.add(node)
        if grown.asked[node] >= 0:
            waiting += [grown.right[node], grown.left[node]]
    return order


def _values(grown: GrownTree, order: Sequence[int]) -> dict[int, int]:
    values: dict[int, int] = {}
    for node in reversed(order):  # children before their parents
        if grown.asked[node] < 0:
            values[node] = scaled_score(grown.leaf_values[node])
            continue
        left, right = grown.left[node], grown.right[node]
        covers = (grown.covers[left], grown.covers[right])
        if not sum(covers):
            covers = (Fraction(1), Fraction(1))
        values[node] = round((covers[0] * values[left] + covers[1] * values[right]) / sum(covers))
    return values


def _threshold(grown: GrownTree, node: int, inputs: Sequence[ModelInput]) -> int:
    """The greatest scaled integer that goes left."""
    bound = grown.bounds[node] * 10 ** inputs[grown.asked[node]].scale
    threshold = math.ceil(bound) - 1 if grown.is_strict else math.floor(bound)
    return int(max(-MAX_INPUT, min(MAX_INPUT, threshold)))
