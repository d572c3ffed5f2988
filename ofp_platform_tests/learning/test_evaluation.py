"""Thresholds by share, what they do, and the gates."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from ofp_platform.learning.evaluation import report_on, six_digits, thresholds_for
from ofp_platform.learning.scores import Scores
from ofp_platform.vocabulary.loop.eval_report import AlertShares, Thresholds

SCORES = Scores(auc_roc=0.9, average_precision=0.25, card_precision_100=1.0)


@given(
    scores=st.lists(st.integers(-5, 5), min_size=1, max_size=40),
    share=st.sampled_from(["0.000000", "0.100000", "0.250000", "1.000000"]),
)
def test_no_more_rows_than_the_share_are_alerted_and_one_score_less_would_be_more(scores: list[int], share: str) -> None:
    rows = np.array(scores, np.int64)
    bound = thresholds_for(rows, AlertShares(review=share, decline="0.000000")).review_from
    most = int(len(rows) * float(share))
    assert (rows >= bound).sum() <= most
    below = rows[rows < bound]
    if len(below):
        assert (rows >= below.max()).sum() > most
    assert thresholds_for(rows, AlertShares(review=share, decline="0.000000")).decline_from > rows.max()


def request(gates: dict[str, str]) -> Any:
    return SimpleNamespace(
        alert_shares=AlertShares(review="0.500000", decline="0.250000"), digest="0" * 64, manifest_digest="1" * 64, gates=gates
    )


def test_a_report_counts_what_thresholds_find_and_tells_gates_that_failed() -> None:
    model: Any = SimpleNamespace(score_scale=1, digest="2" * 64)
    training = pd.Series([0, 0, 1, 1])
    test = pd.Series([0, 1, 1])
    report = report_on(
        request({"auc_roc": "0.900000", "average_precision": "0.250001"}),
        model,
        np.array([1, 2, 3, 4]),
        np.array([1, 3, 4]),
        np.array([0.1, 0.3, 0.39]),
        (training, test),
        SCORES,
    )
    assert report.thresholds == Thresholds(review_from=3, decline_from=4)
    assert (report.at_review.alert_count, report.at_review.frauds, report.at_review.recall) == (2, 2, "1.000000")
    assert (report.at_decline.alert_count, report.at_decline.precision, report.at_decline.recall) == (1, "1.000000", "0.500000")
    assert report.quantisation is not None
    # 0.39 of the library is 3.9 here: it would not be declined
    assert (report.quantisation.other_outcomes, report.quantisation.largest_error) == (1, "0.010000000000")
    assert [(gate.metric, gate.passed) for gate in report.gates] == [("auc_roc", True), ("average_precision", False)]
    assert not report.has_passed


def test_shares_are_rounded_down() -> None:
    assert six_digits(2, 3) == "0.666666"
    assert six_digits(3, 3) == "1.000000"


def test_a_share_that_declines_more_than_it_alerts_is_refused() -> None:
    with pytest.raises(ValidationError, match="decline lies above review"):
        AlertShares(review="0.010000", decline="0.020000")
    with pytest.raises(ValidationError, match="nothing would ever be reviewed"):
        Thresholds(review_from=2, decline_from=1)
