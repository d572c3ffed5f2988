"""Planted leaks, each caught; and the as-of that the data has not reached."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from ofp_platform.offline.labels.event_index import IndexedLabels
from ofp_platform.offline.labels.label_columns import LABEL_SCHEMA, OBSERVED_TIME, RowEvents
from ofp_platform.offline.labels.label_leakage import check_no_leak
from ofp_platform.vocabulary.offline.build_plan import BuildPolicy, LabelBasis
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.times import format_time

SECOND = 1_000_000
START = 1_700_000_000 * SECOND
BASIS = LabelBasis(label_type="fraud", as_of_utc=format_time(START + 100 * SECOND), maturity_seconds=30, next_sequence=5)
IDS = pa.array(["old", "young", "silent", "told"])
TIMES = np.array([START, START + 90 * SECOND, START + 10 * SECOND, START + 20 * SECOND], np.int64)
EVENTS = RowEvents(pa.array(["payment"] * 4), IDS, TIMES)
ASSERTIONS = IndexedLabels(
    pa.table(
        {
            "event_class": ["payment"] * 5,
            "event_id": ["old", "told", "told", "silent", "young"],
            "value": [1, 0, 1, 1, 1],
            "observed_time": pa.array([START + at * SECOND for at in (50, 60, 100, 101, 120)], pa.int64()).cast(OBSERVED_TIME),
            "assertion_id": [f"{number:064x}" for number in range(5)],
        }
    )
)
HONEST: list[tuple[int | None, int | None, bool]] = [(1, 50, True), (None, None, False), (0, None, True), (1, 100, True)]


def policy(unlabelled_means: int | None = 0) -> BuildPolicy:
    return BuildPolicy(policy_id="test", revision=1, min_label_coverage="0.0", unlabelled_means=unlabelled_means)


def columns(**changes: tuple[int | None, int | None, bool]) -> pa.Table:
    rows = [changes.get(name, row) for name, row in zip(IDS.to_pylist(), HONEST, strict=True)]
    observed = [None if at is None else START + at * SECOND for _, at, _ in rows]
    arrays: list[Any] = [
        pa.array([value for value, _, _ in rows], pa.int64()),
        pa.array(observed, pa.int64()).cast(OBSERVED_TIME),
        pa.array([mature for _, _, mature in rows]),
    ]
    return pa.Table.from_arrays(arrays, schema=LABEL_SCHEMA)


def test_an_honest_build_passes() -> None:
    assert check_no_leak(columns(), EVENTS, BASIS, policy(), ASSERTIONS) == 3
    # an older assertion than the one that holds is a matter of the resolver, not a leak
    assert check_no_leak(columns(told=(0, 60, True)), EVENTS, BASIS, policy(), ASSERTIONS) == 3


@pytest.mark.parametrize(
    ("event_id", "row", "why"),
    [
        ("silent", (1, 101, True), "observed after the as-of"),
        ("young", (1, 120, False), "observed after the as-of"),
        ("silent", (1, 100, True), "no assertion gives it that value at that time"),
        ("old", (0, 50, True), "no assertion gives it that value at that time"),
        ("told", (None, 60, True), "no assertion gives it that value at that time"),
        ("silent", (1, None, True), "neither an assertion nor the policy"),
        ("young", (0, None, False), "before silence means anything"),
        ("young", (None, None, True), "counts as mature"),
    ],
)
def test_a_planted_leak_is_caught(event_id: str, row: tuple[int | None, int | None, bool], why: str) -> None:
    with pytest.raises(BuildRefused, match=why) as caught:
        check_no_leak(columns(**{event_id: row}), EVENTS, BASIS, policy(), ASSERTIONS)
    assert (caught.value.reason, caught.value.field) == (BuildReason.LEAKAGE_DETECTED, "label")
    assert f"(event payment {event_id})" in caught.value.message


def test_an_assertion_about_another_class_supports_nothing() -> None:
    logins = RowEvents(pa.array(["login"] * 4), IDS, TIMES)
    with pytest.raises(BuildRefused, match=r"\(event login old\): no assertion gives it that value"):
        check_no_leak(columns(), logins, BASIS, policy(), ASSERTIONS)


def test_a_value_out_of_silence_without_a_policy_is_a_leak() -> None:
    with pytest.raises(BuildRefused, match=r"row 2 \(event payment silent\).*gives silence no meaning"):
        check_no_leak(columns(), EVENTS, BASIS, policy(None), ASSERTIONS)
