"""The policy of retraining: what is trained again, and what it must show on the holdout before it is published."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ofp_platform.vocabulary.model import Model

EstimatorName = Literal["logistic_regression", "decision_tree_depth_2", "random_forest", "gradient_boosting"]
Metric = Literal["auc_roc", "average_precision", "card_precision_100"]
SixDigits = Annotated[str, Field(pattern=r"^(0\.[0-9]{6}|1\.000000)$", description="a share from 0 to 1, six digits")]


class RetrainingPolicy(Model):
    """The choice of what is trained again, and the gate in front of its publication. Nothing is put in force by it."""

    bundle: str = Field(min_length=1, description="a shipped bundle file, or a path: the rules that the model stands beside")
    estimator: EstimatorName
    trees: int = Field(ge=1, le=10_000, description="of a forest, or of boosting")
    allow_hindsight: bool = Field(default=False, description="admit datasets whose rows know later events")
    min_test_rows: int = Field(ge=1, description="the fewest rows that the holdout may have")
    min_test_frauds: int = Field(ge=1, description="the fewest frauds among them")
    at_least: dict[Metric, SixDigits] = Field(min_length=1, description="the least that the challenger must show of each metric")
    behind_active_at_most: dict[Metric, SixDigits] = Field(
        min_length=1, description="how far it may stay behind the model in force, of each metric, on the same rows"
    )
