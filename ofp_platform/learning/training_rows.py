"""The rows that are learned from and tested on: what a protocol knows of them, and their inputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from ofp_platform.learning.dataset_inputs import columns_of, scaled_rows
from ofp_platform.learning.protocol import Protocol, split
from ofp_platform.offline.datasets.dataset_reader import read_dataset
from ofp_platform.scoring.compiled_model import Bools, Int64
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.loop.exact_model import ModelInput
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest


@dataclass(frozen=True)
class Columns:
    """Which columns of a dataset play which part. `card`: the entity whose known frauds leave the test; `amount`: may be none."""

    card: str
    amount: str | None
    event_time: str = "ts"
    label: str = "label_value"


@dataclass(frozen=True)
class Part:
    """Rows of training or of test: `day`, `card`, `fraud` (0 or 1). values int64[n, m], present bool[n, m]: their inputs."""

    rows: pd.DataFrame
    values: Int64
    present: Bools

    def numbers(self, inputs: Sequence[ModelInput]) -> npt.NDArray[np.float64]:
        """The inputs as a library learns from them: unscaled, 0 where absent."""
        units: npt.NDArray[np.float64] = np.array([10.0**asked_input.scale for asked_input in inputs])
        return self.values / units


def read_parts(
    objects: ObjectStore, manifest: DatasetManifest, columns: Columns, inputs: Sequence[ModelInput], protocol: Protocol
) -> tuple[Part, Part]:
    """The rows of training and of test.

    Raises:
        ProtocolUnmet: the dataset has not the days. DatasetDamaged | ObjectStoreUnavailable: see there.
    """
    table = read_dataset(objects, manifest, [columns.event_time, columns.card, columns.label, *columns_of(inputs)])
    values, present = scaled_rows(table, inputs, columns.event_time)
    rows = _frame(table, columns)
    # a payment without an amount feeds what needs none, and is a row; a model of amounts cannot see it
    usable = rows["fraud"].notna().to_numpy()
    if columns.amount is not None:
        usable = usable & present[:, 0]
    rows = rows[usable].astype({"fraud": np.int64})
    training, test = split(rows, protocol)
    first, second = (Part(part, values[part.index.to_numpy()], present[part.index.to_numpy()]) for part in (training, test))
    return first, second


def _frame(table: pa.Table, columns: Columns) -> pd.DataFrame:
    """One row per event: `day`, `card`, `fraud` (null where no label is known)."""
    moments = pd.to_datetime(table[columns.event_time].to_pandas(), utc=True)
    return pd.DataFrame(
        {"day": moments.dt.date, "card": table[columns.card].to_pandas(), "fraud": table[columns.label].to_pandas()}
    )
