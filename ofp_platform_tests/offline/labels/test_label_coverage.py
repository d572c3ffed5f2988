"""Counts by day, the coverage share, the gate."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ofp_platform.offline.labels.label_columns import OBSERVED_TIME, ResolvedLabels, RowEvents, label_columns
from ofp_platform.offline.labels.label_coverage import (
    BY_DAY,
    COUNTS,
    LabelDiagnostics,
    check_coverage,
    label_diagnostics,
    merge_diagnostics,
)
from ofp_platform.vocabulary.offline.build_plan import BuildPolicy, LabelBasis
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.times import format_time

DAY = 86_400_000_000
START = 20_000 * DAY
Labels = dict[str, tuple[int, int]]


def policy(coverage: str, unlabelled_means: int | None = None) -> BuildPolicy:
    return BuildPolicy(policy_id="test", revision=3, min_label_coverage=coverage, unlabelled_means=unlabelled_means)


def resolved(labels: Labels, as_of: int, maturity_days: int) -> ResolvedLabels:
    """Labels: event id to (value, observed time in days)."""
    basis = LabelBasis(
        label_type="fraud",
        as_of_utc=format_time(START + as_of * DAY),
        maturity_seconds=maturity_days * 86_400,
        next_sequence=len(labels),
    )
    names = sorted(labels)
    table = pa.table(
        {
            "event_class": pa.array(["payment"] * len(names), pa.string()),
            "event_id": pa.array(names, pa.string()),
            "value": pa.array([labels[name][0] for name in names], pa.int64()),
            "observed_time": pa.array([START + labels[name][1] * DAY for name in names], pa.int64()).cast(OBSERVED_TIME),
            "assertion_id": pa.array([f"{number:064x}" for number in range(len(names))], pa.string()),
        }
    )
    return ResolvedLabels(table, basis)


def diagnose(rows: Sequence[tuple[str, int]], known: ResolvedLabels, by: BuildPolicy) -> LabelDiagnostics:
    ts = np.array([START + day * DAY for _, day in rows], np.int64)
    events = RowEvents(pa.array(["payment"] * len(rows), pa.string()), pa.array([name for name, _ in rows], pa.string()), ts)
    columns = label_columns(known, events, by)
    return label_diagnostics(columns, ts, known, by)


ROWS = [("a", 0), ("b", 0), ("c", 1), ("d", 1), ("e", 3), ("f", 5)]


def test_counts_by_day() -> None:
    known = resolved({"a": (1, 2), "d": (0, 4), "e": (1, 5)}, as_of=5, maturity_days=3)
    found = diagnose(ROWS, known, policy("0.5"))
    assert found.by_day.to_pydict() == {
        "day": [np.datetime64(20_000 + day, "D").item() for day in (0, 1, 3, 5)],
        "rows": [2, 2, 1, 1],
        "labelled": [1, 1, 1, 0],
        "mature": [2, 2, 0, 0],
        "immature": [0, 0, 1, 1],
        "covered": [1, 1, 0, 0],
    }
    assert found.coverage == "0.500000"
    check_coverage(found, policy("0.5"))
    with pytest.raises(BuildRefused, match=r"cover 2 of 4 mature rows \(6 rows in all\): 0\.500000, and policy test") as caught:
        check_coverage(found, policy("0.500001"))
    assert (caught.value.reason, caught.value.field) == (BuildReason.LABEL_COVERAGE_BELOW_POLICY, "label")


def test_silence_counts_only_of_a_source_that_spoke_since() -> None:
    silent = policy("1.0", unlabelled_means=0)
    check_coverage(diagnose(ROWS, resolved({"a": (1, 2)}, 5, 3), silent), silent)
    fell_silent = diagnose(ROWS, resolved({"a": (1, 0)}, 5, 3), silent)
    assert fell_silent.coverage == "0.500000"
    never_spoke = diagnose(ROWS, resolved({}, 5, 3), silent)
    assert never_spoke.coverage == "0.000000"
    for found in (fell_silent, never_spoke):
        with pytest.raises(BuildRefused, match="LABEL_COVERAGE_BELOW_POLICY"):
            check_coverage(found, silent)


def test_without_mature_rows_nothing_is_covered() -> None:
    found = diagnose([("a", 5)], resolved({"a": (1, 5)}, 5, 1), policy("0.1"))
    assert found.coverage == "0.000000"
    with pytest.raises(BuildRefused, match="labels cover 0 of 0 mature rows"):
        check_coverage(found, policy("0.1"))
    check_coverage(found, policy("0.0"))
    check_coverage(merge_diagnostics([]), policy("0.0"))


def test_a_share_is_compared_exactly_and_shown_rounded_down() -> None:
    counts = {"rows": 3_000_001, "labelled": 3_000_000, "mature": 3_000_001, "immature": 0, "covered": 3_000_000}
    columns = [pa.array([20_000], pa.int32()).cast(pa.date32()), *(pa.array([counts[name]]) for name in COUNTS)]
    found = LabelDiagnostics(pa.Table.from_arrays(columns, schema=BY_DAY))
    assert found.coverage == "0.999999"
    check_coverage(found, policy("0.999999"))
    with pytest.raises(BuildRefused, match="3,000,000 of 3,000,001"):
        check_coverage(found, policy("1.0"))


@given(
    st.lists(st.tuples(st.sampled_from("abcdef"), st.integers(-3, 6)), max_size=30),
    st.dictionaries(st.sampled_from("abcdef"), st.tuples(st.integers(0, 1), st.integers(-3, 5))),
    st.integers(0, 4),
    st.integers(0, 30),
    st.sampled_from((None, 0)),
)
def test_parts_add_up(rows: list[tuple[str, int]], labels: Labels, maturity_days: int, cut: int, means: int | None) -> None:
    known, by = resolved(labels, 5, maturity_days), policy("0.5", means)
    whole = diagnose(rows, known, by)
    parts = [diagnose(rows[:cut], known, by), diagnose(rows[cut:], known, by)]
    assert merge_diagnostics(parts).by_day.equals(whole.by_day)
    heard = max((observed for _, observed in labels.values()), default=None)
    expected = {
        "rows": len(rows),
        "labelled": sum(name in labels for name, _ in rows),
        "mature": sum(day + maturity_days <= 5 for _, day in rows),
        "immature": sum(day + maturity_days > 5 for _, day in rows),
        "covered": sum(
            day + maturity_days <= 5 and (name in labels or (means is not None and heard is not None and day <= heard))
            for name, day in rows
        ),
    }
    assert {name: whole.total(name) for name in COUNTS} == expected
