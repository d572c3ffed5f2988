"""Small models in exact form, and reports on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ofp_platform.vocabulary.loop.eval_report import EvalReport
from ofp_platform.vocabulary.loop.exact_model import ExactModel


def model_of(*inputs: Mapping[str, Any]) -> ExactModel:
    """A linear model of these inputs, each of weight 1."""
    count = len(inputs)
    form = {"weights": [1] * count, "references": [0] * count, "least": [0] * count, "greatest": [1000] * count}
    return ExactModel.model_validate(
        {
            "model_name": "m",
            "inputs": list(inputs),
            "score_scale": 6,
            "score_kind": "log_odds",
            "form": {"form": "linear", "base": 0, **form},
        }
    )


def report_of(model: ExactModel, **changed: Any) -> EvalReport:
    """A report on a model."""
    at = {"alert_count": 1, "frauds": 1, "precision": "1.000000", "recall": "0.500000"}
    fields = {
        "request_digest": "1" * 64,
        "manifest_digest": "2" * 64,
        "model_digest": model.digest,
        "training_rows": 10,
        "training_frauds": 2,
        "test_rows": 10,
        "test_frauds": 2,
        "metrics": {"auc_roc": "0.900000"},
        "thresholds": {"review_from": 500, "decline_from": 900},
        "at_review": at,
        "at_decline": at,
        "quantisation": None,
        "gates": [{"metric": "auc_roc", "at_least": "0.800000", "seen_value": "0.900000", "passed": True}],
        **changed,
    }
    return EvalReport.model_validate(fields)
