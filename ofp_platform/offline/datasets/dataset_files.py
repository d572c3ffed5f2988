"""A dataset as Parquet files: declared types, canonical order of rows, bounded files, and the digest of the content."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ofp_platform.offline.datasets.content_digest import ContentDigest
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused

FILE_ROWS = 1_000_000
GROUP_ROWS = 131_072
_UNIQUE_TEXTS = frozenset({"event_id", "decision_id"})

ExtraColumns = Callable[[pa.Table], pa.Table]
"""From a block of rows to columns of as many rows, in the same order, to stand behind the block's own."""


@dataclass(frozen=True)
class DatasetFiles:
    """What was written: files in the order of their rows, SHA-256 of the content, rows, schema."""

    paths: tuple[Path, ...]
    rows_per_file: tuple[int, ...]
    content_digest: str
    rows: int
    schema: pa.Schema

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(path.stat().st_size for path in self.paths)


def write_dataset(
    folder: Path, blocks: Iterable[pa.Table], extra_columns: ExtraColumns | None = None, *, file_rows: int = FILE_ROWS
) -> DatasetFiles:
    """Write blocks of one schema as `part-00000.parquet`, ... of `file_rows` rows each; `folder` does not exist yet.

    `extra_columns` gives each block the columns that are not features, labels for one. Memory: a few blocks.

    Raises:
        BuildRefused: NOTHING_TO_BUILD, no rows; nothing is left in the folder then.
        TypeError: a column of a type that a dataset may not have.
        ValueError: blocks of different schemas, a column name twice, extra columns of another length.
        FileExistsError: `folder` exists.
    """
    folder.mkdir(parents=True)
    digest: ContentDigest | None = None
    paths: list[Path] = []
    counts: list[int] = []
    writer: pq.ParquetWriter | None = None
    # hashing and Parquet both work outside the interpreter's lock
    with ThreadPoolExecutor(2) as pool:
        try:
            for block in _whole(blocks, extra_columns):
                if digest is None:
                    digest = ContentDigest(block.schema)
                elif not block.schema.equals(digest.schema):
                    raise ValueError(f"a block has another schema than the first:\n{block.schema}")
                hashed = pool.submit(digest.update, block)
                start = 0
                while start < block.num_rows:
                    if writer is None:
                        paths.append(folder / f"part-{len(paths):05d}.parquet")
                        counts.append(0)
                        writer = _open(paths[-1], digest.schema)
                    part = block.slice(start, min(file_rows - counts[-1], block.num_rows - start))
                    writer.write_table(part, row_group_size=GROUP_ROWS)
                    counts[-1] += part.num_rows
                    start += part.num_rows
                    if counts[-1] == file_rows:
                        writer.close()
                        writer = None
                hashed.result()
        finally:
            if writer is not None:
                writer.close()
    if digest is None or not paths:
        folder.rmdir()
        raise BuildRefused(BuildReason.NOTHING_TO_BUILD, "the dataset would have no rows", "scope")
    return DatasetFiles(tuple(paths), tuple(counts), digest.hexdigest(), digest.rows, digest.schema)


def _whole(blocks: Iterable[pa.Table], extra_columns: ExtraColumns | None) -> Iterator[pa.Table]:
    for block in blocks:
        table = block
        if extra_columns is not None:
            extra = extra_columns(block)
            if extra.num_rows != block.num_rows:
                raise ValueError(f"extra columns of {extra.num_rows} rows for a block of {block.num_rows}")
            for field, column in zip(extra.schema, extra.columns, strict=True):
                table = table.append_column(field, column)
        if len(set(table.column_names)) != len(table.column_names):
            raise ValueError(f"a column name stands twice: {sorted(table.column_names)}")
        yield table.replace_schema_metadata(None)


def _open(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    texts = [field.name for field in schema if pa.types.is_string(field.type) and field.name not in _UNIQUE_TEXTS]
    return pq.ParquetWriter(path, schema, compression="zstd", compression_level=1, use_dictionary=texts, version="2.6")
