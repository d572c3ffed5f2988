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

    asked_input: Sequence[int]
    bounds: Sequence[Fraction]
    left_children: Sequence[int]
    right_children: Sequence[int]
    absent_left: Sequence[bool]
    leaf_values: Sequence[Fraction]
    covers: Sequence[Fraction]
    is_strict: bool


def exact_trees(
    name: str, trees: Sequence[GrownTree], inputs: Sequence[ModelInput], base: Fraction, score_kind: ScoreKind
) -> ExactModel:
    """The exact form of trees whose leaves add up, to `base` (unscaled): at the greatest scale at which no sum can wrap.

    Raises:
        NotExportable: they are no trees, or have leaves that are too large for any scale.
    """
    for scale in range(GREATEST_SCALE, -1, -1):
        leaves = [
            abs(value)
            for tree in trees
            for value, question in zip(tree.leaf_values, tree.asked_input, strict=True)
            if question < 0
        ]
        if max([*leaves, abs(base)]) * 10**scale > MAX_INPUT:
            continue
        try:
            form = TreesForm(base=round(base * 10**scale), trees=tuple(exact_tree(tree, inputs, scale) for tree in trees))
        except ValidationError:  # the sum of many could pass what a sum may reach
            continue
        return ExactModel(model_name=name, inputs=tuple(inputs), score_scale=scale, score_kind=score_kind, form=form)
    raise NotExportable(f"{name}: its leaves are too large for any scale of a score")


def exact_tree(grown_tree: GrownTree, inputs: Sequence[ModelInput], scale: int) -> Tree:
    """The tree in exact form, its nodes in the order of first visit, scores times 10^scale. The value of a node is the mean of
    its leaves, by cover.
    """
    order = _from_the_root(grown_tree)
    place_of = {node: place for place, node in enumerate(order)}
    values = _values(grown_tree, order, scale)
    questions = [grown_tree.asked_input[node] for node in order]
    asking = list(zip(order, questions, strict=True))
    left, right = grown_tree.left_children, grown_tree.right_children
    return Tree(
        inputs=tuple(questions),
        thresholds=tuple(0 if question < 0 else _threshold(grown_tree, node, inputs) for node, question in asking),
        left_children=tuple(-1 if question < 0 else place_of[left[node]] for node, question in asking),
        right_children=tuple(-1 if question < 0 else place_of[right[node]] for node, question in asking),
        absent_left=tuple(question >= 0 and bool(grown_tree.absent_left[node]) for node, question in asking),
        values=tuple(values[node] for node in order),
    )


def _from_the_root(grown_tree: GrownTree) -> list[int]:
    """The nodes, each child behind its parent.

    Raises:
        NotExportable: the arrays are no tree.
    """
    order: list[int] = []
    reached_nodes: set[int] = set()
    waiting = [0]
    while waiting:
        node = waiting.pop()
        if not 0 <= node < len(grown_tree.asked_input) or node in reached_nodes:
            raise NotExportable(
                f"the nodes are no tree: node {node} is reached twice, or is none of {len(grown_tree.asked_input)}"
            )
        order.append(node)
        reached_nodes.add(node)
        if grown_tree.asked_input[node] >= 0:
            waiting += [grown_tree.right_children[node], grown_tree.left_children[node]]
    return order


def _values(grown_tree: GrownTree, order: Sequence[int], scale: int) -> dict[int, int]:
    values: dict[int, int] = {}
    for node in reversed(order):  # children before their parents
        if grown_tree.asked_input[node] < 0:
            values[node] = round(grown_tree.leaf_values[node] * 10**scale)
            continue
        left_children, right_children = grown_tree.left_children[node], grown_tree.right_children[node]
        covers = (grown_tree.covers[left_children], grown_tree.covers[right_children])
        if not sum(covers):
            covers = (Fraction(1), Fraction(1))
        values[node] = round((covers[0] * values[left_children] + covers[1] * values[right_children]) / sum(covers))
    return values


def _threshold(grown_tree: GrownTree, node: int, inputs: Sequence[ModelInput]) -> int:
    """The greatest scaled integer that goes left."""
    bound = grown_tree.bounds[node] * 10 ** inputs[grown_tree.asked_input[node]].scale
    threshold = math.ceil(bound) - 1 if grown_tree.is_strict else math.floor(bound)
    return int(max(-MAX_INPUT, min(MAX_INPUT, threshold)))
