"""The features of a dataset's rows on Spark: the same shards by the same kernel, on executors instead of threads.

Executors read a shard from the job's folders and write its columns there, so the scratch folder must be one that driver and
executors share; only the names of shards and their results travel through Spark. Needs the extra `spark`.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import TYPE_CHECKING

import orjson
import pyarrow as pa

from ofp_platform.offline.datasets.feature_rows import FeatureJob, compute_shard
from ofp_platform.registry.compile import CompiledRegistry, compile_pack
from ofp_platform.registry.models import Pack
from ofp_platform.vocabulary.offline.build_refusal import BuildRefused, Refusal

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

_DONE = "key_type string, shard int, rows long, refusal string"
_DONE_SCHEMA = pa.schema([("key_type", pa.string()), ("shard", pa.int32()), ("rows", pa.int64()), ("refusal", pa.string())])


class SparkUnavailable(Exception):
    """Spark cannot be started here, or stopped answering; the text says what is wrong and what to do."""


def demand_spark() -> None:
    """Refuse a machine without Spark, before anything is begun there.

    Raises:
        SparkUnavailable: pyspark or Java is missing.
    """
    try:
        import pyspark.sql  # noqa: F401
    except ImportError:
        raise SparkUnavailable(
            f"engine spark: pyspark is not installed in {sys.prefix}: pip install 'ofp-platform[plane,spark]', or build"
            " with the engine processes"
        ) from None
    java_home = os.environ.get("JAVA_HOME")
    if java_home and shutil.which("java", path=os.path.join(java_home, "bin")) is None:
        raise SparkUnavailable(f"engine spark: JAVA_HOME is {java_home}, and there is no bin/java in it: name a Java 17 or later")
    if not java_home and shutil.which("java") is None:
        raise SparkUnavailable(
            "engine spark: there is no `java` on the path and no JAVA_HOME: install Java 17 or later, or build with the engine"
            " processes"
        )


@contextmanager
def spark_session(cores: int) -> Iterator[SparkSession]:
    """The Spark session that is active in this process, else one inside this machine, which is stopped at the end.

    The latter has `cores` workers of this interpreter.

    Raises:
        SparkUnavailable: pyspark or Java is missing, or Spark does not start.
    """
    demand_spark()
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    active = SparkSession.getActiveSession()
    if active is not None:
        yield active
        return
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    builder = SparkSession.builder.master(f"local[{cores}]").appName("ofp-features")
    for name, value in (
        ("spark.ui.enabled", "false"),
        ("spark.driver.bindAddress", "127.0.0.1"),
        ("spark.driver.host", "127.0.0.1"),
    ):
        builder = builder.config(name, value)
    try:
        session = builder.getOrCreate()
    except PySparkException as error:
        raise SparkUnavailable(f"engine spark: Spark does not start, its own message stands above: {error}") from error
    try:
        yield session
    finally:
        session.stop()


def compute_features_on_spark(job: FeatureJob, spark: SparkSession) -> int:
    """Compute every shard of the job, one Spark task each. Returns the rows computed, a row counted once per key type.

    Raises:
        BuildRefused: as `compute_features`; of several the first by key type and shard.
        SparkUnavailable: Spark itself failed.
    """
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    shards = job.shards
    frame = spark.createDataFrame(shards, "key_type string, shard int")
    # an explicit number of partitions is kept: by itself Spark would put so few bytes into one task
    partitioned_frame = frame.repartition(len(shards), "key_type", "shard")
    try:
        shard_results = partitioned_frame.groupBy("key_type", "shard").applyInArrow(_worker(job), _DONE).collect()
    except (PySparkException, Py4JError) as error:
        raise SparkUnavailable(f"engine spark: Spark failed, its own message stands above: {error}") from error
    for row in sorted(shard_results, key=lambda shard_row: (shard_row["key_type"], shard_row["shard"])):
        if row["refusal"] is not None:
            refusal = Refusal.model_validate_json(row["refusal"])
            raise BuildRefused(refusal.reason, refusal.message, refusal.field)
    if {(row["key_type"], row["shard"]) for row in shard_results} != set(shards):
        raise RuntimeError(f"Spark returned {len(shard_results)} of {len(shards)} shards")
    return sum(int(row["rows"]) for row in shard_results)


def _worker(job: FeatureJob) -> Callable[[pa.Table], pa.Table]:
    def work(shards: pa.Table) -> pa.Table:
        return compute_shards(job, shards)

    return work


def compute_shards(job: FeatureJob, shards: pa.Table) -> pa.Table:
    """Compute the shards listed in a table (key_type, shard); a refusal is returned as JSON beside the shard's name."""
    registry = _registry(job.pack.model_dump_json(by_alias=True))
    shard_results = []
    for shard in shards.to_pylist():
        rows, refusal = 0, None
        try:
            rows = compute_shard(job, registry, shard["key_type"], shard["shard"])
        except BuildRefused as refused:
            refusal = orjson.dumps(refused.refusal.model_dump(mode="json")).decode()
        shard_results.append({**shard, "rows": rows, "refusal": refusal})
    return pa.Table.from_pylist(shard_results, schema=_DONE_SCHEMA)


@lru_cache(maxsize=4)
def _registry(pack: str) -> CompiledRegistry:
    """Compiled once per executor process."""
    return compile_pack(Pack.model_validate_json(pack))
