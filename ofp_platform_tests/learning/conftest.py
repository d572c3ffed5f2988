"""Rows to learn from: decimals, integers and absent values, and a label that depends on them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pytest

from ofp_platform.scoring.compiled_model import Bools, Int64
from ofp_platform.vocabulary.loop.exact_model import FeatureInput, ModelInput, PayloadInput, TimeInput


@dataclass(frozen=True)
class Rows:
    """inputs: what the columns are; scaled, present: [n, m]; numbers: the same unscaled; labels: 0 or 1."""

    inputs: tuple[ModelInput, ...]
    scaled: Int64
    present: Bools
    labels: Int64

    @property
    def numbers(self) -> npt.NDArray[np.float64]:
        units = np.array([10.0**asked.scale for asked in self.inputs])
        return np.where(self.present, self.scaled, 0) / units


@pytest.fixture(scope="session")
def learned_rows() -> Rows:
    random = np.random.default_rng(7)
    inputs = (
        FeatureInput(group_name="account_amount", group_version="v1", feature="mean_7d", scale=6),
        FeatureInput(group_name="account_activity", group_version="v1", feature="count_1d", scale=0),
        PayloadInput(field="amount", scale=2),
        TimeInput(part="during_night"),
    )
    count = 3_000
    scaled = np.stack(
        [
            random.integers(0, 90_000_000, count),
            random.integers(0, 30, count),
            random.integers(0, 100_000, count),
            random.integers(0, 2, count),
        ],
        axis=1,
    ).astype(np.int64)
    present = random.random((count, 4)) < 0.9
    present[:, 3] = True
    risk = scaled[:, 0] / 9e7 + scaled[:, 1] / 30 + scaled[:, 2] / 1e5 * scaled[:, 3]
    labels = (risk + random.normal(0, 0.3, count) > 1.6).astype(np.int64)
    return Rows(inputs, np.where(present, scaled, 0), present, labels)
