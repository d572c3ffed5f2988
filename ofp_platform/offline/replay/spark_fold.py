"""The fold of a replay on Spark: each executor folds whole partitions of the archive, and its files go on as blocks.

The folds are those of `archived_fold`, by the same writer in a folder of the task's own. Of their files the driver fetches what
is small or makes rows (the tallies, maxima, offsets, key ids, candidates); events and identities stay with the executors and are
shuffled by shard. What is not archived is folded by the driver, as ever.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ofp_platform.log.port import RecordBatch
from ofp_platform.offline.replay.archived_fold import DividedReplay, Share, demand_tallies, fold_share
from ofp_platform.offline.replay.event_identities import IdentityCount, count_identities
from ofp_platform.offline.replay.known_events import FoldedReplay, finish_fold
from ofp_platform.offline.sources.spark_engine import (
    BLOCKS,
    append_block,
    block,
    blocks_frame,
    file_blocks,
    spark_failures,
    write_blocks,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

EVENTS = "events-"
"""Prefix of the folders of events; behind it the key type."""
_TALLY = "tally"
_IDENTITIES, _RECORDS = "identities", "records"
_COUNT = "count binary"


class SparkFold:
    """A fold that executors work on. `remaining_spans`: the rest of each partition, which the driver folds.

    `blocks`: the files of the executors, kept on their disks; None where nothing is archived, or the store lives in this process.
    """

    def __init__(self, spark: SparkSession, division: DividedReplay, scratch: Path) -> None:
        from pyspark import StorageLevel

        self.spark = spark
        self.remaining_spans = division.remaining_spans
        self._division = division
        self._scratch = scratch
        self.blocks: DataFrame | None = None
        scratch.mkdir(parents=True)
        if division.shares:
            tasks = spark.range(0, len(division.shares), 1, len(division.shares))
            # every one in a partition of its own
            self.blocks = tasks.mapInArrow(folding(division.shares), BLOCKS).persist(StorageLevel.DISK_ONLY)

    def finish(self, rest: Iterable[RecordBatch]) -> FoldedReplay:
        """Wait for the executors, then fold the `rest`: the records of `remaining_spans`, read only then.

        Raises:
            as `ArchivedFold.finish`. SparkUnavailable: Spark failed.
        """
        answers = []
        if self.blocks is not None:
            with spark_failures():
                stays = self.blocks.folder.startswith(EVENTS) | self.blocks.folder.isin(_IDENTITIES, _RECORDS)
                for row in self.blocks.filter(~stays).toLocalIterator():
                    if row["folder"] == _TALLY:
                        answers.append(pickle.loads(row["content"]))
                    else:
                        append_block(self._scratch, row["folder"], row["file"], row["content"])
        tallies = demand_tallies(answers)
        fold = self._division.fold_rest(tallies, rest)
        count = self._identities()
        if (count.conflicts or any(tally.amended_shards for tally in (*tallies, fold.tally))) and self.blocks is not None:
            with spark_failures():  # now their names are needed
                for row in self.blocks.filter(self.blocks.folder == _RECORDS).toLocalIterator():
                    append_block(self._scratch, row["folder"], row["file"], row["content"])
        return finish_fold(fold, [*tallies, fold.tally], count)

    def amended_part(self, folded_replay: FoldedReplay, folder: Path) -> FoldedReplay:
        """The replay of a finished fold, with `folder` for its own, where the events of its `amended_shards` and the records are.

        Raises:
            SparkUnavailable: Spark failed.
        """
        shards: dict[str, set[int]] = {}
        for key_type, shard in folded_replay.amended_shards:
            shards.setdefault(f"{EVENTS}{key_type}", set()).add(shard)
        for content in file_blocks(self._scratch, [*shards, _RECORDS] if shards else []):
            _append_rows(folder, content.to_pylist(), shards)
        if self.blocks is not None and shards:
            with spark_failures():
                events = self.blocks.filter(self.blocks.folder.isin(*shards))
                _append_rows(folder, events.toLocalIterator(), shards)
        return replace(folded_replay, folder=folder)

    def _identities(self) -> IdentityCount:
        """Identities are counted where those of one shard come together."""
        with spark_failures():
            frame = blocks_frame(self.spark, self._scratch, [_IDENTITIES])
            if self.blocks is not None:
                frame = frame.union(self.blocks.filter(self.blocks.folder == _IDENTITIES))
            counts = frame.groupBy("shard").applyInArrow(_count_shard, _COUNT).collect()
        return sum((pickle.loads(row["count"]) for row in counts), IdentityCount())


def folding(shares: Sequence[Share]) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """The task of an executor: fold the shares that are named by their numbers (a column of int64), and give their files."""

    def fold(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            for number in batch.column(0).to_pylist():
                yield from share_blocks(shares[number])

    return fold


def share_blocks(share: Share) -> Iterator[pa.RecordBatch]:
    """Fold a share in a folder of its own: its files in blocks, and its answer (see `fold_share`) in the folder `tally`."""
    with tempfile.TemporaryDirectory(prefix="ofp-fold-") as name:
        root = Path(name)
        answer = fold_share(replace(share, settings=replace(share.settings, folder=root)))
        yield block(_TALLY, f"{share.writer:03d}", -1, 0, pickle.dumps(answer))
        folders = sorted(path.name for path in root.iterdir() if path.is_dir())
        yield from file_blocks(root, ["", *folders])


def _append_rows(folder: Path, rows: Iterable[Any], shards: Mapping[str, set[int]]) -> None:
    """Append the blocks of these shards, and of folders that have none."""
    for row in rows:
        if row["folder"] not in shards or row["shard"] in shards[row["folder"]]:
            append_block(folder, row["folder"], row["file"], row["content"])


def _count_shard(blocks: pa.Table) -> pa.Table:
    shard = blocks["shard"][0].as_py()
    with tempfile.TemporaryDirectory(prefix="ofp-identities-") as name:
        write_blocks(Path(name), blocks)
        count: Any = count_identities(Path(name), [shard])
    return pa.table({"count": pa.array([pickle.dumps(count)], pa.binary())})
