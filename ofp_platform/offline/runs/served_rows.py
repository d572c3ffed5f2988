"""Rows of a `decision` dataset held against the vectors that were served: the rows themselves, no second fold of the log."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pyarrow as pa

from ofp_platform.offline.datasets.feature_rows import feature_name
from ofp_platform.vocabulary.offline.build_plan import BuildPolicy, at_most
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused
from ofp_platform.vocabulary.offline.dataset_manifest import ServedReceipt

_PAGE = 4_096


@dataclass
class ServedRows:
    """Compares blocks of rows while they are written. `snapshots_of`: decision ids to what was served for them, the hashed part
    of a snapshot; what is not stored, or is damaged, is left out."""

    snapshots_of: Callable[[list[str]], dict[str, dict[str, Any]]]
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
        snapshots = self.snapshots_of(block["decision_id"].to_pylist())
        names = [name for name in block.column_names if "__" in name and not name.startswith("payload__")]
        ids = [name for name in block.column_names if name.endswith("_id") and name not in names]
        columns = {name: block[name].to_pylist() for name in (*ids, *names)}
        for number, decision_id in enumerate(columns["decision_id"]):
            self.rows += 1
            snapshot = snapshots.get(decision_id)
            if snapshot is None:
                continue
            served = _served_values(snapshot, {name: column[number] for name, column in columns.items()})
            held = [name for name in names if name in served]
            self.compared += bool(held)
            self.values += len(held)
            for name in held:
                if not _is_equal(columns[name][number], served[name]):
                    raise BuildRefused(
                        BuildReason.SERVED_ROW_MISMATCH,
                        f"{name} of the row of decision {decision_id} is not the value that was served",
                        "as_of_basis",
                    )


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
    return type(value) is type(served) and value == served
