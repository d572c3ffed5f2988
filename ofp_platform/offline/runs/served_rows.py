"""Rows of events held against the vectors that were served: the rows themselves, no second fold of the log.

Rows of a `decision` dataset must be equal. Of another basis they may differ, and the skew table says by how much.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pyarrow as pa

from ofp_platform.offline.datasets.dataset_rows import DatasetRows
from ofp_platform.offline.datasets.feature_rows import feature_name
from ofp_platform.vocabulary.offline.build_plan import BuildPolicy, at_most
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.dataset_manifest import FeatureSkew, ServedReceipt, SkewTable

_PAGE = 4_096
_SHARE_SCALE = 6
SnapshotsOf = Callable[[list[str]], dict[str, dict[str, Any]]]
"""Decision ids to what was served for them, the hashed part of a snapshot; what is not stored, or is damaged, is left out."""


@dataclass
class ServedRows:
    """Compares blocks of rows of a `decision` dataset while they are written."""

    snapshots_of: SnapshotsOf
    rows: int = 0
    compared: int = 0
    values: int = 0

    def blocks(self, blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
        """The same blocks.

        Raises:
            BuildRefused: SERVED_ROW_MISMATCH.
        """
        for block in blocks:
            for start in range(0, block.num_rows, _PAGE):
                self._compare(block.slice(start, _PAGE))
            yield block

    def receipt(self, policy: BuildPolicy) -> ServedReceipt:
        """The receipt over all blocks.

        Raises:
            BuildRefused: PARITY_BELOW_POLICY, more rows could not be compared than the policy allows.
        """
        missing = self.rows - self.compared
        if not at_most(missing, self.rows, policy.max_uncheckable_share):
            raise BuildRefused(
                BuildReason.PARITY_BELOW_POLICY,
                f"the vectors served for {missing} of {self.rows} rows are not stored, are damaged, or have none of the groups,"
                f" and policy {policy.policy_id} revision {policy.revision} allows a share of {policy.max_uncheckable_share}",
                "as_of_basis",
            )
        return ServedReceipt(rows=self.rows, compared=self.compared, values=self.values)

    def _compare(self, block: pa.Table) -> None:
        self.rows += block.num_rows
        for decision_id, pairs in _compared_rows(block, block["decision_id"].to_pylist(), self.snapshots_of):
            self.compared += bool(pairs)
            self.values += len(pairs)
            for name, value, served_value in pairs:
                if not _is_equal(value, served_value):
                    raise BuildRefused(
                        BuildReason.SERVED_ROW_MISMATCH,
                        f"{name} of the row of decision {decision_id} is not the value that was served",
                        "as_of_basis",
                    )


@dataclass
class SkewedRows:
    """Counts, while blocks of `dataset_rows` are written, where they differ from what was served for their events."""

    snapshots_of: SnapshotsOf
    dataset_rows: DatasetRows
    rows: int = 0
    decisions: int = 0
    compared: int = 0
    columns: list[str] = field(default_factory=list)
    compared_values: Counter[str] = field(default_factory=Counter)
    differing_values: Counter[str] = field(default_factory=Counter)

    def blocks(self, blocks: Iterator[pa.Table]) -> Iterator[pa.Table]:
        """The same blocks, which are those of the rows, in their order."""
        for number, block in enumerate(blocks):
            self.columns = _feature_columns(block)
            self.rows += block.num_rows
            decided_rows = self.dataset_rows.decided_rows(number)
            for start in range(0, decided_rows.num_rows, _PAGE):
                page = decided_rows.slice(start, _PAGE)
                self._compare(block.take(page["row"]), page["decision_id"].to_pylist())
            yield block

    def table(self) -> SkewTable:
        """The table over all blocks."""
        return SkewTable(
            rows=self.rows,
            decisions=self.decisions,
            compared=self.compared,
            features={
                name: FeatureSkew(
                    compared=self.compared_values[name],
                    differing=self.differing_values[name],
                    share=_share(self.differing_values[name], self.compared_values[name]),
                )
                for name in self.columns
            },
        )

    def _compare(self, block: pa.Table, decision_ids: list[str]) -> None:
        self.decisions += len(decision_ids)
        for _, pairs in _compared_rows(block, decision_ids, self.snapshots_of):
            self.compared += bool(pairs)
            self.compared_values.update(name for name, _, _ in pairs)
            self.differing_values.update(name for name, value, served_value in pairs if not _is_equal(value, served_value))


def _share(part: int, whole: int) -> str | None:
    """Rounded up: a difference is never 0."""
    return None if whole == 0 else f"{Decimal(-(-part * 10**_SHARE_SCALE // whole)).scaleb(-_SHARE_SCALE):f}"


def _feature_columns(block: pa.Table) -> list[str]:
    return [name for name in block.column_names if "__" in name and not name.startswith("payload__")]


def _compared_rows(
    block: pa.Table, decision_ids: list[str], snapshots_of: SnapshotsOf
) -> Iterator[tuple[str, list[tuple[str, Any, Any]]]]:
    """The rows whose decision's vector is stored: decision id, and (column, value of the row, value served) of what both have."""
    snapshots = snapshots_of(decision_ids)
    names = _feature_columns(block)
    ids = [name for name in block.column_names if name.endswith("_id") and name not in names]
    columns = {name: block[name].to_pylist() for name in (*ids, *names)}
    for number, decision_id in enumerate(decision_ids):
        snapshot = snapshots.get(decision_id)
        if snapshot is None:
            continue
        served_values = _served_values(snapshot, {name: column[number] for name, column in columns.items()})
        yield decision_id, [(name, columns[name][number], served_values[name]) for name in names if name in served_values]


def _served_values(hashed: dict[str, Any], row: dict[str, Any]) -> dict[str, Any]:
    """The served values of the row's keys by the name of their column."""
    return {
        feature_name((group["group_name"], group["group_version"]), name): value
        for key in hashed["values"]
        if row.get(f"{key['key_type']}_id") == key["key_id"]
        for group in key["by_group"]
        for name, value in group["features"].items()
    }


def _is_equal(value: Any, served: Any) -> bool:
    """A stored value beside one of the wire, where decimals are texts."""
    if isinstance(value, Decimal):
        return isinstance(served, str) and f"{value:f}" == served
    if isinstance(value, dict) and isinstance(served, dict):
        return value.keys() == served.keys() and all(_is_equal(value[name], served[name]) for name in value)
    if isinstance(value, list) and isinstance(served, list):
        return len(value) == len(served) and all(map(_is_equal, value, served))
    return type(value) is type(served) and value == served
