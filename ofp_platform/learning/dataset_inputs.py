"""The columns of a dataset as inputs of a model: which they are, and their rows as scaled integers."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ofp_platform.scoring.compiled_model import Bools, Int64
from ofp_platform.scoring.inputs import LAST_HOUR_OF_NIGHT, SATURDAY
from ofp_platform.vocabulary.loop.exact_model import MAX_INPUT, FeatureInput, ModelInput, PayloadInput, TimeInput
from ofp_platform.vocabulary.offline.dataset_admission import AdmissionReason, DatasetNotAdmitted
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetColumn, DatasetManifest

_DECIMAL = re.compile(r"decimal128\(\d+, (\d+)\)")
_PAYLOAD = "payload__"
_MICROS_A_DAY, _MICROS_AN_HOUR = 86_400_000_000, 3_600_000_000
_WEEKDAY_OF_1970 = 3  # a Thursday


def dataset_inputs(manifest: DatasetManifest, amount: str | None) -> tuple[ModelInput, ...]:
    """The inputs that a dataset has: an amount (a payload column of integers; None: no such), flags of the time, every feature.

    Raises:
        DatasetNotAdmitted: a feature is a text or a list.
    """
    amounts = [] if amount is None else [PayloadInput(field=amount.removeprefix(_PAYLOAD), scale=0)]
    flags = [TimeInput(part="during_weekend"), TimeInput(part="during_night")]
    features = [_feature_input(manifest, column) for column in manifest.columns if column.role == "feature"]
    return (*amounts, *flags, *features)


def _feature_input(manifest: DatasetManifest, column: DatasetColumn) -> FeatureInput:
    kind = "a text" if column.type == "string" else "a list" if column.type.startswith("list") else None
    if kind is not None:
        message = f"feature {column.name} is {kind}, and these models learn from numbers; leave its group out of the dataset"
        raise DatasetNotAdmitted(AdmissionReason.SCHEMA_UNFIT, message)
    decimal = _DECIMAL.fullmatch(column.type)
    for group in manifest.feature_groups:
        prefix = f"{group.group_name}_{group.group_version}__"
        if column.name.startswith(prefix):
            return FeatureInput(
                group_name=group.group_name,
                group_version=group.group_version,
                feature=column.name.removeprefix(prefix),
                scale=0 if decimal is None else int(decimal.group(1)),
            )
    message = f"feature column {column.name} is of none of the dataset's groups"
    raise DatasetNotAdmitted(AdmissionReason.SCHEMA_UNFIT, message)


def columns_of(inputs: Sequence[ModelInput]) -> list[str]:
    """The columns of a dataset that inputs are read from; flags are read from the event time."""
    return [asked_input.name for asked_input in inputs if not isinstance(asked_input, TimeInput)]


def scaled_rows(table: pa.Table, inputs: Sequence[ModelInput], event_time: str) -> tuple[Int64, Bools]:
    """The inputs of n rows: values int64[n, m] as `scoring.inputs.read_inputs` gives them, 0 where absent; present bool[n, m]."""
    count = len(table)
    values, present = np.zeros((count, len(inputs)), np.int64), np.ones((count, len(inputs)), np.bool_)
    times = pc.cast(pc.cast(table[event_time], pa.timestamp("us", "UTC")), pa.int64()).to_numpy()
    for place, asked_input in enumerate(inputs):
        if isinstance(asked_input, TimeInput):
            if asked_input.part == "during_weekend":
                values[:, place] = (times // _MICROS_A_DAY + _WEEKDAY_OF_1970) % 7 >= SATURDAY
            else:
                values[:, place] = times % _MICROS_A_DAY // _MICROS_AN_HOUR <= LAST_HOUR_OF_NIGHT
            continue
        column = table[asked_input.name].combine_chunks()
        present[:, place] = pc.is_valid(column).to_numpy(zero_copy_only=False)
        values[:, place] = np.where(present[:, place], _integers(column), 0)
    return values, present


def _integers(column: pa.Array | pa.ChunkedArray) -> Int64:
    """Integers, booleans or decimals as scaled integers, cut to what a model takes; of an absent one anything."""
    if isinstance(column, pa.ChunkedArray):
        column = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if pa.types.is_decimal128(column.type):
        words = np.frombuffer(column.buffers()[1], np.int64).reshape(-1, 2)[column.offset : column.offset + len(column)]
        low, high = words[:, 0], words[:, 1]
        fits = (low >> 63) == high
        integers = np.where(fits, low, np.where(high < 0, -MAX_INPUT, MAX_INPUT))
    else:
        integers = pc.fill_null(pc.cast(column, pa.int64()), 0).to_numpy(zero_copy_only=False)
    return np.clip(integers, -MAX_INPUT, MAX_INPUT)
