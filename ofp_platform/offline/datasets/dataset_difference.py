"""The difference between two published datasets: in the fields that give them meaning, and in their rows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ofp_platform.offline.datasets.dataset_reader import read_dataset
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.offline.build_plan import IDENTITY_FIELDS
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest

_MEANING = (*IDENTITY_FIELDS, "run_facts", "row_order")
_ABSENT = "absent"


@dataclass(frozen=True)
class FieldDifference:
    """A field of the manifests that gives the data meaning, by its path, and what each says."""

    path: str
    one: Any
    other: Any


@dataclass(frozen=True)
class ContentDifference:
    """Rows are matched by their row key. `columns`: column to the number of shared rows in which it differs, where any do."""

    only_in_one: int
    only_in_other: int
    shared_rows: int
    columns_only_in_one: tuple[str, ...]
    columns_only_in_other: tuple[str, ...]
    columns: dict[str, int]


def meaning_differences(first_manifest: DatasetManifest, second_manifest: DatasetManifest) -> list[FieldDifference]:
    """Compare the fields that make up a dataset's identity."""
    first_wire, second_wire = first_manifest.wire(), second_manifest.wire()
    differences = []
    for name in _MEANING:
        first_fields, second_fields = (dict(_flat(name, wire.get(name, _ABSENT))) for wire in (first_wire, second_wire))
        for path in sorted(first_fields.keys() | second_fields.keys()):
            values = first_fields.get(path, _ABSENT), second_fields.get(path, _ABSENT)
            if values[0] != values[1]:
                differences.append(FieldDifference(path, *values))
    return differences


def content_difference(
    objects: ObjectStore, first_manifest: DatasetManifest, second_manifest: DatasetManifest
) -> ContentDifference | None:
    """Compare the rows; None for equal content digests. Reads one column of both at a time.

    Raises:
        DatasetDamaged | ObjectStoreUnavailable: see there.
        ValueError: the rows of the two have no key in common, as when one is per event and one per entity.
    """
    if first_manifest.content_digest == second_manifest.content_digest:
        return None
    first_types, second_types = (
        {column.name: column.type for column in manifest.columns} for manifest in (first_manifest, second_manifest)
    )
    key = _row_key(first_types, second_types)
    first_keys, second_keys = (
        _keys(read_dataset(objects, manifest, list(key))) for manifest in (first_manifest, second_manifest)
    )
    second_index = pc.index_in(first_keys, value_set=second_keys)
    is_shared = pc.is_valid(second_index)
    shared_rows = pc.sum(is_shared).as_py() or 0
    second_rows = second_index.filter(is_shared)
    differing = {}
    for name in first_types:
        if name in second_types and name not in key:
            values = read_dataset(objects, first_manifest, [name])[name].filter(is_shared)
            others = read_dataset(objects, second_manifest, [name])[name].take(second_rows)
            count = shared_rows if first_types[name] != second_types[name] else _unequal(values, others)
            if count:
                differing[name] = count
    return ContentDifference(
        only_in_one=len(first_keys) - shared_rows,
        only_in_other=len(second_keys) - shared_rows,
        shared_rows=shared_rows,
        columns_only_in_one=tuple(name for name in first_types if name not in second_types),
        columns_only_in_other=tuple(name for name in second_types if name not in first_types),
        columns=differing,
    )


def _flat(path: str, value: Any) -> Iterator[tuple[str, Any]]:
    if path == "feature_groups" and isinstance(value, list):  # a set: where one stands in the list says nothing
        for group in value:
            yield f"{path}.{group['group_name']}:{group['group_version']}", "present"
    elif isinstance(value, dict):
        for name, item in value.items():
            yield from _flat(f"{path}.{name}", item)
    elif isinstance(value, list) and value:
        for number, item in enumerate(value):
            yield from _flat(f"{path}.{number}", item)
    else:
        yield path, value


def _row_key(first_types: dict[str, str], second_types: dict[str, str]) -> tuple[str, ...]:
    shared_columns = [name for name in first_types if name in second_types]
    for key in (("decision_id",), ("event_type", "event_id")):
        if all(name in shared_columns for name in key):
            return key
    entities = [name for name in shared_columns if name.endswith("_id")]
    if len(entities) != 1 or "event_id" in first_types or "event_id" in second_types:
        raise ValueError("the rows of the two datasets are of different kinds: they cannot be matched")
    return (entities[0], "as_of_time_utc")


def _keys(table: pa.Table) -> pa.Array:
    parts = [pc.cast(column, pa.string()) for column in table.columns]
    key_texts = parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, "\n")
    return key_texts.combine_chunks()


def _unequal(values: pa.ChunkedArray, others: pa.ChunkedArray) -> int:
    if pa.types.is_list(values.type):  # Arrow compares no lists
        return sum(value != other for value, other in zip(values.to_pylist(), others.to_pylist(), strict=True))
    both_absent = pc.and_(pc.is_null(values), pc.is_null(others))
    equal = pc.or_(pc.fill_null(pc.equal(values, others), False), both_absent)
    return len(values) - (pc.sum(equal).as_py() or 0)
