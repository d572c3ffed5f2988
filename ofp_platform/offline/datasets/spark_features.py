"""The features of a dataset's rows on Spark: events and rows of a shard come together, and one task computes them.

The same shards by the same kernel as on this machine. Events come from where they were folded (executors, and the driver for what
was not archived), rows from the driver; a task writes both to a folder of its own, computes there, checks its sample for leaks,
and gives the file of its columns back, which the driver needs to put the rows together.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import pyarrow as pa

from ofp_platform.offline.datasets.feature_leakage import check_shard, random_ordinals
from ofp_platform.offline.datasets.feature_rows import FeatureJob, compute_shard
from ofp_platform.offline.replay.spark_fold import EVENTS
from ofp_platform.offline.sources.spark_engine import PART_BYTES, append_block, blocks_frame, spark_failures, write_blocks
from ofp_platform.registry.compile import CompiledRegistry, compile_pack
from ofp_platform.registry.models import Pack
from ofp_platform.vocabulary.offline.build_refusal import BuildRefused, Refusal

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

ROWS = "rows-"
"""Prefix of the folders of row shards; behind it the key type."""
_DONE = "key_type string, shard int, part int, checked long, refusal string, content binary"
_DONE_SCHEMA = pa.schema(
    [
        ("key_type", pa.string()),
        ("shard", pa.int32()),
        ("part", pa.int32()),
        ("checked", pa.int64()),
        ("refusal", pa.string()),
        ("content", pa.binary()),
    ]
)


def compute_features_on_spark(job: FeatureJob, seed: str, spark: SparkSession, executor_blocks: DataFrame | None = None) -> int:
    """Compute every shard of the job and check it for leaks, one task each; how many rows were checked (see `check_features`).

    `executor_blocks`: the blocks of what executors folded (see `SparkFold`); what the driver folded lies in the replay's folder.

    Raises:
        BuildRefused: as `compute_features` and `check_features`; of several the first by key type and shard.
        SparkUnavailable: Spark itself failed.
    """
    from pyspark.sql import functions

    key_types = [key_type for key_type, _ in job.groups]
    row_shards = {
        (key_type, shard) for key_type, shard in job.shards if any(job.rows.spool(key_type).glob(f"{shard:05d}-*.rows"))
    }
    checked_rows, refusals, finished_shards = 0, {}, set()
    with spark_failures():
        frame = blocks_frame(spark, job.folded_replay.folder, [f"{EVENTS}{key_type}" for key_type in key_types])
        frame = frame.union(blocks_frame(spark, job.rows.folder, [f"{ROWS}{key_type}" for key_type in key_types]))
        if executor_blocks is not None:
            folders = [f"{EVENTS}{key_type}" for key_type in key_types]
            frame = frame.union(executor_blocks.filter(executor_blocks.folder.isin(*folders)))
        keyed_frame = frame.withColumn("key_type", functions.regexp_replace("folder", f"^({EVENTS}|{ROWS})", ""))
        results = keyed_frame.groupBy("key_type", "shard").applyInArrow(_worker(job, seed), _DONE)
        for row in results.toLocalIterator():
            shard = row["key_type"], row["shard"]
            finished_shards.add(shard)
            checked_rows += row["checked"]
            if row["refusal"] is not None:
                refusals[shard] = Refusal.model_validate_json(row["refusal"])
            elif row["content"] is not None:
                path = job.file(*shard)
                append_block(path.parent, "", path.name, row["content"])
    if refusals:
        refusal = refusals[min(refusals)]
        raise BuildRefused(refusal.reason, refusal.message, refusal.field)
    if missing := row_shards - finished_shards:
        raise RuntimeError(f"Spark did not return {len(missing)} of {len(row_shards)} shards")
    return checked_rows


def _worker(job: FeatureJob, seed: str) -> Callable[[pa.Table], pa.Table]:
    def work(blocks: pa.Table) -> pa.Table:
        return shard_columns(job, seed, blocks)

    return work


def shard_columns(job: FeatureJob, seed: str, blocks: pa.Table) -> pa.Table:
    """Compute one shard (`key_type`, `shard`) from the blocks of its events and rows: the file of its columns in parts.

    A refusal is returned as JSON beside the shard's name. A shard without rows has no file.
    """
    registry = _registry(job.pack.model_dump_json(by_alias=True))
    key_type, shard = blocks["key_type"][0].as_py(), blocks["shard"][0].as_py()

    def row(part: int, **more: Any) -> dict[str, Any]:
        return {"key_type": key_type, "shard": shard, "part": part, "checked": 0, "refusal": None, "content": None, **more}

    with tempfile.TemporaryDirectory(prefix="ofp-features-") as name:
        root = Path(name)
        write_blocks(root, blocks.drop_columns(["key_type"]))
        folded_replay, rows = replace(job.folded_replay, folder=root), replace(job.rows, folder=root)
        local_job = replace(job, folded_replay=folded_replay, rows=rows, folder=root / "features")
        local_job.folder.mkdir()
        try:
            computed_rows = compute_shard(local_job, registry, key_type, shard)
            checked_rows = check_shard(local_job, registry, key_type, shard, random_ordinals(job.rows.count, seed))
        except BuildRefused as refused:
            refusal = orjson.dumps(refused.refusal.model_dump(mode="json")).decode()
            return pa.Table.from_pylist([row(0, refusal=refusal)], schema=_DONE_SCHEMA)
        if not computed_rows:
            return pa.Table.from_pylist([row(0)], schema=_DONE_SCHEMA)
        content = local_job.file(key_type, shard).read_bytes()
    parts = [content[start : start + PART_BYTES] for start in range(0, len(content), PART_BYTES)]
    entries = [row(number, content=part, checked=checked_rows if number == 0 else 0) for number, part in enumerate(parts)]
    return pa.Table.from_pylist(entries, schema=_DONE_SCHEMA)


@lru_cache(maxsize=4)
def _registry(pack: str) -> CompiledRegistry:
    """Compiled once per executor process."""
    return compile_pack(Pack.model_validate_json(pack))
