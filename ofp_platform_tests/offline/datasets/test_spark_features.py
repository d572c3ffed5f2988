"""Features on Spark: the same content, and the same checks for leaks, as on this machine."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from ofp_platform.offline.datasets.feature_leakage import check_features
from ofp_platform.offline.datasets.feature_rows import values_out_of_range
from ofp_platform.offline.datasets.spark_features import compute_features_on_spark, shard_columns
from ofp_platform.offline.sources.spark_engine import append_block, file_blocks
from ofp_platform.vocabulary.offline.build_intent import AsOfBasis
from ofp_platform_tests.offline.datasets.test_same_content import prepared, records, reference, written
from ofp_platform_tests.oracle.replayed import world_registry

SEED = "5eed" * 16


def test_a_task_computes_what_a_thread_computes_from_blocks_alone(tmp_path: Path) -> None:
    job = prepared(tmp_path, AsOfBasis.INGEST_TIME, records())
    task = pickle.loads(pickle.dumps(replace(job, folder=tmp_path / "nowhere")))  # it shares no folder with the driver
    checked = 0
    for key_type, shard in job.shards:
        sent = [
            *file_blocks(job.folded_replay.folder, [f"events-{key_type}"]),
            *file_blocks(job.rows.folder, [f"rows-{key_type}"]),
        ]
        blocks = [block for block in sent if block["shard"][0].as_py() == shard]
        if not blocks:
            continue
        table = pa.Table.from_batches(blocks)
        for row in shard_columns(task, SEED, table.append_column("key_type", pa.array([key_type] * len(table)))).to_pylist():
            assert (row["key_type"], row["shard"], row["refusal"]) == (key_type, shard, None)
            checked += row["checked"]
            if row["content"] is not None:
                append_block(job.folder, "", job.file(key_type, shard).name, row["content"])
    assert not task.folder.exists()
    assert written(job).content_digest == reference(AsOfBasis.INGEST_TIME)
    assert checked == check_features(job, world_registry(), SEED) > 0


@pytest.mark.filterwarnings("ignore")  # Spark's own, of its JVM's pipes and its Pandas versions
@pytest.mark.parametrize("basis", [AsOfBasis.EVENT_TIME, AsOfBasis.INGEST_TIME])
def test_spark_makes_the_same_content(tmp_path: Path, spark: Any, basis: AsOfBasis) -> None:
    job = prepared(tmp_path, basis, records())
    checked = compute_features_on_spark(job, SEED, spark)
    assert written(job).content_digest == reference(basis)
    assert checked == check_features(job, world_registry(), SEED)


@pytest.mark.filterwarnings("ignore")
def test_spark_counts_values_beyond_what_is_served(tmp_path: Path, spark: Any) -> None:
    first = records()[0]
    large = {
        **first.envelope,
        "event_type": "payment",
        "payload": {**first.envelope["payload"], "status": "ok", "amount": 2**53 - 1},
    }
    twice = tuple(
        replace(first, partition_id="p0", offset=place, envelope={**large, "event_id": f"big-{place}"}) for place in (0, 1)
    )
    job = prepared(tmp_path, AsOfBasis.EVENT_TIME, twice)
    compute_features_on_spark(job, SEED, spark)
    assert values_out_of_range(job)["every_v1__a_sum"] > 0
