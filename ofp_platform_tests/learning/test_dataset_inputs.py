"""Columns of a dataset as inputs: what training reads of a row is what a decision reads of an event."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.learning.dataset_inputs import columns_of, dataset_inputs, scaled_rows
from ofp_platform.scoring.inputs import read_inputs
from ofp_platform.vocabulary.decimals import format_decimal
from ofp_platform.vocabulary.offline.dataset_admission import DatasetNotAdmitted
from ofp_platform.vocabulary.serving import FeatureGroupRef
from ofp_platform.vocabulary.times import to_datetime

KINDS = {"a_v1__mean": "decimal128(38, 6)", "a_v1__count": "int64", "a_v1__seen": "bool"}


def manifest(kinds: dict[str, str], group: str = "a") -> Any:
    columns = [SimpleNamespace(name=name, type=kind, role="feature") for name, kind in kinds.items()]
    return SimpleNamespace(columns=columns, feature_groups=(FeatureGroupRef(group_name=group, group_version="v1"),))


UNSCALED = st.none() | st.integers(-(10**37), 10**37) | st.integers(-(10**9), 10**9)


@given(
    rows=st.lists(
        st.tuples(
            UNSCALED,
            st.none() | st.integers(-(2**63), 2**63 - 1),
            st.none() | st.booleans(),
            st.none() | st.integers(-(2**53) + 1, 2**53 - 1),
            st.integers(0, 2**51),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_a_row_is_read_as_an_event_is(rows: list[tuple[Any, ...]]) -> None:
    inputs = dataset_inputs(manifest(KINDS), "payload__amount")
    assert columns_of(inputs) == ["payload__amount", *KINDS]
    means, counts, flags, amounts, times = (list(column) for column in zip(*rows, strict=True))
    decimals = [None if mean is None else Decimal(mean).scaleb(-6) for mean in means]
    table = pa.table(
        {
            "a_v1__mean": pa.array(decimals, pa.decimal128(38, 6)),
            "a_v1__count": pa.array(counts, pa.int64()),
            "a_v1__seen": pa.array(flags, pa.bool_()),
            "payload__amount": pa.array(amounts, pa.int64()),
            "at": pa.array([to_datetime(ts) for ts in times], pa.timestamp("us", "UTC")),
        }
    )
    # as two chunks, the second of which begins inside an array
    table = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    values, present = scaled_rows(table, inputs, "at")
    for index, (mean, count, flag, amount, ts) in enumerate(rows):
        text = None if mean is None else format_decimal(mean, 6)
        features = {("a", "v1", "mean"): text, ("a", "v1", "count"): count, ("a", "v1", "seen"): flag}
        expected = read_inputs(inputs, features, {"amount": amount}, ts)
        assert (values[index].tolist(), present[index].tolist()) == expected


def test_nights_and_weekends_are_those_of_utc() -> None:
    inputs = dataset_inputs(manifest({}), None)
    times = [
        datetime(2026, 11, 28, 23, 59, tzinfo=UTC),
        datetime(2026, 11, 30, 6, 59, tzinfo=UTC),
        datetime(2026, 11, 30, 7, tzinfo=UTC),
    ]
    values, _ = scaled_rows(pa.table({"at": pa.array(times, pa.timestamp("us", "UTC"))}), inputs, "at")
    assert values.tolist() == [[1, 0], [0, 1], [0, 0]]


def test_a_feature_of_no_group_is_refused() -> None:
    with pytest.raises(DatasetNotAdmitted, match="a_v1__mean is of none of the dataset's groups"):
        dataset_inputs(manifest(KINDS, group="b"), None)
