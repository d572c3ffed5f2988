"""Spark as the engine of a build: whether it is here, its session, and how files travel through it.

Driver and executors share nothing but the object store. What a task reads and writes are files in a folder of its own; between
tasks the files travel as blocks of bytes, so Spark shuffles by key and knows nothing of what it shuffles. Needs the extra
`spark`; the executors need this package (the wheel with the extra `plane`) and compile the kernels at their first use.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

MASTER = "OFP_SPARK_MASTER"
"""The environment variable that names the cluster; without it Spark runs inside this machine."""
PART_BYTES = 1_000_000
_PARTS_AT_ONCE = "64"  # of which one message between the JVM and a Python worker consists
BLOCKS = "folder string, file string, shard int, part int, content binary"
_BLOCKS = pa.schema(
    [("folder", pa.string()), ("file", pa.string()), ("shard", pa.int32()), ("part", pa.int32()), ("content", pa.binary())]
)


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
    """The Spark session that is active in this process, else one of the cluster that OFP_SPARK_MASTER names, else one inside this
    machine with `cores` workers of this interpreter. One that was started here is stopped at the end.

    Raises:
        SparkUnavailable: pyspark or Java is missing, or Spark does not start.
    """
    demand_spark()
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException
    from pyspark.sql import SparkSession

    active = SparkSession.getActiveSession()
    if active is not None:
        yield active
        return
    master = os.environ.get(MASTER) or f"local[{cores}]"
    builder = SparkSession.builder.master(master).appName("ofp-build").config("spark.ui.enabled", "false")
    if master.startswith("local"):
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
        builder = builder.config("spark.driver.bindAddress", "127.0.0.1").config("spark.driver.host", "127.0.0.1")
    try:
        session = builder.config("spark.sql.execution.arrow.maxRecordsPerBatch", _PARTS_AT_ONCE).getOrCreate()
    except (PySparkException, Py4JError) as error:
        raise SparkUnavailable(f"engine spark: Spark does not start, its own message stands above: {error}") from error
    try:
        yield session
    finally:
        session.stop()


@contextmanager
def spark_failures() -> Iterator[None]:
    """Turn what Spark raises into SparkUnavailable."""
    from py4j.protocol import Py4JError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JError) as error:
        raise SparkUnavailable(f"engine spark: Spark failed, its own message stands above: {error}") from error


def file_blocks(root: Path, folders: Iterable[str]) -> Iterator[pa.RecordBatch]:
    """The files that lie in these folders of `root` ("": in itself), cut into blocks; see `shard_of_file` for the shard."""
    for folder in folders:
        for path in sorted(path for path in (root / folder).iterdir() if path.is_file()):
            shard = shard_of_file(path)
            with path.open("rb") as file:
                part = 0
                while content := file.read(PART_BYTES):
                    yield block(folder, path.name, shard, part, content)
                    part += 1


def block(folder: str, file: str, shard: int, part: int, content: bytes) -> pa.RecordBatch:
    """One block of a file."""
    columns = ([folder], [file], [shard], [part], [content])
    arrays = [pa.array(values, field.type) for values, field in zip(columns, _BLOCKS, strict=True)]
    return pa.record_batch(arrays, schema=_BLOCKS)


def shard_of_file(path: Path) -> int:
    """The number of the shard of which that file is a part, -1 for any other file."""
    return int(path.name.partition("-")[0]) if path.suffix == ".rows" else -1


def blocks_frame(spark: SparkSession, root: Path, folders: Iterable[str]) -> DataFrame:
    """Files of this machine as a frame of blocks."""
    return spark.createDataFrame(pa.Table.from_batches(file_blocks(root, folders), _BLOCKS), BLOCKS)


def append_block(root: Path, folder: str, file: str, content: bytes) -> None:
    """Append a block to its file below `root`; the blocks of a file come in their order."""
    (root / folder).mkdir(parents=True, exist_ok=True)
    with (root / folder / file).open("ab") as sink:
        sink.write(content)


def write_blocks(root: Path, blocks: pa.Table) -> None:
    """Write files anew below `root` from all their blocks, which may come in any order."""
    order = [("folder", "ascending"), ("file", "ascending"), ("part", "ascending")]
    for batch in blocks.sort_by(order).to_batches(max_chunksize=16):
        for row in batch.to_pylist():
            append_block(root, row["folder"], row["file"], row["content"])
