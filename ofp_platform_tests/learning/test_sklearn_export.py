"""Models of scikit-learn in exact form score as the library does, but for what quantisation explains."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import GradientBoostingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.naive_bayes import GaussianNB
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, StandardScaler
from sklearn.tree import DecisionTreeClassifier

from ofp_platform.learning.exact_trees import NotExportable
from ofp_platform.learning.sklearn_export import export_sklearn
from ofp_platform.scoring.compiled_model import CompiledModel
from ofp_platform_tests.learning.conftest import Rows

KINDS = {
    "logistic": lambda: make_pipeline(StandardScaler(), LogisticRegression(random_state=0)),
    "unscaled_logistic": lambda: LogisticRegression(random_state=0, C=0.1, max_iter=5_000),
    "tree": lambda: DecisionTreeClassifier(max_depth=4, random_state=0),
    "forest": lambda: RandomForestClassifier(n_estimators=20, random_state=0),
    "boosting": lambda: GradientBoostingClassifier(n_estimators=20, random_state=0),
    "boosting_from_zero": lambda: GradientBoostingClassifier(n_estimators=5, random_state=0, init="zero"),
}


def expected(fitted: Any, kind: str, numbers: np.ndarray) -> np.ndarray:
    if kind in ("tree", "forest"):
        return fitted.predict_proba(numbers)[:, 1]
    return fitted.decision_function(numbers)


@pytest.mark.parametrize("kind", KINDS)
def test_the_exact_form_scores_as_the_library_does(kind: str, learned_rows: Rows) -> None:
    fitted = KINDS[kind]().fit(learned_rows.numbers, learned_rows.labels)
    model = export_sklearn(kind, fitted, learned_rows.inputs, learned_rows.scaled, learned_rows.present)
    compiled = CompiledModel(model)
    scores = compiled.scores(learned_rows.scaled, learned_rows.present) / 10.0**model.score_scale
    np.testing.assert_allclose(scores, expected(fitted, kind, learned_rows.numbers), rtol=0, atol=1e-6)
    assert len(set(scores.round(9))) > 3  # a model that says one thing of everybody would pass too
    shares = compiled.shares(learned_rows.scaled, learned_rows.present)
    assert (shares.sum(axis=1) + compiled.base == compiled.scores(learned_rows.scaled, learned_rows.present)).all()
    assert (np.abs(shares).sum(axis=0) > 0).sum() >= 2


def test_what_has_no_exact_form_is_refused_in_words(learned_rows: Rows) -> None:
    rows = learned_rows
    numbers, labels = rows.numbers, rows.labels
    for fitted, words in (
        (GaussianNB().fit(numbers, labels), "is a GaussianNB; there are exact forms of"),
        (LogisticRegression().fit(numbers, labels + 1), r"knows the classes \[.*1.*2.*\]"),
        (make_pipeline(MinMaxScaler(), LogisticRegression()).fit(numbers, labels), "only a StandardScaler may stand in front"),
        (make_pipeline(StandardScaler(), DecisionTreeClassifier(max_depth=1)).fit(numbers, labels), "without a scaler"),
        (
            GradientBoostingClassifier(n_estimators=1, init=DecisionTreeClassifier(max_depth=1)).fit(numbers, labels),
            "begins at a DecisionTreeClassifier",
        ),
    ):
        with pytest.raises(NotExportable, match=words):
            export_sklearn("m", fitted, rows.inputs, rows.scaled, rows.present)
