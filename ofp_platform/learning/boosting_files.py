"""Models of other people's boosting, read from their files: LightGBM's text, XGBoost's JSON. Neither library is needed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np
import orjson

from ofp_platform.learning.exact_trees import GrownTree, NotExportable, exact_trees
from ofp_platform.vocabulary.loop.exact_model import ExactModel, ModelInput

_CATEGORICAL, _DEFAULT_LEFT = 1, 2
_MISSING_NONE, _MISSING_ZERO = 0, 1


def read_lightgbm(name: str, text: str, inputs: Sequence[ModelInput]) -> ExactModel:
    """A model that LightGBM saved as text, of the objective `binary`; its features are called as `inputs` are.

    Raises:
        NotExportable: it is no such file, asks what is no input, or has no exact form (categories, linear leaves).
    """
    head, *blocks = text.split("\nTree=")
    about = _fields(head)
    if head.split("\n", 1)[0].strip() != "tree" or "feature_names" not in about or not blocks:
        raise NotExportable(f"{name}: is no model that LightGBM saved as text (`booster.save_model`)")
    if about.get("objective", "").split() not in (["binary"], ["binary", "sigmoid:1"]):
        raise NotExportable(f"{name}: its objective is {about.get('objective', 'not told')!r}, not 'binary sigmoid:1'")
    place_of = _places(name, about["feature_names"].split(), inputs)
    trees = [_lightgbm_tree(name, _fields(block), place_of) for block in blocks]
    return exact_trees(name, trees, inputs, Fraction(0), "log_odds")


def read_xgboost(name: str, content: bytes, inputs: Sequence[ModelInput]) -> ExactModel:
    """A model that XGBoost saved as JSON, a gbtree of the objective `binary:logistic`; its features are called as `inputs` are.

    Raises:
        NotExportable: as `read_lightgbm`.
    """
    try:
        learner = orjson.loads(content)["learner"]
        objective, booster = learner["objective"]["name"], learner["gradient_booster"]
        kind, names = booster["name"], learner["feature_names"]
        level = float(learner["learner_model_param"]["base_score"].strip("[]"))
        listed_trees = booster["model"]["trees"] if kind == "gbtree" else []
    except (orjson.JSONDecodeError, KeyError, TypeError, ValueError, AttributeError):
        raise NotExportable(f"{name}: is no model that XGBoost saved as JSON (`booster.save_model('model.json')`)") from None
    if (objective, kind) != ("binary:logistic", "gbtree"):
        raise NotExportable(f"{name}: is a {kind} of {objective}; there is an exact form of a gbtree of binary:logistic")
    if not names:
        raise NotExportable(f"{name}: was trained without names of features: name its columns as the dataset does")
    if not 0 < level < 1 or not listed_trees:
        raise NotExportable(f"{name}: base_score {level} is no probability, or it has no tree")
    place_of = _places(name, names, inputs)
    trees = [_xgboost_tree(name, tree, place_of) for tree in listed_trees]
    return exact_trees(name, trees, inputs, Fraction(math.log(level / (1 - level))), "log_odds")


def _fields(block: str) -> dict[str, str]:
    return dict(line.split("=", 1) for line in block.splitlines() if "=" in line)


def _places(name: str, feature_names: Sequence[str], inputs: Sequence[ModelInput]) -> dict[int, int]:
    """The place among the inputs of each feature of a file."""
    known_places = {asked_input.name: place for place, asked_input in enumerate(inputs)}
    if unknown := [feature for feature in feature_names if feature not in known_places]:
        raise NotExportable(f"{name}: asks {unknown[0]}, which is no input; there are {', '.join(known_places)}")
    return {number: known_places[feature] for number, feature in enumerate(feature_names)}


def _lightgbm_tree(name: str, fields: Mapping[str, str], place_of: Mapping[int, int]) -> GrownTree:
    """Inner nodes come first here, leaves behind them."""

    def column(field: str) -> list[str]:
        return fields.get(field, "").split()

    try:
        leaves = int(fields["num_leaves"])
        inner = leaves - 1
        splits, kinds = [int(text) for text in column("split_feature")], [int(text) for text in column("decision_type")]
        bounds = [Fraction(float(text)) for text in column("threshold")]
        children = [[int(text) for text in column(side)] for side in ("left_child", "right_child")]
        leaf_values = [Fraction(float(text)) for text in column("leaf_value")]
        leaf_covers = [Fraction(float(text)) for text in column("leaf_count")] or [Fraction(1)] * leaves
        inner_covers = [Fraction(float(text)) for text in column("internal_count")]
    except (KeyError, ValueError):
        raise NotExportable(f"{name}: a tree of the file cannot be read") from None
    parts: list[Sequence[Any]] = [splits, kinds, bounds, *children, inner_covers]
    sizes = {len(part) for part in parts}
    if sizes - {inner} or {len(leaf_values), len(leaf_covers)} != {leaves}:
        raise NotExportable(f"{name}: a tree of the file has not the nodes that it says")
    if fields.get("is_linear", "0") != "0" or any(kind & _CATEGORICAL for kind in kinds):
        raise NotExportable(f"{name}: has linear leaves or asks categories: there is an exact form of numeric splits alone")
    missing = [(kind >> 2) & 3 for kind in kinds]
    if _MISSING_ZERO in missing:
        raise NotExportable(f"{name}: takes zero for missing (zero_as_missing): train it without")
    absent_left = [
        bound >= 0 if way == _MISSING_NONE else bool(kind & _DEFAULT_LEFT)
        for bound, way, kind in zip(bounds, missing, kinds, strict=True)
    ]
    left_children, right_children = ([child if child >= 0 else inner + ~child for child in side] for side in children)
    no_child = [-1] * leaves
    return GrownTree(
        asked_input=[*(place_of[split] for split in splits), *no_child],
        bounds=[*bounds, *[Fraction(0)] * leaves],
        left_children=[*left_children, *no_child],
        right_children=[*right_children, *no_child],
        absent_left=[*absent_left, *[False] * leaves],
        leaf_values=[*[Fraction(0)] * inner, *leaf_values],
        covers=[*inner_covers, *leaf_covers],
        is_strict=False,
    )


def _xgboost_tree(name: str, tree: Mapping[str, Any], place_of: Mapping[int, int]) -> GrownTree:
    try:
        left_children, right_children = list(map(int, tree["left_children"])), list(map(int, tree["right_children"]))
        splits, defaults = list(map(int, tree["split_indices"])), list(map(bool, tree["default_left"]))
        # as they were written: the shortest decimal of a float of 32 bits is the value of the data that it is
        conditions = [Fraction(str(np.float32(value))) for value in tree["split_conditions"]]
        covers = [Fraction(float(value)) for value in tree["sum_hessian"]]
        is_numeric = not any(tree.get("split_type", [])) and not tree.get("categories")
    except (KeyError, TypeError, ValueError):
        raise NotExportable(f"{name}: a tree of the file cannot be read") from None
    if not is_numeric:
        raise NotExportable(f"{name}: asks categories: there is an exact form of numeric splits alone")
    if {len(part) for part in (right_children, splits, defaults, conditions, covers)} != {len(left_children)}:
        raise NotExportable(f"{name}: a tree of the file has not the nodes that it says")
    return GrownTree(
        asked_input=[place_of[split] if child >= 0 else -1 for split, child in zip(splits, left_children, strict=True)],
        bounds=conditions,
        left_children=left_children,
        right_children=right_children,
        absent_left=defaults,
        leaf_values=conditions,
        covers=covers,
        is_strict=True,
    )
