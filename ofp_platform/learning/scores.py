"""How good a model is at finding frauds: two usual scores, and one that counts what an investigator sees."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd
from sklearn.metrics import average_precision_score, roc_auc_score


@dataclass(frozen=True)
class Scores:
    """`card_precision_100`: of the 100 cards that look worst on a day, the share that is defrauded; mean over the days."""

    auc_roc: float
    average_precision: float
    card_precision_100: float


def score(test: pd.DataFrame, suspicion: np.ndarray) -> Scores:
    """The scores of `suspicion` (a greater one is more suspect) on rows with `day`, `card` and `fraud`."""
    return Scores(
        auc_roc=float(roc_auc_score(test["fraud"], suspicion)),
        average_precision=float(average_precision_score(test["fraud"], suspicion)),
        card_precision_100=card_precision(test.assign(predicted=suspicion), 100),
    )


def card_precision(rows: pd.DataFrame, top: int) -> float:
    """Mean daily precision of the `top` cards by their worst transaction; a card found once is not shown again."""
    shown_frauds: set[str] = set()
    precisions = []
    for _, day in rows.groupby("day", sort=True):
        cards = day[~day["card"].isin(shown_frauds)].groupby("card")[["predicted", "fraud"]].max()
        worst = cards.sort_values("predicted", ascending=False, kind="stable").head(top)
        hits = worst.index[worst["fraud"] == 1]
        precisions.append(len(hits) / top)
        shown_frauds |= set(hits)
    return float(np.mean(precisions))
