"""Trees of any library in exact form: thresholds in the inputs' own decimals, leaves as scaled integers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from pydantic import ValidationError

from ofp_platform.vocabulary.loop.exact_model import MAX_INPUT, ExactModel, ModelInput, Tree, TreesForm

GREATEST_SCALE = 12
"""Of the scores of trees: a leaf is off by half a unit of the last digit at most."""


ScoreKind = Literal["probability", "log_odds"]


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


def exact_trees(
    name: str, grown: Sequence[GrownTree], inputs: Sequence[ModelInput], base: Fraction, score_kind: ScoreKind
) -> ExactModel:
    """The exact form of trees whose leaves add up, to `base` (unscaled): at the greatest scale at which no sum can wrap.

    Raises:
        NotExportable: they are no trees, or have leaves that are too large for any scale.
    """
    for scale in range(GREATEST_SCALE, -1, -1):
        leaves = [abs(value) for tree in grown for value, asked in zip(tree.leaf_values, tree.asked, strict=True) if asked < 0]
        if max([*leaves, abs(base)]) * 10**scale > MAX_INPUT:
            continue
        try:
            form = TreesForm(base=round(base * 10**scale), trees=tuple(exact_tree(tree, inputs, scale) for tree in grown))
        except ValidationError:  # the sum of many could pass what a sum may reach
            continue
        return ExactModel(model_name=name, inputs=tuple(inputs), score_scale=scale, score_kind=score_kind, form=form)
    raise NotExportable(f"{name}: its leaves are too large for any scale of a score")


def exact_tree(grown: GrownTree, inputs: Sequence[ModelInput], scale: int) -> Tree:
    """The tree in exact form, its nodes in the order of first visit, scores times 10^scale. The value of a node is the mean of
    its leaves, by cover.
    """
    order = _from_the_root(grown)
    place_of = {node: place for place, node in enumerate(order)}
    values = _values(grown, order, scale)
    asked = [grown.asked[node] for node in order]
    return Tree(
        inputs=tuple(asked),
        thresholds=tuple(0 if grown.asked[node] < 0 else _threshold(grown, node, inputs) for node in order),
        left=tuple(-1 if grown.asked[node] < 0 else place_of[grown.left[node]] for node in order),
        right=tuple(-1 if grown.asked[node] < 0 else place_of[grown.right[node]] for node in order),
        absent_left=tuple(grown.asked[node] >= 0 and bool(grown.absent_left[node]) for node in order),
        values=tuple(values[node] for node in order),
    )


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


def _values(grown: GrownTree, order: Sequence[int], scale: int) -> dict[int, int]:
    values: dict[int, int] = {}
    for node in reversed(order):  # children before their parents
        if grown.asked[node] < 0:
            values[node] = round(grown.leaf_values[node] * 10**scale)
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
