"""The inputs of a model, read of an event and its vector."""

from __future__ import annotations

from datetime import UTC, datetime
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.scoring.inputs import InputUnfit, as_rows, read_inputs, scaled
from ofp_platform.vocabulary.decimals import format_decimal
from ofp_platform.vocabulary.loop.exact_model import MAX_INPUT, FeatureInput, PayloadInput, TimeInput

RATIO = FeatureInput(group_name="g", group_version="v1", feature="ratio", scale=6)
AMOUNT = PayloadInput(field="amount", scale=2)


@given(unscaled=st.integers(-(10**30), 10**30), scale=st.integers(0, 9), more=st.integers(0, 9))
def test_a_value_is_scaled_exactly_and_cut_to_what_a_model_takes(unscaled: int, scale: int, more: int) -> None:
    value = format_decimal(unscaled, scale) if scale else unscaled
    exact = Fraction(unscaled, 10**scale) * 10 ** (scale + more)
    assert scaled(value, scale + more) == max(-MAX_INPUT, min(MAX_INPUT, exact))


@pytest.mark.parametrize(("value", "words"), [("1.234", "3 digits behind the point, the model takes 2"), ("x", "is no number")])
def test_what_a_model_cannot_take_is_told_by_name(value: str, words: str) -> None:
    with pytest.raises(InputUnfit, match=f"payload__amount (has )?{words}"):
        read_inputs([AMOUNT], {}, {"amount": value}, 0)


def test_a_list_is_no_number() -> None:
    with pytest.raises(InputUnfit, match="g_v1__ratio is no number"):
        read_inputs([RATIO], {("g", "v1", "ratio"): [1, 2]}, {}, 0)


def test_what_is_absent_is_told_as_absent() -> None:
    night = int(datetime(2026, 1, 3, 6, 59, tzinfo=UTC).timestamp() * 1e6)  # a Saturday
    asked = [RATIO, AMOUNT, TimeInput(part="during_night"), TimeInput(part="during_weekend")]
    assert read_inputs(asked, {("g", "v1", "ratio"): None}, {}, night) == ([0, 0, 1, 1], [False, False, True, True])
    morning = int(datetime(2026, 1, 5, 7, 0, tzinfo=UTC).timestamp() * 1e6)
    row = read_inputs(asked, {("g", "v1", "ratio"): "0.5"}, {"amount": "12.3"}, morning)
    assert row == ([500_000, 1_230, 0, 0], [True, True, True, True])
    values, present = as_rows([row, row])
    assert (values.shape, present.shape) == ((2, 4), (2, 4))


def test_a_flag_counts_as_one() -> None:
    assert scaled(True, 3) == 1_000
