"""How much of a build's rows the labels cover, day by day, and the gate that a training build has to pass."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from ofp_platform.offline.labels.label_columns import ResolvedLabels, mature_rows
from ofp_platform.vocabulary.decimals import format_decimal
from ofp_platform.vocabulary.offline.build_plan import BuildPolicy
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused

_DAY = 86_400_000_000
_SCALE = 6
COUNTS = ("rows", "labelled", "mature", "immature", "covered")
BY_DAY = pa.schema(
    [pa.field("day", pa.date32(), nullable=False), *(pa.field(name, pa.int64(), nullable=False) for name in COUNTS)]
)


@dataclass(frozen=True)
class LabelDiagnostics:
    """Counts of rows by the day (UTC) of their event, days in order.

    `by_day` (BY_DAY): `labelled` rows have an assertion; `covered` rows are mature and either labelled, or silent while the
    policy gives silence a meaning and the source was heard of after the row's event. A source that never spoke, or fell
    silent before the event, says nothing by its silence.
    """

    by_day: pa.Table

    def days(self) -> list[dict[str, str | int]]:
        """`by_day` as plain data, for a receipt: `day` as in 2026-01-31, and the COUNTS."""
        return [{**row, "day": row["day"].isoformat()} for row in self.by_day.to_pylist()]

    def total(self, name: str) -> int:
        """The sum over all days of one of COUNTS."""
        return int(pc.sum(self.by_day[name]).as_py() or 0)

    @property
    def coverage(self) -> str:
        """Covered rows among the mature ones, a decimal, rounded down; 0 when no row is mature."""
        mature = self.total("mature")
        return format_decimal(self.total("covered") * 10**_SCALE // mature if mature else 0, _SCALE)


def label_diagnostics(
    columns: pa.Table, row_ts: NDArray[np.int64], resolved: ResolvedLabels, policy: BuildPolicy
) -> LabelDiagnostics:
    """Diagnose rows with their label columns, in one order; `row_ts` int64[n], microseconds. Before rows are dropped."""
    is_mature = mature_rows(row_ts, resolved.basis)
    is_labelled = columns["label_observed_time"].is_valid().to_numpy()
    is_covered = is_labelled & is_mature
    last_heard_us = resolved.last_heard_us
    if policy.unlabelled_means is not None and last_heard_us is not None:
        is_covered |= is_mature & (row_ts <= last_heard_us)
    days, day_index = np.unique(row_ts // _DAY, return_inverse=True)

    def count(row_mask: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.bincount(day_index[row_mask], minlength=len(days)).astype(np.int64)

    all_rows = np.ones(len(row_ts), np.bool_)
    counts = [count(row_mask) for row_mask in (all_rows, is_labelled, is_mature, ~is_mature, is_covered)]
    return LabelDiagnostics(pa.Table.from_arrays([pa.array(days.astype(np.int32)).cast(pa.date32()), *counts], schema=BY_DAY))


def merge_diagnostics(parts: Sequence[LabelDiagnostics]) -> LabelDiagnostics:
    """The diagnostics of all rows, from those of disjoint parts of them."""
    if not parts:
        return LabelDiagnostics(BY_DAY.empty_table())
    sums = pa.concat_tables(part.by_day for part in parts).group_by("day").aggregate([(name, "sum") for name in COUNTS])
    sorted_sums = sums.sort_by("day")
    return LabelDiagnostics(
        pa.Table.from_arrays(
            [sorted_sums["day"], *(sorted_sums[f"{name}_sum"] for name in COUNTS)], schema=BY_DAY
        ).combine_chunks()
    )


def check_coverage(diagnostics: LabelDiagnostics, policy: BuildPolicy) -> None:
    """The gate of a training build; compared exactly, not as rounded for display.

    Raises:
        BuildRefused: LABEL_COVERAGE_BELOW_POLICY.
    """
    whole_digits, _, fraction = policy.min_label_coverage.partition(".")
    required_coverage = int(whole_digits + fraction.ljust(_SCALE, "0"))
    mature_count, covered_count = diagnostics.total("mature"), diagnostics.total("covered")
    if covered_count * 10**_SCALE < required_coverage * mature_count or (mature_count == 0 and required_coverage > 0):
        rows = diagnostics.total("rows")
        raise BuildRefused(
            BuildReason.LABEL_COVERAGE_BELOW_POLICY,
            f"labels cover {covered_count:,} of {mature_count:,} mature rows ({rows:,} rows in all): {diagnostics.coverage},"
            f" and policy {policy.policy_id} revision {policy.revision} asks for {policy.min_label_coverage}."
            " Load the missing labels,"
            " or choose rows that are older than the label's maturity at its as-of",
            "label",
        )
