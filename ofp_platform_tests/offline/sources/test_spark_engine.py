"""Spark as an engine: refused in words where it is not there, and files that travel in blocks."""

from __future__ import annotations

import sys
from pathlib import Path

import pyarrow as pa
import pytest

from ofp_platform.offline.sources import spark_engine
from ofp_platform.offline.sources.spark_engine import SparkUnavailable, demand_spark, file_blocks, spark_session, write_blocks


def test_spark_that_is_not_there_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pyspark.sql", None)
    with (
        pytest.raises(SparkUnavailable, match=r"not installed in .*: pip install 'ofp-platform\[plane,spark\]'"),
        spark_session(1),
    ):
        pass


def test_java_that_is_not_there_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    pytest.importorskip("pyspark")
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("JAVA_HOME", raising=False)
    with pytest.raises(SparkUnavailable, match="no `java` on the path and no JAVA_HOME: install Java 17"):
        demand_spark()
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(SparkUnavailable, match=r"JAVA_HOME is .*, and there is no bin/java in it"):
        demand_spark()


def test_files_arrive_as_they_were_in_whatever_order_their_blocks_come(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spark_engine, "PART_BYTES", 7)
    files = {"events-account/00003-001.rows": bytes(range(50)), "events-account/00012-000.rows": b"x", "maxima-0.bin": b"1234567"}
    for name, content in files.items():
        (tmp_path / "sent" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sent" / name).write_bytes(content)
    blocks = list(file_blocks(tmp_path / "sent", ["", "events-account"]))
    assert {(block["file"][0].as_py(), block["shard"][0].as_py()) for block in blocks} == {
        ("maxima-0.bin", -1),
        ("00003-001.rows", 3),
        ("00012-000.rows", 12),
    }
    write_blocks(tmp_path / "got", pa.Table.from_batches(reversed(blocks)))
    got = tmp_path / "got"
    assert {str(path.relative_to(got)): path.read_bytes() for path in got.rglob("*") if path.is_file()} == files
