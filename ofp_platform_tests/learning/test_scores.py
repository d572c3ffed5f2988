"""Card precision: what an investigator sees who looks at the worst cards of each day."""

from datetime import date

import numpy as np
import pandas as pd
import pytest

from ofp_platform.learning.scores import card_precision, score

ONE, TWO = date(2026, 1, 1), date(2026, 1, 2)


def rows(*listed: tuple[date, str, int, float]) -> pd.DataFrame:
    return pd.DataFrame(listed, columns=["day", "card", "fraud", "predicted"])


def test_the_worst_transaction_of_a_card_stands_for_it() -> None:
    day = rows((ONE, "a", 0, 0.1), (ONE, "a", 1, 0.9), (ONE, "b", 0, 0.8), (ONE, "c", 1, 0.2))
    assert card_precision(day, 1) == 1.0
    assert card_precision(day, 2) == 0.5
    assert card_precision(day, 3) == pytest.approx(2 / 3)


def test_a_card_that_was_found_is_not_shown_again() -> None:
    days = rows((ONE, "a", 1, 0.9), (ONE, "b", 0, 0.1), (TWO, "a", 1, 0.9), (TWO, "b", 0, 0.8), (TWO, "c", 1, 0.1))
    assert card_precision(days, 1) == 0.5


def test_fewer_cards_than_are_looked_at_count_as_misses() -> None:
    assert card_precision(rows((ONE, "a", 1, 0.9)), 4) == 0.25


def test_scores_of_a_perfect_and_of_a_reversed_model() -> None:
    test = rows(*[(ONE, f"card-{number}", number % 2, 0.0) for number in range(40)])
    fraud = test["fraud"].to_numpy()
    perfect = score(test, fraud.astype(np.float64))
    assert (perfect.auc_roc, perfect.average_precision, perfect.card_precision_100) == (1.0, 1.0, 0.2)
    assert score(test, 1.0 - fraud).auc_roc == 0.0
