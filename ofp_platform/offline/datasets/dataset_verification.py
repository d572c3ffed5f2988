"""A published dataset held against its manifest: every byte, and the digest of the content computed again."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq

from ofp_platform.offline.datasets.content_digest import ContentDigest
from ofp_platform.offline.datasets.publication import stored_files
from ofp_platform.storage.objects import ObjectStore
from ofp_platform.vocabulary.offline.dataset_manifest import DatasetManifest

_ROWS = 131_072


def verify_dataset(
    objects: ObjectStore, manifest: DatasetManifest, on_rows: Callable[[int], None] = lambda rows: None
) -> list[str]:
    """Find what is wrong with the published data, in words; empty when every byte and the content match the manifest.

    `on_rows` is called with the number of rows checked since the last call. Memory: one file and a block of its rows.

    Raises:
        ObjectStoreUnavailable: see there.
    """
    problems = []
    digest: ContentDigest | None = None
    for file, content in stored_files(objects, manifest):
        if isinstance(content, str):
            problems.append(content)
            continue
        with pq.ParquetFile(pa.BufferReader(content)) as parquet:
            if parquet.metadata.num_rows != file.rows:
                problems.append(f"{file.path} has {parquet.metadata.num_rows} rows, the manifest says {file.rows}")
            digest = digest or ContentDigest(parquet.schema_arrow)
            if not parquet.schema_arrow.equals(digest.schema, check_metadata=False):
                problems.append(f"{file.path} has another schema than the files before it")
                continue
            for batch in parquet.iter_batches(_ROWS):
                digest.update(batch)
                on_rows(batch.num_rows)
    if problems:
        return problems
    assert digest is not None  # no dataset is published without a row
    columns = [(field.name, str(field.type)) for field in digest.schema]
    if columns != [(column.name, column.type) for column in manifest.columns]:
        problems.append("the columns are not those of the manifest")
    if digest.rows != manifest.row_count:
        problems.append(f"there are {digest.rows} rows, the manifest says {manifest.row_count}")
    if digest.hexdigest() != manifest.content_digest:
        problems.append(f"the content has digest {digest.hexdigest()}, the manifest says {manifest.content_digest}")
    return problems
