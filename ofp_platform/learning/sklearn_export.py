"""Fitted models of scikit-learn in exact form: logistic regression (behind a scaler or not), trees, forests, boosting."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from sklearn.dummy import DummyClassifier
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.tree import DecisionTreeClassifier

from ofp_platform.learning.exact_trees import GrownTree, NotExportable, exact_trees
from ofp_platform.scoring.compiled_model import Bools, Int64
from ofp_platform.vocabulary.canonical import MAX_INTEGER
from ofp_platform.vocabulary.loop.exact_model import ExactModel, LinearForm, ModelInput, TimeInput

_GREATEST_SCALE = 15
_KNOWN = "LogisticRegression, DecisionTreeClassifier, RandomForestClassifier, GradientBoostingClassifier"


def export_sklearn(name: str, fitted_model: Any, inputs: Sequence[ModelInput], values: Int64, present: Bools) -> ExactModel:
    """The exact form of a model that was fitted to unscaled inputs, absent ones as 0. `values` (scaled, int64[n, m]), `present`
    (bool[n, m]): the rows of training, whose means and bounds a linear form takes over.

    Raises:
        NotExportable: it is of another kind, or knows other classes than 0 and 1.
    """
    scaler, model = _parts(fitted_model)
    classes = getattr(model, "classes_", np.array([0, 1]))
    if list(classes) != [0, 1]:
        raise NotExportable(f"{name} knows the classes {list(classes)}: a score is of two, 0 and 1")
    if isinstance(model, LogisticRegression):
        return _linear(name, scaler, model, inputs, values, present)
    if scaler is not None:
        raise NotExportable(f"{name}: trees ask the inputs as they are: fit them without a scaler")
    if isinstance(model, DecisionTreeClassifier):
        return _trees(name, inputs, [_classifying(model.tree_, 1)], Fraction(0), "probability")
    if isinstance(model, RandomForestClassifier):
        count = len(model.estimators_)
        trees = [_classifying(member.tree_, count) for member in model.estimators_]
        return _trees(name, inputs, trees, Fraction(0), "probability")
    if isinstance(model, GradientBoostingClassifier):
        rate = Fraction(model.learning_rate)
        trees = [_regressing(member.tree_, rate) for member in model.estimators_[:, 0]]
        return _trees(name, inputs, trees, _prior(name, model), "log_odds")
    raise NotExportable(f"{name} is a {type(model).__name__}; there are exact forms of {_KNOWN}")


def _parts(fitted_model: Any) -> tuple[StandardScaler | None, Any]:
    if not isinstance(fitted_model, Pipeline):
        return None, fitted_model
    steps = [step for _, step in fitted_model.steps]
    if len(steps) == 2 and isinstance(steps[0], StandardScaler):
        return steps[0], steps[1]
    raise NotExportable(
        f"a pipeline of {', '.join(type(step).__name__ for step in steps)}: only a StandardScaler may stand in front"
    )


def _linear(
    name: str,
    scaler: StandardScaler | None,
    model: LogisticRegression,
    inputs: Sequence[ModelInput],
    values: Int64,
    present: Bools,
) -> ExactModel:
    count = len(inputs)
    means = np.zeros(count) if scaler is None else scaler.mean_
    spreads = np.ones(count) if scaler is None else scaler.scale_
    units = [Fraction(10) ** asked_input.scale for asked_input in inputs]
    slopes = [Fraction(float(slope)) / Fraction(float(spread)) for slope, spread in zip(model.coef_[0], spreads, strict=True)]
    taken_values = np.where(present, values, 0)
    references = [round(Fraction(float(taken_values[:, place].mean()))) if len(taken_values) else 0 for place in range(count)]
    level = Fraction(float(model.intercept_[0])) + sum(
        (
            slope * (reference / unit - Fraction(float(mean)))
            for slope, reference, unit, mean in zip(slopes, references, units, means, strict=True)
        ),
        Fraction(0),
    )
    least = [int(taken_values[:, place].min(initial=0)) for place in range(count)]
    greatest = [int(taken_values[:, place].max(initial=0)) for place in range(count)]
    reach = [
        max(abs(low - reference), abs(high - reference)) for low, high, reference in zip(least, greatest, references, strict=True)
    ]
    for scale in range(_GREATEST_SCALE, -1, -1):
        weights = [round(slope / unit * 10**scale) for slope, unit in zip(slopes, units, strict=True)]
        base = round(level * 10**scale)
        greatest_sum = abs(base) + sum(abs(weight) * far for weight, far in zip(weights, reach, strict=True))
        if max(abs(number) for number in (base, *weights)) <= MAX_INTEGER and greatest_sum < 2**62:
            break
    else:
        raise NotExportable(f"{name}: its weights are too large for any scale")
    form = LinearForm(
        base=base, weights=tuple(weights), references=tuple(references), least=tuple(least), greatest=tuple(greatest)
    )
    with_absent = tuple(_with_zero(asked_input) for asked_input in inputs)
    return ExactModel(model_name=name, inputs=with_absent, score_scale=scale, score_kind="log_odds", form=form)


def _trees(
    name: str,
    inputs: Sequence[ModelInput],
    grown_trees: Sequence[GrownTree],
    base: Fraction,
    score_kind: Literal["probability", "log_odds"],
) -> ExactModel:
    # fitted to rows in which an absent value is 0
    with_absent = [_with_zero(asked_input) for asked_input in inputs]
    return exact_trees(name, grown_trees, with_absent, base, score_kind)


def _with_zero(asked_input: ModelInput) -> ModelInput:
    """The input, absent values counted as 0."""
    return asked_input if isinstance(asked_input, TimeInput) else asked_input.model_copy(update={"absent": 0})


def _classifying(tree: Any, count: int) -> GrownTree:
    """A tree whose leaves have the weights of the classes; it says the share of class 1, over the number of trees."""
    weights = tree.value[:, 0, :]
    return _grown_tree(tree, weights[:, 1] / weights.sum(axis=1), Fraction(1, count))


def _regressing(tree: Any, rate: Fraction) -> GrownTree:
    return _grown_tree(tree, tree.value[:, 0, 0], rate)


def _grown_tree(tree: Any, leaf_values: npt.NDArray[np.float64], factor: Fraction) -> GrownTree:
    return GrownTree(
        asked_input=[
            int(asked_input) if left_children >= 0 else -1
            for asked_input, left_children in zip(tree.feature, tree.children_left, strict=True)
        ],
        bounds=[Fraction(float(bound)) for bound in tree.threshold],
        left_children=tree.children_left.tolist(),
        right_children=tree.children_right.tolist(),
        absent_left=[False] * tree.node_count,
        leaf_values=[Fraction(float(value)) * factor for value in leaf_values],
        covers=[Fraction(float(cover)) for cover in tree.weighted_n_node_samples],
        is_strict=False,
    )


def _prior(name: str, model: GradientBoostingClassifier) -> Fraction:
    """The log odds that boosting begins at."""
    if isinstance(model.init_, str) and model.init_ == "zero":
        return Fraction(0)
    if isinstance(model.init_, DummyClassifier):
        share = float(model.init_.class_prior_[1])
        return Fraction(math.log(share / (1 - share)))
    raise NotExportable(f"{name} begins at a {type(model.init_).__name__}: only the prior, or zero, has an exact form")
