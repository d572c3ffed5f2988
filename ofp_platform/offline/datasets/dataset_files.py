"""A dataset as Parquet files: declared types, canonical order of rows, bounded files, and the digest of the content."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ofp_platform.offline.datasets.content_digest import ContentDigest
from ofp_platform.vocabulary.offline.build_refusal import BuildReason, BuildRefused

FILE_ROWS = 1_000_000
GROUP_ROWS = 131_072
_UNIQUE_TEXTS = frozenset({"event_id", "decision_id"})


@dataclass(frozen=True)
class DatasetFiles:
    """The written files in the order of their rows, SHA-256 of the content, number of rows, schema."""

    paths: tuple[Path, ...]
    rows_per_file: tuple[int, ...]
    content_digest: str
    rows: int
    schema: pa.Schema

    @property
    def bytes(self) -> int:
        """Size of all files."""
        return sum(path.stat().st_size for path in self.paths)


def write_dataset(folder: Path, blocks: Iterable[pa.Table], *, file_rows: int = FILE_ROWS) -> DatasetFiles:
    """Write blocks of one schema as `part-00000.parquet`, ... of `file_rows` rows each; `folder` does not exist yet.

    Memory: a few blocks.

    Raises:
        BuildRefused: NOTHING_TO_BUILD, no rows; nothing is left in the folder then.
        TypeError: a column of a type that a dataset may not have.
        ValueError: blocks of different schemas, a column name twice.
        FileExistsError: `folder` exists.
    """
    folder.mkdir(parents=True)
    digest: ContentDigest | None = None
    files = _Files(folder, file_rows)
    # hashing and Parquet both work outside the interpreter's lock, and beside them the next block is made
    with ThreadPoolExecutor(2) as pool:
        pending_writes: list[Future[None]] = []
        try:
            for block in _plain_blocks(blocks):
                if digest is None:
                    digest = ContentDigest(block.schema)
                elif not block.schema.equals(digest.schema):
                    raise ValueError(f"a block has another schema than the first:\n{block.schema}")
                for future in pending_writes:
                    future.result()
                pending_writes = [pool.submit(digest.update, block), pool.submit(files.write, block)]
            for future in pending_writes:
                future.result()
        finally:
            wait(pending_writes)
            files.close()
    if digest is None or not files.paths:
        folder.rmdir()
        raise BuildRefused(BuildReason.NOTHING_TO_BUILD, "the dataset would have no rows", "scope")
    return DatasetFiles(tuple(files.paths), tuple(files.counts), digest.hexdigest(), digest.rows, digest.schema)


class _Files:
    """The files of a dataset while they are written, one after the other."""

    def __init__(self, folder: Path, file_rows: int) -> None:
        self.paths: list[Path] = []
        self.counts: list[int] = []
        self._folder = folder
        self._file_rows = file_rows
        self._writer: pq.ParquetWriter | None = None

    def write(self, block: pa.Table) -> None:
        """The next rows; a file that is full is closed."""
        start = 0
        while start < block.num_rows:
            if self._writer is None:
                self.paths.append(self._folder / f"part-{len(self.paths):05d}.parquet")
                self.counts.append(0)
                self._writer = _open(self.paths[-1], block.schema)
            part = block.slice(start, min(self._file_rows - self.counts[-1], block.num_rows - start))
            self._writer.write_table(part, row_group_size=GROUP_ROWS)
            self.counts[-1] += part.num_rows
            start += part.num_rows
            if self.counts[-1] == self._file_rows:
                self.close()

    def close(self) -> None:
        """Close the file that is not full, if there is one."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _plain_blocks(blocks: Iterable[pa.Table]) -> Iterator[pa.Table]:
    for block in blocks:
        if len(set(block.column_names)) != len(block.column_names):
            raise ValueError(f"a column name stands twice: {sorted(block.column_names)}")
        yield block.replace_schema_metadata(None)


def _open(path: Path, schema: pa.Schema) -> pq.ParquetWriter:
    texts = [field.name for field in schema if pa.types.is_string(field.type) and field.name not in _UNIQUE_TEXTS]
    return pq.ParquetWriter(path, schema, compression="zstd", compression_level=1, use_dictionary=texts, version="2.6")
