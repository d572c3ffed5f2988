"""The report on a model in exact form: its thresholds, what they do to the test, the cost of quantisation, the gates."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from ofp_platform.learning.scores import Scores
from ofp_platform.scoring.compiled_model import Int64
from ofp_platform.vocabulary.loop.eval_report import (
    AlertShares,
    AtThreshold,
    EvalReport,
    Gate,
    Quantisation,
    Thresholds,
    TrainRequest,
)
from ofp_platform.vocabulary.loop.exact_model import ExactModel
from ofp_platform.vocabulary.retraining_policy import Metric

_MILLION = 1_000_000


def six_digits(numerator: int, denominator: int) -> str:
    """A share, rounded down."""
    whole, rest = divmod(numerator * _MILLION // denominator, _MILLION)
    return f"{whole}.{rest:06d}"


def thresholds_for(scores: Int64, shares: AlertShares) -> Thresholds:
    """The least scores from which no more than these shares of the training rows are alerted."""
    ordered_scores = np.sort(scores)[::-1]

    def at(share: str) -> int:
        most = len(ordered_scores) * int(share.replace(".", "")) // _MILLION
        # beyond the greatest where none may be alerted
        return int(ordered_scores[0]) + 1 if most == 0 else _reached_by(ordered_scores, most)

    review, decline = at(shares.review), at(shares.decline)
    return Thresholds(review_from=review, decline_from=max(review, decline))


def _reached_by(ordered_scores: Int64, most: int) -> int:
    if most >= len(ordered_scores) or ordered_scores[most] < ordered_scores[most - 1]:
        return int(ordered_scores[most - 1])
    above = ordered_scores[ordered_scores > ordered_scores[most]]
    return int(above[-1]) if len(above) else int(ordered_scores[0]) + 1


def report_on(
    request: TrainRequest,
    model: ExactModel,
    training_scores: Int64,
    test_scores: Int64,
    library_scores: npt.NDArray[np.float64] | None,
    frauds: tuple[pd.Series[Any], pd.Series[Any]],
    scores: Scores,
) -> EvalReport:
    """The report. `frauds`: 0 or 1 for each row of training and of test; `library_scores`: of the test, unscaled, None where no
    library is at hand; `scores`: of the exact form on the test.
    """
    training_frauds, test_frauds = (part.to_numpy(np.int64) for part in frauds)
    thresholds = thresholds_for(training_scores, request.alert_shares)
    metrics: dict[Metric, str] = {
        "auc_roc": f"{scores.auc_roc:.6f}",
        "average_precision": f"{scores.average_precision:.6f}",
        "card_precision_100": f"{scores.card_precision_100:.6f}",
    }
    gates = tuple(
        Gate(metric=metric, at_least=at_least, seen_value=metrics[metric], passed=metrics[metric] >= at_least)
        for metric, at_least in sorted(request.gates.items())
    )
    return EvalReport(
        request_digest=request.digest,
        manifest_digest=request.manifest_digest,
        model_digest=model.digest,
        training_rows=len(training_frauds),
        training_frauds=int(training_frauds.sum()),
        test_rows=len(test_frauds),
        test_frauds=int(test_frauds.sum()),
        metrics=metrics,
        thresholds=thresholds,
        at_review=_at(thresholds.review_from, test_scores, test_frauds),
        at_decline=_at(thresholds.decline_from, test_scores, test_frauds),
        quantisation=None if library_scores is None else _quantisation(model, thresholds, test_scores, library_scores),
        gates=gates,
    )


def _quantisation(
    model: ExactModel, thresholds: Thresholds, scores: Int64, library_scores: npt.NDArray[np.float64]
) -> Quantisation:
    unit = 10.0**model.score_scale
    other_outcomes = sum(
        int(((scores >= bound) != (library_scores * unit >= bound)).sum())
        for bound in sorted({thresholds.review_from, thresholds.decline_from})
    )
    largest = float(np.abs(scores / unit - library_scores).max(initial=0.0))
    return Quantisation(rows=len(scores), largest_error=f"{largest:.12f}", other_outcomes=other_outcomes)


def _at(bound: int, scores: Int64, frauds: Int64) -> AtThreshold:
    is_alerted = scores >= bound
    frauds_found = int(frauds[is_alerted].sum())
    count = int(is_alerted.sum())
    return AtThreshold(
        alert_count=count,
        frauds=frauds_found,
        precision=None if count == 0 else six_digits(frauds_found, count),
        recall=six_digits(frauds_found, int(frauds.sum())),
    )
