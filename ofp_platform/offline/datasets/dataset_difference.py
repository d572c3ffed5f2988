"""Two published datasets beside each other: what differs in what they mean, and what in what they hold."""

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
    shared: int
    columns_only_in_one: tuple[str, ...]
    columns_only_in_other: tuple[str, ...]
    columns: dict[str, int]


def meaning_differences(one: DatasetManifest, other: DatasetManifest) -> list[FieldDifference]:
    """What differs in the fields that a dataset's identity is made of."""
    first, second = one.wire(), other.wire()
    found = []
    for name in _MEANING:
        flat, against = (dict(_flat(name, wire.get(name, _ABSENT))) for wire in (first, second))
        for path in sorted(flat.keys() | against.keys()):
            values = flat.get(path, _ABSENT), against.get(path, _ABSENT)
            if values[0] != values[1]:
                found.append(FieldDifference(path, *values))
    return found


def content_difference(objects: ObjectStore, one: DatasetManifest, other: DatasetManifest) -> ContentDifference | None:
    """What differs in the rows; None for equal content digests. Reads one column of both at a time.

    Raises:
        DatasetDamaged | ObjectStoreUnavailable: see there.
        ValueError: the rows of the two have no key in common, as when one is per event and one per entity.
    """
    if one.content_digest == other.content_digest:
        return None
    here, there = ({column.name: column.type for column in manifest.columns} for manifest in (one, other))
    key = _row_key(here, there)
    keys, against = (_keys(read_dataset(objects, manifest, list(key))) for manifest in (one, other))
    place = pc.index_in(keys, value_set=against)
    shared = pc.is_valid(place)
    rows = pc.sum(shared).as_py() or 0
    at = place.filter(shared)
    differing = {}
    for name in here:
        if name in there and name not in key:
            values = read_dataset(objects, one, [name])[name].filter(shared)
            others = read_dataset(objects, other, [name])[name].take(at)
            count = rows if here[name] != there[name] else _unequal(values, others)
            if count:
                differing[name] = count
    return ContentDifference(
        only_in_one=len(keys) - rows,
        only_in_other=len(against) - rows,
        shared=rows,
        columns_only_in_one=tuple(name for name in here if name not in there),
        columns_only_in_other=tuple(name for name in there if name not in here),
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


def _row_key(here: dict[str, str], there: dict[str, str]) -> tuple[str, ...]:
    shared = [name for name in here if name in there]
    for key in (("decision_id",), ("event_type", "event_id")):
        if all(name in shared for name in key):
            return key
    entities = [name for name in shared if name.endswith("_id")]
    if len(entities) != 1 or "event_id" in here or "event_id" in there:
        raise ValueError("the rows of the two datasets are of different kinds: they cannot be matched")
    return (entities[0], "as_of_time_utc")


def _keys(table: pa.Table) -> pa.Array:
    parts = [pc.cast(column, pa.string()) for column in table.columns]
    joined = parts[0] if len(parts) == 1 else pc.binary_join_element_wise(*parts, "\n")
    return joined.combine_chunks()


def _unequal(values: pa.ChunkedArray, others: pa.ChunkedArray) -> int:
    both_absent = pc.and_(pc.is_null(values), pc.is_null(others))
    equal = pc.or_(pc.fill_null(pc.equal(values, others), False), both_absent)
    return len(values) - (pc.sum(equal).as_py() or 0)
