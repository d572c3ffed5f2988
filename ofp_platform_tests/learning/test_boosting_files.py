"""Models that LightGBM and XGBoost saved, in exact form: they score as the libraries do, absent values and all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import lightgbm
import numpy as np
import orjson
import pytest
import xgboost

from ofp_platform.learning.boosting_files import read_lightgbm, read_xgboost
from ofp_platform.learning.exact_trees import NotExportable
from ofp_platform.scoring.compiled_model import CompiledModel
from ofp_platform_tests.learning.conftest import Rows


def with_absent(rows: Rows) -> np.ndarray:
    return np.where(rows.present, rows.numbers, np.nan)


def lightgbm_text(rows: Rows, **parameters: object) -> tuple[lightgbm.Booster, str]:
    names = [asked.name for asked in rows.inputs]
    settings = {"objective": "binary", "verbosity": -1, "seed": 1, "num_threads": 1, "deterministic": True, **parameters}
    data = lightgbm.Dataset(with_absent(rows), rows.labels, feature_name=names)
    booster = lightgbm.train(settings, data, num_boost_round=15)
    return booster, booster.model_to_string()


def xgboost_json(rows: Rows, folder: Path, **parameters: object) -> tuple[xgboost.Booster, bytes]:
    names = [asked.name for asked in rows.inputs]
    settings = {"objective": "binary:logistic", "seed": 1, "nthread": 1, **parameters}
    booster = xgboost.train(settings, xgboost.DMatrix(with_absent(rows), rows.labels, feature_names=names), 15)
    booster.save_model(folder / "model.json")
    return booster, (folder / "model.json").read_bytes()


def test_lightgbm_scores_as_it_does(learned_rows: Rows) -> None:
    booster, text = lightgbm_text(learned_rows)
    model = read_lightgbm("boosted", text, learned_rows.inputs)
    scores = CompiledModel(model).scores(learned_rows.scaled, learned_rows.present) / 10.0**model.score_scale
    np.testing.assert_allclose(scores, booster.predict(with_absent(learned_rows), raw_score=True), rtol=0, atol=1e-9)


def test_lightgbm_that_does_not_know_missing_values_takes_them_for_zero(learned_rows: Rows) -> None:
    booster, text = lightgbm_text(learned_rows, use_missing=False)
    model = read_lightgbm("boosted", text, learned_rows.inputs)
    scores = CompiledModel(model).scores(learned_rows.scaled, learned_rows.present) / 10.0**model.score_scale
    np.testing.assert_allclose(scores, booster.predict(with_absent(learned_rows), raw_score=True), rtol=0, atol=1e-9)


def test_xgboost_scores_as_it_does(learned_rows: Rows, tmp_path: Path) -> None:
    booster, content = xgboost_json(learned_rows, tmp_path)
    model = read_xgboost("boosted", content, learned_rows.inputs)
    scores = CompiledModel(model).scores(learned_rows.scaled, learned_rows.present) / 10.0**model.score_scale
    names = [asked.name for asked in learned_rows.inputs]
    theirs = booster.predict(xgboost.DMatrix(with_absent(learned_rows), feature_names=names), output_margin=True)
    off = np.abs(scores - theirs)
    # theirs are sums of 32 bits, and their inputs have 24: a decimal of 8 digits at a bound may fall to the other side
    assert np.quantile(off, 0.99) < 1e-5, np.quantile(off, [0.5, 0.9, 0.99, 1])


def test_a_decimal_that_is_the_bound_itself_falls_where_xgboost_lets_it_fall(tmp_path: Path) -> None:
    """0.1 is no float; the bound of the data's own value is read as that value."""
    scaled = np.array([[1], [1], [1], [2], [2], [2]] * 20, np.int64)
    labels = np.array([0, 0, 0, 1, 1, 1] * 20)
    column = Rows((learned_column(),), scaled, np.ones_like(scaled, np.bool_), labels)
    booster, content = xgboost_json(column, tmp_path, min_child_weight=0, tree_method="exact")
    model = read_xgboost("boosted", content, column.inputs)
    scores = CompiledModel(model).scores(scaled[:6], column.present[:6]) / 10.0**model.score_scale
    theirs = booster.predict(xgboost.DMatrix(column.numbers[:6], feature_names=["payload__x"]), output_margin=True)
    np.testing.assert_allclose(scores, theirs, rtol=0, atol=1e-5)
    assert scores[0] < 0 < scores[3]


def learned_column() -> object:
    from ofp_platform.vocabulary.loop.exact_model import PayloadInput

    return PayloadInput(field="x", scale=1)


@pytest.mark.parametrize(
    ("broken", "words"),
    [
        (lambda text: "rubbish", "is no model that LightGBM saved"),
        (lambda text: text.replace("objective=binary sigmoid:1", "objective=regression"), "its objective is 'regression'"),
        (lambda text: text.replace("payload__amount", "payload__age"), "asks payload__age, which is no input"),
        (lambda text: text.replace("num_leaves=31", "num_leaves=30"), "has not the nodes that it says"),
        (lambda text: text.replace("is_linear=0", "is_linear=1"), "has linear leaves or asks categories"),
        (lambda text: text.replace("leaf_value=", "leaf_value=x "), "cannot be read"),
    ],
)
def test_a_file_of_lightgbm_without_an_exact_form_is_refused(
    broken: Callable[[str], str], words: str, learned_rows: Rows
) -> None:
    _, text = lightgbm_text(learned_rows)
    assert broken(text) != text
    with pytest.raises(NotExportable, match=words):
        read_lightgbm("boosted", broken(text), learned_rows.inputs)


def test_lightgbm_that_takes_zero_for_missing_is_refused(learned_rows: Rows) -> None:
    _, text = lightgbm_text(learned_rows, zero_as_missing=True)
    with pytest.raises(NotExportable, match="takes zero for missing"):
        read_lightgbm("boosted", text, learned_rows.inputs)


def test_a_file_of_xgboost_without_an_exact_form_is_refused(learned_rows: Rows, tmp_path: Path) -> None:
    _, content = xgboost_json(learned_rows, tmp_path)
    with pytest.raises(NotExportable, match="is no model that XGBoost saved"):
        read_xgboost("boosted", b"{", learned_rows.inputs)
    told = orjson.loads(content)
    told["learner"]["objective"]["name"] = "reg:squarederror"
    with pytest.raises(NotExportable, match="is a gbtree of reg:squarederror"):
        read_xgboost("boosted", orjson.dumps(told), learned_rows.inputs)
    told = orjson.loads(content)
    told["learner"]["feature_names"] = []
    with pytest.raises(NotExportable, match="without names of features"):
        read_xgboost("boosted", orjson.dumps(told), learned_rows.inputs)
    told = orjson.loads(content)
    told["learner"]["gradient_booster"]["model"]["trees"][0]["split_type"][0] = 1
    with pytest.raises(NotExportable, match="asks categories"):
        read_xgboost("boosted", orjson.dumps(told), learned_rows.inputs)
    told = orjson.loads(content)
    told["learner"]["gradient_booster"]["model"]["trees"][0]["left_children"][0] = 0
    with pytest.raises(NotExportable, match="the nodes are no tree"):
        read_xgboost("boosted", orjson.dumps(told), learned_rows.inputs)
