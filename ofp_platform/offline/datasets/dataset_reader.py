"""Published datasets, read: only by manifest, and only bytes that are what the manifest says."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from ofp_platform.offline.datasets.publication import DatasetDamaged, stored_files
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest


def read_dataset(objects: ObjectStore, manifest: DatasetManifest, columns: Sequence[str] | None = None) -> pa.Table:
    """The rows of a dataset, in canonical order; `columns` None: all of them.

    Raises:
        DatasetDamaged: a file is missing or is not what the manifest says. ObjectStoreUnavailable: see there.
        KeyError: the dataset has no such column.
    """
    column_names = [column.name for column in manifest.columns]
    for name in columns or ():
        if name not in column_names:
            raise KeyError(f"dataset {manifest.dataset_name} has no column {name!r}; it has {', '.join(column_names)}")
    selected_columns = None if columns is None else list(columns)
    tables = []
    for _, content in stored_files(objects, manifest):
        if isinstance(content, str):
            raise DatasetDamaged(content)
        tables.append(pq.read_table(pa.BufferReader(content), columns=selected_columns))
    return pa.concat_tables(tables)
